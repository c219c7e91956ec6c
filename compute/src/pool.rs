//! The worker processes of a node: started when needed, kept while they are of use, killed when they are not.
//!
//! A [`Worker`] runs one task at a time and belongs to whoever took it from the pool. It goes back only after
//! a task that ended as tasks do; one that hung, died or was stopped in the middle is killed with its handle,
//! and takes nothing with it but its task.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

use self::talk::Listener;
use crate::attendant::{Attendant, Outside};
use crate::jail::JailReport;
use crate::order::{FromWorker, Order, RequestHead, ResponseHead, Role, Setup, ToWorker};
use crate::profile::Profile;
use crate::reach::Reach;
use crate::series::{Brief, Series, TELL_EVERY};
use crate::task::{Cost, Limit, Outcome, OutputFrame};
use crate::wire::{CHUNK, Chunk, Receiver, Sender, WireError};

mod talk;
#[cfg(test)]
mod tests;

/// How long a new process may take until it is ready. It takes milliseconds, except on a machine that swaps.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a program may take to compile: minutes for the largest interpreters on a slow machine.
const COMPILE_TIMEOUT: Duration = Duration::from_secs(180);
/// The largest compiled program; they are a few times as large as the program.
const MAX_ARTIFACT_BYTES: usize = 1 << 30;
/// What a worker has to end a guest that reached its time limit, before the node ends the worker.
const GRACE: Duration = Duration::from_millis(500);
/// How often the writable folders of a task are measured.
const MEASURE_EVERY: Duration = Duration::from_millis(250);
/// An idle worker is ended after this long; a new one takes some milliseconds to start.
const IDLE_FOR: Duration = Duration::from_secs(60);
/// How much of what a dying worker says is logged.
const MAX_LAST_WORDS: u64 = 4096;

/// How to start workers, and where.
#[derive(Debug)]
pub(crate) struct Pool {
    program: PathBuf,
    args: Vec<String>,
    workers: PathBuf,
    cache: PathBuf,
    idle: Mutex<Vec<(Instant, Worker)>>,
    started: AtomicU64,
    jail: OnceLock<JailReport>,
    /// Of each profile, under what name its workers look for compiled programs.
    compatibility: [OnceLock<u64>; Profile::COUNT],
    /// What guests can be let to reach.
    outside: Option<Arc<Outside>>,
}

