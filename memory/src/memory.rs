//! One node's memory: the handle, and what its parts share.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use starfish_dht::{Network, PeerId};
use tokio::sync::mpsc;

use crate::{
    cell::{Author, Cell, Draft, SpaceError, SpaceName, Stamp},
    clock::{Clock, now_ms},
    codec::{self, Digest},
    due::Due,
    fingerprint::Fingerprints,
    gossip::Outbox,
    horizon::Horizon,
    index::Index,
    keeper::Keeper,
    leftovers::Leftovers,
    slot::Slot,
    space::{Batch, Space},
    stats::{Counters, MemoryStats},
    store::{Store, StoreError},
    sync::{JoinError, MemorySync},
    versions::Policies,
    watch::Watchers,
    writer::{self, EachJob, Job, LocalJob, RemoteJob, Removal, View, Work, WriteError},
};

/// Told of cells as they change, to keep an index of them.
///
/// Called on the writer's thread, in the order of commits, after the cells are on disk and before the write is
/// acknowledged: so whoever has waited for a write finds it in the index. For the same reason it must be quick, and
/// must not wait for a write. It should not keep a [`Memory`], which would then never be closed.
pub trait Observer: Send + Sync {
    /// These cells, local or from a peer, have won and are stored. All are of one commit.
    fn applied(&self, cells: &[Cell]);

    /// Whether a cell that a peer brings is of any use. What all observers know to be superfluous is not stored again.
    fn admits(&self, _cell: &Cell) -> bool {
        true
    }

    /// Whether it is to hear of what loses against this cell, or wins over it. Such cells are read before they are written over.
    fn minds(&self, _cell: &Cell) -> bool {
        false
    }

    /// The first of these cells lost against the second, which is stored in its place. Called as [`Self::applied`] is, after it;
    /// `is_there` says whether a field of their key has a value by now.
    fn lost(&self, _loser: &Cell, _winner: &Cell, _is_there: &dyn Fn(&[u8]) -> bool) {}
}

/// How a memory is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryOptions {
    /// How long deletions are remembered. A node that was away for longer forgets what was deleted meanwhile when it is
    /// back; so it must be longer than any two nodes are apart. Default 30 days.
    pub horizon: Duration,
    /// How long the bytes of a large value stay when it was replaced, for those who read them just now. Default 30 seconds.
    pub linger: Duration,
}

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Once it is on the disk: it outlives a power failure.
    #[default]
    OnDisk,
    /// Once the system has it, and about a second before it is on the disk: it outlives the end of this process, whatever that
    /// is, but not a power failure.
    EverySecond,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self { horizon: Duration::from_secs(30 * 24 * 3600), linger: Duration::from_secs(30) }
    }
}

/// This node's replica of the swarm's memory. Cheap to clone.
///
/// The store is closed when the last clone is dropped, [`MemorySync`], spaces and watches included; that waits for the
/// commit that is under way.
#[derive(Clone, Debug)]
pub struct Memory {
    inner: Arc<Inner>,
    durability: Durability,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    /// Goes first: what is due is looked after by a thread that writes.
    due: Option<Due>,
    /// Taken on drop: the writer ends when nobody can send.
    jobs: Option<mpsc::Sender<Work>>,
    writer: Option<JoinHandle<()>>,
}

/// What the handle, the writer and replication share.
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) author: Author,
    pub(crate) index: Index,
    pub(crate) counters: Counters,
    pub(crate) watchers: Watchers,
    pub(crate) outbox: Outbox,
    pub(crate) horizon: Horizon,
    pub(crate) slot: Slot,
    pub(crate) keeper: Keeper,
    pub(crate) policies: Policies,
    pub(crate) leftovers: Leftovers,
    /// There while not all is here that was here before; see [`Memory::is_whole`].
    incomplete: Incomplete,
    observers: RwLock<Vec<Arc<dyn Observer>>>,
}

impl Memory {
    /// The file in its folder that tells when others were met last.
    pub const MET: &str = "agreed";

    /// Opens the memory in `dir`, which is made if it is not there, for the node `author`.
    pub fn open(dir: &Path, author: &PeerId) -> Result<Self, StoreError> {
        Self::open_with(dir, author, MemoryOptions::default())
    }

    /// The same, in this way.
    pub fn open_with(dir: &Path, author: &PeerId, options: MemoryOptions) -> Result<Self, StoreError> {
        let (store, index) = Store::open(dir)?;
        let shared = Arc::new(Shared {
            store,
            clock: Clock::resume(index.newest()),
            author: Author::of(author),
            index,
            counters: Counters::default(),
            watchers: Watchers::default(),
            outbox: Outbox::default(),
            horizon: Horizon::open(dir, options.horizon),
            slot: Slot::open(dir).map_err(|source| StoreError::Io { path: dir.into(), source })?,
            keeper: Keeper::default(),
            policies: Policies::default(),
            leftovers: Leftovers::lingering(options.linger),
            incomplete: Incomplete::at(dir),
            observers: RwLock::default(),
        });
        let n = shared.store.commits.lost();
        if n > 0 {
            tracing::error!(
                n,
                "commits that were on the disk are gone: what other members have of them comes back"
            );
            shared.is_missing_some();
        }
        let (jobs, waiting) = mpsc::channel(writer::MAX_WAITING);
        let writer = std::thread::Builder::new().name("memory-writer".into());
        let writer = writer.spawn({
            let shared = shared.clone();
            move || writer::run(&shared, waiting)
        });
        let writer = Some(writer.map_err(StoreError::Thread)?);
        let due = Some(Due::start(shared.clone(), jobs.clone()).map_err(StoreError::Thread)?);
        let inner = Arc::new(Inner { shared, due, jobs: Some(jobs), writer });
        let memory = Self { inner, durability: Durability::default() };
        memory.load_settings().map_err(|source| StoreError::Damaged { path: dir.into(), source })?;
        Ok(memory)
    }

