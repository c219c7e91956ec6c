//! Cells on this node's disk, in an LSM tree (`fjall`).
//!
//! Four keyspaces change together, in one atomic batch: `cells` (address → record) is the truth, sorted for scans;
//! `due` (due, kind, digest → address) are those that will not last, sorted by when their time is over; `blobs` (name of a
//! blob, address) are those whose value lies elsewhere; `batches` (stamp, address) are those that were written together.
//! Fingerprints and the newest stamp are not stored but summed up from the cells at start, so they cannot disagree with them.
//!
//! Only the writer thread writes. Anyone reads, and sees whole batches only.

mod error;
mod survey;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use fjall::{OwnedWriteBatch, PersistMode, Readable, Snapshot, UserValue};

use crate::{
    addresses::{Addresses, Log},
    beside::Beside,
    cell::{Cell, Content, SpaceName, Stamp},
    clock::unix_ms,
    codec::{self, Digest, Encoded, MalformedCell, Spot, Summary},
    commits::{self, Commits},
    counter::{self, KeyState},
    engine::{Engine, EngineError, EngineOptions, Opened, Purpose},
    hot::{Found, Hot},
    index::{Index, Known},
    memory::Durability,
    salvage::Damage,
    value::BlobName,
};

use error::classify;
pub use error::{ReadError, StoreError};

/// Threads that flush and compact. More would compete with guests for the cores.
const WORKERS: usize = 2;

/// Blocks kept in memory. Small, since an idle node is to stay small; the page cache keeps the rest.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// How long what was acknowledged before it was on the disk may go on to be written beside it before it is brought there.
const SYNC_EVERY: Duration = Duration::from_millis(500);

/// One cell to be written.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) encoded: Encoded,
    pub(crate) entry: IndexEntry,
    /// Where the bytes of its value lie.
    pub(crate) blob: Option<BlobName>,
    /// Its stamp, if other cells were written with it.
    pub(crate) batch: Option<Stamp>,
    /// What it takes the place of.
    pub(crate) before: Before,
}

impl Change {
    /// What the index is to know of it, but for where its address is told.
    fn known(&self) -> (Spot, Known) {
        let (spot, _) = codec::split_digest(&self.entry.digest);
        let mut known = Known::new(&self.entry);
        known.is_plain &= self.batch.is_none();
        (spot, known)
    }
}

/// A version that is written over, and what there is of it besides the cell.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Before {
    /// There is none.
    Nothing,
    /// Nothing but the cell.
    Plain,
    /// It may be due, have its bytes elsewhere, or be one of several that were written together.
    Marked { entry: IndexEntry, blob: Option<BlobName>, stamp: Stamp },
}

/// A cell that is taken out.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) address: Vec<u8>,
    pub(crate) entry: IndexEntry,
    pub(crate) stamp: Stamp,
    pub(crate) blob: Option<BlobName>,
}

/// What the index knows of a cell, besides its address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IndexEntry {
    pub(crate) digest: Digest,
    pub(crate) time: u64,
    /// When a value's time is over, or a tombstone was written, in Unix milliseconds; 0 for what lasts.
    pub(crate) due_ms: u64,
    pub(crate) tombstone: bool,
    /// It must be read before it is written over.
    pub(crate) must_be_read: bool,
}

impl IndexEntry {
    pub(crate) fn of(cell: &Cell, encoded: &Encoded) -> Self {
        let summary = Summary {
            time: cell.stamp.time,
            expires_ms: cell.expires_ms,
            is_tombstone: matches!(cell.content, Content::Tombstone),
            must_be_read: cell.blob().is_some() || cell.renews.is_some(),
        };
        Self::new(encoded.digest(), &summary)
    }

    fn new(digest: Digest, summary: &Summary) -> Self {
        let Summary { time, expires_ms, is_tombstone: tombstone, must_be_read } = *summary;
        let due_ms = if tombstone { unix_ms(time) } else { expires_ms.unwrap_or(0) };
        Self { digest, time, due_ms, tombstone, must_be_read }
    }

