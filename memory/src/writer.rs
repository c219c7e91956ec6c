//! The one thread that writes: group commit.
//!
//! Whatever waits when the thread is free goes into one batch and one `fsync`: a lone write pays for it alone, a
//! thousand at once share it. Each job first says what it wants to write, seeing what the jobs before it in the same
//! group will have written; so reading and changing a cell (`incr`) needs no lock. When the batch is on disk,
//! observers, watchers and gossip hear of it in the order of the jobs, and then the jobs are answered.

mod company;
mod job;

use std::{
    collections::{BTreeMap, HashSet, btree_map::Entry},
    sync::Arc,
    time::Instant,
};

use tokio::sync::mpsc::{self, error::TryRecvError};

use crate::{
    blobs::BlobError,
    cell::{Cell, MAX_FIELD, MAX_KEY, SpaceName, Stamp},
    clock::now_ms,
    codec::{self, Digest, Encoded, MalformedCell},
    counter::{IncrementError, KeyState},
    engine::EngineError,
    memory::{Durability, Shared},
    store::{Before, Change, IndexEntry, ReadError, Taken},
    value::{BlobName, MAX_LARGE},
};

use company::Company;
pub(crate) use job::{EachJob, Job, LocalJob, RemoteJob};

/// Jobs that wait for the writer. Beyond this, those who write wait for room.
pub(crate) const MAX_WAITING: usize = 4096;

/// A group takes no further job once it has this many cells: it bounds the memory of a group and the wait of its
/// first job, and is past the point where a larger batch is any faster.
const MAX_GROUP_CELLS: usize = 4096;

/// The same in bytes, for large values.
const MAX_GROUP_BYTES: usize = 8 * 1024 * 1024;

