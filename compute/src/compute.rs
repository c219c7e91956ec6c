//! The handle that the rest of a node uses.

mod standing;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use starfish_dht::{CallError, Network, PeerId};
use starfish_fs::vfs::Vfs;
use starfish_memory::Memory;
use tokio::sync::mpsc;

use crate::attendant::Outside;
use crate::batch::{BatchError, BatchSpec, BatchStoreError, Batches, End, Results, ResultsError, Suspect};
use crate::board::Terms;
use crate::cache::Programs;
use crate::feed::StdinWriter;
use crate::function::{
    self, CallSpec, DeployError, FunctionError, FunctionSpec, Functions, Running, version,
};
use crate::jail::JailReport;
use crate::keeper::Job;
use crate::links::{self, LinkError};
use crate::notice::{Capacity, short_name};
use crate::output::OutputReader;
use crate::pool::{Pool, WorkerStartError};
use crate::process::Processes;
use crate::profile::Profile;
use crate::report::{JobReport, JobSummary, summary_of_heard, summary_of_kept};
use crate::schedule::{Cron, Watcher};
use crate::service::{Parts, Service};
use crate::submit::{self, SubmitError};
use crate::task::{JobId, TaskSpec};

/// Bulletins on their way to gossip. Beyond this they are dropped: pending jobs are announced again anyway.
const MAX_UNSAID: usize = 64;
/// How long news that others have may take to get here.
const NEWS_PATIENCE: Duration = Duration::from_secs(2);
/// An id can be shortened to this many of its 32 digits; fewer would be a guess.
const MIN_PREFIX: usize = 4;

/// How a node computes.
#[derive(Clone, Debug)]
pub struct ComputeOptions {
    /// The program that is started as a worker; in it, [`worker::main`](crate::worker::main) must be called
    /// first thing when it is given `worker_args`.
    pub worker_program: PathBuf,
    /// Its arguments.
    pub worker_args: Vec<String>,
    /// Tasks that run at a time; 0 for a node that only submits. By default one a core.
    pub slots: u32,
    /// The most memory that one task may have here. By default 1 GiB.
    pub max_task_memory: u64,
    /// The longest standard input that a job submitted here may have. By default 4 GiB.
    pub max_stdin_bytes: u64,
    /// Whether tasks may send HTTP requests to hosts that they were granted. By default they may.
    pub lets_out: bool,
}

impl ComputeOptions {
    /// The defaults, with this worker program.
    pub fn new(worker_program: PathBuf, worker_args: Vec<String>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            worker_program,
            worker_args,
            slots: u32::try_from(cores).unwrap_or(u32::MAX),
            max_task_memory: 1 << 30,
            max_stdin_bytes: 4 << 30,
            lets_out: true,
        }
    }
}

