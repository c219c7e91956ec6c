//! The sandbox in this process, without a worker around it: how fast a small program comes and goes.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::net::unix::pipe;

use super::*;
use crate::component_test::as_component;
use crate::guest_io::{OutputBudget, OutputKind, Reports, Sink};
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
    fn new() -> Self {
        let (orders, input) = pipe::pipe().unwrap();
        let reports = Reports::new(File::options().write(true).open("/dev/null").unwrap());
        Self {
            sandbox: Sandbox::new().unwrap(),
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
            env: Vec::new(),
            folders: Vec::new(),
            reach: Vec::new(),
            timeout_ms: 10_000,
            memory_bytes: 16 << 20,
            output_bytes: 1 << 20,
        }
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

fn hello() -> Vec<u8> {
    wat::parse_file(Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/hello.wat")).unwrap()
}

/// `cargo test --release -p starfish-compute --lib -- --ignored --nocapture pace`
#[tokio::test]
#[ignore = "measures; says nothing about right or wrong"]
async fn the_pace_of_the_smallest_program() {
    let engine = |_| {
        let started = Instant::now();
        drop(Sandbox::new().unwrap());
        started.elapsed()
    };
    println!("engine: {:?}", (0..20).map(engine).min().unwrap());
    let linkers = |_| {
        let engine = Engine::new(&config()).unwrap();
        let started = Instant::now();
        drop(Linkers::new(&engine).unwrap());
        started.elapsed()
    };
    println!("linkers: {:?}", (0..20).map(linkers).min().unwrap());
    let mut bare = Bare::new();
    let module = bare.order("module", &hello());
    println!("module: {:?} a run", bare.pace(&module).await);
    let component = bare.order("component", &as_component(&hello()));
    println!("component: {:?} a run", bare.pace(&component).await);
}
