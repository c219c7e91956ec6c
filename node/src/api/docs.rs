//! `/api/v1/docs`: documents, in collections. Names and ids are percent-encoded segments of the URL.
//!
//! A document's body is JSON whatever its `Content-Type` says, except that a `PATCH` is always a merge patch.

mod bulk;
mod error;

use axum::body::to_bytes;
use axum::extract::{Request, State};
use http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::Value;
use starfish_memory::{
    Collection, CollectionSummary, Documents, Edit, Filter, Find, IndexDefinition, IndexStatus,
    LARGE_DOCUMENT, MAX_DOCUMENT, Written, new_id,
};

use super::error::ApiError;
use super::extract::{Json, Segments};
use super::route::{Content, Route, Verb};
use crate::unambiguous;
use crate::wire::{
    DeleteRequest, Deleted, DocumentCost, DocumentCount, DocumentWritten, FindAnswer, FindRequest,
    IndexRequest,
};

/// The largest body with a document: the largest document, with room for blanks between its members.
const MAX_BODY: usize = MAX_DOCUMENT + (1 << 20);

const DOCUMENT: &str = "/api/v1/docs/{collection}/documents/{id}";

pub(super) fn routes(documents: &Documents) -> Vec<Route> {
    let mut routes = vec![
        Route::new(Verb::Get, "/api/v1/docs", "The collections that have something in them", documents, list)
            .gives(Content::Json("[{name, documents, indexes}]")),
        Route::new(
            Verb::Delete,
            "/api/v1/docs/{collection}",
            "Drop a collection: its documents and its indexes",
            documents,
            drop_collection,
        )
        .gives(Content::Json("{documents}")),
        Route::new(
            Verb::Post,
            "/api/v1/docs/{collection}/documents",
            "Put a document under a new id",
            documents,
            create,
        )
        .takes(Content::Json("the document"))
        .gives(Content::Json("{id, bytes, created, warning}")),
        Route::new(Verb::Get, DOCUMENT, "A document", documents, get).gives(Content::Json("the document")),
        Route::new(Verb::Put, DOCUMENT, "Make a document equal to the body", documents, put)
            .takes(Content::Json("the document"))
            .gives(Content::Json("{id, bytes, created, warning}")),
        Route::new(Verb::Patch, DOCUMENT, "Apply a JSON merge patch (RFC 7386)", documents, patch)
            .takes(Content::Json("the patch"))
            .gives(Content::Json("{id, bytes, created, warning}")),
        Route::new(Verb::Delete, DOCUMENT, "Delete a document", documents, delete)
            .gives(Content::Json("{deleted}")),
        Route::new(
            Verb::Post,
            "/api/v1/docs/{collection}/documents/{id}/edit",
            "Edit places of a document, all or none",
            documents,
            edit,
        )
        .takes(Content::Json(
            "[{op, path, ...}], op one of set, remove, increment, insert, push, splice-text",
        ))
        .gives(Content::Json("{id, bytes, created, warning}")),
        Route::new(
            Verb::Get,
            "/api/v1/docs/{collection}/documents/{id}/cost",
            "What a document and its history take",
            documents,
            cost,
        )
        .gives(Content::Json("{bytes, changes, history_bytes, damaged}")),
        Route::new(Verb::Post, "/api/v1/docs/{collection}/find", "Find documents", documents, find)
            .takes(Content::Json("{query, sort, fields, limit, after}"))
            .gives(Content::Json("{documents, next, explain}")),
        Route::new(
            Verb::Get,
            "/api/v1/docs/{collection}/indexes",
            "The indexes, and whether they are built on this node",
            documents,
            indexes,
        )
        .gives(Content::Json("[{name, path, state, documents}]")),
        Route::new(
            Verb::Put,
            "/api/v1/docs/{collection}/indexes/{name}",
            "Declare an index; every node builds it in the background",
            documents,
            add_index,
        )
        .takes(Content::Json("{path}")),
        Route::new(
            Verb::Delete,
            "/api/v1/docs/{collection}/indexes/{name}",
            "Remove an index",
            documents,
            remove_index,
        ),
        Route::new(
            Verb::Post,
            "/api/v1/docs/{collection}/delete",
            "Delete the documents that match",
            documents,
            delete_where,
        )
        .takes(Content::Json("{query}"))
        .gives(Content::Json("{documents}")),
    ];
    routes.extend(bulk::routes(documents));
    routes
}

async fn list(State(documents): State<Documents>) -> Result<axum::Json<Vec<CollectionSummary>>, ApiError> {
    Ok(axum::Json(documents.collections().await?))
}

async fn drop_collection(
    State(documents): State<Documents>,
    segments: Segments,
) -> Result<axum::Json<DocumentCount>, ApiError> {
    let documents = collection(&documents, &segments)?.drop_all().await?;
    Ok(axum::Json(DocumentCount { documents }))
}

async fn create(
    State(documents): State<Documents>,
    segments: Segments,
    request: Request,
) -> Result<axum::Json<DocumentWritten>, ApiError> {
    let id = new_id();
    let value = json_body(request).await?;
    let written = collection(&documents, &segments)?.put(&id, value).await?;
    Ok(axum::Json(wire_written(id, written)))
}

