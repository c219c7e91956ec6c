//! The service: joins the board to the network, the disk and the workers.
//!
//! Who owns what: one [`Service`] per node, behind the handle [`Compute`](crate::Compute). The board is behind a
//! lock that is held for one transition at a time and never while waiting; what it decides comes out as
//! actions, which are carried out by tasks of one tracker. Stopping cancels them all and kills the workers.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use starfish_dht::membership::Right;
use starfish_dht::{Network, PeerId};
use starfish_fs::vfs::Vfs;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

use crate::board::{Action, Board, ClaimEnd, Millis, Refusal};
use crate::cache::Programs;
use crate::feed::Fed;
use crate::keeper::{Attempt, Job, Surroundings};
use crate::millis;
use crate::notice::Bulletin;
use crate::pool::Pool;
use crate::protocol::{FromKeeper, FromRunner, TASK_PROTOCOL};
use crate::report::{JobReport, standing};
use crate::runner::Runner;
use crate::task::{JobId, Outcome};
use crate::wire::{Receiver, Sender};

/// A node that opens a task stream says which job it wants within this time.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts that are served to other nodes at a time; further claims are turned away and come again.
const MAX_SERVED: usize = 256;
/// In memory between a job and a runner on the same node.
const PIPE_BYTES: usize = 256 << 10;
/// How long tasks may take to wind up when the service stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) me: PeerId,
    pub(crate) network: Network,
    pub(crate) files: Arc<dyn Vfs>,
    pub(crate) programs: Arc<Programs>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) jobs_dir: PathBuf,
    /// A job of the board or a call is over, so its slot is free for others.
    pub(crate) slots_freed: Notify,
    /// Calls of functions that wait for a slot of this node: batches give way to them.
    pub(crate) calls_waiting: AtomicUsize,
    board: Mutex<Board>,
    jobs: Mutex<HashMap<JobId, Arc<Job>>>,
    began: (Instant, u64),
    unsaid: mpsc::Sender<Bulletin>,
    served: Semaphore,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

/// What a service is made of.
pub(crate) struct Parts {
    pub(crate) network: Network,
    pub(crate) files: Arc<dyn Vfs>,
    pub(crate) programs: Programs,
    pub(crate) pool: Pool,
    pub(crate) jobs_dir: PathBuf,
    pub(crate) slots: u32,
    pub(crate) memory_bytes: u64,
    pub(crate) unsaid: mpsc::Sender<Bulletin>,
}

