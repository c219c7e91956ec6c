//! Finding documents.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Collection,
    error::DocumentError,
    index::Entries,
    indexes::LocalIndex,
    plan::{self, Plan, Usable},
    query::{Filter, QueryError},
    read::text_len,
    shape::{Cursor, Projection, ShapeError, Sort},
};
use crate::document::open::Place;

/// Most documents of one page.
pub const MAX_PAGE: usize = 1000;

/// A page takes no further document once it has this many bytes.
const MAX_PAGE_BYTES: usize = 8 * 1024 * 1024;

/// Why documents cannot be found.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FindError {
    /// The query makes no sense.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The order, the projection or the cursor makes no sense.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The documents cannot be read.
    #[error("the documents cannot be read")]
    Document(#[from] DocumentError),
}

/// What is looked for, and what is told of it.
#[derive(Clone, Debug)]
pub struct Find {
    /// Which documents.
    pub filter: Filter,
    /// In which order.
    pub sort: Sort,
    /// Which of their members.
    pub fields: Projection,
    /// How many at most; [`MAX_PAGE`] are the limit.
    pub limit: usize,
    /// Behind which: what the page before gave.
    pub after: Option<String>,
}

impl Find {
    /// The first documents that match.
    pub fn new(filter: Filter) -> Self {
        Self { filter, sort: Sort::default(), fields: Projection::default(), limit: 100, after: None }
    }
}

/// A document that was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Its id.
    pub id: String,
    /// What it says, or the fields of it that were asked for.
    pub document: Value,
}

/// A page of documents.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The documents, in order.
    pub documents: Vec<Found>,
    /// Where the next page begins; `None` behind the last one.
    pub next: Option<String>,
    /// How they were found.
    pub explain: Explain,
}

/// How documents were found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explain {
    /// The index that was used; `None` if the collection was looked through.
    pub index: Option<String>,
    /// Indexes that could not be used as they are not built yet.
    pub building: Vec<String>,
    /// How many documents were looked at.
    pub examined: u64,
    /// How many of them matched; for an order by ids only up to the end of the page.
    pub matched: u64,
}

impl Collection {
    /// A page of the documents that match, each as it is now.
    pub async fn find(&self, find: Find) -> Result<Page, FindError> {
        let after = find.after.as_deref().map(|text| Cursor::from_text(text, &find.sort)).transpose()?;
        // When the caller is gone, so is this, and the search ends.
        let asked = Arc::new(());
        let search = Search {
            find,
            after,
            asked: Arc::downgrade(&asked),
            explain: Explain::default(),
            kept: Kept::default(),
        };
        let page = self.blocking(move |collection| search.run(collection)).await;
        drop(asked);
        Ok(page?)
    }

    /// The ids of up to `limit` documents that match.
    pub(crate) async fn matching(&self, filter: Filter, limit: usize) -> Result<Vec<String>, FindError> {
        let find = Find { limit, fields: Projection::Nothing, ..Find::new(filter) };
        Ok(self.find(find).await?.documents.into_iter().map(|found| found.id).collect())
    }
}

struct Search {
    find: Find,
    after: Option<Cursor>,
    asked: Weak<()>,
    explain: Explain,
    kept: Kept,
}

/// The first documents of those looked at so far.
#[derive(Default)]
struct Kept {
    documents: BTreeMap<Cursor, Arc<Value>>,
    bytes: usize,
    /// There are more behind them.
    cut: bool,
}

impl Search {
    fn run(mut self, collection: &Collection) -> Result<Page, DocumentError> {
        let limit = self.find.limit.min(MAX_PAGE);
        match self.candidates(collection)? {
            // Who asks for none wants to know how they would be found.
            _ if limit == 0 => {}
            Some(ids) => {
                let after = self.after.as_ref().filter(|_| self.find.sort.is_by_id());
                let after = after.map(|after| Bytes::copy_from_slice(after.id.as_bytes()));
                for id in ids.into_iter().filter(|id| after.as_ref().is_none_or(|after| id > after)) {
                    if self.look_at(collection, id, limit)? == Next::Enough {
                        break;
                    }
                }
            }
            None => {
                let after = self.after.as_ref().filter(|_| self.find.sort.is_by_id());
                let after = after.map(|after| after.id.clone().into_bytes());
                for id in collection.documents.ids(&collection.space, after.as_deref()) {
                    if self.look_at(collection, id?, limit)? == Next::Enough {
                        break;
                    }
                }
            }
        }
        Ok(self.page(limit))
    }

