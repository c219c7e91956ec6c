//! Making the history of documents less: when epochs are closed, and what becomes of cells that are superfluous then.
//!
//! Whoever writes a change that makes the history too large closes the epoch, in the background. It may do so if this
//! node has agreed with all others, twice, since it knows of the epoch: then nobody writes in the one before any more,
//! and all that was written there is known here. Otherwise the changes are folded into a pack, and the epoch stays until it can be
//! closed.
//!
//! Superfluous cells are taken out by a thread, on every node for itself, once what supersedes them is on its disk. They
//! leave no trace; that peers who still have them do not bring them back is seen to at the intake.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use tokio::runtime::Handle;

use super::{Collection, SPACE, documents::Documents, read::text_len, write::Outcome};
use crate::{
    cell::{Cell, Content, Draft},
    codec::{self, Digest},
    document::{
        change,
        epoch::Epoch,
        open::Place,
        pack::Purpose,
        state::Compaction,
        tidy::{Settled, tidying},
    },
    store::ReadError,
    writer::WriteError,
};

/// Documents that wait to be tidied up. Beyond this all are looked through.
const MAX_WAITING: usize = 1024;

/// Bytes that may be kept of what is superfluous. Beyond this some of it is let in again, and taken out again.
const MAX_KEPT: usize = 16 * 1024 * 1024;

/// Cells that are taken out in one commit.
const MAX_TAKEN_OUT: usize = 4096;

/// Documents whose epochs are to be closed as soon as they can be. Beyond this the next change tries again.
const MAX_OVERDUE: usize = 1024;

/// How soon that is tried again at first, ...
const TRIED_AFTER: Duration = Duration::from_millis(500);
/// ... and at last.
const TRIED_EVERY: Duration = Duration::from_secs(60);

/// What is known of documents that have packs.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    known: Mutex<Known>,
    waiting: OnceLock<SyncSender<Place>>,
    has_missed: AtomicBool,
    overdue: Mutex<HashSet<Place>>,
}

#[derive(Debug, Default)]
struct Known {
    documents: HashMap<Place, Standing>,
    bytes: usize,
}

/// Where a document stands.
#[derive(Debug)]
struct Standing {
    settled: Arc<Settled>,
    epoch: Epoch,
    /// Since when this node knows of the epoch.
    since: Instant,
}

impl Packed {
    /// Notes a cell that was committed. Never waits.
    pub(crate) fn note(&self, cell: &Cell) {
        let is_of_later_epoch = || {
            change::name_in(&cell.field)
                .is_some_and(|(name, _)| name.epoch != Epoch::FIRST && !self.knows(&place_of(cell)))
        };
        // One that came in while the document was tidied up, for which it is tidied up once more.
        let is_superfluous = || !self.admits(cell);
        if (change::pack_field(&cell.field).is_some() || is_of_later_epoch() || is_superfluous())
            && let Some(waiting) = self.waiting.get()
            && waiting.try_send(place_of(cell)).is_err()
        {
            self.has_missed.store(true, Ordering::Release);
        }
    }

    /// Whether a cell is of any use.
    pub(crate) fn admits(&self, cell: &Cell) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.documents.get(&place_of(cell)).is_none_or(|standing| !standing.settled.holds(&cell.field))
    }

    fn knows(&self, place: &Place) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).documents.contains_key(place)
    }

    /// Since when this node knows that the document is in this epoch; `None` if it has not looked yet.
    fn known_since(&self, place: &Place, epoch: Epoch) -> Option<Instant> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.documents.get(place).filter(|standing| standing.epoch == epoch).map(|standing| standing.since)
    }

    /// Whether the epoch of a document may be one that can be closed, as far as that is known without a look at it.
    fn may_be_closed(&self, place: &Place, has_met_all: impl Fn(Instant) -> bool) -> bool {
        let since = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.documents.get(place).map(|standing| standing.since)
        };
        since.is_none_or(has_met_all)
    }

    /// That somebody waits until the document's epoch can be closed. False if somebody does already, or too many wait.
    fn begin_to_wait(&self, place: &Place) -> bool {
        let mut overdue = self.overdue.lock().unwrap_or_else(PoisonError::into_inner);
        overdue.len() < MAX_OVERDUE && overdue.insert(place.clone())
    }

    fn has_waited(&self, place: &Place) {
        self.overdue.lock().unwrap_or_else(PoisonError::into_inner).remove(place);
    }

    fn learn(&self, place: &Place, epoch: Epoch, settled: Arc<Settled>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.forget(place);
        let since =
            before.filter(|before| before.epoch == epoch).map_or_else(Instant::now, |before| before.since);
        known.bytes += settled.weight();
        known.documents.insert(place.clone(), Standing { settled, epoch, since });
        while known.bytes > MAX_KEPT
            && let Some(other) = known.documents.keys().find(|other| *other != place).cloned()
        {
            known.forget(&other);
        }
    }
}