/// Why computing cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its folder is of no use.
    #[error("cannot use the folder {path}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// No worker process can be started.
    #[error("cannot start a worker process")]
    Worker(#[from] WorkerStartError),
    /// The network does not take it.
    #[error("cannot join the job board")]
    Network(#[from] LinkError),
    /// Programs could send no requests.
    #[error("cannot set up TLS for the requests of programs")]
    Tls(#[from] rustls::Error),
    /// What memory has of jobs cannot be read.
    #[error("cannot read what there is of jobs")]
    Memory(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why nothing can be said about a job, or done to it.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// There is none, or it was forgotten long after its end.
    #[error("no job {0}")]
    NotFound(String),
    /// It could be the beginning of anything.
    #[error("{0:?} is too short for a job id: at least {MIN_PREFIX} of its digits are needed")]
    TooShort(String),
    /// Several begin like that.
    #[error("{0} is the beginning of several job ids")]
    Ambiguous(String),
    /// Its keeper is another node, and only that one has its streams.
    #[error("the streams of job {job} are on {keeper}, where it was submitted")]
    KeptElsewhere {
        /// The job.
        job: JobId,
        /// Its keeper.
        keeper: PeerId,
    },
    /// Its keeper did not answer.
    #[error("{keeper}, which keeps job {job}, does not answer")]
    Unreachable {
        /// The job.
        job: JobId,
        /// Its keeper.
        keeper: PeerId,
        /// What went wrong.
        #[source]
        source: Box<CallError>,
    },
    /// Somebody writes its input already.
    #[error("the input of job {0} is written by somebody else")]
    AlreadyFed(JobId),
    /// It is no batch, has not ended, or has no task that failed.
    #[error("job {0} has no failed tasks to run again")]
    NothingToRetry(JobId),
    /// What the swarm has of it cannot be used.
    #[error(transparent)]
    Store(#[from] BatchStoreError),
    /// Its files cannot be read.
    #[error("the files of job {job} cannot be read")]
    Disk {
        /// The job.
        job: JobId,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// Runs tasks, here and elsewhere. A cheap handle.
#[derive(Clone, Debug)]
pub struct Compute {
    service: Arc<Service>,
    batches: Arc<Batches>,
    functions: Arc<Functions>,
    cron: Arc<Cron>,
    triggers: Arc<Watcher>,
    processes: Arc<Processes>,
    max_stdin_bytes: u64,
}

impl Compute {
    /// Starts computing, with `dir` as the folder of its own. Jobs with streams of an earlier run are gone; batches and
    /// programs are kept.
    pub async fn start(
        dir: &Path,
        network: Network,
        memory: &Memory,
        files: Arc<dyn Vfs>,
        options: ComputeOptions,
    ) -> Result<Self, StartError> {
        let ComputeOptions { worker_program, worker_args, slots, max_task_memory, max_stdin_bytes, lets_out } =
            options;
        let folder = |source| StartError::Folder { path: dir.to_owned(), source };
        let layout = Layout::make(dir).map_err(folder)?;
        let programs = Programs::open(layout.modules, layout.compiled.clone()).map_err(folder)?;
        let outside = Arc::new(Outside::new(memory.clone(), lets_out)?);
        let pool = Pool::new(worker_program, worker_args, layout.workers, layout.compiled)
            .with_outside(Arc::clone(&outside));
        // Now rather than with the first task, so that a node that cannot compute says so at once.
        pool.give_back(pool.take(Profile::Usual).await?);
        let (unsaid, saying) = mpsc::channel(MAX_UNSAID);
        let (jobs_dir, memory_bytes) = (layout.jobs, max_task_memory);
        let parts = Parts {
            network,
            files: Arc::clone(&files),
            programs,
            pool,
            jobs_dir,
            slots,
            memory_bytes,
            unsaid,
        };
        let service = Service::new(parts);
        let started = async {
            links::start(&service, saying).await?;
            let functions = Functions::start(&service, memory, Arc::clone(&files))?;
            outside.set_functions(&functions);
            let batches = Batches::start(&service, memory, files)?;
            let cron = Cron::start(&service, &batches, &functions, memory)?;
            let triggers = Watcher::start(&service, &batches, &functions, memory)?;
            let processes = Processes::start(&service, &batches, &functions, memory)?;
            Ok((batches, functions, cron, triggers, processes))
        };
        match started.await {
            Ok((batches, functions, cron, triggers, processes)) => {
                Ok(Self { service, batches, functions, cron, triggers, processes, max_stdin_bytes })
            }
            Err(error) => {
                service.stop().await;
                Err(error)
            }
        }
    }

    /// Makes a job of a task. It may begin at once; its input is what is written to [`Self::feed`], which must
    /// be called (and shut down) even where there is none.
    pub async fn submit(&self, spec: TaskSpec) -> Result<JobId, SubmitError> {
        let service = &self.service;
        let call = submit::prepare(&spec, &*service.files, &service.programs).await?;
        let id = new_id(service.me, &call.id()?.0);
        let job = Arc::new(Job::create(id, call, service.jobs_dir.join(id.to_string())).await?);
        service.keep(Arc::clone(&job));
        let terms =
            Terms { name: short_name(&spec.name), on: spec.on, memory_bytes: spec.limits.memory_bytes };
        let submitted = service.board().submit(service.now(), id, terms);
        match submitted {
            Ok(actions) => service.perform(actions),
            Err(full) => {
                service.drop_job(&job).await;
                return Err(full.into());
            }
        }
        Ok(id)
    }

    /// The standard input of a job that was submitted here. Only one can write it.
    pub fn feed(&self, id: JobId) -> Result<StdinWriter, JobError> {
        let job = self.kept_here(id)?;
        if !job.may_feed() {
            return Err(JobError::AlreadyFed(id));
        }
        let (writer, spooling) = StdinWriter::new(job, self.max_stdin_bytes);
        let service = Arc::clone(&self.service);
        self.service.spawn(async move {
            let fed = spooling.await;
            service.fed(id, fed);
        });
        Ok(writer)
    }

    /// What a job that was submitted here says, from its beginning on; also while it runs, and after its end.
    pub async fn output(&self, id: JobId) -> Result<OutputReader, JobError> {
        let job = self.kept_here(id)?;
        let outcome = job.outcome.subscribe();
        job.output.read(outcome).await.map_err(|source| JobError::Disk { job: id, source })
    }

    /// The jobs of the swarm, as far as this node knows of them, the oldest first.
    pub fn jobs(&self) -> Vec<JobSummary> {
        let (me, began_ms) = (self.service.me, self.service.began_ms());
        let mut jobs = self.batches.summaries();
        let board = self.service.board();
        jobs.extend(board.kept().map(|(id, kept)| summary_of_kept(me, *id, kept, began_ms)));
        let heard = board.heard();
        jobs.extend(heard.map(|((keeper, id), heard)| summary_of_heard(*keeper, *id, heard, began_ms)));
        drop(board);
        jobs.sort_by_key(|job| (job.submitted_ms, job.id));
        jobs
    }

    /// The job whose id begins with `prefix`.
    pub fn find(&self, prefix: &str) -> Result<JobSummary, JobError> {
        let prefix = prefix.to_ascii_lowercase();
        if prefix.len() < MIN_PREFIX {
            return Err(JobError::TooShort(prefix));
        }
        let mut found = self.jobs().into_iter().filter(|job| job.id.to_string().starts_with(&prefix));
        match (found.next(), found.next()) {
            (Some(job), None) => Ok(job),
            (Some(_), Some(_)) => Err(JobError::Ambiguous(prefix)),
            (None, _) => Err(JobError::NotFound(prefix)),
        }
    }

    /// All about a job, wherever it is kept.
    pub async fn job(&self, prefix: &str) -> Result<JobReport, JobError> {
        let JobSummary { id: job, keeper, progress, .. } = self.find(prefix)?;
        if progress.is_some() {
            return self.batches.report(job).await.ok_or_else(|| JobError::NotFound(job.to_string()));
        }
        let report = if keeper == self.service.me {
            self.service.report(&job)
        } else {
            let asked = self.service.ask_about(keeper, job).await;
            asked.map_err(|error| JobError::Unreachable { job, keeper, source: Box::new(error) })?
        };
        report.ok_or_else(|| JobError::NotFound(job.to_string()))
    }

    /// Ends a job, wherever it is kept. One that has ended already stays as it ended.
    pub async fn kill(&self, prefix: &str) -> Result<JobId, JobError> {
        let JobSummary { id: job, keeper, progress, .. } = self.find(prefix)?;
        if progress.is_some() {
            let known = self.batches.kill(job).await?;
            return if known { Ok(job) } else { Err(JobError::NotFound(job.to_string())) };
        }
        let known = if keeper == self.service.me {
            self.service.kill(job)
        } else {
            let asked = self.service.ask_to_kill(keeper, job).await;
            asked.map_err(|error| JobError::Unreachable { job, keeper, source: Box::new(error) })?
        };
        if known { Ok(job) } else { Err(JobError::NotFound(job.to_string())) }
    }

    /// Makes a batch of tasks. From here on the swarm sees to it, whatever becomes of this node. Where the results of the
    /// same batch are kept and will do, it is that one, and the second part of the answer says so.
    pub async fn submit_batch(&self, spec: BatchSpec) -> Result<(JobId, bool), BatchError> {
        self.batches.submit(spec).await
    }

    /// What the tasks of a batch said and how they ended, in order; also while it runs.
    pub async fn results(&self, job: JobId) -> Result<Results, ResultsError> {
        self.batches.results(job).await
    }

    /// Returns when a batch has ended.
    pub async fn wait(&self, job: JobId) -> Result<End, JobError> {
        let mut changes = self.batches.changes();
        loop {
            changes.mark_unchanged();
            let end = self.batches.end_of(&job).ok_or_else(|| JobError::NotFound(job.to_string()))?;
            if let Some(end) = end {
                return Ok(end);
            }
            if changes.changed().await.is_err() {
                return Err(JobError::NotFound(job.to_string()));
            }
        }
    }

    /// Runs those tasks of a batch once more that failed, or were not run because it was ended.
    pub async fn retry(&self, prefix: &str) -> Result<JobId, JobError> {
        let JobSummary { id: job, progress, .. } = self.find(prefix)?;
        // Who asks may have heard of its end from another node, earlier than this one.
        let _ = tokio::time::timeout(NEWS_PATIENCE, self.wait(job)).await;
        if progress.is_some() && self.batches.retry(job).await? {
            return Ok(job);
        }
        Err(JobError::NothingToRetry(job))
    }

    /// The nodes that found something else than others that ran the same tasks.
    pub fn suspects(&self) -> Vec<Suspect> {
        self.batches.suspects.all()
    }

    /// Trusts such a node again; says whether it was one.
    pub async fn forgive(&self, node: &PeerId) -> Result<bool, BatchStoreError> {
        self.batches.suspects.forgive(node).await
    }

    /// Gives a program a name, by which it can be called from every node; if the name is there already, a new version.
    pub async fn deploy(&self, spec: FunctionSpec) -> Result<version::VersionId, DeployError> {
        self.functions.deploy(spec).await
    }

    /// The functions of the swarm, by name.
    pub async fn functions(&self) -> Result<Vec<version::Function>, FunctionError> {
        self.functions.list().await
    }

    /// Makes a version of a function the current one: the one that is named, or the one before the current one.
    pub async fn rollback(
        &self,
        name: &version::FunctionName,
        wanted: Option<&str>,
    ) -> Result<version::VersionId, FunctionError> {
        self.functions.rollback(name, wanted).await
    }

    /// Forgets a function with all of its versions.
    pub async fn undeploy(&self, name: &version::FunctionName) -> Result<(), FunctionError> {
        self.functions.undeploy(name).await
    }

    /// Calls a function, here or on another node. Returns when a slot is its own.
    pub async fn call(&self, spec: CallSpec) -> Result<Running, function::CallError> {
        self.functions.call(spec).await
    }

    /// The function that a path of the HTTP port belongs to, if any, and the rest of the path.
    pub async fn route<'path>(
        &self,
        path: &'path str,
    ) -> Result<Option<(version::FunctionName, &'path str)>, FunctionError> {
        self.functions.route(path).await
    }

    /// What confines this node's worker processes.
    pub fn jail(&self) -> Option<JailReport> {
        self.service.pool.jail()
    }

    /// What this node can take on now.
    pub fn capacity(&self) -> Capacity {
        self.service.board().capacity()
    }

    /// Stops computing and ends all workers. What ran here for others is run by others.
    pub async fn stop(&self) {
        self.service.stop().await;
    }

    fn kept_here(&self, id: JobId) -> Result<Arc<Job>, JobError> {
        if let Some(job) = self.service.job(&id) {
            return Ok(job);
        }
        let elsewhere = self.jobs().into_iter().find(|job| job.id == id);
        Err(match elsewhere {
            Some(JobSummary { id: job, keeper, .. }) => JobError::KeptElsewhere { job, keeper },
            None => JobError::NotFound(id.to_string()),
        })
    }
}

/// Nobody else can make the same id for another job, and the same task can be submitted any number of times.
pub(crate) fn new_id(me: PeerId, what: &[u8]) -> JobId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&me.to_bytes()).update(what).update(&rand::random::<[u8; 16]>());
    JobId(crate::id::half(hasher.finalize()))
}

/// The folders of a node that computes.
struct Layout {
    modules: PathBuf,
    compiled: PathBuf,
    workers: PathBuf,
    jobs: PathBuf,
}

impl Layout {
    fn make(dir: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))?;
        // Workers stand in folders of their own, so every path that they are given must be absolute.
        let dir = dir.canonicalize()?;
        for left_over in ["workers", "jobs"] {
            let path = dir.join(left_over);
            if path.exists() {
                std::fs::remove_dir_all(&path)?;
            }
            std::fs::create_dir(&path)?;
        }
        let [modules, compiled, workers, jobs] =
            ["modules", "compiled", "workers", "jobs"].map(|name| dir.join(name));
        Ok(Self { modules, compiled, workers, jobs })
    }
}
