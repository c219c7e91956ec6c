//! Whole collections as NDJSON, one document a line, streamed both ways.

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use serde_json::Value;
use starfish_memory::{Collection, Documents, Filter, Find, FindError, MAX_PAGE, Page, PutAllError, new_id};

use super::{MAX_BODY, collection};
use crate::api::error::ApiError;
use crate::api::extract::{Query, Segments};
use crate::api::ndjson;
use crate::api::route::{Content, Route, Verb};
use crate::unambiguous;
use crate::wire::{DocumentCount, DocumentLine};

/// Documents of an import that are written together, and their bytes.
const BATCH: usize = 64;
const BATCH_BYTES: usize = 4 << 20;

pub(super) fn routes(documents: &Documents) -> Vec<Route> {
    vec![
        Route::new(
            Verb::Get,
            "/api/v1/docs/{collection}/export",
            "Every document, one a line; breaks off if it fails",
            documents,
            export,
        )
        .query(&[("query", "only the documents that match")])
        .gives(Content::Text("lines of {id, document}")),
        Route::new(
            Verb::Post,
            "/api/v1/docs/{collection}/import",
            "Put every document that comes, one a line; those before a faulty line are in",
            documents,
            import,
        )
        .takes(Content::Text("lines of {id, document}; without an id the document gets a new one"))
        .gives(Content::Json("{documents}")),
    ]
}

async fn export(
    State(documents): State<Documents>,
    segments: Segments,
    query: Query,
) -> Result<Response, ApiError> {
    let collection = collection(&documents, &segments)?;
    let filter = match query.bytes("query") {
        None => Filter::everything(),
        Some(text) => {
            let query: Value = unambiguous::parse(text)
                .map_err(|error| ApiError::bad_request("bad-json", format!("query: {error}")))?;
            Filter::parse(&query)?
        }
    };
    // A reason to refuse shows with the first page; only then is the status decided.
    let mut pages = Box::pin(pages(collection, filter));
    let first = pages.next().await.transpose()?;
    let lines = stream::iter(first.map(Ok)).chain(pages).map_ok(|page| lines_of(&page));
    Ok(ndjson::answer(lines))
}

fn pages(collection: Collection, filter: Filter) -> impl Stream<Item = Result<Page, FindError>> {
    stream::try_unfold(Some(None), move |after: Option<Option<String>>| {
        let (collection, filter) = (collection.clone(), filter.clone());
        async move {
            let Some(after) = after else { return Ok(None) };
            let page = collection.find(Find { limit: MAX_PAGE, after, ..Find::new(filter) }).await?;
            let next = page.next.clone().map(Some);
            Ok(Some((page, next)))
        }
    })
}

fn lines_of(page: &Page) -> Bytes {
    let mut lines = Vec::new();
    page.documents.iter().for_each(|found| ndjson::push(&mut lines, found));
    lines.into()
}

async fn import(
    State(documents): State<Documents>,
    segments: Segments,
    request: Request,
) -> Result<axum::Json<DocumentCount>, ApiError> {
    let mut import = Import {
        collection: collection(&documents, &segments)?,
        lines: 0,
        taken: 0,
        batch: Vec::new(),
        places: Vec::new(),
        bytes: 0,
    };
    let mut chunks = request.into_body().into_data_stream();
    let mut buffer = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        buffer.extend_from_slice(&chunk.map_err(|error| import.faulty(&error.to_string()))?);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line = buffer.split_to(end + 1);
            import.take(&line).await?;
        }
        if buffer.len() > MAX_BODY {
            import.lines += 1;
            return Err(import.refuse("the line is too long".to_owned()).await);
        }
    }
    import.take(&buffer).await?;
    import.write().await?;
    Ok(axum::Json(DocumentCount { documents: import.taken }))
}

/// The document that a line holds, and its id; or why it cannot be put, whatever is there already.
fn document_in(line: &[u8]) -> Result<(String, Value), String> {
    let DocumentLine { id, document } = unambiguous::parse(line).map_err(|error| error.to_string())?;
    let id = id.unwrap_or_else(new_id);
    Collection::check(&id, &document).map_err(|error| error.to_string())?;
    Ok((id, document))
}

/// An import under way.
struct Import {
    collection: Collection,
    /// Lines seen.
    lines: u64,
    /// Documents written.
    taken: u64,
    /// Documents to be written, and the lines that they came in.
    batch: Vec<(String, Value)>,
    places: Vec<u64>,
    bytes: usize,
}

impl Import {
    async fn take(&mut self, line: &[u8]) -> Result<(), ApiError> {
        self.lines += u64::from(!line.is_empty());
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        match document_in(line) {
            Ok(document) => {
                self.batch.push(document);
                self.places.push(self.lines);
                self.bytes += line.len();
            }
            Err(reason) => return Err(self.refuse(reason).await),
        }
        if self.batch.len() >= BATCH || self.bytes >= BATCH_BYTES { self.write().await } else { Ok(()) }
    }

    async fn write(&mut self) -> Result<(), ApiError> {
        self.bytes = 0;
        let (batch, places) = (std::mem::take(&mut self.batch), std::mem::take(&mut self.places));
        match self.collection.put_all(batch).await {
            Ok(written) => {
                self.taken += written;
                Ok(())
            }
            Err(PutAllError { number, source }) => {
                self.taken += number as u64;
                let (line, mut refusal) =
                    (places.get(number).copied().unwrap_or(self.lines), ApiError::from(source));
                refusal.body.message = format!(
                    "line {line}: {}; {} documents before it are in, and some behind it may be",
                    refusal.body.message, self.taken
                );
                Err(refusal)
            }
        }
    }

    /// Writes what came before the faulty line, and says which that is.
    async fn refuse(&mut self, reason: String) -> ApiError {
        match self.write().await {
            Ok(()) => self.faulty(&reason),
            Err(error) => error,
        }
    }

    fn faulty(&self, reason: &str) -> ApiError {
        let message = format!("line {}: {reason}; {} documents before it are in", self.lines, self.taken);
        ApiError::bad_request("bad-line", message)
    }
}
