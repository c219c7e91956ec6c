//! Writing single documents.

use std::sync::Arc;

use automerge::{ActorId, ROOT};
use bytes::Bytes;
use serde_json::{Map, Value};

use super::{Collection, MAX_ID, compact::draft, error::DocumentError, query::Filter, read::text_len};
use crate::{
    cell::Draft,
    document::{
        change,
        edit::{self, Edit, MAX_EDITS},
        open::{Entry, Place},
        pack::Purpose,
        patch, replace,
        shared::Editor,
        state::Document,
        value::{MAX_DEPTH, is_within},
    },
    writer::View,
};

/// A document larger than this, as JSON, works but is slow to load and to merge: whoever writes it is told.
pub const LARGE_DOCUMENT: usize = 256 * 1024;

/// Largest document, as JSON. Beyond this every edit anywhere would cost every node seconds.
pub const MAX_DOCUMENT: usize = 5 * 1024 * 1024;

/// The changes of a document's epoch, in bytes. Every node keeps them and reads them to open the document, which takes some
/// seconds then. An epoch is closed long before, unless some node has been away for all that time. Beyond this the
/// document is kept but not changed any more; a copy of it begins with no history.
pub const MAX_HISTORY: usize = 32 * 1024 * 1024;

/// A history that takes this many times what the document says is worth a word,
const OVERGROWN: usize = 10;
/// unless it is small.
const SMALL_HISTORY: usize = 1024 * 1024;

/// What a write came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The document's size as JSON.
    pub bytes: usize,
    /// What its history takes.
    pub history_bytes: usize,
    /// Whether the document was not there before.
    pub created: bool,
}

impl Written {
    /// Whether the document is so large that it should be divided.
    pub fn is_large(&self) -> bool {
        self.bytes > LARGE_DOCUMENT
    }

    /// Whether its history takes much more than it says, since some node has not heard of it for long.
    pub fn is_overgrown(&self) -> bool {
        self.history_bytes > SMALL_HISTORY.max(OVERGROWN * self.bytes)
    }
}

/// Whether a write may make a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    Create,
    Refuse,
}

/// What is to be written: fields and values of the document's key, and what to answer.
pub(crate) struct Outcome<T> {
    pub(crate) cells: Vec<(Bytes, Bytes)>,
    pub(crate) answer: T,
}

impl Collection {
    /// Refuses what [`Self::put`] refuses whatever is there already.
    pub fn check(id: &str, document: &Value) -> Result<(), DocumentError> {
        check_id(id)?;
        check(document)?;
        if document.is_object() { Ok(()) } else { Err(DocumentError::NotAnObject) }
    }

    /// Makes the document equal to `value`, an object. What is equal already is not touched, so edits of other places
    /// that others make at the same time stay.
    pub async fn put(&self, id: &str, value: Value) -> Result<Written, DocumentError> {
        let members = checked_object(value)?;
        self.edit_with(id, Missing::Create, move |editor| {
            Ok(replace::members(editor.document(), &ROOT, &members)?)
        })
        .await
    }

    /// Applies a JSON merge patch (RFC 7386). Patches of different members that are made at the same time both stay.
    pub async fn patch(&self, id: &str, patch: Value) -> Result<Written, DocumentError> {
        let members = checked_object(patch)?;
        self.edit_with(id, Missing::Refuse, move |editor| Ok(patch::apply(editor, &members)?)).await
    }

    /// Does all of `edits`, in order, or none.
    pub async fn edit(&self, id: &str, edits: Vec<Edit>) -> Result<Written, DocumentError> {
        if edits.len() > MAX_EDITS {
            return Err(DocumentError::TooManyEdits { count: edits.len() });
        }
        edit::check_depth(&edits)?;
        for edit in &edits {
            if let Edit::Set { value, .. } | Edit::Insert { value, .. } | Edit::Push { value, .. } = edit {
                check_size(value)?;
            }
        }
        self.edit_with(id, Missing::Refuse, move |editor| Ok(edit::apply(editor, &edits)?)).await
    }

