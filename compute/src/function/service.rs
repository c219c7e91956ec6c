//! The functions of a node: deploys, lists and forgets them, and counts the slots that calls take.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use starfish_fs::path::VfsPath;
use starfish_fs::vfs::Vfs;
use starfish_memory::{Memory, ReadError};
use tokio::sync::{Mutex, Notify, Semaphore};
use tracing::{debug, info};

use super::protocol::CALL_PROTOCOL;
use super::store::{FunctionStoreError, Known, Store};
use super::version::{self, Function, FunctionName, RollbackError, Version, VersionId, may_have};
use crate::batch::definition::encode;
use crate::cache::PrepareError;
use crate::compute::StartError;
use crate::in_words;
use crate::links::LinkError;
use crate::pool::CompileError;
use crate::profile::Profile;
use crate::reach::Reach;
use crate::service::Service;
use crate::submit::{self, SubmitError};
use crate::task::{Grant, Limits, Module, TaskSpec};

/// Functions that a swarm has.
const MAX_FUNCTIONS: usize = 1024;
/// The record of a version is a value of the swarm's memory, and every node keeps it.
const MAX_RECORD_BYTES: usize = 8 << 10;
/// Calls that wait for a slot of this node.
const MAX_WAITING: usize = 256;
/// Calls that are served to other nodes at a time, at work or waiting.
const MAX_SERVED: usize = 512;
/// How often a waiting call looks for a slot that something else than a call has freed.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What to give a name.
#[derive(Clone, Debug)]
pub struct FunctionSpec {
    /// The name.
    pub name: FunctionName,
    /// The program: a command, or a component that answers HTTP requests.
    pub module: Module,
    /// The environment of each call.
    pub env: Vec<(String, String)>,
    /// The parts of the tree that each call may use.
    pub grants: Vec<Grant>,
    /// What else each call may reach.
    pub reach: Vec<Reach>,
    /// What each call may consume.
    pub limits: Limits,
    /// A path on the HTTP port of its own.
    pub http: Option<VfsPath>,
    /// How many nodes are to run its calls; as many as there are, if that is not said.
    pub replicas: Option<u16>,
}

/// Why a function was not deployed.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// A call of it could not be run.
    #[error(transparent)]
    Task(#[from] SubmitError),
    /// It is no program that can be run.
    #[error("the program cannot be run: {0}")]
    Program(String),
    /// It cannot be seen whether it is one.
    #[error("the program cannot be compiled here: {0}")]
    Compile(String),
    /// Its path is none that it can have.
    #[error(
        "{0} cannot be a function's path: it is taken, or has other characters than letters, digits, '-', '_', '.' and '~'"
    )]
    Path(VfsPath),
    /// Another function has its path.
    #[error("the path {0} is that of function {1}")]
    PathTaken(VfsPath, FunctionName),
    /// There is too much to say about it.
    #[error("its variables and folders are longer than {} KiB", MAX_RECORD_BYTES >> 10)]
    TooLong,
    /// There are too many.
    #[error("the swarm has {MAX_FUNCTIONS} functions already")]
    Full,
    /// It cannot be kept.
    #[error("cannot keep the function")]
    Store(#[from] FunctionStoreError),
}