/// Why a write did not happen.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A name is empty.
    #[error("a {what} must not be empty")]
    Empty {
        /// What it is the name of.
        what: &'static str,
    },
    /// The key is too long.
    #[error("the key has {len} bytes, {MAX_KEY} are allowed")]
    KeyTooLong {
        /// Its length.
        len: usize,
    },
    /// The field is too long.
    #[error("the field has {len} bytes, {MAX_FIELD} are allowed")]
    FieldTooLong {
        /// Its length.
        len: usize,
    },
    /// The member is too long.
    #[error("the member has {len} bytes, {max} are allowed", max = crate::space::MAX_MEMBER)]
    MemberTooLong {
        /// Its length.
        len: usize,
    },
    /// The value is too long.
    #[error("the value has {len} bytes, {max} are allowed", max = MAX_LARGE)]
    ValueTooLong {
        /// Its length, or as much of it as came before it was refused.
        len: u64,
    },
    /// The bytes of a large value cannot be kept.
    #[error("the value cannot be kept")]
    Blob(#[from] BlobError),
    /// The bytes of a large value were put away too long ago to be written now.
    #[error("the value's bytes were put away too long ago: send them again")]
    Late,
    /// Others changed the value again and again, while what depends on it was made.
    #[error("the value keeps changing, try again")]
    Contended,
    /// Fields that begin with a zero byte are kept for counters and the like.
    #[error("a field must not begin with a zero byte")]
    ReservedField,
    /// The batch is too large to be one commit.
    #[error("the batch has {cells} cells and {bytes} bytes, {max_cells} and {max_bytes} are allowed",
        max_cells = crate::space::MAX_BATCH_CELLS, max_bytes = crate::space::MAX_BATCH_BYTES)]
    BatchTooLarge {
        /// Its cells.
        cells: usize,
        /// Their keys, fields and values together.
        bytes: usize,
    },
    /// The key cannot be counted.
    #[error("the key cannot be incremented")]
    Increment(#[from] IncrementError),
    /// What the write depends on cannot be read.
    #[error("the write needs a cell that cannot be read")]
    Read(#[from] ReadError),
    /// A cell cannot be encoded.
    #[error("a cell cannot be encoded")]
    Encode(#[from] MalformedCell),
    /// The disk failed or is full. Whether the write will be found later is unknown, unless there was no room for it.
    #[error("the write did not reach the disk")]
    Commit(#[source] Arc<EngineError>),
    /// The writer is gone.
    #[error("the memory has stopped")]
    Stopped,
}

impl WriteError {
    /// Whether it is room on this node's disk that is missing.
    pub fn is_no_room(&self) -> bool {
        match self {
            Self::Commit(error) => error.is_no_room(),
            Self::Blob(error) => matches!(error, BlobError::NoSpace(_)),
            _ => false,
        }
    }
}

/// What the writer is asked to do.
pub(crate) enum Work {
    /// To commit.
    Job(Box<dyn Job>),
    /// To take cells out, if they are still what they were: their addresses and digests.
    Purge(Vec<(Vec<u8>, Digest)>, Removal),
    /// To save what is sound of a damaged store.
    Salvage,
    /// To bring to the disk what was acknowledged before it was there.
    Sync,
}

/// Why cells are taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// They have been dead for long.
    Dead,
    /// Another cell holds what they held.
    Superseded,
}

/// Commits jobs until nobody can send any more.
pub(crate) fn run(shared: &Shared, mut work: mpsc::Receiver<Work>) {
    let (mut doubtful, mut company) = (Vec::new(), Company::default());
    while let Some(first) = work.blocking_recv() {
        mend(shared, &mut doubtful);
        let mut group = Group {
            shared,
            slots: BTreeMap::new(),
            jobs: Vec::with_capacity(1 + work.len()),
            loaded: Vec::new(),
            leftovers: Vec::new(),
            losers: Vec::new(),
            durability: Durability::EverySecond,
            cells: 0,
            bytes: 0,
        };
        let mut next = Some(first);
        while let Some(Work::Job(job)) = next {
            group.add(job);
            next = if group.has_room() { group.next(&mut work, &company) } else { None };
        }
        let (jobs, is_synced, began) = (group.jobs.len(), group.is_synced(), Instant::now());
        let unknown = group.commit();
        if is_synced {
            company.note(jobs, work.len(), began.elapsed(), Instant::now());
        }
        // Nothing has been written since the first failure.
        if doubtful.is_empty() {
            doubtful = unknown;
        }
        match next {
            Some(Work::Purge(cells, removal)) => take_out(shared, cells, removal),
            Some(Work::Salvage) => salvage(shared),
            Some(Work::Sync) => sync(shared),
            Some(Work::Job(_)) | None => {}
        }
    }
    sync(shared);
    if let Err(error) = shared.store.engine.settle() {
        tracing::debug!(%error, "the next start will read some of the journal again");
    }
}

fn sync(shared: &Shared) {
    if let Err(error) = shared.store.sync() {
        tracing::error!(%error, "what was acknowledged within the last second did not reach the disk");
    }
}

fn take_out(shared: &Shared, cells: Vec<(Vec<u8>, Digest)>, removal: Removal) {
    let entry_of = |(address, digest): (Vec<u8>, Digest)| {
        let cell = shared.store.cell(&address).ok()??;
        // Somebody may have counted on top of it since it was found to be dead.
        if removal == Removal::Dead && shared.store.is_counted_upon(&address).unwrap_or(true) {
            return None;
        }
        let entry = IndexEntry::of(&cell, &codec::encode(&cell).ok()?);
        (entry.digest == digest).then(|| Taken { address, entry, stamp: cell.stamp, blob: cell.blob() })
    };
    let cells: Vec<Taken> = cells.into_iter().filter_map(entry_of).collect();
    if cells.is_empty() {
        return;
    }
    if let Err(error) = shared.store.purge(&cells) {
        tracing::warn!(%error, "what nobody needs any more stays");
        return;
    }
    shared.index.forget(cells.iter().map(|taken| codec::split_digest(&taken.entry.digest).0));
    shared.leftovers.offer(cells.iter().filter_map(|taken| taken.blob), false);
    if removal == Removal::Dead {
        shared.counters.reaped.add(cells.len() as u64);
    }
}

fn salvage(shared: &Shared) {
    if !shared.store.damage.is_found() {
        return;
    }
    match shared.store.salvage(&shared.index) {
        Ok(0) => tracing::info!("all that the damaged store held was saved"),
        Ok(n) => {
            tracing::error!(n, "cells were damaged, and are fetched from other members");
            shared.counters.damaged.add(n);
            shared.is_missing_some();
        }
        Err(error) => tracing::error!(%error, "what is sound of the damaged store cannot be saved yet"),
    }
}

/// After a failed commit the store is opened anew as soon as it can be. What of the failed commits has reached the disk
/// all the same counts from then on.
fn mend(shared: &Shared, doubtful: &mut Vec<Cell>) {
    match shared.store.mend() {
        Ok(false) => return,
        Ok(true) => {}
        Err(error) => {
            tracing::debug!(%error, "the store cannot be mended yet");
            return;
        }
    }
    match shared.store.survey() {
        Ok(index) => shared.index.become_like(index),
        Err(error) => tracing::error!(%error, "the store cannot be summed up"),
    }
    let is_there = |cell: &Cell| {
        let address = codec::address(&cell.space, &cell.key, &cell.field);
        shared.store.cell(&address).is_ok_and(|stored| stored.as_ref() == Some(cell))
    };
    let arrived: Vec<Cell> = doubtful.drain(..).filter(is_there).collect();
    if !arrived.is_empty() {
        // Whose they are is not known any more; comparing notes brings them to the others.
        shared.announce(&arrived, false);
    }
}

/// What is known, within a group, about one address.
struct Slot {
    /// What the disk has.
    stored: Before,
    current: Current,
    /// Set once the group changes it.
    next: Option<(Encoded, IndexEntry)>,
}

/// What the disk has, or will have after this group.
enum Current {
    /// Something that was written before this time, and was not read.
    Before(u64),
    /// This.
    Read(Option<Cell>),
}

impl Slot {
    /// The cell, unless it is still to be read.
    fn cell(&self) -> Option<&Cell> {
        match &self.current {
            Current::Read(cell) => cell.as_ref(),
            Current::Before(_) => None,
        }
    }
}

/// In the order in which they are to be written, so that the engine finds their places side by side. They are large, so they do not lie
/// in the tree.
type Slots = BTreeMap<Vec<u8>, Box<Slot>>;

/// The memory as a job sees it: the disk, and over it what earlier jobs of the group will write.
pub(crate) struct View<'a> {
    shared: &'a Shared,
    slots: &'a Slots,
}

impl View<'_> {
    /// All cells of a key.
    pub(crate) fn cells(&self, space: &SpaceName, key: &[u8]) -> Result<Vec<Cell>, ReadError> {
        self.cells_from(space, key, &[])
    }

    /// Whether earlier jobs of the group write a cell of a key whose field is such.
    pub(crate) fn is_pending(&self, space: &SpaceName, key: &[u8], is_such: impl Fn(&[u8]) -> bool) -> bool {
        let prefix = codec::key_prefix(space, key);
        let pending =
            self.slots.range(prefix.clone()..).take_while(|(address, _)| address.starts_with(&prefix));
        let mut written = pending.filter(|(_, slot)| slot.next.is_some());
        written.any(|(_, slot)| slot.cell().is_some_and(|cell| is_such(&cell.field)))
    }

    /// One cell.
    pub(crate) fn cell(
        &self,
        space: &SpaceName,
        key: &[u8],
        field: &[u8],
    ) -> Result<Option<Cell>, ReadError> {
        let address = codec::address(space, key, field);
        match self.slots.get(&address).map(Box::as_ref) {
            Some(Slot { current: Current::Read(cell), .. }) => Ok(cell.clone()),
            Some(_) | None => self.shared.store.cell(&address),
        }
    }

    pub(crate) fn shared(&self) -> &Shared {
        self.shared
    }

    /// The cells of a key whose fields begin so.
    pub(crate) fn cells_from(
        &self,
        space: &SpaceName,
        key: &[u8],
        field: &[u8],
    ) -> Result<Vec<Cell>, ReadError> {
        let prefix = codec::address(space, key, field);
        let mut cells = BTreeMap::new();
        for cell in self.shared.store.scan(&prefix, &prefix) {
            let cell = cell?;
            cells.insert(cell.field.clone(), cell);
        }
        let pending =
            self.slots.range(prefix.clone()..).take_while(|(address, _)| address.starts_with(&prefix));
        for cell in pending.filter_map(|(_, slot)| slot.cell()) {
            cells.insert(cell.field.clone(), cell.clone());
        }
        Ok(cells.into_values().collect())
    }

    /// The cells that decide what a key is worth.
    pub(crate) fn key_state(&self, space: &SpaceName, key: &[u8]) -> Result<KeyState, ReadError> {
        let prefix = codec::key_prefix(space, key);
        let mut state = self.shared.store.key_state(space, key)?;
        let pending =
            self.slots.range(prefix.clone()..).take_while(|(address, _)| address.starts_with(&prefix));
        for cell in pending.filter_map(|(_, slot)| slot.cell()) {
            state.take(cell.clone());
        }
        Ok(state)
    }
}

