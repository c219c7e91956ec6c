//! Runs one attempt of a job: claims it, makes it ready, feeds a worker process, and tells the keeper.
//!
//! The keeper is another node at the other end of a stream, or this node at the other end of a pipe in
//! memory; the code is the same. Whatever goes wrong here is told to the keeper, who decides what it means; if
//! the stream breaks there is nobody to tell, and the attempt is dropped with all that belongs to it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use starfish_dht::Network;
use starfish_fs::vfs::Vfs;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf};
use tokio::sync::mpsc;
use tracing::debug;

use crate::board::ClaimEnd;
use crate::cache::{PrepareError, Programs};
use crate::in_words;
use crate::millis;
use crate::order::{Folder, Order};
use crate::pool::{CompileError, Pool, RunEnd, Worker};
use crate::profile::Profile;
use crate::protocol::{FromKeeper, FromRunner};
use crate::staging::{self, LaidOut, StageError, Staged};
use crate::task::{
    Access, Call, Cost, Digest, JobId, MAX_GRANTS, MAX_MODULE_BYTES, Outcome, OutputFrame, Receipt,
};
use crate::wire::{Chunk, Receiver, Sender, WireError};

/// How long a tree that is behind may take to show what the task was submitted with.
const TREE_PATIENCE: Duration = Duration::from_secs(5);
/// How often the keeper hears from a runner that has nothing else to say.
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// Messages on their way to the keeper, and pieces of input on their way to the worker: one in transit, some to
/// smooth; each holds up to 64 KiB.
const QUEUE: usize = 8;

/// What a node runs tasks with.
#[derive(Clone, Debug)]
pub(crate) struct Runner {
    pub(crate) network: Network,
    pub(crate) files: Arc<dyn Vfs>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) programs: Arc<Programs>,
    /// The most memory that one task may have.
    pub(crate) memory_bytes: u64,
}

/// Why an attempt came to nothing, as the keeper is told.
#[derive(Debug)]
enum Setback {
    /// Not here, not now.
    Declined(String),
    /// The attempt is lost.
    Lost(String),
    /// The task itself cannot be run anywhere.
    Impossible(String),
    /// The keeper is gone, so there is nobody to tell.
    Alone(WireError),
}

impl From<WireError> for Setback {
    fn from(error: WireError) -> Self {
        Self::Alone(error)
    }
}

type FromKeeperStream<S> = Receiver<ReadHalf<S>, FromKeeper>;

