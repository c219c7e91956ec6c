//! Joins docket, desks and runners to memory, the network and the workers of this node: what others ask of batches.
//! What a node does by itself is in `upkeep`, what memory tells it in `news`.
//!
//! Who owns what: one [`Batches`] per node, beside the [`Service`] for tasks with streams, whose board counts the slots
//! for both. The docket is told of every cell of the batches' space in the order in which memory applies them; what
//! follows from it is done by one loop, and by a task for each slot at work.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rangemap::RangeSet;
use starfish_dht::PeerId;
use starfish_fs::vfs::Vfs;
use starfish_memory::Memory;
use tokio::sync::{Notify, watch};
use tracing::{debug, warn};

use super::definition::{BatchSpec, Definition, End, MAX_GENERATIONS};
use super::docket::{Docket, Known, MAX_BATCHES};
use super::keeper::{Desks, KeptBatch};
use super::near::Near;
use super::receipt::{Collected, SliceReceipt, TaskResult};
use super::report::BATCH_REPORT_PROTOCOL;
use super::results::{Results, ResultsError};
use super::slice::SLICE_PROTOCOL;
use super::store::{BatchStoreError, News, SPACE, Store};
use super::submit::{self, BatchError, Prepared};
use super::suspects::Suspects;
use crate::arrived::Arrived;
use crate::board::Millis;
use crate::compute::{StartError, new_id};
use crate::links::LinkError;
use crate::service::Service;
use crate::task::{Digest, JobId};

/// Definitions that are kept at hand.
const MAX_DEFINITIONS: usize = 64;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Batches {
    pub(super) service: Arc<Service>,
    pub(super) store: Store,
    pub(super) docket: Mutex<Docket>,
    pub(super) desks: Desks,
    pub(super) definitions: Mutex<BTreeMap<JobId, Arc<Definition>>>,
    pub(super) near: Mutex<BTreeMap<JobId, Option<Near>>>,
    pub(super) cells: Arc<Arrived>,
    pub(crate) suspects: Suspects,
    /// Tasks for which this node pledges itself, or has, since it was started.
    pub(super) pledged: Mutex<BTreeMap<(JobId, u32), RangeSet<u64>>>,
    pub(super) changed: watch::Sender<u64>,
    pub(super) woken: Notify,
}

impl Batches {
    /// Takes part in the batches that there are, as soon as they have been read.
    pub(crate) fn start(
        service: &Arc<Service>,
        memory: &Memory,
        files: Arc<dyn Vfs>,
    ) -> Result<Arc<Self>, StartError> {
        let space = memory.space(SPACE).map_err(|error| StartError::Memory(error.into()))?;
        let cells = Arrived::watch(memory, SPACE);
        let me = service.me;
        let memory_bytes = service.board().capacity().memory_bytes;
        let this = Arc::new(Self {
            service: Arc::clone(service),
            store: Store::new(memory.clone(), space, files),
            docket: Mutex::new(Docket::new(me, memory_bytes)),
            desks: Desks::default(),
            definitions: Mutex::default(),
            near: Mutex::default(),
            cells,
            suspects: Suspects::new(memory, me)?,
            pledged: Mutex::default(),
            changed: watch::Sender::new(0),
            woken: Notify::new(),
        });
        let mut claims = service.network.accept(SLICE_PROTOCOL).map_err(LinkError::from)?;
        let weak = Arc::downgrade(&this);
        let answer = move |_, job: JobId| {
            let report = weak.upgrade().and_then(|this| this.report_here(&job));
            async move { report }
        };
        service.network.serve(BATCH_REPORT_PROTOCOL, answer).map_err(LinkError::from)?;
        let serving = Arc::clone(&this);
        service.spawn(async move {
            while let Some((peer, stream)) = claims.next().await {
                let this = Arc::clone(&serving);
                serving.service.spawn(this.serve(peer, stream));
            }
        });
        let following = Arc::clone(&this);
        service.spawn(async move { following.suspects.follow().await });
        service.spawn(Arc::clone(&this).take_part());
        Ok(this)
    }

    /// A new batch of this node; or, where that will do, one that has ended well and is the same. Says which it is.
    pub(crate) async fn submit(self: &Arc<Self>, spec: BatchSpec) -> Result<(JobId, bool), BatchError> {
        for before in &spec.after {
            if self.docket().get(before).is_none() {
                return Err(BatchError::NotFound(*before));
            }
        }
        let (cached, programs) = (spec.cached, &self.service.programs);
        let prepared = submit::prepare(spec, self.me(), self.unix_ms(), &self.store, programs).await?;
        if cached
            && prepared.definition.is_pure()
            && let Some(same) = self.same_as(&prepared.digest)
        {
            return Ok((same, true));
        }
        let job = new_id(self.me(), &prepared.digest.0);
        let before = if cached { self.recall(job, &prepared).await } else { Vec::new() };
        self.post(job, prepared, &before).await?;
        Ok((job, false))
    }

    /// The batch of this id, unless there is or was one: whoever submits it, and however many do, it is one batch. Says
    /// whether it is new. What was forgotten long ago (memory's horizon) is new again.
    pub(crate) async fn submit_once(
        self: &Arc<Self>,
        job: JobId,
        spec: BatchSpec,
    ) -> Result<bool, BatchError> {
        if self.is_used(job).await? {
            return Ok(false);
        }
        let programs = &self.service.programs;
        let prepared = submit::prepare(spec, self.me(), self.unix_ms(), &self.store, programs).await?;
        self.post(job, prepared, &[]).await
    }