/// Why a worker process is not there.
#[derive(Debug, thiserror::Error)]
pub enum WorkerStartError {
    /// Its folder could not be made.
    #[error("cannot make its folder {path}")]
    Folder {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The program could not be started.
    #[error("cannot start {program}")]
    Spawn {
        /// Which.
        program: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It started but is of no use.
    #[error("it does not work: {0}")]
    Unfit(String),
}

/// Why there is no compiled program.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompileError {
    #[error("{0}")]
    Rejected(String),
    #[error("it took longer than {COMPILE_TIMEOUT:?} to compile")]
    TooSlow,
    #[error("the compiler was lost")]
    Lost(#[source] WireError),
    #[error("the compiler said something unexpected")]
    Unexpected,
    #[error("no process to compile in")]
    Start(#[from] WorkerStartError),
}

/// How a worker's run of a task ended.
#[derive(Debug)]
pub(crate) enum RunEnd {
    /// The task is over, and the worker is fit for another.
    Ended(Outcome, Cost),
    /// The task is over, since the node stopped it; the worker is of no further use.
    Stopped(Outcome),
    /// The compiled program is no longer of use; nothing was run.
    Unreadable(String),
    /// The process is gone or talks nonsense.
    Lost(String),
}

impl Pool {
    pub(crate) fn new(program: PathBuf, args: Vec<String>, workers: PathBuf, cache: PathBuf) -> Self {
        let (idle, started, jail) = (Mutex::default(), AtomicU64::new(0), OnceLock::new());
        let compatibility = Default::default();
        Self { program, args, workers, cache, idle, started, jail, compatibility, outside: None }
    }

    /// Guests can be let to reach what is there.
    pub(crate) fn with_outside(self, outside: Arc<Outside>) -> Self {
        Self { outside: Some(outside), ..self }
    }

    /// A worker for one task: an idle one, or a new one.
    pub(crate) async fn take(&self, profile: Profile) -> Result<Worker, WorkerStartError> {
        while let Some(mut worker) = self.pop_idle(profile) {
            if worker.is_alive() {
                return Ok(worker);
            }
        }
        self.start(Role::Run, profile).await
    }

    fn pop_idle(&self, profile: Profile) -> Option<Worker> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let at = idle.iter().rposition(|(_, worker)| worker.profile == profile)?;
        Some(idle.remove(at).1)
    }

    /// Gives back a worker that is fit for another task.
    pub(crate) fn give_back(&self, worker: Worker) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), worker));
    }

    /// Ends workers that had nothing to do for a while.
    pub(crate) fn end_idle(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(since, _)| since.elapsed() < IDLE_FOR);
    }

    /// Ends all idle workers.
    pub(crate) fn clear(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What confines the workers, once one has been started.
    pub(crate) fn jail(&self) -> Option<JailReport> {
        self.jail.get().copied()
    }

    /// Under what name workers look for compiled programs, once one of this profile has been started.
    pub(crate) fn compatibility(&self, profile: Profile) -> Option<u64> {
        self.compatibility[profile as usize].get().copied()
    }

    /// Compiles a program in a process of its own, which has run no guest and never will.
    pub(crate) async fn compile(&self, wasm: &[u8], profile: Profile) -> Result<Bytes, CompileError> {
        let mut worker = self.start(Role::Compile, profile).await?;
        let compile = worker.compile(wasm);
        tokio::time::timeout(COMPILE_TIMEOUT, compile).await.map_err(|_| CompileError::TooSlow)?
    }

    /// Whether a compiled program was granted what it imports; if not, the error says what it lacks.
    pub(crate) async fn check(&self, artifact: String, reach: Vec<Reach>) -> Result<(), CompileError> {
        let mut worker = self.take(Profile::Usual).await?;
        let check = ToWorker::Check { artifact, reach };
        worker.orders.send(&check).await.map_err(CompileError::Lost)?;
        let report = tokio::time::timeout(START_TIMEOUT, worker.reports.expect()).await;
        let answer = match report.map_err(|_| CompileError::TooSlow)?.map_err(CompileError::Lost)? {
            FromWorker::Accepted => Ok(()),
            FromWorker::Rejected(why) => Err(CompileError::Rejected(why)),
            _ => return Err(CompileError::Unexpected),
        };
        self.give_back(worker);
        answer
    }

    async fn start(&self, role: Role, profile: Profile) -> Result<Worker, WorkerStartError> {
        let scratch = self.workers.join(self.started.fetch_add(1, Ordering::Relaxed).to_string());
        let folder = |source| WorkerStartError::Folder { path: scratch.clone(), source };
        tokio::fs::DirBuilder::new().mode(0o700).create(&scratch).await.map_err(folder)?;
        let scratch = Scratch(scratch);
        let spawn = |source| WorkerStartError::Spawn { program: self.program.clone(), source };
        let mut command = Command::new(&self.program);
        command.args(&self.args).env_clear().current_dir(&scratch.0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(spawn)?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(WorkerStartError::Unfit("it has no pipes".to_owned()));
        };
        tokio::spawn(log_last_words(stderr));
        let (orders, reports) = (Sender::new(stdin), Receiver::new(stdout));
        let outside = self.outside.clone();
        let mut worker = Worker { profile, orders, reports, child, scratch, outside };
        let ready = tokio::time::timeout(START_TIMEOUT, worker.set_up(role, &self.cache)).await;
        let ready = ready.map_err(|_| WorkerStartError::Unfit("it did not become ready".to_owned()));
        let (jail, compatibility) = ready??;
        let _ = (self.jail.set(jail), self.compatibility[profile as usize].set(compatibility));
        Ok(worker)
    }
}