impl Runner {
    /// Claims `job` at the other end of `stream` and, if it is given, runs it to its end.
    pub(crate) async fn attempt<S>(&self, job: JobId, stream: S) -> ClaimEnd
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (reading, writing) = tokio::io::split(stream);
        let mut keeper = Receiver::<_, FromKeeper>::new(reading);
        let mut sender = Sender::new(writing);
        if sender.send(&FromRunner::Claim(job)).await.is_err() {
            return ClaimEnd::Refused;
        }
        let call = match keeper.expect().await {
            Ok(FromKeeper::Assigned(call)) => call,
            Ok(FromKeeper::Refused { unknown: true }) => return ClaimEnd::Unknown,
            _ => return ClaimEnd::Refused,
        };
        debug!(%job, "running a task");
        let (to_keeper, outbox) = mpsc::channel(QUEUE);
        let mut telling = tokio::spawn(tell(sender, outbox));
        // When the keeper cannot be told any more, there is no use in going on.
        tokio::select! {
            () = self.run_and_report(*call, &mut keeper, to_keeper) => { let _ = telling.await; }
            _ = &mut telling => debug!(%job, "lost the keeper of a task"),
        }
        ClaimEnd::Ran
    }

    async fn run_and_report<S>(
        &self,
        call: Call,
        keeper: &mut FromKeeperStream<S>,
        to_keeper: mpsc::Sender<FromRunner>,
    ) where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let last = match self.run(&call, keeper, &to_keeper).await {
            Ok(done) => done,
            Err(Setback::Declined(why)) => FromRunner::Declined(why),
            Err(Setback::Lost(why)) => FromRunner::Lost(why),
            Err(Setback::Impossible(reason)) => {
                let ended = Ended::nothing(Outcome::Failed { reason });
                match self.receipt(&call, ended) {
                    Ok(receipt) => FromRunner::Done { receipt: Box::new(receipt), folders: Vec::new() },
                    Err(why) => FromRunner::Lost(why),
                }
            }
            Err(Setback::Alone(error)) => {
                debug!(%error, "gave an attempt up");
                return;
            }
        };
        let _ = to_keeper.send(last).await;
    }

    async fn run<S>(
        &self,
        call: &Call,
        keeper: &mut FromKeeperStream<S>,
        to_keeper: &mpsc::Sender<FromRunner>,
    ) -> Result<FromRunner, Setback>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        // The keeper checks what it is given, but it is another node.
        if call.limits.memory_bytes > self.memory_bytes || call.inputs.len() > MAX_GRANTS {
            return Err(Setback::Declined("it asks for more than it was announced with".to_owned()));
        }
        self.fetch_module(call.module, keeper, to_keeper).await?;
        let artifact = self.programs.artifact(call.module, &self.pool, Profile::Usual).await.map_err(
            |error| match error {
                PrepareError::Compile(CompileError::Rejected(_) | CompileError::TooSlow) => {
                    Setback::Impossible(error.to_string())
                }
                other => Setback::Declined(in_words(&other)),
            },
        )?;
        let mut worker = self
            .pool
            .take(Profile::Usual)
            .await
            .map_err(|error| Setback::Declined(format!("no worker: {}", in_words(&error))))?;
        let laid_out = self.stage(call, &worker).await?;
        let order = order_of(call, artifact, laid_out.staged());
        let ended = self.converse(&mut worker, &order, keeper, to_keeper).await?;
        if call.writes() {
            // A process that could write there is gone before its folders are read.
            worker.kill().await.map_err(|error| Setback::Lost(in_words(&error)))?;
        }
        let commits = call.writes() && ended.outcome.is_success();
        let folders =
            if commits { self.commit(call, &laid_out, keeper, to_keeper).await? } else { Vec::new() };
        if ended.reusable && !call.writes() && laid_out.clear().await {
            self.pool.give_back(worker);
        }
        let receipt = Box::new(self.receipt(call, ended).map_err(Setback::Lost)?);
        Ok(FromRunner::Done { receipt, folders })
    }

    async fn fetch_module<S>(
        &self,
        module: Digest,
        keeper: &mut FromKeeperStream<S>,
        to_keeper: &mpsc::Sender<FromRunner>,
    ) -> Result<(), Setback>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        if self.programs.has(module).await {
            return Ok(());
        }
        say(to_keeper, FromRunner::NeedModule).await?;
        let mut wasm = BytesMut::new();
        loop {
            match keeper.expect().await? {
                FromKeeper::Module(Chunk(part)) if wasm.len() + part.len() <= MAX_MODULE_BYTES => {
                    wasm.extend_from_slice(&part);
                }
                FromKeeper::ModuleEnd => break,
                _ => return Err(Setback::Lost("its keeper said something unexpected".to_owned())),
            }
        }
        self.programs.put(module, wasm.freeze()).await.map_err(|error| Setback::Declined(in_words(&error)))
    }

    /// Lays the granted folders out for the worker.
    async fn stage(&self, call: &Call, worker: &Worker) -> Result<LaidOut, Setback> {
        let declined = |error: StageError| Setback::Declined(in_words(&error));
        staging::await_digests(&*self.files, &call.inputs, TREE_PATIENCE).await.map_err(declined)?;
        LaidOut::make(&*self.files, call.grants(), worker.scratch()).await.map_err(declined)
    }

    /// Feeds the worker from the keeper and the keeper from the worker until the task is over.
    async fn converse<S>(
        &self,
        worker: &mut Worker,
        order: &Order,
        keeper: &mut FromKeeperStream<S>,
        to_keeper: &mpsc::Sender<FromRunner>,
    ) -> Result<Ended, Setback>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let started_ms = unix_ms();
        say(to_keeper, FromRunner::Started).await?;
        let (stdin, from_keeper) = mpsc::channel(QUEUE);
        let (output, from_worker) = mpsc::channel(QUEUE);
        let mut given = (blake3::Hasher::new(), 0);
        let running = async {
            let end = worker.run(order, from_keeper, &output).await;
            drop(output);
            end
        };
        let (end, said) = tokio::select! {
            both = async { tokio::join!(running, forward(from_worker, to_keeper)) } => both,
            error = pass_input(keeper, stdin, &mut given) => return Err(error),
        };
        let (outcome, cost, reusable) = match end {
            RunEnd::Ended(outcome, cost) => (outcome, cost, true),
            RunEnd::Stopped(outcome) => {
                let elapsed_us = unix_ms().saturating_sub(started_ms) * 1000;
                (outcome, Cost { elapsed_us, memory_bytes: 0 }, false)
            }
            RunEnd::Lost(why) => return Err(Setback::Lost(why)),
            RunEnd::Unreadable(why) => {
                self.programs.discard(&order.artifact).await;
                return Err(Setback::Declined(why));
            }
        };
        let [stdout, stderr] = said?;
        let (hasher, stdin_bytes) = given;
        let stdin = Digest(*hasher.finalize().as_bytes());
        Ok(Ended { outcome, cost, started_ms, stdin, stdin_bytes, stdout, stderr, reusable })
    }

    /// Makes the changes that the task left, if the keeper still wants them. Returns the digests of its folders
    /// as they are then, so that the keeper can wait for the news of them.
    async fn commit<S>(
        &self,
        call: &Call,
        laid_out: &LaidOut,
        keeper: &mut FromKeeperStream<S>,
        to_keeper: &mpsc::Sender<FromRunner>,
    ) -> Result<Vec<Digest>, Setback>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        say(to_keeper, FromRunner::Finished).await?;
        loop {
            match keeper.expect().await? {
                FromKeeper::Commit => break,
                // Input that the program did not wait for.
                FromKeeper::Stdin(_) | FromKeeper::StdinEnd => {}
                _ => return Err(Setback::Lost("its keeper said something unexpected".to_owned())),
            }
        }
        laid_out.commit(&*self.files).await.map_err(Setback::Lost)?;
        let mut digests = Vec::new();
        for grant in call.grants() {
            let digest = staging::digest(&*self.files, &grant.path).await;
            digests.push(digest.map_err(|error| Setback::Lost(in_words(&error)))?);
        }
        Ok(digests)
    }

    fn receipt(&self, call: &Call, ended: Ended) -> Result<Receipt, String> {
        let Ended { outcome, cost, started_ms, stdin, stdin_bytes, stdout, stderr, reusable: _ } = ended;
        let task = call.id().map_err(|error| error.to_string())?;
        let (by, signature) = (self.network.local_peer(), Vec::new());
        let receipt =
            Receipt { task, stdin, stdin_bytes, stdout, stderr, outcome, by, started_ms, cost, signature };
        receipt.sign(|bytes| self.network.identity().sign(bytes)).map_err(|error| error.to_string())
    }
}

