//! The sandbox in this process, without a worker around it: how fast a small program comes and goes.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::net::unix::pipe;

use super::*;
use crate::component_test::as_component;
use crate::guest_io::{OutputBudget, OutputKind, Reports, Sink};
use crate::series::Words;
use crate::wire::Receiver;

/// One engine, with a folder of compiled programs.
struct Bare {
    sandbox: Sandbox,
    cache: tempfile::TempDir,
    input: GuestInput,
    reports: Reports,
    _orders: pipe::Sender,
}

impl Bare {
    fn new(profile: Profile) -> Self {
        let (orders, input) = pipe::pipe().unwrap();
        let reports = Reports::new(File::options().write(true).open("/dev/null").unwrap());
        Self {
            sandbox: Sandbox::new(profile).unwrap(),
            cache: tempfile::tempdir().unwrap(),
            input: GuestInput::new(Line::new(Receiver::new(input), reports.clone())),
            reports,
            _orders: orders,
        }
    }

    fn order(&self, name: &str, wasm: &[u8]) -> Order {
        let code = self.sandbox.compile(wasm).unwrap();
        std::fs::write(self.cache.path().join(name), seal_artifact(&code)).unwrap();
        Order {
            artifact: name.to_owned(),
            args: vec![name.to_owned()],
            handler: None,
            env: Vec::new(),
            folders: Vec::new(),
            reach: Vec::new(),
            timeout_ms: 10_000,
            memory_bytes: 16 << 20,
            output_bytes: 1 << 20,
        }
    }

    /// How it ends, and what it prints.
    async fn hear(&mut self, order: &Order) -> (Outcome, Vec<u8>) {
        let (budget, words) = (OutputBudget::new(order.output_bytes), Words::new(1 << 10));
        let output = |kind| GuestOutput { kind, sink: Sink::Memory(words.clone()), budget: budget.clone() };
        let (stdout, stderr) = (output(OutputKind::Stdout), output(OutputKind::Stderr));
        let streams = Streams { stdin: GuestInput::nothing(), stdout, stderr };
        let program = self.sandbox.load(&order.artifact, self.cache.path()).unwrap();
        let (outcome, _) = self.sandbox.run(&program, order, streams, None).await;
        (outcome, words.take().unwrap()[0].to_vec())
    }

    async fn run(&mut self, order: &Order) -> Outcome {
        let budget = OutputBudget::new(order.output_bytes);
        let output =
            |kind| GuestOutput { kind, sink: Sink::Node(self.reports.clone()), budget: budget.clone() };
        let (stdout, stderr) = (output(OutputKind::Stdout), output(OutputKind::Stderr));
        let streams = Streams { stdin: self.input.clone(), stdout, stderr };
        let program = self.sandbox.load(&order.artifact, self.cache.path()).unwrap();
        self.sandbox.run(&program, order, streams, None).await.0
    }

    /// What one run takes, by the fastest of ten rounds.
    async fn pace(&mut self, order: &Order) -> Duration {
        const RUNS: u32 = 2000;
        let mut best = Duration::MAX;
        for _ in 0..10 {
            let started = Instant::now();
            for _ in 0..RUNS {
                assert_eq!(self.run(order).await, Outcome::Exited(0));
            }
            best = best.min(started.elapsed() / RUNS);
        }
        best
    }
}

fn sample(name: &str) -> Vec<u8> {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples");
    wat::parse_file(samples.join(name).with_extension("wat")).unwrap()
}

#[tokio::test]
async fn a_deterministic_run_says_the_same_in_every_process_and_for_other_arguments_something_else() {
    let mut said = Vec::new();
    for _ in 0..2 {
        let mut bare = Bare::new(Profile::Deterministic);
        let mut order = bare.order("oracle", &sample("oracle"));
        let first = bare.hear(&order).await;
        assert_eq!(first.0, Outcome::Exited(0));
        assert_eq!(bare.hear(&order).await, first, "a second run in the same process");
        order.args.push("other".to_owned());
        let other = bare.hear(&order).await;
        assert_ne!(other.1[..16], first.1[..16], "random numbers follow from the arguments");
        assert_eq!(first.1[16..24], 946_684_800_000_000_000_u64.to_le_bytes());
        said.push((first, other));
    }
    assert_eq!(said[0], said[1]);
    let mut usual = Bare::new(Profile::Usual);
    let order = usual.order("oracle", &sample("oracle"));
    assert_ne!(usual.hear(&order).await, usual.hear(&order).await);
}

#[tokio::test]
async fn a_deterministic_run_ends_after_so_many_steps() {
    let forever = r#"(module (memory (export "memory") 1)
        (func (export "_start") (loop $on
            (i64.store (i32.const 0) (i64.add (i64.load (i32.const 0)) (i64.const 1))) (br $on))))"#;
    let mut bare = Bare::new(Profile::Deterministic);
    let mut order = bare.order("forever", &wat::parse_str(forever).unwrap());
    order.timeout_ms = 20;
    let limit = Outcome::LimitReached { limit: Limit::Time, value: 20 };
    assert_eq!(bare.hear(&order).await.0, limit);
}