/// The folder of one worker, gone with it.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.0);
        // May be large, and drops happen anywhere. What is left over at shutdown is removed at the next start.
        let remove = move || std::fs::remove_dir_all(&path);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => drop(remove()),
        }
    }
}

async fn log_last_words(stderr: ChildStderr) {
    let mut words = String::new();
    let _ = stderr.take(MAX_LAST_WORDS).read_to_string(&mut words).await;
    if !words.is_empty() {
        warn!(%words, "a worker process ended with an error");
    }
}

/// One worker process. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Worker {
    profile: Profile,
    orders: Sender<ChildStdin>,
    reports: Receiver<ChildStdout, FromWorker>,
    child: Child,
    scratch: Scratch,
    outside: Option<Arc<Outside>>,
}

impl Worker {
    /// Where its task's files go.
    pub(crate) fn scratch(&self) -> &Path {
        &self.scratch.0
    }

    async fn set_up(&mut self, role: Role, cache: &Path) -> Result<(JailReport, u64), WorkerStartError> {
        let setup = Setup {
            role,
            profile: self.profile,
            scratch: self.scratch.0.clone(),
            cache: cache.to_owned(),
            parent: std::process::id(),
        };
        let unfit = |error: WireError| WorkerStartError::Unfit(error.to_string());
        self.orders.send(&ToWorker::Setup(setup)).await.map_err(unfit)?;
        match self.reports.expect().await.map_err(unfit)? {
            FromWorker::Ready { jail, compatibility } => Ok((jail, compatibility)),
            other => Err(WorkerStartError::Unfit(format!("it said {other:?}"))),
        }
    }

    async fn compile(&mut self, wasm: &[u8]) -> Result<Bytes, CompileError> {
        for part in wasm.chunks(CHUNK) {
            let part = ToWorker::Module(Chunk(Bytes::copy_from_slice(part)));
            self.orders.send(&part).await.map_err(CompileError::Lost)?;
        }
        self.orders.send(&ToWorker::Compile).await.map_err(CompileError::Lost)?;
        let mut artifact = BytesMut::new();
        loop {
            match self.reports.expect().await.map_err(CompileError::Lost)? {
                FromWorker::Artifact(Chunk(part)) if artifact.len() + part.len() <= MAX_ARTIFACT_BYTES => {
                    artifact.extend_from_slice(&part);
                }
                FromWorker::Compiled => return Ok(artifact.freeze()),
                FromWorker::Rejected(why) => return Err(CompileError::Rejected(why)),
                _ => return Err(CompileError::Unexpected),
            }
        }
    }

    /// Runs a task. Standard input ends where the sender of `stdin` is dropped. Unless the result is
    /// [`RunEnd::Ended`], and also when this future is dropped, the worker is of no further use.
    pub(crate) async fn run(
        &mut self,
        order: &Order,
        stdin: mpsc::Receiver<Bytes>,
        output: &mpsc::Sender<OutputFrame>,
    ) -> RunEnd {
        let mut listener = Listener { order, output, head: None, attendant: self.attendant(order) };
        self.attend(ToWorker::Run(Box::new(order.clone())), &mut listener, stdin).await
    }

    /// Has a program answer an HTTP request with this body. The head of the answer is sent to `head`, and then its
    /// body as standard output. A command is run with the body as its standard input, and gives no head. In all else as
    /// [`run`](Self::run).
    pub(crate) async fn answer(
        &mut self,
        order: &Order,
        request: RequestHead,
        body: mpsc::Receiver<Bytes>,
        head: oneshot::Sender<ResponseHead>,
        output: &mpsc::Sender<OutputFrame>,
    ) -> RunEnd {
        let mut listener = Listener { order, output, head: Some(head), attendant: self.attendant(order) };
        self.attend(ToWorker::Answer(Box::new(order.clone()), Box::new(request)), &mut listener, body).await
    }

