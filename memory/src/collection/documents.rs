//! The handle on all documents of a node, and what follows commits.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use automerge::ActorId;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    Collection, CollectionError, SPACE, compact::Packed, error::DocumentError, indexes::LocalIndexes,
    is_documents_space, views::Views,
};
use crate::{
    cell::{Cell, SpaceName},
    codec,
    document::{
        open::{OpenDocuments, Place},
        packs::Packs,
    },
    memory::{Memory, Observer},
    store::ReadError,
};

/// The documents of a node's memory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Documents {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    memory: Memory,
    derived: Arc<Derived>,
    /// Whose changes this node writes. A new one with each start, so that a node whose disk was set back to an older
    /// state never numbers two changes alike.
    actor: Mutex<ActorId>,
    /// Who may compute. Nobody who has a turn waits for anybody who does not.
    turns: Arc<Semaphore>,
}

/// Documents that are worked on at once, and searches: each may take a few times the largest document in memory, and
/// more than there are cores would only wait for each other.
const AT_ONCE: usize = 16;

/// What is derived from cells, and follows them.
#[derive(Debug, Default)]
pub(crate) struct Derived {
    pub(crate) open: OpenDocuments,
    pub(crate) packs: Packs,
    pub(crate) views: Views,
    pub(crate) indexes: LocalIndexes,
    pub(crate) packed: Packed,
}

impl Observer for Derived {
    fn applied(&self, cells: &[Cell]) {
        let mut last: Option<Place> = None;
        for cell in cells.iter().filter(|cell| cell.space.starts_with(SPACE)) {
            self.open.note(cell);
            self.packed.note(cell);
            if last.as_ref().is_none_or(|last| last.key != cell.key || last.space != cell.space) {
                let place = Place { space: cell.space.clone(), key: cell.key.clone() };
                self.views.forget(&place);
                self.indexes.note(&place);
                last = Some(place);
            }
        }
    }

    fn admits(&self, cell: &Cell) -> bool {
        !cell.space.starts_with(SPACE) || self.packed.admits(cell)
    }
}

impl Documents {
    /// The documents of `memory`. Make it once: what it derives from the memory follows every commit from then on.
    pub fn new(memory: Memory) -> Self {
        let derived = Arc::new(Derived::default());
        memory.observe(derived.clone());
        let actor = Mutex::new(fresh_actor(&memory));
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let documents = Self { inner: Arc::new(Inner { memory, derived, actor, turns }) };
        documents.start_tidying();
        documents
    }

    /// The collection with this name. Collections need not be made: they are there once a document is in them.
    pub fn collection(&self, name: &str) -> Result<Collection, CollectionError> {
        Collection::new(self.clone(), name)
    }

    /// How many documents are held open in memory.
    pub fn open(&self) -> usize {
        self.derived().open.len()
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.inner.memory
    }

    /// Waits until there is room for one more to compute.
    pub(crate) async fn turn(&self) -> Result<OwnedSemaphorePermit, DocumentError> {
        self.inner.turns.clone().acquire_owned().await.map_err(|_| DocumentError::Interrupted)
    }

    pub(crate) fn derived(&self) -> &Arc<Derived> {
        &self.inner.derived
    }

    pub(crate) fn actor(&self) -> ActorId {
        self.inner.actor.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// After a write of which nobody knows whether it happened: its number is not given to another.
    pub(crate) fn change_actor(&self) {
        *self.inner.actor.lock().unwrap_or_else(PoisonError::into_inner) = fresh_actor(&self.inner.memory);
    }

    /// A way back to these documents that does not keep the memory open.
    pub(crate) fn downgrade(&self) -> impl Fn() -> Option<Documents> + Send + 'static {
        let inner = Arc::downgrade(&self.inner);
        move || inner.upgrade().map(|inner| Documents { inner })
    }

    /// The names of the collections in which something was ever written.
    pub(crate) fn names(&self) -> Result<BTreeSet<String>, ReadError> {
        let prefix = SpaceName::new(SPACE).map(|space| codec::scan_prefix(&space, &[])).unwrap_or_default();
        let mut found = BTreeSet::new();
        for cell in self.memory().shared().store.scan(&prefix, &prefix) {
            found.extend(String::from_utf8(cell?.key.to_vec()));
        }
        found.extend(
            self.spaces()?
                .iter()
                .filter_map(|space| space.strip_prefix(SPACE)?.strip_prefix('/'))
                .map(str::to_owned),
        );
        Ok(found)
    }

    pub(crate) fn spaces(&self) -> Result<Vec<SpaceName>, ReadError> {
        let store = &self.memory().shared().store;
        let mut found = Vec::new();
        let mut start = format!("{SPACE}/").into_bytes();
        while let Some(cell) = store.scan(&start, &[]).next() {
            let cell = cell?;
            if !is_documents_space(&cell.space) {
                break;
            }
            // Behind all keys of a space comes what begins with its name and a byte that ends no name.
            start = [cell.space.as_bytes(), &[1]].concat();
            found.push(cell.space);
        }
        Ok(found)
    }

    /// The ids in a space greater than `after`, in order, whether their documents are still there or not.
    pub(crate) fn ids<'a>(
        &'a self,
        space: &'a SpaceName,
        after: Option<&[u8]>,
    ) -> impl Iterator<Item = Result<Bytes, ReadError>> + use<'a> {
        let bounds = codec::scan_prefix(space, &[]);
        let mut start = match after {
            Some(after) => codec::after_key(space, after),
            None => bounds.clone(),
        };
        std::iter::from_fn(move || {
            let cell = self.memory().shared().store.scan(&start, &bounds).next()?;
            Some(cell.map(|cell| {
                start = codec::after_key(space, &cell.key);
                cell.key
            }))
        })
    }
}

fn fresh_actor(memory: &Memory) -> ActorId {
    let mut hasher = blake3::Hasher::new_derive_key("starfish memory 1: who changes documents");
    hasher.update(memory.author().as_bytes()).update(&rand::random::<[u8; 16]>());
    ActorId::from(&hasher.finalize().as_bytes()[..16])
}