    /// Its key among what is due.
    pub(crate) fn due_key(&self) -> Option<Vec<u8>> {
        let kind = [u8::from(self.tombstone)];
        (self.due_ms > 0).then(|| [self.due_ms.to_be_bytes().as_slice(), &kind, &self.digest].concat())
    }
}

/// What cells say of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reference {
    /// None speaks of it.
    None,
    /// The time of those that do is over.
    Over,
    /// Its bytes are a value.
    Live,
}

/// A cell whose time is over, or soon will be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    /// When it is over, or was: the expiry of a value, or the writing of a tombstone.
    pub(crate) ms: u64,
    pub(crate) is_tombstone: bool,
    /// Of the version whose time it is.
    pub(crate) digest: Digest,
}

/// The engine below.
pub(crate) type StoreEngine = Engine<KEYSPACES>;

/// The cells on disk.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) engine: StoreEngine,
    pub(crate) addresses: Addresses,
    pub(crate) commits: Commits,
    hot: Hot,
    beside: Beside,
    pub(crate) damage: Arc<Damage>,
    /// Since when something was acknowledged that is not on the disk.
    unsynced: Mutex<Option<Instant>>,
}

/// How many keyspaces there are, and the position of each.
pub(crate) const KEYSPACES: usize = 4;
pub(crate) const CELLS: usize = 0;
pub(crate) const DUE: usize = 1;
pub(crate) const BLOBS: usize = 2;
pub(crate) const BATCHES: usize = 3;
const OPTIONS: EngineOptions<KEYSPACES> = EngineOptions {
    keyspaces: ["cells", "due", "blobs", "batches"],
    workers: WORKERS,
    cache_bytes: CACHE_BYTES,
    in_parts: false,
};

