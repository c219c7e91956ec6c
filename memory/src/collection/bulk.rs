//! Many documents at once: deleting by query, dropping a collection, taking documents in, and listing collections.

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Collection,
    documents::Documents,
    error::DocumentError,
    find::{FindError, MAX_PAGE},
    indexes::IndexError,
    query::Filter,
};
use crate::{clock::now_ms, document::open::Place};

/// Documents that are written at once: enough to share commits, and few enough to leave room for others.
const AT_ONCE: usize = 32;

/// A collection that has something in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectionSummary {
    /// Its name.
    pub name: String,
    /// How many documents it has.
    pub documents: u64,
    /// How many indexes it has.
    pub indexes: usize,
}

/// One of many documents cannot be put.
#[derive(Clone, Debug, thiserror::Error)]
#[error("document {number} of those to be put")]
pub struct PutAllError {
    /// Which, from 0: all before it are in.
    pub number: usize,
    /// Why.
    #[source]
    pub source: DocumentError,
}

/// An id for a document that nobody has named: unique, and greater than those made before.
pub fn new_id() -> String {
    format!("{:011x}{:010x}", now_ms(), rand::random::<u64>() >> 24)
}

impl Documents {
    /// The collections that have a document or an index.
    pub async fn collections(&self) -> Result<Vec<CollectionSummary>, DocumentError> {
        let (documents, turn) = (self.clone(), self.turn().await?);
        let list = tokio::task::spawn_blocking(move || {
            let list = documents.list();
            drop(turn);
            list
        });
        list.await.map_err(|_| DocumentError::Interrupted)?
    }

    fn list(&self) -> Result<Vec<CollectionSummary>, DocumentError> {
        let mut found = Vec::new();
        for name in self.names()? {
            let Ok(collection) = self.collection(&name) else { continue };
            let indexes = collection.declared()?.len();
            let mut documents = 0;
            for id in self.ids(&collection.space, None) {
                let place = Place { space: collection.space.clone(), key: id? };
                documents += u64::from(collection.view(&place)?.is_some());
            }
            if documents > 0 || indexes > 0 {
                found.push(CollectionSummary { name, documents, indexes });
            }
        }
        Ok(found)
    }
}

impl Collection {
    /// Deletes the documents that match; returns how many there were.
    pub async fn delete_where(&self, filter: &Filter) -> Result<u64, FindError> {
        let mut deleted = 0;
        loop {
            let ids = self.matching(filter.clone(), MAX_PAGE).await?;
            let deleting = stream::iter(ids).map(|id| self.delete_matching(id, filter.clone()));
            let outcomes: Vec<bool> = deleting.buffer_unordered(AT_ONCE).try_collect().await?;
            let gone = outcomes.iter().filter(|deleted| **deleted).count();
            if gone == 0 {
                return Ok(deleted);
            }
            deleted += gone as u64;
        }
    }

    /// Deletes everything in the collection, its indexes too; returns how many documents there were. What others add
    /// meanwhile without knowing of it stays.
    pub async fn drop_all(&self) -> Result<u64, FindError> {
        let deleted = self.delete_where(&Filter::everything()).await?;
        for index in self.blocking(Self::declared).await? {
            match self.remove_index(&index.name).await {
                // Somebody else was faster.
                Ok(()) | Err(IndexError::NotFound { .. }) => {}
                Err(IndexError::Document(error)) => return Err(error.into()),
                Err(_) => {}
            }
        }
        Ok(deleted)
    }

    /// Puts many documents; of several with one id the last one stays. The first that cannot be put ends it; those before,
    /// and some after, are in. So what is to stop at it had better be looked at before ([`Collection::check`]).
    pub async fn put_all(&self, documents: Vec<(String, Value)>) -> Result<u64, PutAllError> {
        let mut number = 0;
        for some in with_different_ids(documents) {
            let putting = stream::iter(some).map(|(id, value)| async move { self.put(&id, value).await });
            let mut putting = putting.buffered(AT_ONCE);
            while let Some(put) = putting.next().await {
                put.map_err(|source| PutAllError { number, source })?;
                number += 1;
            }
        }
        Ok(number as u64)
    }
}

/// The same documents in their order, in runs in which no id comes twice.
fn with_different_ids(documents: Vec<(String, Value)>) -> Vec<Vec<(String, Value)>> {
    let (mut runs, mut ids) = (vec![Vec::new()], HashSet::new());
    for document in documents {
        if !ids.insert(document.0.clone()) {
            ids = HashSet::from([document.0.clone()]);
            runs.push(Vec::new());
        }
        if let Some(run) = runs.last_mut() {
            run.push(document);
        }
    }
    runs
}
