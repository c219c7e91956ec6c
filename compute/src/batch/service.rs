//! Joins docket, desks and runners to memory, the network and the workers of this node.
//!
//! Who owns what: one [`Batches`] per node, beside the [`Service`] for tasks with streams, whose board counts the slots
//! for both. The docket is told of every cell of the batches' space in the order in which memory applies them; what
//! follows from it is done by one loop, and by a task for each slot at work.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use starfish_dht::PeerId;
use starfish_fs::vfs::Vfs;
use starfish_memory::{Cell, Memory, Observer};
use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};

use super::definition::{BatchSpec, Definition, End, Ending, MAX_GENERATIONS};
use super::desk::{Desk, SETTLE_FOR};
use super::docket::{Docket, Known, MAX_BATCHES, Standing};
use super::keeper::{Desks, KeptBatch};
use super::receipt::{Collected, TaskResult};
use super::report::BATCH_REPORT_PROTOCOL;
use super::results::{Results, ResultsError};
use super::runner::Hand;
use super::slice::SLICE_PROTOCOL;
use super::store::{BatchStoreError, News, SPACE, Store, news_of};
use super::submit::{self, BatchError};
use crate::board::Millis;
use crate::compute::{StartError, new_id};
use crate::links::LinkError;
use crate::service::Service;
use crate::task::{Digest, JobId};

/// How often desks and slots are looked after when nothing happens.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Cells that wait to be read. Beyond this all are read anew.
const MAX_WAITING: usize = 100_000;
/// Definitions that are kept at hand.
const MAX_DEFINITIONS: usize = 64;
/// When all tasks have ended, but receipts are missing for so long, those tasks are run again.
const MISSING_AFTER: Millis = 3000;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Batches {
    pub(super) service: Arc<Service>,
    store: Store,
    docket: Mutex<Docket>,
    desks: Desks,
    definitions: Mutex<BTreeMap<JobId, Arc<Definition>>>,
    cells: Arc<Arrived>,
    changed: watch::Sender<u64>,
    woken: Notify,
}

/// Cells that memory has applied, on their way to the docket.
#[derive(Debug, Default)]
struct Arrived {
    cells: Mutex<Vec<Cell>>,
    too_many: AtomicBool,
    notify: Notify,
}

impl Observer for Arrived {
    fn applied(&self, cells: &[Cell]) {
        let ours = cells.iter().filter(|cell| &*cell.space == SPACE);
        let mut waiting = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let before = waiting.len();
        waiting.extend(ours.cloned());
        if waiting.len() > MAX_WAITING {
            waiting.clear();
            self.too_many.store(true, Ordering::Release);
        }
        if waiting.len() != before {
            self.notify.notify_one();
        }
    }
}

impl Arrived {
    fn take(&self) -> (Vec<Cell>, bool) {
        let cells = std::mem::take(&mut *self.cells.lock().unwrap_or_else(PoisonError::into_inner));
        (cells, self.too_many.swap(false, Ordering::AcqRel))
    }
}

