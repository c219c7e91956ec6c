//! The handle on all documents of a node, and what follows commits.

use std::sync::{Arc, Mutex, PoisonError};

use automerge::ActorId;

use super::{Collection, CollectionError, SPACE, views::Views};
use crate::{
    cell::Cell,
    document::open::{OpenDocuments, Place},
    memory::{Memory, Observer},
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
}

/// What is derived from cells, and follows them.
#[derive(Debug, Default)]
pub(crate) struct Derived {
    pub(crate) open: OpenDocuments,
    pub(crate) views: Views,
}

impl Observer for Derived {
    fn applied(&self, cells: &[Cell]) {
        let mut last: Option<Place> = None;
        for cell in cells.iter().filter(|cell| cell.space.starts_with(SPACE)) {
            self.open.note(cell);
            if last.as_ref().is_none_or(|last| last.key != cell.key || last.space != cell.space) {
                let place = Place { space: cell.space.clone(), key: cell.key.clone() };
                self.views.forget(&place);
                last = Some(place);
            }
        }
    }
}

impl Documents {
    /// The documents of `memory`. Make it once: what it derives from the memory follows every commit from then on.
    pub fn new(memory: Memory) -> Self {
        let derived = Arc::new(Derived::default());
        memory.observe(derived.clone());
        let actor = Mutex::new(fresh_actor(&memory));
        Self { inner: Arc::new(Inner { memory, derived, actor }) }
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
}

fn fresh_actor(memory: &Memory) -> ActorId {
    let mut hasher = blake3::Hasher::new_derive_key("starfish memory 1: who changes documents");
    hasher.update(memory.author().as_bytes()).update(&rand::random::<[u8; 16]>());
    ActorId::from(&hasher.finalize().as_bytes()[..16])
}