impl Store {
    /// Opens the store in `path`, which is made if it is not there, and sums up what it holds.
    pub(crate) fn open(path: &Path) -> Result<(Self, Index), StoreError> {
        std::fs::create_dir_all(path).map_err(|source| StoreError::Io { path: path.into(), source })?;
        // The engine asserts some of what it reads of its own files: a damaged one is to end in an error.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let store = Self::open_engine(path)?;
            let index = store.survey()?;
            Ok((store, index))
        }));
        opened.unwrap_or(Err(ReadError::Senseless)).map_err(|error| classify(path, error))
    }

    fn open_engine(path: &Path) -> Result<Self, ReadError> {
        let engine = Self::engine_of(path)?;
        let addresses = Addresses::new(Log::begin(path));
        let commits = Commits::of(path, &engine.read()?.keyspaces[CELLS])?;
        if commits.are_all_lost() {
            return Err(ReadError::Senseless);
        }
        let (hot, damage, unsynced) = (Hot::default(), Arc::default(), Mutex::default());
        Ok(Self { engine, addresses, commits, hot, beside: Beside::default(), damage, unsynced })
    }

    /// The engine in `path`, whatever is in it.
    pub(crate) fn engine_of(path: &Path) -> Result<StoreEngine, fjall::Error> {
        Engine::open(path, OPTIONS)
    }

    /// Makes good what a failed write has left; says whether the cells must be summed up anew.
    pub(crate) fn mend(&self) -> Result<bool, EngineError> {
        let is_opened_anew = self.engine.mend()?;
        if is_opened_anew {
            self.hot.forget_all();
        }
        Ok(is_opened_anew || self.addresses.are_worn())
    }

    /// Writes all of `changes` or none, and returns when they are as durable as is asked for.
    pub(crate) fn write(&self, changes: &[Change], durability: Durability) -> Result<(), EngineError> {
        let is_late = self.unsynced().is_some_and(|since| since.elapsed() >= SYNC_EVERY);
        let mode = match durability {
            Durability::EverySecond if !is_late => PersistMode::Buffer,
            Durability::EverySecond | Durability::OnDisk => PersistMode::SyncData,
        };
        let addresses = changes.iter().map(|change| change.encoded.address.as_slice());
        let write = |opened: &Opened<KEYSPACES>| {
            let [cells, due, blobs, batches] = &opened.keyspaces;
            let mut batch = OwnedWriteBatch::with_capacity(opened.database.clone(), changes.len() + 1)
                .durability(Some(mode));
            for Change { encoded, entry, blob, batch: mates, before } in changes {
                if let Before::Marked { entry: old, blob: old_blob, stamp: old_stamp } = before {
                    if Some(*old_stamp) != *mates {
                        let key = batch_key(old_stamp, &encoded.address);
                        if batches.contains_key(&key)? {
                            batch.remove(batches, key);
                        }
                    }
                    if let Some(name) = old_blob.as_ref().filter(|_| old_blob != blob) {
                        batch.remove(blobs, blob_key(name, &encoded.address));
                    }
                    if let Some(key) = old.due_key() {
                        batch.remove(due, key);
                    }
                }
                if let Some(stamp) = mates {
                    batch.insert(batches, batch_key(stamp, &encoded.address), []);
                }
                if let Some(name) = blob {
                    batch.insert(blobs, blob_key(name, &encoded.address), []);
                }
                if let Some(key) = entry.due_key() {
                    batch.insert(due, key, encoded.address.as_slice());
                }
                batch.insert(cells, encoded.address.as_slice(), encoded.record.as_slice());
            }
            batch.insert(cells, commits::ADDRESS, self.commits.next());
            batch.commit()
        };
        let is_new = |change: &&Change| matches!(change.before, Before::Nothing);
        self.hot.write(addresses.clone(), self.next_number(), || {
            // Before anybody can see them, and so take what is there for all that there is.
            changes.iter().filter(is_new).for_each(|change| self.beside.note(&change.encoded.address));
            self.engine.write(Purpose::Add, write)
        })?;
        self.commits.is_made();
        match mode {
            PersistMode::Buffer => _ = self.unsynced().get_or_insert_with(Instant::now),
            PersistMode::SyncData | PersistMode::SyncAll => self.are_synced(),
        }
        self.damage.came_back(addresses);
        Ok(())
    }

    /// Whether something was acknowledged that is not on the disk.
    pub(crate) fn is_unsynced(&self) -> bool {
        self.unsynced().is_some()
    }

    /// Brings that to the disk. Only the writer does.
    pub(crate) fn sync(&self) -> Result<(), EngineError> {
        if self.is_unsynced() {
            self.engine.write(Purpose::Free, |opened| opened.database.persist(PersistMode::SyncData))?;
            self.are_synced();
        }
        Ok(())
    }

    fn are_synced(&self) {
        *self.unsynced() = None;
        self.commits.are_on_disk();
    }

    fn unsynced(&self) -> MutexGuard<'_, Option<Instant>> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the index is to know of cells that were written.
    pub(crate) fn known<'a>(&'a self, changes: &'a [Change]) -> impl Iterator<Item = (Spot, Known)> + 'a {
        changes.iter().map(|change| {
            let (spot, known) = change.known();
            match change.before {
                Before::Nothing => (spot, known.told_at(self.addresses.push(&change.encoded.address))),
                Before::Plain | Before::Marked { .. } => (spot, known),
            }
        })
    }

    /// The address of the cell at `spot`, while `index` knows of it.
    pub(crate) fn address(&self, index: &Index, spot: &Spot) -> Option<Vec<u8>> {
        let address = self.addresses.at(index.at(spot)?.place)?;
        (codec::spot(&address) == *spot).then_some(address)
    }

    /// Takes cells out, without a trace.
    pub(crate) fn purge(&self, cells: &[Taken]) -> Result<(), EngineError> {
        let take_out = |opened: &Opened<KEYSPACES>| {
            let mut batch = opened.database.batch().durability(Some(PersistMode::SyncData));
            for Taken { address, entry, stamp, blob } in cells {
                batch.remove(&opened.keyspaces[BATCHES], batch_key(stamp, address));
                if let Some(name) = blob {
                    batch.remove(&opened.keyspaces[BLOBS], blob_key(name, address));
                }
                batch.remove(&opened.keyspaces[CELLS], address.as_slice());
                if let Some(key) = entry.due_key() {
                    batch.remove(&opened.keyspaces[DUE], key);
                }
            }
            batch.commit()
        };
        let addresses = cells.iter().map(|taken| taken.address.as_slice());
        self.hot
            .write(addresses.clone(), self.next_number(), || self.engine.write(Purpose::Free, take_out))?;
        addresses.for_each(|address| self.addresses.forget(address));
        Ok(())
    }

    /// Visits what is due from `from_ms` on and before `to_ms`, in the order of time, until told to stop.
    pub(crate) fn due(
        &self,
        from_ms: u64,
        to_ms: u64,
        visit: impl FnMut(&Due, &[u8]) -> bool,
    ) -> Result<(), ReadError> {
        self.noted(self.visit_due(from_ms, to_ms, visit))
    }

    fn visit_due(
        &self,
        from_ms: u64,
        to_ms: u64,
        mut visit: impl FnMut(&Due, &[u8]) -> bool,
    ) -> Result<(), ReadError> {
        let range = from_ms.max(1).to_be_bytes()..to_ms.max(1).to_be_bytes();
        for guard in self.engine.read()?.keyspaces[DUE].range(range) {
            let (key, address) = guard.into_inner()?;
            let (due_ms, rest) = key.split_first_chunk().ok_or(MalformedCell::Record)?;
            let (kind, digest) = rest.split_first().ok_or(MalformedCell::Record)?;
            let digest = digest.try_into().map_err(|_| MalformedCell::Record)?;
            let due = Due { ms: u64::from_be_bytes(*due_ms), is_tombstone: *kind != 0, digest };
            if !visit(&due, &address) {
                break;
            }
        }
        Ok(())
    }

    /// The cell at `address` as it is sent, and all that were written together with it, itself among them, if there are several;
    /// those that were written over since are not. All of it is of one moment: a batch that is being written is not there.
    /// `None` if there is no such cell, or if it is one of those with a stamp of which `was_sent`; of more than `max` cells
    /// none are given.
    pub(crate) fn together(
        &self,
        address: &[u8],
        was_sent: impl Fn(&Stamp) -> bool,
        max: usize,
    ) -> Result<Option<(Encoded, Stamp, Vec<Encoded>)>, ReadError> {
        self.noted(self.read_together(address, was_sent, max))
    }

    fn read_together(
        &self,
        address: &[u8],
        was_sent: impl Fn(&Stamp) -> bool,
        max: usize,
    ) -> Result<Option<(Encoded, Stamp, Vec<Encoded>)>, ReadError> {
        let opened = self.engine.read()?;
        let (snapshot, cells) = (self.snapshot(&opened), &opened.keyspaces[CELLS]);
        let read = |address: &[u8]| -> Result<Option<(Encoded, Stamp)>, ReadError> {
            let Some(record) = snapshot.get(cells, address)? else { return Ok(None) };
            let stamp = codec::stamp(&record)?;
            Ok(Some((Encoded { address: address.to_vec(), record: record.to_vec() }, stamp)))
        };
        let Some((cell, stamp)) = read(address)? else { return Ok(None) };
        let batches = &opened.keyspaces[BATCHES];
        // One that came here by itself is not noted with others of its stamp, and is not sent with them.
        if !snapshot.contains_key(batches, batch_key(&stamp, address))? {
            return Ok(Some((cell, stamp, Vec::new())));
        }
        if was_sent(&stamp) {
            return Ok(None);
        }
        let prefix = batch_key(&stamp, &[]);
        let mut mates = Vec::new();
        for guard in snapshot.prefix(batches, &prefix) {
            let key = guard.key()?;
            let address = key.strip_prefix(prefix.as_slice()).ok_or(MalformedCell::Address)?;
            mates.extend(read(address)?.filter(|(_, of)| *of == stamp).map(|(mate, _)| mate));
            if mates.len() > max {
                mates.clear();
                break;
            }
        }
        Ok(Some((cell, stamp, mates)))
    }

    /// What cells say of this blob. A cell whose time was over at `at_ms` says nothing for it any more.
    pub(crate) fn reference(&self, name: BlobName, at_ms: u64) -> Result<Reference, ReadError> {
        let prefix = name.as_bytes().as_slice();
        let mut found = Reference::None;
        for guard in self.engine.read()?.keyspaces[BLOBS].prefix(prefix) {
            let key = guard.key()?;
            let address = key.strip_prefix(prefix).ok_or(MalformedCell::Address)?;
            match self.cell(address)?.filter(|cell| cell.blob() == Some(name)) {
                Some(cell) if cell.expired(at_ms) => found = Reference::Over,
                Some(_) => return Ok(Reference::Live),
                None => {}
            }
        }
        Ok(found)
    }

    /// The cell at `address`.
    pub(crate) fn cell(&self, address: &[u8]) -> Result<Option<Cell>, ReadError> {
        let cell = self.noted(self.read_cell(address))?;
        if cell.is_none() {
            self.damage.check_one(address)?;
        }
        Ok(cell)
    }

    /// The value in the cell at `address`, if it is live.
    pub(crate) fn plain_value(&self, address: &[u8], now_ms: u64) -> Result<Found, ReadError> {
        let found = self.hot.get_or::<ReadError>(address, || {
            let found = self.noted(self.read_plain(address))?;
            if matches!(found, Found::Nothing) {
                self.damage.check_one(address)?;
            }
            Ok(found)
        })?;
        Ok(match found {
            Found::Plain(plain) if plain.is_over(now_ms) => Found::Nothing,
            found => found,
        })
    }

    fn read_plain(&self, address: &[u8]) -> Result<Found, ReadError> {
        self.record(address)?.map_or(Ok(Found::Nothing), |record| Ok(codec::plain(&record)?))
    }

    /// Whether it was all there was of a key, what a look at the cell of its value has found *before*. It may be said not to be
    /// when it was.
    pub(crate) fn was_all(&self, key_prefix: &[u8]) -> bool {
        !self.beside.may_have(key_prefix)
    }

    fn read_cell(&self, address: &[u8]) -> Result<Option<Cell>, ReadError> {
        Ok(self.record(address)?.map(|record| codec::decode(address, &record)).transpose()?)
    }

    /// What is there now, and nothing of a commit that is under way.
    fn snapshot(&self, opened: &Opened<KEYSPACES>) -> Snapshot {
        self.hot.moments.snapshot(|| opened.database.snapshot(), Snapshot::seqno)
    }

    /// The least number that the engine gives the next commit.
    fn next_number(&self) -> u64 {
        self.engine.read().map_or(0, |opened| opened.database.seqno())
    }

    /// The record at `address`. While a commit is under way the engine itself would show a part of it; a snapshot does not.
    fn record(&self, address: &[u8]) -> Result<Option<UserValue>, ReadError> {
        let opened = self.engine.read()?;
        let cells = &opened.keyspaces[CELLS];
        let found = self.hot.moments.undisturbed(|| cells.get(address));
        Ok(found.unwrap_or_else(|| self.snapshot(&opened).get(cells, address))?)
    }

    fn noted<T>(&self, outcome: Result<T, ReadError>) -> Result<T, ReadError> {
        outcome.inspect_err(|error| self.damage.note(error))
    }

    /// The cells whose address is at least `start` and begins with `prefix`, in order.
    pub(crate) fn scan<'a>(
        &self,
        start: &[u8],
        prefix: &'a [u8],
    ) -> impl Iterator<Item = Result<Cell, ReadError>> + use<'a> {
        let opened = self.damage.check(start, prefix).and_then(|()| Ok(self.engine.read()?));
        let damage = Arc::clone(&self.damage);
        // The database stays open for as long as it is read.
        let (opened, failed) = match opened {
            Ok(opened) => (Some(opened), None),
            Err(error) => (None, Some(Err(error))),
        };
        // Of a batch that is being written a scan shows nothing; without a snapshot the engine would show a part of it.
        let range =
            opened.as_ref().map(|opened| self.snapshot(opened).range(&opened.keyspaces[CELLS], start..));
        range
            .into_iter()
            .flatten()
            .map(move |guard| {
                let _ = &opened;
                guard.into_inner().map_err(ReadError::from)
            })
            .chain(failed)
            .take_while(move |pair| pair.as_ref().map_or(true, |(address, _)| address.starts_with(prefix)))
            .map(move |pair| {
                let cell = pair.and_then(|(address, record)| Ok(codec::decode(&address, &record)?));
                cell.inspect_err(|error| damage.note(error))
            })
    }

    /// Whether the cell at `address` is one that somebody has counted on top of.
    pub(crate) fn is_counted_upon(&self, address: &[u8]) -> Result<bool, ReadError> {
        let (space, key, field) = codec::split_address(address)?;
        Ok(field.is_empty() && self.key_state(&space, &key)?.is_counted_upon())
    }

    /// What decides what a key is worth whose addresses begin with this, if nothing but the cell of its value can be there.
    pub(crate) fn value_alone(&self, key_prefix: &[u8]) -> Result<Option<KeyState>, ReadError> {
        if !self.was_all(key_prefix) {
            return Ok(None);
        }
        let value = self.cell(key_prefix)?;
        Ok(self.was_all(key_prefix).then(|| value.into()))
    }

    /// What decides what several keys are worth, all at one moment.
    pub(crate) fn key_states<'a>(
        &self,
        space: &SpaceName,
        keys: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Vec<KeyState>, ReadError> {
        let opened = self.engine.read()?;
        let (snapshot, cells) = (self.snapshot(&opened), &opened.keyspaces[CELLS]);
        let read = |key: &[u8]| -> Result<KeyState, ReadError> {
            let prefix = codec::key_prefix(space, key);
            self.damage.check(&prefix, &prefix)?;
            let value = snapshot.get(cells, &prefix)?;
            let value = value.map(|record| codec::decode(&prefix, &record)).transpose()?;
            let mut state = KeyState::from(value);
            if !self.was_all(&prefix) {
                for guard in snapshot.prefix(cells, &prefix) {
                    let (address, record) = guard.into_inner()?;
                    let cell = codec::decode(&address, &record)?;
                    // Those that do come first, before all other fields that the key may have.
                    if !counter::decides_value(&cell.field) {
                        break;
                    }
                    state.take(cell);
                }
            }
            Ok(state)
        };
        self.noted(keys.map(read).collect())
    }

    /// The cells that decide what `key` is worth.
    pub(crate) fn key_state(&self, space: &SpaceName, key: &[u8]) -> Result<KeyState, ReadError> {
        Ok(self.key_states(space, std::iter::once(key))?.pop().unwrap_or_default())
    }
}

/// Bytes of a key among batches before the address.
pub(crate) const BATCH_PREFIX: usize = size_of::<u64>() + 16;

fn batch_key(stamp: &Stamp, address: &[u8]) -> Vec<u8> {
    [&stamp.time.to_be_bytes(), stamp.author.as_bytes().as_slice(), address].concat()
}

pub(crate) fn blob_key(name: &BlobName, address: &[u8]) -> Vec<u8> {
    [name.as_bytes(), address].concat()
}