/// Sleeps for so many nanoseconds, then prints the time of the clock that never goes back.
fn sleeper(nanoseconds: u64, flags: u16) -> Vec<u8> {
    let text = format!(
        r#"(module
            (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\40\00\00\00\08\00\00\00")
            (func (export "_start")
                (i32.store (i32.const 144) (i32.const 1))
                (i64.store (i32.const 152) (i64.const {nanoseconds}))
                (i32.store16 (i32.const 168) (i32.const {flags}))
                (if (call $poll (i32.const 128) (i32.const 256) (i32.const 1) (i32.const 320)) (then unreachable))
                (if (i64.ne (i64.load (i32.const 152)) (i64.const {nanoseconds})) (then unreachable))
                (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 64)))
                (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#
    );
    wat::parse_str(text).unwrap()
}

#[tokio::test]
async fn in_a_deterministic_run_sleep_takes_the_time_that_the_program_sees() {
    const HOUR: u64 = 3_600_000_000_000;
    let mut bare = Bare::new(Profile::Deterministic);
    for (span, flags) in [(HOUR, 0), (HOUR, 1)] {
        let module = sleeper(span, flags);
        for (name, wasm) in [("module", module.clone()), ("component", as_component(&module))] {
            let mut order = bare.order(name, &wasm);
            order.timeout_ms = 2 * 3_600_000;
            let (outcome, said) = bare.hear(&order).await;
            assert_eq!(outcome, Outcome::Exited(0), "{name}");
            let time = u64::from_le_bytes(said.try_into().unwrap());
            assert!((span..span + 1_000_000_000).contains(&time), "{name}: {time}");
            order.timeout_ms = 5_000;
            let limit = Outcome::LimitReached { limit: Limit::Time, value: 5_000 };
            assert_eq!(bare.hear(&order).await.0, limit, "{name}");
        }
    }
}

#[tokio::test]
async fn a_guest_that_sleeps_leaves_its_worker_alive() {
    let mut bare = Bare::new(Profile::Usual);
    let mut order = bare.order("sleeper", &sleeper(50_000_000, 0));
    let started = Instant::now();
    assert_eq!(bare.hear(&order).await.0, Outcome::Exited(0));
    assert!(started.elapsed() >= Duration::from_millis(50));
    order = bare.order("sleep", &sample("sleep"));
    order.timeout_ms = 50;
    let limit = Outcome::LimitReached { limit: Limit::Time, value: 50 };
    assert_eq!(bare.hear(&order).await.0, limit);
}

#[tokio::test]
async fn an_export_is_called_by_its_name_after_what_makes_the_library_ready() {
    let library = r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "\10\00\00\00\04\00\00\00")
        (func (export "_initialize") (i32.store (i32.const 16) (i32.const 0x2e6b6f)))
        (func (export "bid") (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
        (func (export "with-result") (result i32) (i32.const 1)))"#;
    let mut bare = Bare::new(Profile::Usual);
    let mut order = bare.order("library", &wat::parse_str(library).unwrap());
    order.handler = Some("bid".to_owned());
    assert_eq!(bare.hear(&order).await, (Outcome::Exited(0), b"ok.\0".to_vec()));
    let mut why = async |handler: Option<&str>| {
        order.handler = handler.map(str::to_owned);
        match bare.hear(&order).await.0 {
            Outcome::Failed { reason } => reason,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(why(Some("with-result")).await, "it has no handler with-result: its handlers are bid");
    assert_eq!(why(None).await, "it is not a command: it exports no _start");
    let mut command = bare.order("hello", &sample("hello"));
    command.handler = Some("bid".to_owned());
    assert_eq!(bare.hear(&command).await.0, Outcome::Exited(0), "a command is run as a whole");
}

/// `cargo test --release -p starfish-compute --lib -- --ignored --nocapture pace`
#[tokio::test]
#[ignore = "measures; says nothing about right or wrong"]
async fn the_pace_of_the_smallest_program() {
    let engine = |_| {
        let started = Instant::now();
        drop(Sandbox::new(Profile::Usual).unwrap());
        started.elapsed()
    };
    println!("engine: {:?}", (0..20).map(engine).min().unwrap());
    let linkers = |_| {
        let engine = Engine::new(&config(Profile::Usual)).unwrap();
        let started = Instant::now();
        drop(Linkers::new(&engine).unwrap());
        started.elapsed()
    };
    println!("linkers: {:?}", (0..20).map(linkers).min().unwrap());
    let mut bare = Bare::new(Profile::Usual);
    let module = bare.order("module", &sample("hello"));
    println!("module: {:?} a run", bare.pace(&module).await);
    let component = bare.order("component", &as_component(&sample("hello")));
    println!("component: {:?} a run", bare.pace(&component).await);
}
