//! Which indexes a collection has, building them, and keeping them current.
//!
//! That a collection has an index is a cell of the collection's key in the space of collections, so every node knows
//! it. What is in the index each node derives for itself, in memory: built in the background when it is first asked
//! for, and from then on behind by those documents that commits have named. Whoever asks an index first brings it up
//! to date, so it never misses what was written before the question.

use std::{
    collections::{BTreeSet, HashMap},
    mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Collection, SPACE, documents::Documents, error::DocumentError, index::Entries};
use crate::{
    cell::{Cell, Content, Draft, SpaceName},
    codec,
    document::{open::Place, pointer::Pointer},
};

/// Indexes of one collection. Each costs something at every write.
pub const MAX_INDEXES: usize = 16;

/// Longest name of an index.
const MAX_NAME: usize = 64;

/// In front of an index's name: the field that declares it.
const INDEX: u8 = b'i';

/// Documents that an index may be behind. Beyond this it is built anew.
const MAX_BEHIND: usize = 65_536;

/// An index as it is declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexDefinition {
    /// Its name, by which it is removed and by which `explain` speaks of it.
    pub name: String,
    /// The place in documents that it is over.
    pub path: Pointer,
}

/// How an index is on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexStatus {
    /// What it is.
    #[serde(flatten)]
    pub definition: IndexDefinition,
    /// Whether queries can use it yet.
    pub state: IndexState,
    /// The documents that have something at its place; those that it knows of so far.
    pub documents: usize,
}

/// Whether an index can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IndexState {
    /// It is being built.
    Building,
    /// Queries use it.
    Ready,
    /// It does not fit into memory; queries look through the collection.
    TooLarge,
}

/// Why an index cannot be declared or removed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IndexError {
    /// The name is not the name of an index.
    #[error("`{name}` is not an index's name: 1 to {MAX_NAME} of the characters a-z 0-9 . _ -")]
    Name {
        /// The name.
        name: String,
    },
    /// The whole document is not a place to find it by.
    #[error("an index needs a place in the document, such as /name")]
    Whole,
    /// Another index has the name.
    #[error("there is an index `{name}` already, over {path}")]
    Exists {
        /// The name.
        name: String,
        /// What it is over.
        path: Pointer,
    },
    /// There is no index with the name.
    #[error("there is no index `{name}`")]
    NotFound {
        /// The name.
        name: String,
    },
    /// The collection has as many as it may have.
    #[error("the collection has {MAX_INDEXES} indexes already")]
    TooMany,
    /// The memory cannot be read or written.
    #[error("the indexes of the collection cannot be read or written")]
    Document(#[from] DocumentError),
}

/// One index of this node.
#[derive(Debug)]
pub(crate) struct LocalIndex {
    pub(crate) definition: IndexDefinition,
    built: Mutex<Built>,
    behind: Mutex<Behind>,
    building: AtomicBool,
}

#[derive(Debug, Default)]
enum Built {
    #[default]
    No,
    Yes(Entries),
    TooLarge,
}

/// Documents that were committed since the index was last brought up to date.
#[derive(Debug, Default)]
struct Behind {
    ids: BTreeSet<Bytes>,
    overflown: bool,
}

/// The indexes that this node has begun to keep.
#[derive(Debug, Default)]
pub(crate) struct LocalIndexes(Mutex<HashMap<SpaceName, Vec<Arc<LocalIndex>>>>);

impl LocalIndexes {
    /// Notes that a document has changed. Never waits for whoever uses an index.
    pub(crate) fn note(&self, place: &Place) {
        let indexes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for index in indexes.get(&place.space).into_iter().flatten() {
            let mut behind = index.behind.lock().unwrap_or_else(PoisonError::into_inner);
            if behind.ids.len() >= MAX_BEHIND {
                behind.overflown = true;
                behind.ids.clear();
            }
            behind.ids.insert(place.key.clone());
        }
    }