async fn get(
    State(documents): State<Documents>,
    segments: Segments,
) -> Result<axum::Json<std::sync::Arc<Value>>, ApiError> {
    let id = segments.text(3)?;
    let found = collection(&documents, &segments)?.get(id).await?;
    found.map(axum::Json).ok_or_else(|| error::no_such_document(id))
}

async fn put(
    State(documents): State<Documents>,
    segments: Segments,
    request: Request,
) -> Result<axum::Json<DocumentWritten>, ApiError> {
    let id = segments.text(3)?;
    let value = json_body(request).await?;
    let written = collection(&documents, &segments)?.put(id, value).await?;
    Ok(axum::Json(wire_written(id.to_owned(), written)))
}

async fn patch(
    State(documents): State<Documents>,
    segments: Segments,
    request: Request,
) -> Result<axum::Json<DocumentWritten>, ApiError> {
    let id = segments.text(3)?;
    let patch = json_body(request).await?;
    let written = collection(&documents, &segments)?.patch(id, patch).await?;
    Ok(axum::Json(wire_written(id.to_owned(), written)))
}

async fn edit(
    State(documents): State<Documents>,
    segments: Segments,
    request: Request,
) -> Result<axum::Json<DocumentWritten>, ApiError> {
    let id = segments.text(3)?;
    let edits: Vec<Edit> = json_body(request).await?;
    let written = collection(&documents, &segments)?.edit(id, edits).await?;
    Ok(axum::Json(wire_written(id.to_owned(), written)))
}

async fn delete(
    State(documents): State<Documents>,
    segments: Segments,
) -> Result<axum::Json<Deleted>, ApiError> {
    let deleted = collection(&documents, &segments)?.delete(segments.text(3)?).await?;
    Ok(axum::Json(Deleted { deleted }))
}

async fn cost(
    State(documents): State<Documents>,
    segments: Segments,
) -> Result<axum::Json<DocumentCost>, ApiError> {
    let id = segments.text(3)?;
    let stats = collection(&documents, &segments)?.stats(id).await?;
    let stats = stats.ok_or_else(|| error::no_such_document(id))?;
    let starfish_memory::DocumentStats { bytes, changes, history_bytes, damaged } = stats;
    Ok(axum::Json(DocumentCost { bytes, changes, history_bytes, damaged }))
}

async fn find(
    State(documents): State<Documents>,
    segments: Segments,
    Json(request): Json<FindRequest>,
) -> Result<axum::Json<FindAnswer>, ApiError> {
    let FindRequest { query, sort, fields, limit, after } = request;
    let filter = query.as_ref().map_or_else(|| Ok(Filter::everything()), Filter::parse)?;
    let find = Find {
        sort: sort.unwrap_or_default().parse()?,
        fields: fields.unwrap_or_default().parse()?,
        limit: limit.unwrap_or(100),
        after,
        ..Find::new(filter)
    };
    let page = collection(&documents, &segments)?.find(find).await?;
    let starfish_memory::Page { documents, next, explain } = page;
    Ok(axum::Json(FindAnswer { documents, next, explain }))
}

async fn delete_where(
    State(documents): State<Documents>,
    segments: Segments,
    Json(request): Json<DeleteRequest>,
) -> Result<axum::Json<DocumentCount>, ApiError> {
    let filter = Filter::parse(&request.query)?;
    let documents = collection(&documents, &segments)?.delete_where(&filter).await?;
    Ok(axum::Json(DocumentCount { documents }))
}

async fn indexes(
    State(documents): State<Documents>,
    segments: Segments,
) -> Result<axum::Json<Vec<IndexStatus>>, ApiError> {
    Ok(axum::Json(collection(&documents, &segments)?.indexes().await?))
}

async fn add_index(
    State(documents): State<Documents>,
    segments: Segments,
    Json(request): Json<IndexRequest>,
) -> Result<StatusCode, ApiError> {
    let definition = IndexDefinition { name: segments.text(3)?.to_owned(), path: request.path };
    collection(&documents, &segments)?.add_index(definition).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove_index(
    State(documents): State<Documents>,
    segments: Segments,
) -> Result<StatusCode, ApiError> {
    collection(&documents, &segments)?.remove_index(segments.text(3)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The collection that the URL names.
fn collection(documents: &Documents, segments: &Segments) -> Result<Collection, ApiError> {
    let collection = documents.collection(segments.text(1)?);
    collection.map_err(|error| ApiError::bad_request("bad-collection", error.to_string()))
}

/// A body of JSON that may be as large as a document.
async fn json_body<T: DeserializeOwned>(request: Request) -> Result<T, ApiError> {
    let body = to_bytes(request.into_body(), MAX_BODY).await.map_err(|_| {
        let message = format!("the body is longer than {MAX_BODY} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message)
    })?;
    unambiguous::parse(&body).map_err(|error| ApiError::bad_request("bad-json", error.to_string()))
}

fn wire_written(id: String, written: Written) -> DocumentWritten {
    let Written { bytes, history_bytes, created } = written;
    let warning = if written.is_large() {
        Some(format!(
            "the document has {bytes} bytes; beyond {LARGE_DOCUMENT} it is slow to load and to merge"
        ))
    } else if written.is_overgrown() {
        Some(format!(
            "the document's history takes {history_bytes} bytes, since a node is away that has not heard of all of it"
        ))
    } else {
        None
    };
    DocumentWritten { id, bytes, created, warning }
}
