//! Keeps a job: holds what it needs and what it said, and serves the node that runs it.
//!
//! The board decides who runs the job; this carries the bytes. An attempt is listened to only while the board
//! says that it is the current one, and whatever its node claims in the end is compared with what it sent.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use starfish_dht::PeerId;
use starfish_fs::vfs::Vfs;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};

use crate::board::AttemptEnd;
use crate::cache::{PrepareError, Programs};
use crate::output::{Output, OutputError, Stream};
use crate::protocol::{FromKeeper, FromRunner};
use crate::spool::{End, Spool, SpoolReader};
use crate::staging::{self, StageError};
use crate::task::{Call, Digest, JobId, Outcome, Receipt};
use crate::wire::{CHUNK, Chunk, Receiver, Sender, WireError};

/// How long the news of what a task changed may take to get here, before its job is called done all the same.
const NEWS_PATIENCE: Duration = Duration::from_secs(5);
/// What one attempt asks of its keeper besides input: a program, the start, the permission to commit.
const MAX_REQUESTS: usize = 4;

/// A job that this node keeps, and its files.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) stdin: Spool,
    pub(crate) output: Output,
    pub(crate) outcome: watch::Sender<Option<Outcome>>,
    call: Mutex<Arc<Call>>,
    receipt: Mutex<Option<Receipt>>,
    /// Attempts up to this one are no longer listened to.
    stopped: watch::Sender<u32>,
    fed: Mutex<bool>,
    dir: PathBuf,
}

/// Why an attempt was given up.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("the connection to it broke")]
    Wire(#[from] WireError),
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error("its input cannot be read")]
    Input(#[source] std::io::Error),
    #[error("its program cannot be read")]
    Program(#[from] PrepareError),
    #[error("it said something unexpected")]
    Unexpected,
    #[error("its receipt does not agree with what it sent")]
    FalseReceipt,
    #[error("the attempt was given up")]
    Stopped,
}

/// What the reading half of an attempt asks of the writing half.
enum Request {
    Module,
    Input,
    Commit,
}

/// Who runs an attempt, and which one it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub(crate) by: PeerId,
    pub(crate) number: u32,
}

impl Job {
    /// A new job, with its files in a folder of its own.
    pub(crate) async fn create(id: JobId, call: Call, dir: PathBuf) -> std::io::Result<Self> {
        tokio::fs::create_dir(&dir).await?;
        Ok(Self {
            id,
            stdin: Spool::create(dir.join("stdin")).await?,
            output: Output::create(dir.join("output"), call.limits.output_bytes).await?,
            outcome: watch::Sender::new(None),
            call: Mutex::new(Arc::new(call)),
            receipt: Mutex::new(None),
            stopped: watch::Sender::new(0),
            fed: Mutex::new(false),
            dir,
        })
    }

    /// What is called.
    pub(crate) fn call(&self) -> Arc<Call> {
        Arc::clone(&self.call.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The receipt, once there is one.
    pub(crate) fn receipt(&self) -> Option<Receipt> {
        self.receipt.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether this is the first who wants to write the input.
    pub(crate) fn may_feed(&self) -> bool {
        !std::mem::replace(&mut self.fed.lock().unwrap_or_else(PoisonError::into_inner), true)
    }

    /// Attempts up to `attempt` are no longer listened to.
    pub(crate) fn stop(&self, attempt: u32) {
        self.stopped.send_if_modified(|stopped| {
            let newer = attempt > *stopped;
            *stopped = (*stopped).max(attempt);
            newer
        });
    }

    /// The job is over.
    pub(crate) fn end(&self, outcome: Outcome) {
        self.output.end();
        self.outcome.send_replace(Some(outcome));
        // Nobody reads it again.
        self.stdin.end(End::Complete);
    }

    /// Removes its files.
    pub(crate) async fn forget(&self) {
        let _ = tokio::fs::remove_dir_all(&self.dir).await;
    }

    /// Looks again at what the granted folders hold: they have changed since, or a runner is behind.
    async fn look_again(&self, files: &dyn Vfs) -> Result<(), StageError> {
        let mut call = Call::clone(&self.call());
        for (grant, digest) in &mut call.inputs {
            *digest = staging::digest(files, &grant.path).await?;
        }
        *self.call.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(call);
        Ok(())
    }

    /// Gives the task to the node at the other end of the stream, which has claimed it, and stays with it until
    /// the attempt is over. `is_current` is called at every sign of life and says whether to go on.
    pub(crate) async fn serve<S>(
        &self,
        attempt: Attempt,
        receiver: Receiver<ReadHalf<S>, FromRunner>,
        sender: Sender<WriteHalf<S>>,
        surroundings: Surroundings<'_>,
        is_current: impl Fn() -> bool,
    ) -> AttemptEnd
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let call = self.call();
        self.output.begin(attempt.number).await;
        let (requests, asked) = mpsc::channel(MAX_REQUESTS);
        let mut stopped = self.stopped.subscribe();
        let end = tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped >= attempt.number) => Err(ServeError::Stopped),
            end = self.listen(attempt, &call, receiver, requests, surroundings, is_current) => end,
            error = self.supply(&call, sender, asked, surroundings) => Err(error),
        };
        match end {
            Ok(end) => end,
            Err(ServeError::Output(error @ OutputError::Differs(_))) => {
                AttemptEnd::Finished(Outcome::Failed { reason: error.to_string() })
            }
            Err(error) => AttemptEnd::Lost(crate::in_words(&error)),
        }
    }