    /// Makes the collection's indexes those that are declared, and returns them.
    fn align(&self, space: &SpaceName, declared: Vec<IndexDefinition>) -> Vec<Arc<LocalIndex>> {
        let mut indexes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if declared.is_empty() {
            indexes.remove(space);
            return Vec::new();
        }
        let local = indexes.entry(space.clone()).or_default();
        local.retain(|index| declared.contains(&index.definition));
        for definition in declared {
            if !local.iter().any(|index| index.definition == definition) {
                local.push(Arc::new(LocalIndex::new(definition)));
            }
        }
        local.clone()
    }
}

impl LocalIndex {
    fn new(definition: IndexDefinition) -> Self {
        Self {
            definition,
            built: Mutex::default(),
            behind: Mutex::default(),
            building: AtomicBool::new(false),
        }
    }

    /// Brings the index up to date and shows it to `look`; `None` if it cannot be used.
    pub(crate) fn with<T>(
        &self,
        collection: &Collection,
        look: impl FnOnce(&Entries) -> T,
    ) -> Result<Option<T>, DocumentError> {
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        let Built::Yes(entries) = &mut *built else { return Ok(None) };
        let behind = mem::take(&mut *self.behind.lock().unwrap_or_else(PoisonError::into_inner));
        if behind.overflown {
            *built = Built::No;
            return Ok(None);
        }
        for id in behind.ids {
            let view = collection.view(&Place { space: collection.space.clone(), key: id.clone() });
            let replaced = match view {
                Ok(view) => entries.replace(&id, &self.definition.path, view.as_deref()),
                Err(error) => {
                    // What was taken from the list would be missed.
                    *built = Built::No;
                    return Err(error);
                }
            };
            if replaced.is_err() {
                *built = Built::TooLarge;
                return Ok(None);
            }
        }
        Ok(Some(look(entries)))
    }

    fn status(&self) -> IndexStatus {
        let (state, documents) = match &*self.built.lock().unwrap_or_else(PoisonError::into_inner) {
            Built::No => (IndexState::Building, 0),
            Built::Yes(entries) => (IndexState::Ready, entries.documents()),
            Built::TooLarge => (IndexState::TooLarge, 0),
        };
        IndexStatus { definition: self.definition.clone(), state, documents }
    }

    fn needs_building(&self) -> bool {
        matches!(&*self.built.lock().unwrap_or_else(PoisonError::into_inner), Built::No)
    }

    /// Looks through the collection. Commits meanwhile are noted in `behind`, so nothing is missed.
    fn build(&self, documents: impl Fn() -> Option<Documents>, name: &str) -> Result<(), DocumentError> {
        *self.behind.lock().unwrap_or_else(PoisonError::into_inner) = Behind::default();
        let mut entries = Entries::default();
        let mut after: Option<Bytes> = None;
        loop {
            // Between pages nothing is held, so that the memory can be closed.
            let collection = documents().and_then(|documents| documents.collection(name).ok());
            let collection = collection.ok_or(DocumentError::Interrupted)?;
            let ids = collection.documents.ids(&collection.space, after.as_deref());
            let ids = ids.take(BUILD_PAGE).collect::<Result<Vec<Bytes>, _>>()?;
            for id in &ids {
                let view = collection.view(&Place { space: collection.space.clone(), key: id.clone() })?;
                if entries.replace(id, &self.definition.path, view.as_deref()).is_err() {
                    *self.built.lock().unwrap_or_else(PoisonError::into_inner) = Built::TooLarge;
                    return Ok(());
                }
            }
            match ids.last() {
                Some(last) if ids.len() == BUILD_PAGE => after = Some(last.clone()),
                _ => break,
            }
        }
        *self.built.lock().unwrap_or_else(PoisonError::into_inner) = Built::Yes(entries);
        Ok(())
    }
}

/// Documents that are put into an index before it looks whether the memory is to be closed.
const BUILD_PAGE: usize = 64;

impl Collection {
    /// The indexes of the collection, in the order of their names.
    pub async fn indexes(&self) -> Result<Vec<IndexStatus>, DocumentError> {
        let status = |collection: &Self| {
            let indexes = collection.local_indexes()?;
            Ok(indexes.iter().map(|index| index.status()).collect())
        };
        self.blocking(status).await
    }