/// Jobs that share a batch.
struct Group<'a> {
    shared: &'a Shared,
    slots: Slots,
    /// The jobs, each with those of its cells that won.
    jobs: Vec<(Box<dyn Job>, Vec<Cell>)>,
    /// The cells of the job that is being added.
    loaded: Vec<Loaded>,
    /// Where bytes lie of which no version will speak any more, and whether this node wrote what took their place.
    leftovers: Vec<(BlobName, bool)>,
    /// Cells that lost, each with the one that it lost against, as far as somebody minds.
    losers: Vec<(Cell, Cell)>,
    /// The strictest that a job asks for.
    durability: Durability,
    cells: usize,
    bytes: usize,
}

impl Group<'_> {
    fn has_room(&self) -> bool {
        self.cells < MAX_GROUP_CELLS && self.bytes < MAX_GROUP_BYTES
    }

    /// Whether it is on the disk before it is answered.
    fn is_synced(&self) -> bool {
        self.durability == Durability::OnDisk
    }

    /// What else is to be done, if it comes in time.
    fn next(&self, work: &mut mpsc::Receiver<Work>, company: &Company) -> Option<Work> {
        loop {
            match work.try_recv() {
                Ok(next) => return Some(next),
                // They come within microseconds, which no timer can tell.
                Err(TryRecvError::Empty)
                    if self.is_synced() && company.is_awaited(self.jobs.len(), Instant::now()) =>
                {
                    std::thread::yield_now();
                }
                Err(_) => return None,
            }
        }
    }

    fn add(&mut self, mut job: Box<dyn Job>) {
        if job.durability() == Durability::OnDisk {
            self.durability = Durability::OnDisk;
        }
        let cells = job.prepare(&View { shared: self.shared, slots: &self.slots });
        let mut won = Vec::with_capacity(cells.len());
        let mut loaded = std::mem::take(&mut self.loaded);
        match self.load(cells, &mut loaded) {
            Ok(()) => {
                won.extend(loaded.drain(..).filter_map(|loaded| self.apply(loaded, job.is_local())));
            }
            Err(error) => {
                loaded.clear();
                job.fail(error);
            }
        }
        self.loaded = loaded;
        self.jobs.push((job, won));
    }

    /// Does all that can fail, so that a job is applied whole or not at all.
    fn load(&mut self, cells: Vec<Cell>, loaded: &mut Vec<Loaded>) -> Result<(), WriteError> {
        for cell in cells {
            let encoded = codec::encode(&cell)?;
            let entry = IndexEntry::of(&cell, &encoded);
            match self.slots.entry(encoded.address.clone()) {
                Entry::Vacant(vacant) => {
                    vacant.insert(Box::new(Slot::load(self.shared, &cell, &encoded, &entry)?));
                }
                Entry::Occupied(mut occupied) => occupied.get_mut().reload(self.shared, &cell, &encoded)?,
            }
            loaded.push(Loaded { cell, encoded, entry });
        }
        Ok(())
    }

    /// Lets the cell in if it wins.
    fn apply(&mut self, loaded: Loaded, is_local: bool) -> Option<Cell> {
        let Loaded { cell, encoded, entry } = loaded;
        let is_needless = self.is_needless(&cell);
        let slot = self.slots.get_mut(&encoded.address)?;
        match &slot.current {
            Current::Read(Some(current)) if !cell.supersedes(current) => {
                if cell != *current {
                    self.leftovers.extend(cell.blob().map(|name| (name, is_local)));
                    if self.shared.minds(&cell) {
                        self.losers.push((cell, current.clone()));
                    }
                }
                return None;
            }
            // It was reaped here, or never was here, and kills nothing.
            Current::Read(None) if is_needless => return None,
            Current::Read(_) | Current::Before(_) => {}
        }
        self.cells += 1;
        self.bytes += encoded.address.len() + encoded.record.len();
        if let Some(old) = slot.cell().filter(|old| self.shared.minds(old)) {
            self.losers.push((old.clone(), cell.clone()));
        }
        let old_blob = slot.cell().and_then(Cell::blob);
        self.leftovers.extend(old_blob.map(|name| (name, is_local)));
        slot.next = Some((encoded, entry));
        slot.current = Current::Read(Some(cell.clone()));
        Some(cell)
    }

    /// Whether a cell has been dead for so long that nobody needs to hear of it, and nobody has counted on top of it.
    fn is_needless(&self, cell: &Cell) -> bool {
        self.shared.horizon.is_long_dead(cell, now_ms()) && {
            let view = View { shared: self.shared, slots: &self.slots };
            let state = view.key_state(&cell.space, &cell.key).map(|mut state| {
                state.take(cell.clone());
                state.is_counted_upon()
            });
            !(cell.field.is_empty() && state.unwrap_or(true))
        }
    }

    /// Returns the cells of which it is unknown whether they reached the disk.
    fn commit(self) -> Vec<Cell> {
        let Self { shared, slots, mut jobs, leftovers, losers, durability, .. } = self;
        let batches = batches_of(&jobs);
        let change = |slot: Box<Slot>| {
            let Slot { stored: before, current: Current::Read(Some(current)), next: Some((encoded, entry)) } =
                *slot
            else {
                return None;
            };
            let batch = batches.contains(&current.stamp).then_some(current.stamp);
            Some(Change { encoded, entry, blob: current.blob(), batch, before })
        };
        let mut doubtful = Vec::new();
        let mut changes: Vec<Change> = Vec::with_capacity(slots.len());
        changes.extend(slots.into_values().filter_map(change));
        let written = match (changes.is_empty(), durability) {
            (false, _) => shared.store.write(&changes, durability),
            // What a job has found there may not be on the disk.
            (true, Durability::OnDisk) => shared.store.sync(),
            (true, Durability::EverySecond) => Ok(()),
        };
        match written {
            Ok(()) => {
                shared.index.put(shared.store.known(&changes));
                for (name, is_local) in leftovers {
                    shared.leftovers.offer([name], is_local);
                }
                for (job, won) in &jobs {
                    if !won.is_empty() {
                        shared.announce(won, job.is_local());
                    }
                }
                losers.iter().for_each(|(loser, winner)| shared.lost(loser, winner));
            }
            Err(error) => {
                tracing::error!(%error, "a commit failed");
                if !matches!(error, EngineError::NoRoom { .. }) {
                    doubtful.extend(jobs.iter().flat_map(|(_, won)| won.iter().cloned()));
                }
                let error = Arc::new(error);
                jobs.iter_mut().for_each(|(job, _)| job.fail(WriteError::Commit(error.clone())));
            }
        }
        jobs.into_iter().for_each(|(job, _)| job.finish());
        doubtful
    }
}