    async fn listen<S>(
        &self,
        attempt: Attempt,
        call: &Call,
        mut runner: Receiver<ReadHalf<S>, FromRunner>,
        requests: mpsc::Sender<Request>,
        surroundings: Surroundings<'_>,
        is_current: impl Fn() -> bool,
    ) -> Result<AttemptEnd, ServeError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let ask = async |request| requests.send(request).await.map_err(|_| ServeError::Unexpected);
        loop {
            let message = runner.expect().await?;
            if !is_current() {
                return Err(ServeError::Stopped);
            }
            match message {
                FromRunner::NeedModule => ask(Request::Module).await?,
                FromRunner::Started => ask(Request::Input).await?,
                FromRunner::Finished => ask(Request::Commit).await?,
                FromRunner::Stdout(Chunk(bytes)) => {
                    self.output.append(attempt.number, Stream::Stdout, bytes).await?;
                }
                FromRunner::Stderr(Chunk(bytes)) => {
                    self.output.append(attempt.number, Stream::Stderr, bytes).await?;
                }
                FromRunner::Beat => {}
                FromRunner::Lost(why) => return Ok(AttemptEnd::Lost(why)),
                FromRunner::Declined(why) => {
                    // If even that fails, the next runner will say so.
                    let _ = self.look_again(surroundings.files).await;
                    return Ok(AttemptEnd::Declined(why));
                }
                FromRunner::Done { receipt, folders } => {
                    return self.conclude(attempt, call, *receipt, folders, surroundings.files).await;
                }
                FromRunner::Claim(_) => return Err(ServeError::Unexpected),
            }
        }
    }

    /// Believes a receipt that agrees with what was sent, and waits until this node sees what the task changed.
    async fn conclude(
        &self,
        attempt: Attempt,
        call: &Call,
        receipt: Receipt,
        folders: Vec<Digest>,
        files: &dyn Vfs,
    ) -> Result<AttemptEnd, ServeError> {
        let [stdout, stderr] = self.output.finish(attempt.number).await?;
        let honest = receipt.by == attempt.by
            && (receipt.stdout, receipt.stderr) == (stdout, stderr)
            && call.id().is_ok_and(|id| id == receipt.task)
            && receipt.verify();
        if !honest {
            return Err(ServeError::FalseReceipt);
        }
        if !folders.is_empty() {
            let after: Vec<_> = call.grants().cloned().zip(folders).collect();
            if let Err(error) = staging::await_digests(files, &after, NEWS_PATIENCE).await {
                // They are made and on their way, or somebody else has changed the folder again.
                tracing::debug!(job = %self.id, %error, "a task's changes are not here yet");
            }
        }
        let outcome = receipt.outcome.clone();
        *self.receipt.lock().unwrap_or_else(PoisonError::into_inner) = Some(receipt);
        Ok(AttemptEnd::Finished(outcome))
    }

    /// Sends the task, then what is asked for. A runner that takes nothing more may still have something to say,
    /// so that is no error here: whether it is gone is seen where it is listened to.
    async fn supply<W: AsyncWrite + Unpin>(
        &self,
        call: &Call,
        runner: Sender<W>,
        asked: mpsc::Receiver<Request>,
        surroundings: Surroundings<'_>,
    ) -> ServeError {
        match self.answer(call, runner, asked, surroundings).await {
            Ok(()) | Err(ServeError::Wire(_)) => std::future::pending().await,
            Err(error) => error,
        }
    }

    async fn answer<W: AsyncWrite + Unpin>(
        &self,
        call: &Call,
        mut runner: Sender<W>,
        mut asked: mpsc::Receiver<Request>,
        surroundings: Surroundings<'_>,
    ) -> Result<(), ServeError> {
        runner.send(&FromKeeper::Assigned(Box::new(call.clone()))).await?;
        let mut input: Option<SpoolReader> = None;
        loop {
            tokio::select! {
                biased;
                request = asked.recv() => match request {
                    None => return Ok(()),
                    Some(Request::Module) => send_module(&mut runner, call.module, surroundings.programs).await?,
                    Some(Request::Input) => input = Some(self.stdin.read().await.map_err(ServeError::Input)?),
                    Some(Request::Commit) => runner.send(&FromKeeper::Commit).await?,
                },
                () = more_of(&mut input) => send_input(&mut runner, &mut input).await?,
            }
        }
    }
}

/// What of its node an attempt is served with.
#[derive(Clone, Copy)]
pub(crate) struct Surroundings<'node> {
    pub(crate) files: &'node dyn Vfs,
    pub(crate) programs: &'node Programs,
}

/// Waits until there is more input to send; for ever, if none is wanted.
async fn more_of(input: &mut Option<SpoolReader>) {
    match input {
        Some(reader) => reader.ready().await,
        None => std::future::pending().await,
    }
}

async fn send_input<W: AsyncWrite + Unpin>(
    runner: &mut Sender<W>,
    input: &mut Option<SpoolReader>,
) -> Result<(), ServeError> {
    let Some(reader) = input else { return Ok(()) };
    match reader.some(CHUNK).await.map_err(ServeError::Input)? {
        Ok(bytes) => runner.send(&FromKeeper::Stdin(Chunk(bytes))).await?,
        Err(end) => {
            *input = None;
            // An input that broke off is not an end: the job is about to be stopped for it.
            if end == End::Complete {
                runner.send(&FromKeeper::StdinEnd).await?;
            }
        }
    }
    Ok(())
}

async fn send_module<W: AsyncWrite + Unpin>(
    runner: &mut Sender<W>,
    module: Digest,
    programs: &Programs,
) -> Result<(), ServeError> {
    let wasm = programs.get(module).await?;
    for start in (0..wasm.len()).step_by(CHUNK) {
        let part = wasm.slice(start..wasm.len().min(start + CHUNK));
        runner.send(&FromKeeper::Module(Chunk(part))).await?;
    }
    Ok(runner.send(&FromKeeper::ModuleEnd).await?)
}
