//! The worker process: what the hidden subcommand of the program runs.
//!
//! It has one thread that does everything and a second that only watches the clock and the parent. It reads
//! [`ToWorker`] from its standard input and writes [`FromWorker`] to its standard output; guests never see
//! these two. It ends when its input does, or when the process that started it is gone.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use tokio::net::unix::pipe;

use crate::batch::Retries;
use crate::clock::{Clock, Resident};
use crate::guest_io::{GuestInput, GuestOutput, OutputBudget, OutputKind, Reports, Sink};
use crate::in_words;
use crate::jail::{self, JailReport};
use crate::line::Line;
use crate::order::{FromWorker, Order, RequestHead, Role, Setup, ToWorker};
use crate::reach::Reach;
use crate::sandbox::{LoadError, Program, Sandbox, Streams};
use crate::series::{Brief, Series, Untold, Words};
use crate::task::{Cost, MAX_MODULE_BYTES, Outcome};
use crate::wire::{CHUNK, Chunk, Receiver};

/// Runs a worker until its node has no more use for it. Call this first thing in a process of its own.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error is what the node logs; nobody else would ever see it.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), in_words(&error).as_bytes());
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum WorkerError {
    #[error("the pipes to the node cannot be used")]
    Pipes(#[source] std::io::Error),
    #[error("the engine cannot be set up: {0:#}")]
    Engine(wasmtime::Error),
    #[error("the clock thread cannot be started")]
    Clock(#[source] std::io::Error),
    #[error("the node said something unexpected")]
    Unexpected,
}

fn run() -> Result<(), WorkerError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(WorkerError::Pipes)?;
    runtime.block_on(async {
        let orders = std::io::stdin().as_fd().try_clone_to_owned().map_err(WorkerError::Pipes)?;
        let orders = pipe::Receiver::from_owned_fd(orders).map_err(WorkerError::Pipes)?;
        let reports = std::io::stdout().as_fd().try_clone_to_owned().map_err(WorkerError::Pipes)?;
        let reports = Reports::new(File::from(reports));
        let line = Line::new(Receiver::new(orders), reports.clone());
        match line.order().await {
            Some(ToWorker::Setup(setup)) => Worker::new(setup, line, reports)?.serve().await,
            Some(_) => Err(WorkerError::Unexpected),
            None => Ok(()),
        }
    })
}

struct Worker {
    sandbox: Sandbox,
    clock: Clock,
    cache: PathBuf,
    role: Role,
    line: Line,
    reports: Reports,
}

impl Worker {
    /// Sets the engine up and then locks the door, in the order that landlock and seccomp ask for.
    fn new(setup: Setup, line: Line, reports: Reports) -> Result<Self, WorkerError> {
        let Setup { role, profile, scratch, cache, parent } = setup;
        let resident = Resident::open();
        let landlock = jail::confine_files(&scratch, &cache);
        let limits = jail::confine_resources();
        let sandbox = Sandbox::new(profile).map_err(WorkerError::Engine)?;
        let clock = Clock::start(sandbox.engine(), resident, reports.clone(), parent);
        let clock = clock.map_err(WorkerError::Clock)?;
        let seccomp = jail::confine_calls();
        let ready = FromWorker::Ready {
            jail: JailReport { seccomp, landlock, limits },
            compatibility: sandbox.compatibility(),
        };
        reports.send(&ready).map_err(WorkerError::Pipes)?;
        Ok(Self { sandbox, clock, cache, role, line, reports })
    }

    async fn serve(mut self) -> Result<(), WorkerError> {
        let mut module = Vec::new();
        while let Some(order) = self.line.order().await {
            match (order, self.role) {
                (ToWorker::Module(Chunk(part)), Role::Compile)
                    if module.len() + part.len() <= MAX_MODULE_BYTES =>
                {
                    module.extend_from_slice(&part);
                }
                (ToWorker::Compile, Role::Compile) => return self.compile(&module),
                (ToWorker::Check { artifact, reach }, Role::Run) => self.check(&artifact, &reach)?,
                (ToWorker::RunSeries(series), Role::Run) => self.run_series(&series).await?,
                (ToWorker::Run(order), Role::Run) => self.run(&order, None).await?,
                (ToWorker::Answer(order, request), Role::Run) => self.run(&order, Some(&request)).await?,
                _ => return Err(WorkerError::Unexpected),
            }
        }
        Ok(())
    }

    fn compile(&self, module: &[u8]) -> Result<(), WorkerError> {
        let send = |report| self.reports.send(&report).map_err(WorkerError::Pipes);
        match self.sandbox.compile(module) {
            Err(why) => send(FromWorker::Rejected(why)),
            Ok(code) => {
                for part in code.chunks(CHUNK) {
                    send(FromWorker::Artifact(Chunk(part.to_vec().into())))?;
                }
                send(FromWorker::Compiled)
            }
        }
    }

    fn check(&mut self, artifact: &str, reach: &[Reach]) -> Result<(), WorkerError> {
        let report = match self.sandbox.load(artifact, &self.cache) {
            Ok(program) => program.check(reach).map_or_else(FromWorker::Rejected, |()| FromWorker::Accepted),
            Err(LoadError::Rejected(why)) => FromWorker::Rejected(why),
            Err(error) => FromWorker::Unreadable(in_words(&error)),
        };
        self.reports.send(&report).map_err(WorkerError::Pipes)
    }

    async fn run(&mut self, order: &Order, request: Option<&RequestHead>) -> Result<(), WorkerError> {
        let report = match self.sandbox.load(&order.artifact, &self.cache) {
            Ok(program) => {
                let budget = OutputBudget::new(order.output_bytes);
                let output = |kind| GuestOutput {
                    kind,
                    sink: Sink::Node(self.reports.clone()),
                    budget: budget.clone(),
                };
                let (stdout, stderr) = (output(OutputKind::Stdout), output(OutputKind::Stderr));
                let streams = Streams { stdin: GuestInput::new(self.line.clone()), stdout, stderr };
                let line = Some(self.line.clone());
                let running = self.clock.run(order.memory_bytes);
                let (outcome, cost) = match request {
                    Some(request) if program.answers() => {
                        let reports = self.reports.clone();
                        self.sandbox.answer(&program, order, request, reports, streams, line).await
                    }
                    _ => self.sandbox.run(&program, order, streams, line).await,
                };
                drop(running);
                FromWorker::Ended { outcome, cost }
            }
            Err(LoadError::Rejected(reason)) => {
                FromWorker::Ended { outcome: Outcome::Failed { reason }, cost: Cost::default() }
            }
            Err(error) => FromWorker::Unreadable(in_words(&error)),
        };
        self.reports.send(&report).map_err(WorkerError::Pipes)?;
        // What the guest did not read is still in the pipe.
        loop {
            match self.line.order().await {
                Some(ToWorker::Finish) | None => return Ok(()),
                Some(ToWorker::Stdin(_) | ToWorker::StdinEnd | ToWorker::Told { .. }) => {}
                Some(_) => return Err(WorkerError::Unexpected),
            }
        }
    }

    async fn run_series(&mut self, series: &Series) -> Result<(), WorkerError> {
        let send = |report| self.reports.send(&report).map_err(WorkerError::Pipes);
        let program = match self.sandbox.load(&series.order.artifact, &self.cache) {
            Ok(program) => program,
            Err(error) => return send(FromWorker::Unreadable(in_words(&error))),
        };
        let (mut order, mut untold) = (series.order.clone(), Untold::new());
        let words = Words::new(usize::try_from(series.said_bytes).unwrap_or(usize::MAX));
        let running = self.clock.run(order.memory_bytes);
        let common = order.args.len();
        for item in (0..).map_while(|at| series.items.get(at)) {
            order.args.truncate(common);
            order.args.push(item);
            let brief = self.run_briefly(&program, &order, series.retries, &words).await;
            let is_over = brief == Brief::TooLong;
            if let Some(briefs) = untold.push(brief) {
                send(FromWorker::Ran(briefs))?;
            }
            if is_over {
                break;
            }
        }
        drop(running);
        send(FromWorker::Ran(untold.take()))?;
        send(FromWorker::SeriesOver)
    }

    async fn run_briefly(&self, program: &Program, order: &Order, retries: Retries, words: &Words) -> Brief {
        let mut tries = 0;
        loop {
            tries += 1;
            let budget = OutputBudget::new(order.output_bytes);
            let output =
                |kind| GuestOutput { kind, sink: Sink::Memory(words.clone()), budget: budget.clone() };
            let (stdout, stderr) = (output(OutputKind::Stdout), output(OutputKind::Stderr));
            let streams = Streams { stdin: GuestInput::nothing(), stdout, stderr };
            let (outcome, cost) = self.sandbox.run(program, order, streams, None).await;
            let Some([stdout, stderr]) = words.take().map(|both| both.map(Chunk)) else {
                return Brief::TooLong;
            };
            if tries > retries.allowed(&outcome) {
                return Brief::Ended { outcome, tries, elapsed_us: cost.elapsed_us, stdout, stderr };
            }
        }
    }
}