    /// Whether there is or was a batch of this id, as far as memory goes back.
    pub(crate) async fn is_used(&self, job: JobId) -> Result<bool, BatchError> {
        Ok(!self.store.cells(Some(job)).await?.is_empty())
    }

    /// Makes a batch everybody's, and keeps it; unless somebody else has made it meanwhile. Some of its tasks may have been
    /// run `before`.
    async fn post(
        self: &Arc<Self>,
        job: JobId,
        prepared: Prepared,
        before: &[SliceReceipt],
    ) -> Result<bool, BatchError> {
        if self.docket().iter().count() >= MAX_BATCHES {
            return Err(BatchError::Full);
        }
        if let Err(error) = prepared.keep(job, &self.store, &self.service.programs).await {
            self.discard(job).await;
            return Err(error);
        }
        if self.is_used(job).await? {
            return Ok(false);
        }
        // Nobody can be at work on it yet, so its desk need not wait for receipts.
        let card = prepared.card;
        let mut kept = KeptBatch::first(&card);
        before.iter().for_each(|receipt| kept.desk.settle(&receipt.range));
        self.desks.lock().insert(job, kept);
        if let Err(error) = self.store.post(job, &card).await {
            self.desks.lock().remove(&job);
            self.discard(job).await;
            return Err(error.into());
        }
        // Whoever submits it asks for it next.
        self.apply(job, News::Card(card));
        for receipt in before {
            // What is not written down is run.
            self.store.receipt(job, receipt).await?;
        }
        self.wake();
        Ok(true)
    }

    /// A batch with this definition that ended well.
    fn same_as(&self, definition: &Digest) -> Option<JobId> {
        let docket = self.docket();
        let is_same = |known: &Known| {
            known.card.definition == *definition && known.end.as_ref().is_some_and(|end| end.ending.is_well())
        };
        docket.iter().find(|(_, known)| is_same(known)).map(|(job, _)| *job)
    }

    async fn discard(&self, job: JobId) {
        if self.is_known(&job) {
            return;
        }
        if let Err(error) = self.store.forget(job).await {
            debug!(%job, %error, "something is left of a job that was not accepted");
        }
    }

    /// Ends a batch; says whether there is one.
    pub(crate) async fn kill(&self, job: JobId) -> Result<bool, BatchStoreError> {
        match self.docket().get(&job) {
            None => return Ok(false),
            Some(known) if known.end.is_some() => return Ok(true),
            Some(_) => {}
        }
        self.store.stop(job).await?;
        Ok(true)
    }

    /// Runs the tasks that failed, and those that were not run, once more. Says whether there is anything to do.
    pub(crate) async fn retry(&self, job: JobId) -> Result<bool, BatchStoreError> {
        let generation = match self.docket().get(&job) {
            Some(known) if known.end.as_ref().is_some_and(|end| !end.ending.is_well()) => {
                known.generation + 1
            }
            _ => return Ok(false),
        };
        if generation > MAX_GENERATIONS {
            return Ok(false);
        }
        self.store.again(job, generation).await?;
        Ok(true)
    }

    /// What its tasks said.
    pub(crate) async fn results(self: &Arc<Self>, job: JobId) -> Result<Results, ResultsError> {
        Results::open(Arc::clone(self), job).await
    }

    /// How a batch ended, if it has; nothing if there is none.
    pub(crate) fn end_of(&self, job: &JobId) -> Option<Option<End>> {
        self.docket().get(job).map(|known| known.end.clone())
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn docket(&self) -> MutexGuard<'_, Docket> {
        self.docket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn desks(&self) -> &Desks {
        &self.desks
    }

    pub(super) fn me(&self) -> PeerId {
        self.service.me
    }

    pub(super) fn now(&self) -> Millis {
        self.service.now()
    }

    pub(super) fn unix_ms(&self) -> u64 {
        crate::runner::unix_ms()
    }

    pub(super) fn may_compute(&self, peer: &PeerId) -> bool {
        self.service.may_compute(peer)
    }

    /// Counts up whenever something happens to any batch.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Has slots and desks looked after at once.
    pub(super) fn wake(&self) {
        self.woken.notify_one();
    }

    /// What a batch is, from the tree or from memory of it.
    pub(super) async fn definition(&self, job: JobId) -> Result<Arc<Definition>, BatchStoreError> {
        let card = self.docket().get(&job).map(|known| (known.card.definition, known.card.tasks));
        let (digest, tasks) = card.ok_or(BatchStoreError::Items(job))?;
        if let Some(known) = self.definitions().get(&job) {
            return Ok(Arc::clone(known));
        }
        let definition = Arc::new(self.store.definition(job, digest).await?);
        if definition.items.count() != tasks {
            return Err(BatchStoreError::Items(job));
        }
        let mut definitions = self.definitions();
        if definitions.len() >= MAX_DEFINITIONS {
            definitions.pop_first();
        }
        definitions.insert(job, Arc::clone(&definition));
        Ok(definition)
    }

    pub(super) fn definitions(&self) -> MutexGuard<'_, BTreeMap<JobId, Arc<Definition>>> {
        self.definitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A task is not tried again: the keeper says so in a receipt of its own.
    pub(super) async fn give_up(&self, job: JobId, generation: u32, task: u64, reason: String) {
        let mut collected = Collected::new(task);
        let identity = self.service.network.identity();
        let receipt = collected
            .push(TaskResult::failed(reason, 0), 0)
            .and_then(|()| collected.close(&job, generation, self.unix_ms(), identity));
        let written = match receipt {
            Ok(receipt) => self.store.receipt(job, &receipt).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = written {
            warn!(%job, task, %error, "cannot write down that a task is given up");
        }
    }
}
