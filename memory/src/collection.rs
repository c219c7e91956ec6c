//! Collections: named sets of documents.
//!
//! A collection `people` is the space `.docs/people`, which users cannot reach as a space; a document's id is its key.
//! A collection is there while it has a document or an index.
//!
//! Whoever edits a document holds its lock until the change is on the disk. Automerge computes, and the disk is read,
//! on threads of their own, never on those of async tasks.
//!
//! In reading order: `documents` (the handle, and what follows commits), `read`, `write` and `views` (single
//! documents), `compact` (their history made less), `order` (of JSON values), `query`, `shape` (sorting, projection, pages), `index` (entries), `plan`
//! (which index), `indexes` (declaring and building), `find`, and `bulk` (many documents at once). Of these `order`,
//! `query`, `shape`, `index` and `plan` are pure.

pub(crate) mod bulk;
pub(crate) mod compact;
pub(crate) mod documents;
pub(crate) mod error;
pub(crate) mod find;
pub(crate) mod index;
pub(crate) mod indexes;
pub(crate) mod order;
pub(crate) mod plan;
pub(crate) mod query;
pub(crate) mod read;
pub(crate) mod shape;
pub(crate) mod views;
pub(crate) mod write;

use std::sync::Arc;

use bytes::Bytes;

use self::documents::Documents;
use crate::{
    cell::{MAX_SPACE, SpaceName},
    document::open::Place,
};

/// Space of the collections themselves; with a slash and a name, a collection's.
pub(crate) const SPACE: &str = ".docs";

/// Longest name of a collection.
pub const MAX_COLLECTION: usize = MAX_SPACE - SPACE.len() - 1;

/// Longest id of a document, in bytes.
pub const MAX_ID: usize = 512;

/// Why a name is not the name of a collection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a collection: 1 to {MAX_COLLECTION} of the characters a-z 0-9 . _ / -")]
pub struct CollectionError {
    name: String,
}

/// Whether a space belongs to documents, and so is not for plain keys.
pub fn is_documents_space(space: &str) -> bool {
    space.strip_prefix(SPACE).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A named set of documents. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Collection {
    documents: Documents,
    name: Arc<str>,
    space: SpaceName,
}

impl Collection {
    pub(crate) fn new(documents: Documents, name: &str) -> Result<Self, CollectionError> {
        let refused = || CollectionError { name: name.chars().take(MAX_SPACE).collect() };
        if name.is_empty() {
            return Err(refused());
        }
        let space = SpaceName::new(&format!("{SPACE}/{name}")).map_err(|_| refused())?;
        Ok(Self { documents, name: name.into(), space })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn place(&self, id: &str) -> Place {
        Place { space: self.space.clone(), key: Bytes::copy_from_slice(id.as_bytes()) }
    }
}
