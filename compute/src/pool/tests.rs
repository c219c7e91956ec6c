//! Guests in real worker processes: what they may do, and what ends them.

use super::*;
use crate::cache::{PrepareError, Programs};
use crate::component_test::as_component;
use crate::jail::Bar;
use crate::order::Folder;
use crate::task::Digest;

mod bad_guests;
mod components;
mod mutations;
mod services;

/// A pool over the worker program that cargo builds next to this test.
struct Fixture {
    pool: Pool,
    programs: Programs,
    _dir: tempfile::TempDir,
}

/// What came of one run.
struct Ran {
    end: RunEnd,
    stdout: Vec<u8>,
    took: Duration,
}

impl Ran {
    fn outcome(&self) -> &Outcome {
        match &self.end {
            RunEnd::Ended(outcome, _) | RunEnd::Stopped(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }
}

fn worker_program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).unwrap().join("starfish-worker")
}

fn sample(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(name).with_extension("wat");
    wat::parse_file(path).unwrap()
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let workers = dir.path().join("workers");
        std::fs::create_dir(&workers).unwrap();
        let compiled = dir.path().join("compiled");
        let programs = Programs::open(dir.path().join("modules"), compiled.clone()).unwrap();
        Self { pool: Pool::new(worker_program(), Vec::new(), workers, compiled), programs, _dir: dir }
    }

    /// An order for a sample, with small limits.
    async fn order(&self, name: &str) -> Order {
        self.order_of(name, sample(name)).await.unwrap()
    }

    /// An order for the same sample as a component.
    async fn component_order(&self, name: &str) -> Order {
        self.order_of(name, as_component(&sample(name))).await.unwrap()
    }

    async fn order_of(&self, name: &str, wasm: Vec<u8>) -> Result<Order, PrepareError> {
        let wasm = Bytes::from(wasm);
        let digest = Digest::of(&wasm);
        self.programs.put(digest, wasm).await?;
        Ok(Order {
            artifact: self.programs.artifact(digest, &self.pool, Profile::Usual).await?,
            args: vec![name.to_owned()],
            handler: None,
            env: Vec::new(),
            folders: Vec::new(),
            reach: Vec::new(),
            timeout_ms: 10_000,
            memory_bytes: 16 << 20,
            output_bytes: 1 << 20,
        })
    }

    /// Why a program is refused before it runs.
    async fn refusal(&self, wasm: Vec<u8>) -> String {
        match self.order_of("refused", wasm).await {
            Err(PrepareError::Compile(CompileError::Rejected(why))) => why,
            other => panic!("{other:?}"),
        }
    }

    async fn run(&self, order: &Order, input: &[&'static str]) -> Ran {
        let mut worker = self.pool.take(Profile::Usual).await.unwrap();
        let ran = run_in(&mut worker, order, input).await;
        if matches!(ran.end, RunEnd::Ended(..)) {
            self.pool.give_back(worker);
        }
        ran
    }
}

async fn run_in(worker: &mut Worker, order: &Order, input: &[&'static str]) -> Ran {
    let (stdin, given) = mpsc::channel(input.len().max(1));
    for part in input {
        stdin.try_send(Bytes::from_static(part.as_bytes())).unwrap();
    }
    drop(stdin);
    let (output, mut said) = mpsc::channel(4);
    let started = Instant::now();
    let collect = async {
        let mut stdout = Vec::new();
        while let Some(frame) = said.recv().await {
            if let OutputFrame::Stdout(bytes) = frame {
                stdout.extend_from_slice(&bytes);
            }
        }
        stdout
    };
    let running = async {
        let end = worker.run(order, given, &output).await;
        drop(output);
        end
    };
    let (end, stdout) = tokio::join!(running, collect);
    Ran { end, stdout, took: started.elapsed() }
}

#[tokio::test]
async fn a_guest_reads_writes_and_exits() {
    let fixture = Fixture::new();
    let hello = fixture.run(&fixture.order("hello").await, &[]).await;
    assert_eq!((hello.outcome(), &hello.stdout[..]), (&Outcome::Exited(0), &b"hello, swarm\n"[..]));
    let upper = fixture.run(&fixture.order("upper").await, &["Star", "fish ", "1\n"]).await;
    assert_eq!((upper.outcome(), &upper.stdout[..]), (&Outcome::Exited(0), &b"STARFISH 1\n"[..]));
    let mut exit = fixture.order("exit").await;
    exit.args.extend(["a".to_owned(), "b".to_owned(), "c".to_owned()]);
    assert_eq!(fixture.run(&exit, &[]).await.outcome(), &Outcome::Exited(3));
}

#[tokio::test]
async fn input_that_a_guest_does_not_read_does_not_reach_the_next_one() {
    let fixture = Fixture::new();
    let mut worker = fixture.pool.take(Profile::Usual).await.unwrap();
    let (hello, upper) = (fixture.order("hello").await, fixture.order("upper").await);
    run_in(&mut worker, &hello, &["not ", "read"]).await;
    let ran = run_in(&mut worker, &upper, &["mine"]).await;
    assert_eq!(ran.stdout, b"MINE");
}

#[tokio::test]
async fn a_guest_that_waits_for_input_is_ended_too() {
    let fixture = Fixture::new();
    let mut order = fixture.order("upper").await;
    order.timeout_ms = 300;
    let mut worker = fixture.pool.take(Profile::Usual).await.unwrap();
    let (_stdin, given) = mpsc::channel(1);
    let (output, _said) = mpsc::channel(1);
    let end = worker.run(&order, given, &output).await;
    let reached = Outcome::LimitReached { limit: Limit::Time, value: 300 };
    assert!(matches!(end, RunEnd::Ended(outcome, _) if outcome == reached));
}

#[tokio::test]
async fn a_program_that_cannot_run_says_why_before_it_runs() {
    let fixture = Fixture::new();
    assert_eq!(
        fixture.refusal(sample("foreign")).await,
        "it asks for env::launch_missiles, which is not granted to tasks"
    );
    for (bytes, why) in [
        (&b"\0asm\x0d\0\x01\0"[..], "it is not a command: it exports no wasi:cli/run"),
        (&b"\0asm\x01\0\0\0"[..], "it is not a command: it exports no _start"),
        (&b"\0asm\x01\0\0\0\xff\xff"[..], "it does not compile"),
        (&b"\0asm\x0d\0\x01\0\xff\xff"[..], "it does not compile"),
        (&b"#!/bin/sh"[..], "it is not a WASM program"),
        (&b""[..], "it is not a WASM program"),
    ] {
        let reason = fixture.refusal(bytes.to_vec()).await;
        assert!(reason.starts_with(why), "{reason}");
    }
}

#[tokio::test]
async fn a_guest_sees_its_folder_and_cannot_write_where_it_may_not() {
    let fixture = Fixture::new();
    let mut worker = fixture.pool.take(Profile::Usual).await.unwrap();
    let host = worker.scratch().join("granted");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("in.txt"), "granted").unwrap();
    let folder = |writable| vec![Folder { host: host.clone(), guest: "/data".into(), writable }];
    let mut cat = fixture.order("cat").await;
    assert_eq!(run_in(&mut worker, &cat, &[]).await.outcome(), &Outcome::Exited(1), "nothing was granted");
    cat.folders = folder(false);
    let ran = run_in(&mut worker, &cat, &[]).await;
    assert_eq!((ran.outcome(), &ran.stdout[..]), (&Outcome::Exited(0), &b"granted"[..]));
    let mut write = fixture.order("write").await;
    write.folders = folder(false);
    assert_eq!(run_in(&mut worker, &write, &[]).await.outcome(), &Outcome::Exited(100), "read only");
    write.folders = folder(true);
    assert_eq!(run_in(&mut worker, &write, &[]).await.outcome(), &Outcome::Exited(0));
    assert_eq!(std::fs::read(host.join("out.txt")).unwrap(), b"written by a guest\n");
}