/// Why nothing was done to a function.
#[derive(Debug, thiserror::Error)]
pub enum FunctionError {
    /// There is none of that name.
    #[error("no function {0}")]
    NotFound(FunctionName),
    /// There is no such version.
    #[error(transparent)]
    Rollback(#[from] RollbackError),
    /// Its record or its programs cannot be used.
    #[error(transparent)]
    Store(#[from] FunctionStoreError),
}

impl From<ReadError> for FunctionError {
    fn from(error: ReadError) -> Self {
        Self::Store(error.into())
    }
}

/// Whether a function can have the path that it asks for.
fn check_path(spec: &FunctionSpec, all: &Known) -> Result<(), DeployError> {
    let Some(path) = &spec.http else { return Ok(()) };
    if !may_have(path) {
        return Err(DeployError::Path(path.clone()));
    }
    let of = |function: &Function| function.current().and_then(|current| current.http.clone());
    // Two halves of a swarm may both have given it away: then the first name has it ([`version::route`]), and goes on.
    let is_own = all.get(&spec.name).is_some_and(|function| of(function).as_ref() == Some(path));
    let has_it = |other: &&Function| {
        let is_other = if is_own { other.name < spec.name } else { other.name != spec.name };
        is_other && of(other).as_ref() == Some(path)
    };
    match all.values().find(has_it) {
        Some(other) => Err(DeployError::PathTaken(path.clone(), other.name.clone())),
        None => Ok(()),
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Functions {
    pub(super) service: Arc<Service>,
    pub(super) store: Arc<Store>,
    pub(super) served: Semaphore,
    queue: Semaphore,
    /// Whoever has it is the next to get a slot; the others wait for it in the order in which they came.
    turn: Mutex<()>,
    freed: Notify,
}

/// A slot of this node at work on a call, until it is dropped.
#[derive(Debug)]
pub(super) struct CallSlot(Arc<Functions>);

impl Drop for CallSlot {
    fn drop(&mut self) {
        let service = &self.0.service;
        service.happen(|board, now| board.give_back(now));
        self.0.freed.notify_one();
        service.slots_freed.notify_one();
    }
}

/// A call that waits, as batches see it.
struct Waiting<'node>(&'node Service);

impl<'node> Waiting<'node> {
    fn new(service: &'node Service) -> Self {
        service.calls_waiting.fetch_add(1, Ordering::AcqRel);
        Self(service)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.calls_waiting.fetch_sub(1, Ordering::AcqRel);
        self.0.slots_freed.notify_one();
    }
}

impl Functions {
    /// Takes part in the swarm's functions.
    pub(crate) fn start(
        service: &Arc<Service>,
        memory: &Memory,
        files: Arc<dyn Vfs>,
    ) -> Result<Arc<Self>, StartError> {
        let store = Store::open(memory, files).map_err(|error| StartError::Memory(error.into()))?;
        let this = Arc::new(Self {
            service: Arc::clone(service),
            store: Arc::new(store),
            served: Semaphore::new(MAX_SERVED),
            queue: Semaphore::new(MAX_WAITING),
            turn: Mutex::new(()),
            freed: Notify::new(),
        });
        let mut calls = service.network.accept(CALL_PROTOCOL).map_err(LinkError::from)?;
        let serving = Arc::clone(&this);
        service.spawn(async move {
            while let Some((peer, stream)) = calls.next().await {
                let this = Arc::clone(&serving);
                serving.service.spawn(this.serve(peer, stream));
            }
        });
        Ok(this)
    }

    pub(crate) async fn deploy(&self, spec: FunctionSpec) -> Result<VersionId, DeployError> {
        let all = self.store.all().await.map_err(FunctionStoreError::from)?;
        let known = all.get(&spec.name);
        if known.is_none() && all.len() >= MAX_FUNCTIONS {
            return Err(DeployError::Full);
        }
        check_path(&spec, &all)?;
        let name = spec.name.clone();
        let (version, program) = self.take_in(spec).await?;
        let number = known.map_or(1, Function::next_number);
        let id = self.store.deploy(&name, number, &version, program).await?;
        info!(function = %name, version = %id, "deployed");
        let old = known.map(Function::superfluous).unwrap_or_default();
        if !old.is_empty()
            && let Err(error) = self.store.forget(&name, &old).await
        {
            debug!(function = %name, %error, "old versions are left");
        }
        Ok(id)
    }

    /// Checks that calls of a function could be run, and makes a record of it.
    async fn take_in(&self, spec: FunctionSpec) -> Result<(Version, Bytes), DeployError> {
        let FunctionSpec { name, module, env, grants, reach, limits, http, replicas } = spec;
        let task = TaskSpec {
            env: env.clone(),
            grants: grants.clone(),
            reach: reach.clone(),
            limits,
            ..TaskSpec::new(name.as_str(), module)
        };
        let programs = &self.service.programs;
        let module = submit::prepare(&task, &*self.store.files, programs).await?.module;
        let refused = |error: PrepareError| match error {
            PrepareError::Compile(CompileError::Rejected(why)) => DeployError::Program(why),
            PrepareError::Compile(error @ CompileError::TooSlow) => DeployError::Program(error.to_string()),
            other => DeployError::Compile(in_words(&other)),
        };
        let pool = &self.service.pool;
        let artifact = programs.artifact(module, pool, Profile::Usual).await.map_err(refused)?;
        pool.check(artifact, reach.clone()).await.map_err(|error| refused(error.into()))?;
        let program = programs.get(module).await.map_err(|error| DeployError::Compile(in_words(&error)))?;
        let (bytes, by, at_ms) = (program.len() as u64, self.service.me, crate::runner::unix_ms());
        let version = Version { module, bytes, env, grants, reach, limits, http, replicas, by, at_ms };
        if encode(&version).map_err(FunctionStoreError::from)?.len() > MAX_RECORD_BYTES {
            return Err(DeployError::TooLong);
        }
        Ok((version, program))
    }

    pub(crate) async fn list(&self) -> Result<Vec<Function>, FunctionError> {
        Ok(self.store.all().await?.values().cloned().collect())
    }

    pub(crate) async fn rollback(
        &self,
        name: &FunctionName,
        wanted: Option<&str>,
    ) -> Result<VersionId, FunctionError> {
        let all = self.store.all().await?;
        let function = all.get(name).ok_or_else(|| FunctionError::NotFound(name.clone()))?;
        let id = function.rollback(wanted)?;
        self.store.set_current(name, id).await?;
        info!(function = %name, version = %id, "rolled back");
        Ok(id)
    }

    pub(crate) async fn undeploy(&self, name: &FunctionName) -> Result<(), FunctionError> {
        if !self.store.all().await?.contains_key(name) {
            return Err(FunctionError::NotFound(name.clone()));
        }
        self.store.remove(name).await?;
        info!(function = %name, "undeployed");
        Ok(())
    }

    pub(crate) async fn route<'path>(
        &self,
        path: &'path str,
    ) -> Result<Option<(FunctionName, &'path str)>, FunctionError> {
        let all = self.store.all().await?;
        Ok(version::route(all.values(), path).map(|(name, rest)| (name.clone(), rest)))
    }

    /// A slot of this node for a call, at once or after waiting for so long; batches give way meanwhile.
    pub(super) async fn slot(self: &Arc<Self>, patience: Duration) -> Option<CallSlot> {
        if let Ok(_turn) = self.turn.try_lock()
            && let Some(slot) = self.free_slot()
        {
            return Some(slot);
        }
        if patience.is_zero() {
            return None;
        }
        let _place = self.queue.try_acquire().ok()?;
        let _waiting = Waiting::new(&self.service);
        let waiting = async {
            let _turn = self.turn.lock().await;
            loop {
                if let Some(slot) = self.free_slot() {
                    return slot;
                }
                let _ = tokio::time::timeout(LOOK_EVERY, self.freed.notified()).await;
            }
        };
        tokio::time::timeout(patience, waiting).await.ok()
    }

    fn free_slot(self: &Arc<Self>) -> Option<CallSlot> {
        self.service.board().lend().then(|| CallSlot(Arc::clone(self)))
    }
}
