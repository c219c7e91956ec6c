//! Reading single documents.

use std::{io, sync::Arc};

use serde::Serialize;
use serde_json::Value;

use super::{Collection, error::DocumentError, views::Lookup, views::View};
use crate::{
    document::{
        open::{self, Place},
        state::Document,
    },
    store::ReadError,
};

/// What a document costs, beside what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DocumentStats {
    /// Its size as JSON.
    pub bytes: usize,
    /// The changes of its epoch.
    pub changes: u64,
    /// What its history takes: the cells of this epoch and of the one before.
    pub history_bytes: usize,
    /// Cells and changes that make no sense and were passed over.
    pub damaged: u64,
}

impl Collection {
    /// The document with this id.
    pub async fn get(&self, id: &str) -> Result<Option<Arc<Value>>, DocumentError> {
        let place = self.place(id);
        if let Lookup::Known(view) = self.documents.derived().views.lookup(&place) {
            return Ok(view);
        }
        self.blocking(move |collection| collection.view(&place)).await
    }

    /// What the document costs; `None` if there is none.
    pub async fn stats(&self, id: &str) -> Result<Option<DocumentStats>, DocumentError> {
        let place = self.place(id);
        self.blocking(move |collection| {
            collection.look(&place, |document| {
                let stats = DocumentStats {
                    bytes: text_len(&document.value()),
                    changes: document.changes(),
                    history_bytes: document.size().total(),
                    damaged: document.damaged(),
                };
                (document.exists().then_some(stats), stats.bytes)
            })
        })
        .await
    }

    /// What the document says now. Reads the disk.
    pub(crate) fn view(&self, place: &Place) -> Result<View, DocumentError> {
        let views = &self.documents.derived().views;
        let ticket = match views.lookup(place) {
            Lookup::Known(view) => return Ok(view),
            Lookup::Unknown(ticket) => ticket,
        };
        let (view, text) = self.look(place, |document| {
            let view = document.exists().then(|| Arc::new(document.value()));
            let text = view.as_deref().map_or(0, text_len);
            ((view, text), text)
        })?;
        views.hand_in(place, ticket, &view, text);
        Ok(view)
    }

    /// Looks at the document, held open or put together from the disk. `read` answers, and says how many bytes of JSON it says.
    fn look<T>(
        &self,
        place: &Place,
        read: impl FnOnce(&mut Document) -> (T, usize),
    ) -> Result<T, DocumentError> {
        let open = &self.documents.derived().open;
        let entry = open.present(place);
        // Whoever edits the document holds its lock and waits for a thread such as this one, which so must not wait for
        // the lock. What is on the disk is what counts.
        let mut held = entry.as_ref().and_then(|entry| Some((entry, entry.document.try_lock().ok()?)));
        let mut document = match &mut held {
            Some((entry, held)) => entry.catch_up(held.take(), || self.load(place))?,
            None => self.load(place)?,
        };
        let (answer, text) = read(&mut document);
        if document.compaction(text).is_some() {
            self.look_after(place);
        }
        match held {
            Some((_, mut held)) => *held = Some(document),
            // It is only read: there is no need to keep it open, unless it takes long to put it together.
            None if document.is_slow() => _ = open.entry(place),
            None => {}
        }
        Ok(answer)
    }

    /// Puts the document together from the disk.
    pub(crate) fn load(&self, place: &Place) -> Result<Document, ReadError> {
        open::load(self.documents.memory(), &self.documents.derived().packs, place)
    }

    /// Runs `work` on a thread where it holds up no other task.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, DocumentError> + Send + 'static,
    ) -> Result<T, DocumentError> {
        let turn = self.documents.turn().await?;
        let collection = self.clone();
        let worked = tokio::task::spawn_blocking(move || {
            let worked = work(&collection);
            drop(turn);
            worked
        });
        worked.await.map_err(|_| DocumentError::Interrupted)?
    }
}

/// How long a value is as JSON.
pub(crate) fn text_len(value: &Value) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Neither a value nor a counter can fail.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}