#[tokio::test]
async fn files_without_end_are_ended() {
    let fixture = Fixture::new();
    let mut worker = fixture.pool.take(Profile::Usual).await.unwrap();
    let host = worker.scratch().join("granted");
    std::fs::create_dir(&host).unwrap();
    let mut fill = fixture.order("fill").await;
    fill.folders = vec![Folder { host, guest: "/data".into(), writable: true }];
    let ran = run_in(&mut worker, &fill, &[]).await;
    assert_eq!(ran.outcome(), &Outcome::LimitReached { limit: Limit::Files, value: 1 << 20 });
}

#[tokio::test]
async fn a_worker_that_dies_takes_its_task_and_nothing_else() {
    let fixture = Fixture::new();
    let order = fixture.order("loop").await;
    let mut worker = fixture.pool.take(Profile::Usual).await.unwrap();
    let pid = rustix::process::Pid::from_raw(worker.child.id().unwrap().cast_signed()).unwrap();
    let scratch = worker.scratch().to_owned();
    let killing = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    };
    let (ran, ()) = tokio::join!(run_in(&mut worker, &order, &[]), killing);
    assert!(matches!(&ran.end, RunEnd::Lost(why) if why.contains("worker process died")), "{:?}", ran.end);
    drop(worker);
    let hello = fixture.run(&fixture.order("hello").await, &[]).await;
    assert_eq!(hello.outcome(), &Outcome::Exited(0));
    wait_until(|| !scratch.exists()).await;
}

/// Waits for a condition of the disk; the runtime removes folders in the background.
async fn wait_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "the folder is still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn damaged_compiled_code_is_not_run() {
    let fixture = Fixture::new();
    let order = fixture.order("hello").await;
    let path = fixture.pool.cache.join(&order.artifact);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let mut worker = fixture.pool.take(Profile::Usual).await.unwrap();
    let ran = run_in(&mut worker, &order, &[]).await;
    assert!(matches!(&ran.end, RunEnd::Unreadable(why) if why.contains("damaged")), "{:?}", ran.end);
    fixture.programs.discard(&order.artifact).await;
    let again = fixture.order("hello").await;
    assert_eq!(run_in(&mut worker, &again, &[]).await.outcome(), &Outcome::Exited(0));
}

#[tokio::test]
async fn the_jail_is_up_where_the_kernel_has_one() {
    let fixture = Fixture::new();
    let worker = fixture.pool.take(Profile::Usual).await.unwrap();
    let pid = worker.child.id().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    let jail = fixture.pool.jail().unwrap();
    assert_eq!(jail.limits, Bar::Full);
    assert_eq!(jail.seccomp == Bar::Full, field("Seccomp:") == "2", "{jail:?}");
    if jail.seccomp == Bar::Full {
        assert_eq!(field("NoNewPrivs:"), "1");
    }
    assert_eq!(field("Threads:"), "2", "one that works and one that watches the clock");
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert!(environment.is_empty(), "a worker inherits nothing");
    println!("{jail:?}");
}