    /// The same memory, in which what is written through this handle, and through spaces it gives, is acknowledged then.
    pub fn with_durability(&self, durability: Durability) -> Self {
        Self { inner: Arc::clone(&self.inner), durability }
    }

    /// Notes that what was in `dir` is lost and must come back from other nodes. To be called before the memory is opened
    /// there anew.
    pub fn mark_incomplete(dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)?;
        std::fs::write(Incomplete::file(dir), b"")
    }

    /// Whether all is here that was here before. It is not, after damage, until notes were compared with another node:
    /// nobody must conclude meanwhile that what is not here is nowhere.
    pub fn is_whole(&self) -> bool {
        !self.shared().is_incomplete()
    }

    /// Replicates over `network` until what it returns is stopped or dropped.
    pub async fn join(&self, network: Network) -> Result<MemorySync, JoinError> {
        MemorySync::start(self.clone(), network).await
    }

    /// The space with this name. Spaces need not be made: they are there once a key is in them.
    pub fn space(&self, name: &str) -> Result<Space, SpaceError> {
        Ok(Space::new(self.clone(), SpaceName::new(name)?))
    }

    /// Writes all of `batch` or none. It arrives whole elsewhere, too: whoever reads sees all of it or nothing.
    pub async fn commit(&self, batch: Batch) -> Result<Stamp, WriteError> {
        let drafts = batch.into_drafts(self).await?;
        let (stamp, ()) = self.update(move |_| Ok((drafts, ()))).await?;
        Ok(stamp)
    }

    /// Calls `observer` for every commit from now on.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        self.inner.shared.observers.write().unwrap_or_else(PoisonError::into_inner).push(observer);
    }

    /// A hash over all cells, in hexadecimal: equal on replicas that hold the same.
    pub fn digest(&self) -> String {
        self.fingerprints().root().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What it holds and has done.
    pub fn stats(&self) -> MemoryStats {
        let shared = self.shared();
        let (cells, tombstones) = shared.index.counts();
        shared.counters.snapshot(cells, tombstones, shared.store.damage.lost())
    }

    /// Who this node writes as.
    pub fn author(&self) -> Author {
        self.shared().author
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    pub(crate) fn fingerprints(&self) -> Fingerprints {
        self.shared().index.fingerprints()
    }

    /// Commits what `update` decides to write; returns the stamp that it got and what `update` answered.
    pub(crate) async fn update<F, T>(&self, update: F) -> Result<(Stamp, T), WriteError>
    where
        F: FnOnce(&View<'_>) -> Result<(Vec<Draft>, T), WriteError> + Send + 'static,
        T: Send + 'static,
    {
        let (job, answer) = LocalJob::new(update, self.durability);
        self.submit(Box::new(job)).await?;
        answer.await.map_err(|_| WriteError::Stopped)?
    }

    /// Returns when all that is here outlives a failure of the machine. What came from other nodes does so half a second later
    /// by itself.
    pub async fn flush(&self) -> Result<(), WriteError> {
        let (job, answer) = EachJob::new(Vec::new(), Durability::OnDisk);
        self.submit(Box::new(job)).await?;
        answer.await.map_err(|_| WriteError::Stopped)?
    }

    /// Commits drafts that have nothing to do with each other, in their order.
    pub(crate) async fn write_each(&self, drafts: Vec<Draft>) -> Result<(), WriteError> {
        let (job, answer) = EachJob::new(drafts, self.durability);
        self.submit(Box::new(job)).await?;
        answer.await.map_err(|_| WriteError::Stopped)?
    }

    /// Commits those of `cells`, from a peer, that win.
    pub(crate) async fn merge(&self, cells: Vec<Cell>) -> Result<(), WriteError> {
        let (job, answer) = RemoteJob::new(cells);
        self.submit(Box::new(job)).await?;
        answer.await.map_err(|_| WriteError::Stopped)?
    }

    /// The same, for threads that may wait.
    pub(crate) fn merge_blocking(&self, cells: Vec<Cell>) -> Result<(), WriteError> {
        let (job, answer) = RemoteJob::new(cells);
        self.ask(Work::Job(Box::new(job)))?;
        answer.blocking_recv().map_err(|_| WriteError::Stopped)?
    }

    /// The same as [`Self::update`], for threads that may wait.
    pub(crate) fn update_blocking<F, T>(&self, update: F) -> Result<(Stamp, T), WriteError>
    where
        F: FnOnce(&View<'_>) -> Result<(Vec<Draft>, T), WriteError> + Send + 'static,
        T: Send + 'static,
    {
        let (job, answer) = LocalJob::new(update, self.durability);
        self.ask(Work::Job(Box::new(job)))?;
        answer.blocking_recv().map_err(|_| WriteError::Stopped)?
    }

    /// Takes cells out that something else has made superfluous, if they are still what they were. They leave no trace.
    pub(crate) fn purge_blocking(&self, cells: Vec<(Vec<u8>, Digest)>) -> Result<(), WriteError> {
        self.ask(Work::Purge(cells, Removal::Superseded))
    }

    fn ask(&self, work: Work) -> Result<(), WriteError> {
        let jobs = self.inner.jobs.as_ref().ok_or(WriteError::Stopped)?;
        jobs.blocking_send(work).map_err(|_| WriteError::Stopped)
    }

    async fn submit(&self, job: Box<dyn Job>) -> Result<(), WriteError> {
        let jobs = self.inner.jobs.as_ref().ok_or(WriteError::Stopped)?;
        jobs.send(Work::Job(job)).await.map_err(|_| WriteError::Stopped)
    }
}

/// The file that says that something is missing.
#[derive(Debug)]
struct Incomplete {
    file: PathBuf,
    is_there: AtomicBool,
}

impl Incomplete {
    fn at(dir: &Path) -> Self {
        let file = Self::file(dir);
        Self { is_there: AtomicBool::new(file.exists()), file }
    }

    fn file(dir: &Path) -> PathBuf {
        dir.join("incomplete")
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.due = None;
        self.jobs = None;
        // An observer may hold the last handle; the writer cannot wait for itself.
        if let Some(writer) =
            self.writer.take().filter(|writer| writer.thread().id() != std::thread::current().id())
            && writer.join().is_err()
        {
            tracing::error!("the thread that writes the memory panicked");
            return;
        }
        if let Err(error) = self.shared.slot.close() {
            tracing::debug!(%error, "counters go on in new fields the next time");
        }
    }
}

impl Shared {
    /// Cells are lost that were here before. What this replica counted may be among them, so it counts in a new field.
    pub(crate) fn is_missing_some(&self) {
        let Incomplete { file, is_there } = &self.incomplete;
        is_there.store(true, Ordering::Release);
        let noted = std::fs::write(file, b"").and_then(|()| self.slot.renew());
        if let Err(error) = noted {
            tracing::warn!(%error, "that cells are missing cannot be noted");
        }
        self.outbox.hurry();
    }

    /// Whether something is missing that was here before.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.incomplete.is_there.load(Ordering::Acquire) || self.store.damage.is_known()
    }

    /// Notes were compared with another node, from then on.
    pub(crate) fn has_compared(&self, began: Instant) {
        self.store.damage.has_compared(began);
        if self.store.damage.is_known() {
            return;
        }
        let Incomplete { file, is_there } = &self.incomplete;
        if is_there.load(Ordering::Acquire) && std::fs::remove_file(file).is_ok() {
            is_there.store(false, Ordering::Release);
            tracing::info!(
                "another member was asked for what was lost with the damaged memory: what it knows is here"
            );
        }
    }

    /// Whether a cell that a peer brings is of any use.
    pub(crate) fn admits(&self, cell: &Cell) -> bool {
        self.observers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .all(|observer| observer.admits(cell))
    }

    /// Whether somebody is to hear of what loses against this cell.
    pub(crate) fn minds(&self, cell: &Cell) -> bool {
        self.observers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .any(|observer| observer.minds(cell))
    }

    /// Tells them of it.
    pub(crate) fn lost(&self, loser: &Cell, winner: &Cell) {
        let is_there = |field: &[u8]| {
            let address = codec::address(&loser.space, &loser.key, field);
            let cell = self.store.cell(&address).ok().flatten();
            cell.is_some_and(|cell| cell.is_live(now_ms()))
        };
        for observer in self.observers.read().unwrap_or_else(PoisonError::into_inner).iter() {
            if observer.minds(loser) {
                observer.lost(loser, winner, &is_there);
            }
        }
    }

    /// Tells everybody in this node who wants to know, and for local cells the swarm.
    pub(crate) fn announce(&self, cells: &[Cell], local: bool) {
        for observer in self.observers.read().unwrap_or_else(PoisonError::into_inner).iter() {
            observer.applied(cells);
        }
        cells.iter().for_each(|cell| self.policies.note(cell));
        cells.iter().for_each(|cell| self.watchers.note(&cell.space, &cell.key, &cell.field));
        if local {
            // What has one stamp was written together, and is told so.
            let skipped =
                cells.chunk_by(|a, b| a.stamp == b.stamp).map(|cells| self.outbox.offer(cells)).sum();
            self.counters.gossip_skipped.add(skipped);
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("author", &self.author).finish_non_exhaustive()
    }
}