/// How the sandbox's part ended, and what went in and out.
struct Ended {
    outcome: Outcome,
    cost: Cost,
    started_ms: u64,
    stdin: Digest,
    stdin_bytes: u64,
    stdout: Digest,
    stderr: Digest,
    /// Whether the worker can take another task.
    reusable: bool,
}

impl Ended {
    /// The end of a task that could not begin.
    fn nothing(outcome: Outcome) -> Self {
        let empty = Digest::of(b"");
        Self {
            outcome,
            cost: Cost::default(),
            started_ms: unix_ms(),
            stdin: empty,
            stdin_bytes: 0,
            stdout: empty,
            stderr: empty,
            reusable: false,
        }
    }
}

/// What a worker is told to run, on folders that are laid out for it.
pub(crate) fn order_of(call: &Call, artifact: String, staged: &[Staged]) -> Order {
    let Call { module: _, name, args, env, inputs: _, reach, limits } = call;
    let folders = staged.iter().map(|staged| Folder {
        host: staged.host().to_owned(),
        guest: staged.grant().path.to_string(),
        writable: staged.grant().access == Access::ReadWrite,
    });
    Order {
        artifact,
        args: std::iter::once(name).chain(args).cloned().collect(),
        handler: None,
        env: env.clone(),
        folders: folders.collect(),
        reach: reach.clone(),
        timeout_ms: millis(limits.timeout),
        memory_bytes: limits.memory_bytes,
        output_bytes: limits.output_bytes,
    }
}

