//! The worker process: what the hidden subcommand of the program runs.
//!
//! It has one thread that does everything and a second that only watches the clock and the parent. It reads
//! [`ToWorker`] from its standard input and writes [`FromWorker`] to its standard output; guests never see
//! these two. It ends when its input does, or when the process that started it is gone.

use std::error::Error;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;

use tokio::net::unix::pipe;
use wasmtime::Engine;

use crate::guest_io::{GuestInput, GuestOutput, OutputBudget, OutputKind, Reports};
use crate::jail::{self, JailReport};
use crate::order::{FromWorker, Order, Role, Setup, ToWorker};
use crate::sandbox::{Run, Sandbox, TICK};
use crate::task::MAX_MODULE_BYTES;
use crate::wire::{CHUNK, Chunk, Receiver};

/// Runs a worker until its node has no more use for it. Call this first thing in a process of its own.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error is what the node logs; nobody else would ever see it.
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                text += &format!(": {cause}");
                source = cause.source();
            }
            let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
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
        let input = GuestInput::new(Receiver::new(orders));
        let reports = std::io::stdout().as_fd().try_clone_to_owned().map_err(WorkerError::Pipes)?;
        let reports = Reports::new(File::from(reports));
        match input.order().await {
            Some(ToWorker::Setup(setup)) => Worker::new(setup, input, reports)?.serve().await,
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
    input: GuestInput,
    reports: Reports,
}

impl Worker {
    /// Sets the engine up and then locks the door, in the order that landlock and seccomp ask for.
    fn new(setup: Setup, input: GuestInput, reports: Reports) -> Result<Self, WorkerError> {
        let Setup { role, scratch, cache, parent } = setup;
        let landlock = jail::confine_files(&scratch, &cache);
        let limits = jail::confine_resources();
        let sandbox = Sandbox::new().map_err(WorkerError::Engine)?;
        let clock = Clock::start(&sandbox, parent)?;
        let seccomp = jail::confine_calls();
        let ready = FromWorker::Ready {
            jail: JailReport { seccomp, landlock, limits },
            compatibility: sandbox.compatibility(),
        };
        reports.send(&ready).map_err(WorkerError::Pipes)?;
        Ok(Self { sandbox, clock, cache, role, input, reports })
    }

    async fn serve(mut self) -> Result<(), WorkerError> {
        let mut module = Vec::new();
        while let Some(order) = self.input.order().await {
            match (order, self.role) {
                (ToWorker::Module(Chunk(part)), Role::Compile)
                    if module.len() + part.len() <= MAX_MODULE_BYTES =>
                {
                    module.extend_from_slice(&part);
                }
                (ToWorker::Compile, Role::Compile) => return self.compile(&module),
                (ToWorker::Run(order), Role::Run) => self.run(&order).await?,
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

    async fn run(&mut self, order: &Order) -> Result<(), WorkerError> {
        let budget = OutputBudget::new(order.output_bytes);
        let output = |kind| GuestOutput { kind, reports: self.reports.clone(), budget: budget.clone() };
        let (stdout, stderr) = (output(OutputKind::Stdout), output(OutputKind::Stderr));
        let running = self.clock.run();
        let run = self.sandbox.run(order, &self.cache, self.input.clone(), stdout, stderr).await;
        drop(running);
        let report = match run {
            Run::Ended(outcome, cost) => FromWorker::Ended { outcome, cost },
            Run::Unreadable(error) => FromWorker::Unreadable(error.to_string()),
        };
        self.reports.send(&report).map_err(WorkerError::Pipes)?;
        // What the guest did not read is still in the pipe.
        loop {
            match self.input.order().await {
                Some(ToWorker::Finish) | None => return Ok(()),
                Some(ToWorker::Stdin(_) | ToWorker::StdinEnd) => {}
                Some(_) => return Err(WorkerError::Unexpected),
            }
        }
    }
}

/// Moves the epoch on while a guest runs, and ends the process when its parent is gone. Sleeps otherwise: an
/// idle worker costs nothing and notices the end of its parent by the end of its input.
struct Clock {
    running: Arc<AtomicBool>,
    thread: Thread,
}

/// While this is there, the clock runs.
struct Running<'clock>(&'clock Clock);

impl Clock {
    fn start(sandbox: &Sandbox, parent: u32) -> Result<Self, WorkerError> {
        let (engine, running) = (sandbox.engine(), Arc::new(AtomicBool::new(false)));
        let is_running = Arc::clone(&running);
        let (up, is_up) = std::sync::mpsc::sync_channel(1);
        let watch = move || {
            let _ = up.send(());
            tick(&engine, &is_running, parent);
        };
        let thread =
            std::thread::Builder::new().name("clock".into()).spawn(watch).map_err(WorkerError::Clock)?;
        // A libc sets a new thread up with system calls that the jail does not have, so the door is locked only
        // when it is all in.
        is_up.recv().map_err(|_| WorkerError::Clock(std::io::ErrorKind::BrokenPipe.into()))?;
        Ok(Self { running, thread: thread.thread().clone() })
    }

    fn run(&self) -> Running<'_> {
        self.running.store(true, Ordering::Release);
        self.thread.unpark();
        Running(self)
    }
}

fn tick(engine: &Engine, is_running: &AtomicBool, parent: u32) {
    loop {
        if !is_running.load(Ordering::Acquire) {
            std::thread::park();
            continue;
        }
        std::thread::sleep(TICK);
        engine.increment_epoch();
        if std::os::unix::process::parent_id() != parent {
            #[expect(clippy::exit, reason = "the guest may never return, and nobody waits for its result")]
            std::process::exit(1);
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.store(false, Ordering::Release);
    }
}