impl Batches {
    /// Takes part in the batches that there are, as soon as they have been read.
    pub(crate) fn start(
        service: &Arc<Service>,
        memory: &Memory,
        files: Arc<dyn Vfs>,
    ) -> Result<Arc<Self>, StartError> {
        let space = memory.space(SPACE).map_err(|error| StartError::Memory(error.into()))?;
        let cells = Arc::<Arrived>::default();
        memory.observe(Arc::clone(&cells) as Arc<dyn Observer>);
        let me = service.me;
        let memory_bytes = service.board().capacity().memory_bytes;
        let this = Arc::new(Self {
            service: Arc::clone(service),
            store: Store::new(memory.clone(), space, files),
            docket: Mutex::new(Docket::new(me, memory_bytes)),
            desks: Desks::default(),
            definitions: Mutex::default(),
            cells,
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
        service.spawn(Arc::clone(&this).take_part());
        Ok(this)
    }

    /// Reads what there is, which may be much, and only then decides anything: a keeper that has not seen all receipts
    /// would have tasks run twice.
    async fn take_part(self: Arc<Self>) {
        while let Err(error) = self.load(None).await {
            warn!(%error, "cannot read what memory has of jobs");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.service.spawn(Arc::clone(&self).hear());
        self.changed.send_modify(|count| *count += 1);
        self.look_after().await;
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
        if self.docket().iter().count() >= MAX_BATCHES {
            return Err(BatchError::Full);
        }
        let job = new_id(self.me(), &prepared.digest.0);
        if let Err(error) = prepared.keep(job, &self.store, programs).await {
            self.discard(job).await;
            return Err(error);
        }
        // Nobody can be at work on it yet, so its desk need not wait for receipts.
        let card = prepared.card;
        self.desks.lock().insert(job, KeptBatch::new(0, Desk::new(card.tasks, Default::default(), 0)));
        if let Err(error) = self.store.post(job, &card).await {
            self.desks.lock().remove(&job);
            self.discard(job).await;
            return Err(error.into());
        }
        // Whoever submits it asks for it next.
        self.apply(job, News::Card(card));
        self.wake();
        Ok((job, false))
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

    fn definitions(&self) -> MutexGuard<'_, BTreeMap<JobId, Arc<Definition>>> {
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

    /// Reads what memory has of one batch, or of all.
    async fn load(&self, job: Option<JobId>) -> Result<(), BatchStoreError> {
        let mut news = self.read(self.store.cells(job).await?).await;
        // What a batch is comes before what has become of it.
        news.sort_by_key(|(_, news)| !matches!(news, News::Card(_)));
        for (job, news) in news {
            self.apply(job, news);
        }
        Ok(())
    }

    /// What cells tell. Signatures are checked, which takes a while for many.
    async fn read(&self, cells: Vec<Cell>) -> Vec<(JobId, News)> {
        let unix_ms = self.unix_ms();
        let read = move || cells.iter().filter_map(|cell| news_of(cell, unix_ms)).collect();
        tokio::task::spawn_blocking(read).await.unwrap_or_default()
    }

    async fn hear(self: Arc<Self>) {
        loop {
            self.cells.notify.notified().await;
            let (cells, too_many) = self.cells.take();
            let mut unknown = BTreeSet::new();
            for (job, news) in self.read(cells).await {
                let is_new = matches!(news, News::Card(_)) && self.docket().get(&job).is_none();
                if is_new {
                    unknown.insert(job);
                }
                self.apply(job, news);
            }
            // What came before its card could not be understood.
            let again: Vec<_> = if too_many { vec![None] } else { unknown.into_iter().map(Some).collect() };
            for job in again {
                if let Err(error) = self.load(job).await {
                    warn!(%error, "cannot read what memory has of jobs");
                }
            }
            self.changed.send_modify(|count| *count += 1);
            self.wake();
        }
    }

    fn apply(&self, job: JobId, news: News) {
        let mut docket = self.docket();
        match news {
            News::Card(card) => return docket.insert(job, card),
            News::Gone => {
                docket.remove(&job);
                self.desks.lock().remove(&job);
                self.definitions().remove(&job);
                return;
            }
            _ => {}
        }
        let Some(known) = docket.news(&job) else { return };
        match news {
            News::Stopped => known.is_stopped = true,
            News::Again(generation) if generation > known.generation && generation <= MAX_GENERATIONS => {
                (known.generation, known.is_stopped) = (generation, false);
                known.end.take_if(|end| end.generation < generation);
            }
            News::End(end) if end.generation >= known.generation => {
                info!(%job, ending = ?end.ending, "a job has ended");
                known.end = Some(end);
            }
            News::Receipt(receipt, results) => {
                known.add(&receipt, &results);
                if let Some(kept) = self.desks.lock().get_mut(&job)
                    && kept.generation == receipt.generation
                {
                    kept.desk.ended(&receipt.range, receipt.elapsed_us);
                }
            }
            News::Again(_) | News::End(_) | News::Card(_) | News::Gone => {}
        }
    }

    async fn look_after(self: Arc<Self>) {
        loop {
            self.see_who_is_there();
            self.look_after_desks();
            self.forget_old().await;
            self.fill_slots();
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.woken.notified() => {}
                () = self.service.slots_freed.notified() => {}
            }
        }
    }

    fn see_who_is_there(&self) {
        let peers: BTreeSet<_> =
            self.service.board().peers().filter(|peer| self.service.may_compute(peer)).collect();
        let mut docket = self.docket();
        let known: Vec<_> = docket.living().iter().copied().filter(|peer| *peer != self.me()).collect();
        for peer in known.iter().filter(|peer| !peers.contains(peer)) {
            docket.lost(peer);
            self.desks.lock().values_mut().for_each(|kept| kept.desk.gone(*peer));
        }
        peers.into_iter().for_each(|peer| docket.met(peer));
    }

    fn look_after_desks(self: &Arc<Self>) {
        let (mine, now, unix_ms) = (self.docket().mine(), self.now(), self.unix_ms());
        self.desks.lock().retain(|job, kept| mine.contains(job) || kept.is_ending || !self.is_known(job));
        for job in mine {
            let standing = self.docket().standing(&job, unix_ms);
            match standing {
                Standing::Ends(ending) => self.end(job, ending),
                Standing::Open => self.keep(job, now),
                Standing::Waits(_) | Standing::Ended => {}
            }
        }
    }

    fn is_known(&self, job: &JobId) -> bool {
        self.docket().get(job).is_some()
    }

    /// Looks after the desk of a batch that this node keeps.
    fn keep(self: &Arc<Self>, job: JobId, now: Millis) {
        let docket = self.docket();
        let Some(known) = docket.get(&job) else { return };
        let (generation, tasks) = (known.generation, known.card.tasks);
        let done = || known.coverage.done(generation);
        let mut desks = self.desks.lock();
        let kept = desks.entry(job).or_insert_with(|| {
            debug!(%job, "this node keeps a job now");
            KeptBatch::new(generation, Desk::new(tasks, done(), now + SETTLE_FOR))
        });
        if kept.generation != generation {
            *kept = KeptBatch::new(generation, Desk::new(tasks, done(), now));
        }
        kept.desk.tick(now);
        if !kept.desk.is_complete() {
            kept.complete_since = None;
            return;
        }
        let progress = known.progress();
        if progress.done == progress.tasks {
            drop(desks);
            drop(docket);
            return self.end(job, Ending::Complete { failed: progress.failed });
        }
        if *kept.complete_since.get_or_insert(now) + MISSING_AFTER <= now {
            warn!(%job, missing = progress.tasks - progress.done, "receipts are missing: their tasks are run again");
            *kept = KeptBatch::new(generation, Desk::new(tasks, done(), now));
        }
    }

    /// Writes down how a batch ended.
    fn end(self: &Arc<Self>, job: JobId, ending: Ending) {
        let Some(generation) = self.docket().get(&job).map(|known| known.generation) else { return };
        {
            let mut desks = self.desks.lock();
            let kept = desks
                .entry(job)
                .or_insert_with(|| KeptBatch::new(generation, Desk::new(0, Default::default(), 0)));
            if std::mem::replace(&mut kept.is_ending, true) {
                return;
            }
        }
        let end = End { generation, ending, at_ms: self.unix_ms(), by: self.me() };
        let this = Arc::clone(self);
        self.service.spawn(async move {
            if let Err(error) = this.store.end(job, &end).await {
                warn!(%job, %error, "cannot write down that a job has ended");
            }
            // Its end is known by now; if it could not be written, this is tried again.
            this.desks.lock().remove(&job);
        });
    }

    /// Frees what belongs to batches that ended long ago. Nothing waits for them.
    async fn forget_old(&self) {
        let unix_ms = self.unix_ms();
        let old: Vec<_> = {
            let docket = self.docket();
            let is_old = |known: &Known| {
                known.end.as_ref().is_some_and(|end| end.at_ms.saturating_add(known.card.keep_ms) <= unix_ms)
            };
            let is_awaited = |job: &JobId| {
                docket.iter().any(|(_, other)| other.end.is_none() && other.card.after.contains(job))
            };
            let old =
                docket.iter().filter(|(job, known)| is_old(known) && docket.keeper(job) == Some(self.me()));
            old.filter(|(job, _)| !is_awaited(job)).map(|(job, _)| *job).collect()
        };
        for job in old {
            info!(%job, "the results of a job are no longer kept");
            if let Err(error) = self.store.forget(job).await {
                warn!(%job, %error, "cannot free what belongs to a job");
            }
        }
    }

    /// Sets every free slot to work.
    fn fill_slots(self: &Arc<Self>) {
        loop {
            let Some((job, keeper)) = self.docket().choose(self.now(), self.unix_ms()) else { return };
            if self.service.has_waiting_calls() || !self.service.board().lend() {
                return;
            }
            let this = Arc::clone(self);
            self.service.spawn(async move {
                let slot = Slot(Arc::clone(&this));
                let found_work = Hand::new(Arc::clone(&this), job).work(keeper).await;
                if found_work {
                    this.docket().found_work(&job);
                } else {
                    this.docket().pause(this.now(), &job);
                }
                drop(slot);
            });
        }
    }

    /// Whether a slot that is at work on `job` is to go on with it, as far as others are concerned.
    pub(super) fn should_go_on(&self, job: &JobId) -> bool {
        let is_first =
            self.docket().choose(self.now(), self.unix_ms()).is_none_or(|(first, _)| first == *job);
        is_first && !self.service.has_waiting_calls() && !self.service.board().has_waiting(self.now())
    }
}

/// A slot of this node, until it is dropped.
struct Slot(Arc<Batches>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.service.happen(|board, now| board.give_back(now));
        self.0.wake();
    }
}