/// A cell that may be applied.
struct Loaded {
    cell: Cell,
    encoded: Encoded,
    entry: IndexEntry,
}

impl Slot {
    /// Looks up what there is where `cell` is to be written; what will be written over unseen is not read.
    fn load(shared: &Shared, cell: &Cell, encoded: &Encoded, entry: &IndexEntry) -> Result<Self, ReadError> {
        let (spot, _) = codec::split_digest(&entry.digest);
        let slot = |stored, current| Self { stored, current, next: None };
        let known = match shared.index.at(&spot) {
            None => return Ok(slot(Before::Nothing, Current::Read(None))),
            Some(known)
                if known.is_plain
                    && cell.renews.is_none()
                    && known.time < cell.stamp.time
                    && !shared.minds(cell) =>
            {
                return Ok(slot(Before::Plain, Current::Before(cell.stamp.time)));
            }
            Some(known) => known,
        };
        let current = shared.store.cell(&encoded.address)?;
        let stored = match &current {
            Some(_) if known.is_plain => Before::Plain,
            Some(current) => Before::Marked {
                entry: IndexEntry::of(current, &codec::encode(current)?),
                blob: current.blob(),
                stamp: current.stamp,
            },
            None => Before::Nothing,
        };
        Ok(slot(stored, Current::Read(current)))
    }

    /// The same for one more cell.
    fn reload(&mut self, shared: &Shared, cell: &Cell, encoded: &Encoded) -> Result<(), ReadError> {
        if let Current::Before(time) = self.current
            && (cell.stamp.time < time || cell.renews.is_some())
        {
            self.current = Current::Read(shared.store.cell(&encoded.address)?);
        }
        Ok(())
    }
}

/// The stamps that several cells of one job have: they were written together, here or by their author.
fn batches_of(jobs: &[(Box<dyn Job>, Vec<Cell>)]) -> HashSet<Stamp> {
    let mut batches = HashSet::new();
    for (_, won) in jobs.iter().filter(|(_, won)| won.len() > 1) {
        let mut seen = HashSet::new();
        batches.extend(won.iter().map(|cell| cell.stamp).filter(|stamp| !seen.insert(*stamp)));
    }
    batches
}