    /// Deletes the document; returns whether there was one. An edit that somebody makes without knowing of it brings
    /// the document back, with everything in it.
    pub async fn delete(&self, id: &str) -> Result<bool, DocumentError> {
        self.delete_if(id, |_| true).await
    }

    /// Deletes the document if it still matches.
    pub(crate) async fn delete_matching(&self, id: String, filter: Filter) -> Result<bool, DocumentError> {
        let name = id.clone();
        self.delete_if(&id, move |document| filter.matches(&name, &document.value())).await
    }

    async fn delete_if(
        &self,
        id: &str,
        condition: impl Fn(&Document) -> bool + Send + Sync + 'static,
    ) -> Result<bool, DocumentError> {
        let author = self.documents.memory().author();
        self.write(id, move |document, actor| {
            if !document.exists() || !condition(document) {
                return Ok(Outcome { cells: Vec::new(), answer: false });
            }
            let mut cells = Vec::new();
            if document.is_splintered() {
                let joined = document.edit(actor, |editor| {
                    editor.touch();
                    Ok::<_, DocumentError>(())
                })?;
                cells.extend(
                    joined.iter().filter_map(|change| change::cells_of(document.epoch(), change)).flatten(),
                );
            }
            cells.push(change::deletion(author, &document.delete(author)));
            Ok(Outcome { cells, answer: true })
        })
        .await
    }

    async fn edit_with(
        &self,
        id: &str,
        missing: Missing,
        edit: impl Fn(&mut Editor<'_>) -> Result<(), DocumentError> + Send + Sync + 'static,
    ) -> Result<Written, DocumentError> {
        let name = id.to_owned();
        let (collection, id) = (self.name.clone(), id.to_owned());
        let (written, compaction) = self
            .write(&name, move |document, actor| {
                let existed = document.exists();
                if !existed && missing == Missing::Refuse {
                    return Err(DocumentError::NotFound { id: id.clone() });
                }
                if document.size().current() > MAX_HISTORY {
                    return Err(DocumentError::HistoryFull { bytes: document.size().current() });
                }
                let changes = document.edit(actor, &edit)?;
                let bytes = text_len(&document.value());
                if bytes > MAX_DOCUMENT {
                    return Err(DocumentError::TooLarge { bytes });
                }
                let mut cells = Vec::new();
                for change in &changes {
                    let parts = change::cells_of(document.epoch(), change)
                        .ok_or(DocumentError::TooLarge { bytes: change.raw_bytes().len() })?;
                    cells.extend(parts);
                }
                let written = Written { bytes, history_bytes: document.size().total(), created: !existed };
                Ok(Outcome { cells, answer: (written, document.compaction(bytes)) })
            })
            .await?;
        if compaction.is_some() {
            self.compact_in_background(self.place(&name));
        }
        if written.is_large() {
            tracing::warn!(%collection, id = name, bytes = written.bytes, "a document is large");
        } else if written.is_overgrown() {
            tracing::warn!(%collection, id = name, bytes = written.history_bytes, "the history of a document is large");
        }
        Ok(written)
    }

    /// Lets `work` change the document, and returns when what it wants written is on the disk. It goes on to the end
    /// even if nobody waits: a change that is in memory and not on the disk would be one that others miss.
    async fn write<T: Send + 'static>(
        &self,
        id: &str,
        work: impl Fn(&mut Document, &ActorId) -> Result<Outcome<T>, DocumentError> + Send + Sync + 'static,
    ) -> Result<T, DocumentError> {
        check_id(id)?;
        let (collection, place) = (self.clone(), self.place(id));
        let write = tokio::spawn(async move { collection.write_now(place, work).await });
        write.await.map_err(|_| DocumentError::Interrupted)?
    }