    fn attendant(&self, order: &Order) -> Option<Attendant> {
        let outside = self.outside.as_ref().filter(|_| !order.reach.is_empty())?;
        Some(Attendant::new(Arc::clone(outside), &order.reach))
    }

    async fn attend(
        &mut self,
        begin: ToWorker,
        listener: &mut Listener<'_>,
        stdin: mpsc::Receiver<Bytes>,
    ) -> RunEnd {
        let order = listener.order;
        let timeout = Duration::from_millis(order.timeout_ms);
        let folders = order.folders.iter().filter(|folder| folder.writable);
        let folders: Vec<_> = folders.map(|folder| folder.host.clone()).collect();
        let reached = |limit, value| RunEnd::Stopped(Outcome::LimitReached { limit, value });
        tokio::select! {
            end = talk::converse(&mut self.orders, &mut self.reports, begin, listener, stdin) => end,
            () = tokio::time::sleep(self.profile.patience(timeout) + GRACE) => self.too_slow(order),
            () = outgrown(folders, order.output_bytes) => reached(Limit::Files, order.output_bytes),
        }
    }

    /// Runs many tasks. What comes of them goes to `results`; those of which nothing was heard have not ended. The same
    /// holds as for [`Self::run`].
    pub(crate) async fn run_series(&mut self, series: Series, results: &mpsc::Sender<Vec<Brief>>) -> RunEnd {
        let timeout = Duration::from_millis(series.order.timeout_ms);
        let silence = self.profile.patience(timeout) + TELL_EVERY + GRACE;
        let lost = |error: WireError| RunEnd::Lost(format!("its worker process died: {error}"));
        let order = series.order.clone();
        if let Err(error) = self.orders.send(&ToWorker::RunSeries(Box::new(series))).await {
            return lost(error);
        }
        loop {
            let report = match tokio::time::timeout(silence, self.reports.expect()).await {
                Err(_) => return self.too_slow(&order),
                Ok(Err(error)) => return lost(error),
                Ok(Ok(report)) => report,
            };
            match report {
                FromWorker::Ran(briefs) => {
                    if results.send(briefs).await.is_err() {
                        return RunEnd::Lost("nobody listens any more".to_owned());
                    }
                }
                FromWorker::SeriesOver => return RunEnd::Ended(Outcome::Exited(0), Cost::default()),
                FromWorker::Unreadable(why) => return RunEnd::Unreadable(why),
                // Which of its tasks it was is seen when they are run one by one.
                other => return RunEnd::Lost(format!("its worker process said {other:?}")),
            }
        }
    }

    /// The node waits no longer for a guest.
    fn too_slow(&self, order: &Order) -> RunEnd {
        debug!("a worker did not stop in time");
        match self.profile {
            Profile::Usual => {
                RunEnd::Stopped(Outcome::LimitReached { limit: Limit::Time, value: order.timeout_ms })
            }
            Profile::Deterministic => RunEnd::Lost("it is much too slow on this machine".to_owned()),
        }
    }

    /// Ends the process and waits until it is gone. Its folder stays until the handle is dropped.
    pub(crate) async fn kill(&mut self) -> std::io::Result<()> {
        self.child.kill().await
    }

    /// Whether the process is still there to take another task.
    fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

/// Returns when `folders` hold more than `limit` bytes; never, where there are none.
async fn outgrown(folders: Vec<PathBuf>, limit: u64) {
    if folders.is_empty() {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(MEASURE_EVERY).await;
        let folders = folders.clone();
        let measure = move || folders.iter().map(|folder| crate::staging::measure(folder)).sum::<u64>();
        if tokio::task::spawn_blocking(measure).await.is_ok_and(|bytes| bytes > limit) {
            return;
        }
    }
}
