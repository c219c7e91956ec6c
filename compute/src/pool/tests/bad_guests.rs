//! Guests that mean harm: what ends them, by which name, and what is left of the worker afterwards.

use super::*;

/// How long after its limit a guest may be there.
const PATIENCE: Duration = Duration::from_secs(1);
/// By how much a worker may be larger after guests than before them, in KiB: what slots of memory keep for the
/// next guest, and what was loaded.
const KEPT_KIB: u64 = 48 << 10;

/// A preview 1 command that does `body` for ever.
fn spinning(body: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
            (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
            (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "path_open"
                (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
            (memory (export "memory") 80)
            (table $table 1 funcref)
            (data (i32.const 0) "\40\00\00\00\00\00\00\00")
            (data (i32.const 32) "in.txt")
            (func (export "_start") (loop $more (drop {body}) (br $more))))"#
    );
    wat::parse_str(text).unwrap()
}

fn status(worker: &Worker, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker.child.id().unwrap())).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn open_files(worker: &Worker) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", worker.child.id().unwrap())).unwrap().count()
}

#[tokio::test]
async fn every_limit_ends_a_guest_of_either_kind_and_is_named() {
    let fixture = Fixture::new();
    let limits = [
        ("loop", Limit::Time, 300),
        ("sleep", Limit::Time, 300),
        ("eat", Limit::Memory, 16 << 20),
        ("print", Limit::Output, 1 << 20),
        ("recurse", Limit::Stack, 1 << 20),
    ];
    for (name, limit, value) in limits {
        for mut order in [fixture.order(name).await, fixture.component_order(name).await] {
            if limit == Limit::Time {
                order.timeout_ms = 300;
            }
            let ran = fixture.run(&order, &[]).await;
            assert_eq!(ran.outcome(), &Outcome::LimitReached { limit, value }, "{name}");
            assert!(ran.took < Duration::from_millis(300) + PATIENCE, "{name} took {:?}", ran.took);
            if limit == Limit::Output {
                assert_eq!(ran.stdout.len() as u64, value, "it is cut exactly");
            }
        }
    }
    let trap = fixture.run(&fixture.order("trap").await, &[]).await;
    assert_eq!(trap.outcome(), &Outcome::Trapped { message: "integer divide by zero".into() });
    // Eleven compilers, and the worker that was there for all.
    assert_eq!(fixture.pool.started.load(Ordering::Relaxed), 12);
}

#[tokio::test]
async fn a_guest_that_lives_in_calls_of_the_host_is_ended() {
    let fixture = Fixture::new();
    let mut worker = fixture.pool.take(Profile::Usual).await.unwrap();
    let open = "(call $open (i32.const 3) (i32.const 0) (i32.const 32) (i32.const 6) (i32.const 0) \
                (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 16))";
    let bodies = [
        "(call $random (i32.const 64) (i32.const 8))",
        "(call $random (i32.const 0) (i32.const 4194304))",
        "(call $write (i32.const 1) (i32.const 64) (i32.const 0) (i32.const 128))",
        "(call $write (i32.const 1) (i32.const 1024) (i32.const 500000) (i32.const 128))",
        "(call $write (i32.const 77) (i32.const 0) (i32.const 1) (i32.const 128))",
        "(call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 128))",
        "(call $yield)",
        "(call $poll (i32.const 0) (i32.const 64) (i32.const 0) (i32.const 128))",
        "(call $poll (i32.const 0) (i32.const 1048576) (i32.const 65536) (i32.const 128))",
        open,
    ];
    let reached = Outcome::LimitReached { limit: Limit::Time, value: 200 };
    for body in bodies {
        let module = spinning(body);
        for wasm in [module.clone(), as_component(&module)] {
            let mut order = fixture.order_of("spin", wasm).await.unwrap();
            let host = worker.scratch().join("granted");
            std::fs::create_dir_all(&host).unwrap();
            std::fs::write(host.join("in.txt"), "granted").unwrap();
            order.timeout_ms = 200;
            order.folders = vec![Folder { host, guest: "/data".into(), writable: false }];
            let ran = run_in(&mut worker, &order, &[]).await;
            assert!(ran.took < Duration::from_millis(200) + PATIENCE, "{body} took {:?}", ran.took);
            println!("{body}: {:?} after {:?}", ran.end, ran.took);
            let named = match ran.outcome() {
                Outcome::Failed { reason } | Outcome::Trapped { message: reason } => !reason.is_empty(),
                outcome => *outcome == reached,
            };
            assert!(named, "{body}: {:?}", ran.end);
            if !matches!(ran.end, RunEnd::Ended(..)) {
                worker = fixture.pool.take(Profile::Usual).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn tables_have_a_limit() {
    let fixture = Fixture::new();
    let grow = spinning("(table.grow $table (ref.null func) (i32.const 1000))");
    for wasm in [grow.clone(), as_component(&grow)] {
        let ran = fixture.run(&fixture.order_of("grow", wasm).await.unwrap(), &[]).await;
        assert_eq!(ran.outcome(), &Outcome::LimitReached { limit: Limit::Table, value: 200_000 });
    }
}

#[tokio::test]
async fn a_worker_is_as_small_after_bad_guests_as_before() {
    let fixture = Fixture::new();
    let mut worker = fixture.pool.take(Profile::Usual).await.unwrap();
    let mut orders = Vec::new();
    for name in ["loop", "eat", "print", "recurse", "trap", "hello"] {
        orders.extend([fixture.order(name).await, fixture.component_order(name).await]);
    }
    for order in &mut orders {
        order.timeout_ms = 100;
        order.memory_bytes = 256 << 20;
    }
    let before = status(&worker, "VmRSS:");
    let mut files = Vec::new();
    for _ in 0..3 {
        for order in &orders {
            let ran = run_in(&mut worker, order, &[]).await;
            assert!(matches!(ran.end, RunEnd::Ended(..)), "{:?}", ran.end);
        }
        // Programs that are loaded have some.
        files.push(open_files(&worker));
    }
    let after = status(&worker, "VmRSS:");
    println!("{before} KiB before, {after} KiB after");
    assert!(after < before + KEPT_KIB, "{before} KiB before, {after} KiB after");
    assert_eq!(files, [files[0]; 3]);
    assert_eq!(status(&worker, "Threads:"), 2);
}

#[tokio::test]
async fn a_guest_that_makes_the_host_hoard_is_ended() {
    let fixture = Fixture::new();
    let mut worker = fixture.pool.take(Profile::Usual).await.unwrap();
    let host = worker.scratch().join("granted");
    std::fs::create_dir(&host).unwrap();
    for number in 0..10_000 {
        std::fs::write(host.join(format!("{number}-{}", "long".repeat(50))), "").unwrap();
    }
    let hoarder = wat::parse_str(include_str!("hoarder.wat")).unwrap();
    let mut order = fixture.order_of("hoarder", hoarder).await.unwrap();
    order.folders = vec![Folder { host, guest: "/data".into(), writable: false }];
    order.timeout_ms = 60_000;
    let ran = run_in(&mut worker, &order, &[]).await;
    println!("{:?} after {:?}", ran.end, ran.took);
    let reached = Outcome::LimitReached { limit: Limit::Memory, value: 16 << 20 };
    assert!(matches!(&ran.end, RunEnd::Stopped(outcome) if *outcome == reached), "{:?}", ran.end);
}