    /// The ids, in order, of the documents that an index leaves; `None` if all are to be looked at.
    fn candidates(&mut self, collection: &Collection) -> Result<Option<BTreeSet<Bytes>>, DocumentError> {
        let indexes = collection.local_indexes()?;
        // Each is looked at by itself: another may be brought up to date meanwhile, but none is ever behind.
        let mut best: Option<(&Arc<LocalIndex>, usize)> = None;
        for index in &indexes {
            match index.with(collection, |entries| plan_with(&self.find.filter, index, entries))? {
                None => self.explain.building.push(index.definition.name.clone()),
                Some(Plan::Index { candidates, .. }) if best.is_none_or(|(_, least)| candidates < least) => {
                    best = Some((index, candidates));
                }
                Some(_) => {}
            }
        }
        let Some((index, _)) = best else { return Ok(None) };
        let ids = index.with(collection, |entries| match plan_with(&self.find.filter, index, entries) {
            Plan::Index { ranges, .. } => {
                Some(ranges.iter().flat_map(|range| entries.ids(range)).cloned().collect())
            }
            Plan::Scan => None,
        })?;
        let ids = ids.flatten();
        self.explain.index = ids.as_ref().map(|_: &BTreeSet<Bytes>| index.definition.name.clone());
        Ok(ids)
    }

    fn look_at(&mut self, collection: &Collection, id: Bytes, limit: usize) -> Result<Next, DocumentError> {
        if self.asked.strong_count() == 0 {
            return Err(DocumentError::Interrupted);
        }
        // Ids are UTF-8; a cell under another key is nobody's document.
        let Ok(name) = String::from_utf8(id.to_vec()) else { return Ok(Next::More) };
        let place = Place { space: collection.space.clone(), key: id };
        let Some(document) = collection.view(&place)? else { return Ok(Next::More) };
        self.explain.examined += 1;
        if !self.find.filter.matches(&name, &document) {
            return Ok(Next::More);
        }
        self.explain.matched += 1;
        let cursor = Cursor { key: self.find.sort.key(&document), id: name };
        if self.after.as_ref().is_some_and(|after| cursor <= *after) {
            return Ok(Next::More);
        }
        self.kept.bytes += text_len(&document);
        self.kept.documents.insert(cursor, document);
        // One more than is told, to know whether there is a next page; by their ids they come in order.
        let full = |kept: &Kept| {
            kept.documents.len() > limit || (kept.bytes > MAX_PAGE_BYTES && kept.documents.len() > 1)
        };
        if self.find.sort.is_by_id() {
            self.kept.cut = full(&self.kept);
            return Ok(if self.kept.cut { Next::Enough } else { Next::More });
        }
        while self.kept.documents.len() > limit + 1
            || (self.kept.bytes > 2 * MAX_PAGE_BYTES && self.kept.documents.len() > 2)
        {
            self.kept.cut = true;
            let dropped = self.kept.documents.pop_last();
            self.kept.bytes -= dropped.map_or(0, |(_, document)| text_len(&document));
        }
        Ok(Next::More)
    }

    fn page(self, limit: usize) -> Page {
        let Self { find, after: _, asked: _, explain, kept } = self;
        let mut documents: Vec<Found> = Vec::new();
        let (mut bytes, mut last, mut more) = (0, None, kept.cut);
        for (cursor, document) in kept.documents {
            if documents.len() >= limit || bytes > MAX_PAGE_BYTES {
                more = true;
                break;
            }
            bytes += text_len(&document);
            documents.push(Found { id: cursor.id.clone(), document: find.fields.apply(&document) });
            last = Some(cursor);
        }
        let next = last.filter(|_| more).map(|last| last.to_text(&find.sort));
        Page { documents, next, explain }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    More,
    Enough,
}

fn plan_with(filter: &Filter, index: &LocalIndex, entries: &Entries) -> Plan {
    let usable = Usable { name: &index.definition.name, place: &index.definition.path, entries };
    plan::choose(filter, &[usable])
}