impl Known {
    fn forget(&mut self, place: &Place) -> Option<Standing> {
        let standing = self.documents.remove(place)?;
        self.bytes -= standing.settled.weight();
        Some(standing)
    }
}

fn place_of(cell: &Cell) -> Place {
    Place { space: cell.space.clone(), key: cell.key.clone() }
}

impl Collection {
    /// Makes the history of a document less, if it still is to be, and again when more can be done about it.
    pub(crate) fn compact_in_background(&self, place: Place) {
        let collection = self.clone();
        tokio::spawn(async move {
            let is_done = collection.compact(place.clone()).await;
            let (documents, name) = (collection.documents.downgrade(), collection.name.clone());
            if !is_done && collection.documents.derived().packed.begin_to_wait(&place) {
                drop(collection);
                compact_later(documents, &name, place).await;
            }
        });
    }

    /// The same as soon as can be for a document that was only read, however many read it.
    pub(crate) fn look_after(&self, place: &Place) {
        let Ok(runtime) = Handle::try_current() else { return };
        if self.documents.derived().packed.begin_to_wait(place) {
            let (documents, name, place) = (self.documents.downgrade(), self.name.clone(), place.clone());
            runtime.spawn(async move { compact_later(documents, &name, place).await });
        }
    }

    /// Says whether there is nothing left to be done.
    async fn compact(&self, place: Place) -> bool {
        let (documents, at) = (self.documents.clone(), place.clone());
        let compacted = self.write_now(place, move |document, _| {
            let may_close = documents.may_close(&at, document.epoch());
            let purpose = match document.compaction(text_len(&document.value())) {
                // It is looked at again: the epoch that is closed may be too long to be kept beside the next one.
                Some(Compaction::Close | Compaction::CloseOrFold) if may_close => Purpose::Close,
                Some(Compaction::CloseOrFold) => Purpose::Fold,
                Some(Compaction::Close) => return Ok(Outcome { cells: Vec::new(), answer: false }),
                None => return Ok(Outcome { cells: Vec::new(), answer: true }),
            };
            let pack = document.pack(purpose);
            Ok(Outcome { answer: pack.is_none(), cells: pack.unwrap_or_default() })
        });
        compacted.await.unwrap_or_else(|error| {
            tracing::debug!(%error, "the history of a document stays as it is");
            true
        })
    }
}

/// Waits, without holding anything, until the document's epoch can be closed.
async fn compact_later(documents: impl Fn() -> Option<Documents>, name: &str, place: Place) {
    let mut pause = TRIED_AFTER;
    loop {
        tokio::time::sleep(pause).await;
        pause = pause.saturating_mul(2).min(TRIED_EVERY);
        let Some(documents) = documents() else { return };
        let derived = Arc::clone(documents.derived());
        let has_met_all = |since| documents.memory().shared().has_met_all_since(since);
        if derived.packed.may_be_closed(&place, has_met_all) {
            let Ok(collection) = Collection::new(documents, name) else { return };
            if collection.compact(place.clone()).await {
                return derived.packed.has_waited(&place);
            }
        }
    }
}

impl Documents {
    /// Whether an epoch may be closed, so that the one before it counts no more.
    fn may_close(&self, place: &Place, epoch: Epoch) -> bool {
        let since = self.derived().packed.known_since(place, epoch);
        let has_met_all = |since| self.memory().shared().has_met_all_since(since);
        epoch == Epoch::FIRST || since.is_some_and(has_met_all)
    }

    /// Starts the thread that takes out what is superfluous. It ends with the memory.
    pub(crate) fn start_tidying(&self) {
        let (waiting, places) = sync_channel(MAX_WAITING);
        let (again, runtime) = (self.downgrade(), Handle::try_current().ok());
        if self.derived().packed.waiting.set(waiting).is_err() {
            return;
        }
        let thread = std::thread::Builder::new().name("memory-tidy".into());
        if let Err(error) = thread.spawn(move || {
            let _entered = runtime.as_ref().map(Handle::enter);
            run(again, &places);
        }) {
            tracing::error!(%error, "the histories of documents stay as they are");
        }
    }

