//! Documents that are held open, so that an edit need not put its document together first.
//!
//! Bounded in number and in bytes; the one that was used longest ago goes first. While a document is open, cells that
//! are committed for it are noted here, on the writer's thread, and taken in by whoever uses it next.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;

use super::{
    change::{self, Kind, Name},
    pack::Purpose,
    packs::Packs,
    state::Document,
};
use crate::{
    cell::{Cell, Content, SpaceName},
    codec,
    memory::Memory,
    store::ReadError,
};

/// Documents that are open at once. An open one costs some tens of kilobytes at the least.
const MAX_OPEN: usize = 256;

/// What they may come to, in bytes.
const MAX_OPEN_BYTES: usize = 64 * 1024 * 1024;

/// Cells that an open document may be behind, in bytes. Beyond this it is put together anew.
const MAX_BEHIND: usize = 256 * 1024;

/// Where a document is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) space: SpaceName,
    pub(crate) key: Bytes,
}

/// The documents that are open.
#[derive(Debug, Default)]
pub(crate) struct OpenDocuments {
    entries: Mutex<HashMap<Place, Arc<Entry>>>,
    uses: AtomicU64,
}

/// One of them. Whoever uses the document holds its lock, also while what it has changed is being written.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    /// `None` until it is loaded, and after a failure.
    pub(crate) document: Arc<tokio::sync::Mutex<Option<Document>>>,
    behind: Mutex<Behind>,
    used: AtomicU64,
    weight: AtomicUsize,
}

/// Cells that were committed since the document was last used.
#[derive(Debug, Default)]
struct Behind {
    cells: Vec<Cell>,
    bytes: usize,
    overflown: bool,
    /// An epoch of the document was closed, or is about to be.
    is_closed: bool,
    /// What whoever uses the document is writing, and has put into it.
    own: BTreeSet<Name>,
}

impl OpenDocuments {
    /// The document's entry, made if there is none.
    pub(crate) fn entry(&self, place: &Place) -> Arc<Entry> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.entry(place.clone()).or_default().clone();
        entry.used.store(self.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        evict(&mut entries);
        entry
    }

    /// The document's entry, if there is one.
    pub(crate) fn present(&self, place: &Place) -> Option<Arc<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).get(place).cloned()
    }

    /// Notes a cell of a document that has been committed. Never waits for a user of the document.
    pub(crate) fn note(&self, cell: &Cell) {
        let place = Place { space: cell.space.clone(), key: cell.key.clone() };
        let Some(entry) = self.present(&place) else { return };
        let mut behind = entry.behind.lock().unwrap_or_else(PoisonError::into_inner);
        if change::name_in(&cell.field).is_some_and(|(name, _)| behind.own.contains(&name)) {
            return;
        }
        behind.bytes += cell.field.len()
            + match &cell.content {
                Content::Value(value) => value.len(),
                Content::Tombstone | Content::Large(_) | Content::Kept(_) => 0,
            };
        behind.is_closed |= change::pack_field(&cell.field) == Some(Purpose::Close);
        if behind.bytes > MAX_BEHIND {
            behind.overflown = true;
            behind.cells.clear();
        } else {
            behind.cells.push(cell.clone());
        }
    }

    /// How many documents are open.
    pub(crate) fn len(&self) -> usize {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Lets go of what was used longest ago, except what is in use: two copies of one document that are both edited
/// would write changes that contradict each other.
fn evict(entries: &mut HashMap<Place, Arc<Entry>>) {
    let weight = |entry: &Arc<Entry>| entry.weight.load(Ordering::Relaxed);
    let mut total: usize = entries.values().map(weight).sum();
    while entries.len() > MAX_OPEN || total > MAX_OPEN_BYTES {
        let idle = entries.iter().filter(|(_, entry)| Arc::strong_count(entry) == 1);
        let oldest = idle.min_by_key(|(_, entry)| entry.used.load(Ordering::Relaxed));
        let Some((place, entry)) = oldest.map(|(place, entry)| (place.clone(), weight(entry))) else {
            return;
        };
        entries.remove(&place);
        total -= entry;
    }
}

impl Entry {
    /// The document as of now: `held`, with what was committed since, or put together from the disk by `load`.
    pub(crate) fn catch_up(
        &self,
        held: Option<Document>,
        load: impl FnOnce() -> Result<Document, ReadError>,
    ) -> Result<Document, ReadError> {
        let news = std::mem::take(&mut *self.behind.lock().unwrap_or_else(PoisonError::into_inner));
        let held = held.filter(|_| !news.overflown);
        let caught_up = held.and_then(|mut document| document.take(&news.cells).is_ok().then_some(document));
        let document = match caught_up {
            Some(document) => document,
            None => load()?,
        };
        self.weigh(&document);
        Ok(document)
    }

    /// Whether an epoch of the document was closed since it was last brought up to date. What was written in it must
    /// not be committed: who closed it may have been told that all know of it.
    pub(crate) fn is_overtaken(&self) -> bool {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner).is_closed
    }

    /// Whoever uses the document is going to commit cells with these fields. What is in it already need not be taken in when it is
    /// on the disk. To be called with none of them when that is over.
    pub(crate) fn is_writing<'a>(&self, fields: impl IntoIterator<Item = &'a Bytes>) {
        let names = fields.into_iter().filter_map(|field| change::name_in(field));
        // To close an epoch is to begin another one, which is put together anew.
        let own = names.map(|(name, _)| name).filter(|name| name.kind != Kind::Pack(Purpose::Close));
        self.behind.lock().unwrap_or_else(PoisonError::into_inner).own = own.collect();
    }

    /// Whether something was committed that the document does not have.
    #[cfg(test)]
    pub(crate) fn is_behind(&self) -> bool {
        let behind = self.behind.lock().unwrap();
        behind.overflown || !behind.cells.is_empty()
    }

    pub(crate) fn weigh(&self, document: &Document) {
        self.weight.store(document.weight(), Ordering::Relaxed);
    }
}

/// Puts the document together from the disk.
pub(crate) fn load(memory: &Memory, packs: &Packs, place: &Place) -> Result<Document, ReadError> {
    let prefix = codec::key_prefix(&place.space, &place.key);
    let cells = memory.shared().store.scan(&prefix, &prefix).collect::<Result<Vec<Cell>, ReadError>>()?;
    Ok(Document::load(&cells, packs))
}