impl Service {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let Parts { network, files, programs, pool, jobs_dir, slots, memory_bytes, unsaid } = parts;
        let me = network.local_peer();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Arc::new(Self {
            me,
            network,
            files,
            programs: Arc::new(programs),
            pool: Arc::new(pool),
            jobs_dir,
            slots_freed: Notify::new(),
            calls_waiting: AtomicUsize::new(0),
            board: Mutex::new(Board::new(me, slots, memory_bytes)),
            jobs: Mutex::default(),
            began: (Instant::now(), millis(unix)),
            unsaid,
            served: Semaphore::new(MAX_SERVED),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
        })
    }

    /// Runs `task` until it ends or the service stops.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.stopping.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stopping.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Ends everything; jobs that run here for others are run by others.
    pub(crate) async fn stop(&self) {
        self.stopping.cancel();
        self.tasks.close();
        if tokio::time::timeout(STOP_TIMEOUT, self.tasks.wait()).await.is_err() {
            info!("compute tasks did not end in time");
        }
        self.pool.clear();
    }

    /// Whether a call of a function waits for a slot of this node.
    pub(crate) fn has_waiting_calls(&self) -> bool {
        self.calls_waiting.load(Ordering::Acquire) > 0
    }

    /// Whether `peer` may submit and run tasks.
    pub(crate) fn may_compute(&self, peer: &PeerId) -> bool {
        *peer == self.me || self.network.rights_of(peer).contains(Right::Compute)
    }

    /// The board, for looking at it.
    pub(crate) fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the board's time began, by this node's clock, in milliseconds since the Unix epoch.
    pub(crate) fn began_ms(&self) -> u64 {
        self.began.1
    }

    /// The board's time.
    pub(crate) fn now(&self) -> Millis {
        Millis::try_from(self.began.0.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }

    /// Lets something happen on the board, and does what follows from it.
    pub(crate) fn happen(self: &Arc<Self>, event: impl FnOnce(&mut Board, Millis) -> Vec<Action>) {
        let actions = event(&mut self.board(), self.now());
        self.perform(actions);
    }

    pub(crate) fn perform(self: &Arc<Self>, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Publish(bulletin) => {
                    // When it is full, the network is slow; what is pending is announced again.
                    let _ = self.unsaid.try_send(bulletin);
                }
                Action::TryClaim { keeper, job } => {
                    let service = Arc::clone(self);
                    self.spawn(async move { service.try_claim(keeper, job).await });
                }
                Action::Stop { job, attempt } => {
                    if let Some(job) = self.job(&job) {
                        job.stop(attempt);
                    }
                }
                Action::Ended { job } => self.ended(&job),
                Action::Forget { job } => {
                    let forgotten = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).remove(&job);
                    if let Some(job) = forgotten {
                        self.spawn(async move { job.forget().await });
                    }
                }
            }
        }
    }

    pub(crate) fn job(&self, id: &JobId) -> Option<Arc<Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Keeps the files of a job that is about to be on the board.
    pub(crate) fn keep(&self, job: Arc<Job>) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).insert(job.id, job);
    }

    /// The job did not get onto the board.
    pub(crate) async fn drop_job(&self, job: &Job) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).remove(&job.id);
        job.forget().await;
    }

    /// The input of a job has ended, one way or another.
    pub(crate) fn fed(self: &Arc<Self>, job: JobId, fed: Fed) {
        let reason = match fed {
            Fed::Enough => return,
            Fed::Broken => "its standard input broke off before its end",
            Fed::TooMuch => "its standard input is longer than this node keeps",
            Fed::Disk => "its standard input does not fit on this disk",
        };
        let outcome = Outcome::Failed { reason: reason.to_owned() };
        self.happen(|board, now| board.stop(now, job, outcome));
    }

    /// All about a job that this node keeps.
    pub(crate) fn report(&self, id: &JobId) -> Option<JobReport> {
        let job = self.job(id)?;
        let task = job.call().id().ok()?;
        let board = self.board();
        let (now, kept) = (self.now(), board.job(id)?);
        let (phase, by, since) = standing(kept);
        let pending = phase == crate::report::Phase::Pending;
        Some(JobReport {
            id: *id,
            name: kept.terms.name.clone(),
            task,
            keeper: self.me,
            phase,
            why: if pending { board.why_pending(now, id) } else { None },
            outcome: job.outcome.borrow().clone(),
            by,
            submitted_ms: self.began.1 + kept.submitted,
            since_ms: self.began.1 + since,
            attempts: kept.attempts,
            lost: kept.lost.clone(),
            receipt: job.receipt(),
            output_bytes: job.output.size(),
            progress: None,
            workers: Vec::new(),
            verified: None,
        })
    }

    fn ended(&self, id: &JobId) {
        let state = self.board().job(id).map(|kept| kept.state.clone());
        let Some(crate::board::State::Ended { outcome, .. }) = state else { return };
        if let Some(job) = self.job(id) {
            info!(job = %id, %outcome, "a job has ended");
            job.end(outcome);
        }
    }

    async fn try_claim(self: Arc<Self>, keeper: PeerId, job: JobId) {
        let runner = Runner {
            network: self.network.clone(),
            files: Arc::clone(&self.files),
            pool: Arc::clone(&self.pool),
            programs: Arc::clone(&self.programs),
            memory_bytes: self.board().capacity().memory_bytes,
        };
        let end = if keeper == self.me {
            let (mine, jobs) = tokio::io::duplex(PIPE_BYTES);
            let service = Arc::clone(&self);
            self.spawn(async move { service.serve(keeper, jobs).await });
            runner.attempt(job, mine).await
        } else {
            match self.network.open(keeper, TASK_PROTOCOL).await {
                Ok(stream) => runner.attempt(job, stream).await,
                Err(error) => {
                    debug!(%keeper, %error, "cannot ask for a job");
                    ClaimEnd::Refused
                }
            }
        };
        self.happen(|board, now| board.claim_over(now, keeper, job, end));
        self.slots_freed.notify_one();
    }

    /// Answers a node that opened a task stream, and stays with the attempt if it gets one.
    pub(crate) async fn serve<S>(self: Arc<Self>, by: PeerId, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Ok(_permit) = self.served.try_acquire() else { return };
        let (reading, writing) = tokio::io::split(stream);
        let mut receiver = Receiver::<_, FromRunner>::new(reading);
        let mut sender = Sender::new(writing);
        let claim = tokio::time::timeout(CLAIM_TIMEOUT, receiver.expect()).await;
        let Ok(Ok(FromRunner::Claim(id))) = claim else { return };
        let allowed = self.may_compute(&by);
        let claimed = if allowed { self.board().claim(self.now(), id, by) } else { Err(Refusal::Unknown) };
        let (number, job) = match (claimed, self.job(&id)) {
            (Ok(number), Some(job)) => (number, job),
            (refused, _) => {
                let unknown = matches!(refused, Err(Refusal::Unknown) | Ok(_));
                let _ = sender.send(&FromKeeper::Refused { unknown }).await;
                return sender.finish().await;
            }
        };
        info!(job = %id, %by, attempt = number, "a job was given to a node");
        let is_current = || self.board().beat(self.now(), &id, number);
        let surroundings = Surroundings { files: &*self.files, programs: &self.programs };
        let attempt = Attempt { by, number };
        let end = job.serve(attempt, receiver, sender, surroundings, is_current).await;
        debug!(job = %id, %by, attempt = number, ?end, "an attempt is over");
        self.happen(|board, now| board.attempt_ended(now, id, number, end));
    }
}