async fn say(to_keeper: &mpsc::Sender<FromRunner>, message: FromRunner) -> Result<(), Setback> {
    to_keeper.send(message).await.map_err(|_| Setback::Alone(WireError::Ended))
}

/// Carries output to the keeper; returns the digests of both streams.
async fn forward(
    mut from_worker: mpsc::Receiver<OutputFrame>,
    to_keeper: &mpsc::Sender<FromRunner>,
) -> Result<[Digest; 2], Setback> {
    let (mut stdout, mut stderr) = (blake3::Hasher::new(), blake3::Hasher::new());
    while let Some(frame) = from_worker.recv().await {
        let message = match frame {
            OutputFrame::Stdout(bytes) => {
                stdout.update(&bytes);
                FromRunner::Stdout(Chunk(bytes))
            }
            OutputFrame::Stderr(bytes) => {
                stderr.update(&bytes);
                FromRunner::Stderr(Chunk(bytes))
            }
            OutputFrame::Exit(_) => continue,
        };
        say(to_keeper, message).await?;
    }
    Ok([stdout, stderr].map(|hasher| Digest(*hasher.finalize().as_bytes())))
}

/// Carries input from the keeper to the worker, for as long as the task runs. Returns only when the keeper is
/// gone or talks nonsense.
async fn pass_input<S>(
    keeper: &mut FromKeeperStream<S>,
    stdin: mpsc::Sender<Bytes>,
    given: &mut (blake3::Hasher, u64),
) -> Setback
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut stdin = Some(stdin);
    loop {
        match keeper.expect().await {
            Err(error) => return Setback::Alone(error),
            Ok(FromKeeper::Stdin(Chunk(bytes))) => {
                let Some(open) = &stdin else { continue };
                if open.send(bytes.clone()).await.is_ok() {
                    given.0.update(&bytes);
                    given.1 += bytes.len() as u64;
                }
            }
            Ok(FromKeeper::StdinEnd) => stdin = None,
            Ok(_) => return Setback::Lost("its keeper said something unexpected".to_owned()),
        }
    }
}

/// Sends what is to be sent, and a sign of life when there is nothing. Ends when nothing more can come, or when
/// nobody takes it any more.
async fn tell<W: AsyncWrite + Unpin>(mut keeper: Sender<W>, mut outbox: mpsc::Receiver<FromRunner>) {
    loop {
        let message = match tokio::time::timeout(BEAT_EVERY, outbox.recv()).await {
            Ok(Some(message)) => message,
            Ok(None) => return keeper.finish().await,
            Err(_) => FromRunner::Beat,
        };
        if keeper.send(&message).await.is_err() {
            return;
        }
    }
}

/// This node's clock, in milliseconds since the Unix epoch.
pub(crate) fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    millis(now)
}