    /// Declares an index, on all nodes. Each builds its own in the background.
    pub async fn add_index(&self, definition: IndexDefinition) -> Result<(), IndexError> {
        let IndexDefinition { name, path } = &definition;
        if !is_name(name) {
            return Err(IndexError::Name { name: name.chars().take(MAX_NAME).collect() });
        }
        if path.steps().is_empty() {
            return Err(IndexError::Whole);
        }
        let declared = self.blocking(Self::declared).await?;
        match declared.iter().find(|other| other.name == *name) {
            Some(other) if other.path == *path => return Ok(()),
            Some(other) => {
                return Err(IndexError::Exists { name: name.clone(), path: other.path.clone() });
            }
            None if declared.len() >= MAX_INDEXES => return Err(IndexError::TooMany),
            None => {}
        }
        self.declare(name, Content::Value(path.to_string().into())).await?;
        self.blocking(Self::local_indexes).await?;
        Ok(())
    }

    /// Removes an index, on all nodes.
    pub async fn remove_index(&self, name: &str) -> Result<(), IndexError> {
        let declared = self.blocking(Self::declared).await?;
        if !declared.iter().any(|index| index.name == name) {
            return Err(IndexError::NotFound { name: name.chars().take(MAX_NAME).collect() });
        }
        self.declare(name, Content::Tombstone).await?;
        self.blocking(Self::local_indexes).await?;
        Ok(())
    }

    async fn declare(&self, name: &str, content: Content) -> Result<(), DocumentError> {
        let space = SpaceName::new(SPACE).map_err(|_| DocumentError::Interrupted)?;
        let field = [&[INDEX], name.as_bytes()].concat().into();
        let key = Bytes::copy_from_slice(self.name.as_bytes());
        let draft = Draft { space, key, field, content, expires_ms: None, renews: None };
        let write = self.documents.memory().update(move |_| Ok((vec![draft], ())));
        Ok(write.await.map(|_| ())?)
    }

    /// What is declared for this collection. Others may have written it, so what makes no sense is passed over.
    pub(crate) fn declared(&self) -> Result<Vec<IndexDefinition>, DocumentError> {
        let Ok(space) = SpaceName::new(SPACE) else { return Ok(Vec::new()) };
        let prefix = codec::key_prefix(&space, self.name.as_bytes());
        let mut declared = Vec::new();
        for cell in self.documents.memory().shared().store.scan(&prefix, &prefix) {
            declared.extend(definition_of(&cell?));
        }
        declared.truncate(MAX_INDEXES);
        Ok(declared)
    }

    /// The indexes of this node; those that are not built yet begin to be.
    pub(crate) fn local_indexes(&self) -> Result<Vec<Arc<LocalIndex>>, DocumentError> {
        let indexes = self.documents.derived().indexes.align(&self.space, self.declared()?);
        for index in &indexes {
            if index.needs_building() && !index.building.swap(true, Ordering::AcqRel) {
                self.build_in_background(index.clone());
            }
        }
        Ok(indexes)
    }

    fn build_in_background(&self, index: Arc<LocalIndex>) {
        let (documents, name) = (self.documents.downgrade(), self.name.clone());
        let build = move || {
            if let Err(error) = index.build(documents, &name) {
                tracing::warn!(%error, collection = %name, index = index.definition.name, "an index was not built");
            }
            index.building.store(false, Ordering::Release);
        };
        tokio::task::spawn_blocking(build);
    }
}

fn definition_of(cell: &Cell) -> Option<IndexDefinition> {
    let Content::Value(path) = &cell.content else { return None };
    let name = std::str::from_utf8(cell.field.strip_prefix(&[INDEX])?).ok()?;
    let path: Pointer = std::str::from_utf8(path).ok()?.parse().ok()?;
    let sound = is_name(name) && !path.steps().is_empty();
    sound.then(|| IndexDefinition { name: name.to_owned(), path })
}

fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(allowed)
}