    fn tidy_all(&self) -> Result<(), ReadError> {
        for space in self.spaces()? {
            for id in self.ids(&space, None) {
                let place = Place { space: space.clone(), key: id? };
                let start = codec::address(&place.space, &place.key, &change::PACKS);
                let prefix = codec::key_prefix(&place.space, &place.key);
                let mut behind = self.memory().shared().store.scan(&start, &prefix);
                if behind.any(|cell| cell.is_ok_and(|cell| change::pack_field(&cell.field).is_some())) {
                    self.tidy_with_care(&place);
                }
            }
        }
        Ok(())
    }

    fn look_after(&self, place: &Place) {
        let name = place.space.strip_prefix(SPACE).and_then(|name| name.strip_prefix('/'));
        if let Some(Ok(collection)) = name.map(|name| self.collection(name)) {
            collection.look_after(place);
        }
    }

    /// What a hostile peer wrote is not to end the thread.
    fn tidy_with_care(&self, place: &Place) {
        // Of what has come in since the document was looked at, nothing was brought over yet.
        let tidy = || Ok::<_, WriteError>(self.tidy(place)? || self.tidy(place)?);
        match catch_unwind(AssertUnwindSafe(tidy)) {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a document is not tidied up"),
            Err(_) => tracing::warn!("a document makes no sense and is not tidied up"),
        }
    }

    /// Takes out what is superfluous of one document. Says whether that is all there was.
    fn tidy(&self, place: &Place) -> Result<bool, WriteError> {
        let prefix = codec::key_prefix(&place.space, &place.key);
        let store = &self.memory().shared().store;
        let cells = store.scan(&prefix, &prefix).collect::<Result<Vec<Cell>, ReadError>>()?;
        let Some(tidying) = tidying(&cells, &self.derived().packs) else { return Ok(true) };
        // A crash may have come between the change that made it long and what was to be done about that.
        let is_long = |text| tidying.size.compaction(text).is_some();
        if is_long(0) && is_long(tidying.said().as_ref().map_or(0, text_len)) {
            self.look_after(place);
        }
        if !tidying.write.is_empty() {
            let drafts = tidying.write.into_iter().map(|cell| draft(place, cell)).collect();
            self.memory().update_blocking(move |_| Ok((drafts, ())))?;
        }
        let remove: BTreeSet<_> = tidying.remove.into_iter().collect();
        let settled = Arc::new(tidying.settled);
        self.derived().packed.learn(place, tidying.epoch, settled.clone());
        let mut gone: Vec<(Vec<u8>, Digest)> = Vec::new();
        for cell in cells.iter().filter(|cell| remove.contains(&cell.field)) {
            let encoded = codec::encode(cell)?;
            let digest = encoded.digest();
            gone.push((encoded.address, digest));
        }
        while !gone.is_empty() {
            let rest = gone.split_off(gone.len().min(MAX_TAKEN_OUT));
            self.memory().purge_blocking(std::mem::replace(&mut gone, rest))?;
        }
        // What is superfluous and comes in from now on is noted; some may have come between the look and what was learnt from it.
        let is_left = |cell: Cell| settled.holds(&cell.field) && !remove.contains(&cell.field);
        let mut left = store.scan(&prefix, &prefix);
        Ok(!left.any(|cell| cell.is_ok_and(is_left)))
    }
}

/// A cell of a document that is to be written.
pub(crate) fn draft(place: &Place, (field, value): (bytes::Bytes, bytes::Bytes)) -> Draft {
    Draft {
        space: place.space.clone(),
        key: place.key.clone(),
        field,
        content: Content::Value(value),
        expires_ms: None,
        renews: None,
    }
}

/// Tidies up whatever waits, until the memory is closed. Between documents nothing is held, so that it can be.
fn run(documents: impl Fn() -> Option<Documents>, places: &Receiver<Place>) {
    let look_through = || {
        if let Some(Err(error)) = documents().map(|documents| documents.tidy_all()) {
            tracing::debug!(%error, "not all documents are tidied up");
        }
    };
    look_through();
    while let Ok(first) = places.recv() {
        let waiting: BTreeSet<Place> = std::iter::once(first).chain(places.try_iter()).collect();
        for place in waiting {
            let Some(documents) = documents() else { return };
            documents.tidy_with_care(&place);
            if documents.derived().packed.has_missed.swap(false, Ordering::AcqRel) {
                drop(documents);
                look_through();
            }
        }
    }
}

#[cfg(test)]
mod tests;