    /// The same in the task that it is called in.
    pub(crate) async fn write_now<T: Send + 'static>(
        &self,
        place: Place,
        work: impl Fn(&mut Document, &ActorId) -> Result<Outcome<T>, DocumentError> + Send + Sync + 'static,
    ) -> Result<T, DocumentError> {
        let entry = self.documents.derived().open.entry(&place);
        let mut held = entry.document.lock().await;
        let work = Arc::new(work);
        loop {
            // Should anything fail from here on, the document is put together anew by whoever needs it next.
            let before = held.take();
            let (document, outcome) = self.work(&place, &entry, before, work.clone()).await?;
            if outcome.cells.is_empty() || self.commit(&place, &entry, outcome.cells).await? {
                entry.weigh(&document);
                *held = Some(document);
                return Ok(outcome.answer);
            }
        }
    }

    async fn work<T: Send + 'static>(
        &self,
        place: &Place,
        entry: &Arc<Entry>,
        before: Option<Document>,
        work: Arc<
            impl Fn(&mut Document, &ActorId) -> Result<Outcome<T>, DocumentError> + Send + Sync + 'static,
        >,
    ) -> Result<(Document, Outcome<T>), DocumentError> {
        let actor = self.documents.actor();
        let (place, entry) = (place.clone(), entry.clone());
        self.blocking(move |collection| {
            let mut document = entry.catch_up(before, || collection.load(&place))?;
            let outcome = work(&mut document, &actor)?;
            Ok((document, outcome))
        })
        .await
    }

    /// Says whether it was done: it is not if the document has gone on to another epoch meanwhile.
    async fn commit(
        &self,
        place: &Place,
        entry: &Arc<Entry>,
        cells: Vec<(Bytes, Bytes)>,
    ) -> Result<bool, DocumentError> {
        entry.is_writing(cells.iter().map(|(field, _)| field));
        let drafts: Vec<Draft> = cells.into_iter().map(|cell| draft(place, cell)).collect();
        let (at, writing) = (place.clone(), entry.clone());
        let closes = |field: &[u8]| change::pack_field(field) == Some(Purpose::Close);
        let update = move |view: &View<'_>| {
            let is_overtaken = writing.is_overtaken() || view.is_pending(&at.space, &at.key, closes);
            Ok(if is_overtaken { (Vec::new(), false) } else { (drafts, true) })
        };
        let committed = self.documents.memory().update(update).await;
        entry.is_writing([]);
        if committed.is_err() {
            self.documents.change_actor();
        }
        Ok(committed.map(|(_, is_done)| is_done)?)
    }
}

fn check_id(id: &str) -> Result<(), DocumentError> {
    if (1..=MAX_ID).contains(&id.len()) { Ok(()) } else { Err(DocumentError::Id { len: id.len() }) }
}

fn checked_object(value: Value) -> Result<Map<String, Value>, DocumentError> {
    check(&value)?;
    match value {
        Value::Object(members) => Ok(members),
        _ => Err(DocumentError::NotAnObject),
    }
}

/// Refuses what would be too much before anything is computed with it.
fn check(value: &Value) -> Result<(), DocumentError> {
    if is_within(value, MAX_DEPTH) { check_size(value) } else { Err(DocumentError::TooDeep) }
}

fn check_size(value: &Value) -> Result<(), DocumentError> {
    let bytes = text_len(value);
    if bytes > MAX_DOCUMENT { Err(DocumentError::TooLarge { bytes }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use starfish_dht::PeerId;

    use super::super::Documents;
    use crate::Memory;

    #[tokio::test]
    async fn what_a_node_has_written_itself_it_does_not_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let notes = Documents::new(Memory::open(folder.path(), &PeerId::random()).unwrap())
            .collection("notes")
            .unwrap();
        let mut noise = vec![0; 512 * 1024];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        let body: String = noise.iter().map(|byte| format!("{byte:02x}")).collect();
        notes.put("long", json!({ "body": body })).await.unwrap();
        let entry = notes.documents.derived().open.present(&notes.place("long")).unwrap();
        assert!(!entry.is_behind(), "however long it is");
    }
}
