//! `/api/v1/mem`: the shared memory. Keys are percent-encoded segments of the URL and may be any bytes.

use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use starfish_memory::{Memory, ReadError, Space, WriteError};
use tokio_util::sync::CancellationToken;

use super::error::{ApiError, chain};
use super::extract::{Json, Query, Segments};
use super::route::{Content, Route, Verb};
use crate::wire::{Counted, Deleted, IncrementRequest, KeyValueBody, WatchEvent};

/// The most entries in one page; a page of the largest values is 16 MiB.
const MAX_PAGE: usize = 1000;
/// What is read of a value's body: one byte more than the store takes, so that its own error is the answer.
const MAX_VALUE_BODY: usize = starfish_memory::MAX_VALUE + 1;

/// What this resource needs.
#[derive(Clone, Debug)]
pub(super) struct Resource {
    pub(super) memory: Memory,
    /// Ends the watches.
    pub(super) stopping: CancellationToken,
}

pub(super) fn routes(state: &Resource) -> Vec<Route> {
    vec![
        Route::new(
            Verb::Get,
            "/api/v1/mem/{space}",
            "The keys of a space with their values, in order",
            state,
            scan,
        )
        .query(&[
            ("prefix", "only keys that begin so"),
            ("after", "only keys behind this one: the last of the page before"),
            ("limit", "at most so many; 1000 at most, 100 if missing"),
        ])
        .gives(Content::Json("[{key, value}], keys percent-encoded, values in base64")),
        Route::new(Verb::Get, "/api/v1/mem/{space}/{key}", "The value of a key", state, get)
            .gives(Content::Bytes("the value")),
        Route::new(Verb::Put, "/api/v1/mem/{space}/{key}", "Set a key, on disk when answered", state, set)
            .query(&[("ttl_ms", "the key is gone after so many milliseconds")])
            .takes(Content::Bytes("the value")),
        Route::new(Verb::Delete, "/api/v1/mem/{space}/{key}", "Delete a key", state, delete)
            .gives(Content::Json("{deleted}")),
        Route::new(Verb::Post, "/api/v1/mem/{space}/{key}/incr", "Add to a counter", state, increment)
            .takes(Content::Json("{by}"))
            .gives(Content::Json("{value}")),
        // Not below /mem/{space}, where `watch` is a key like any other.
        Route::new(
            Verb::Get,
            "/api/v1/watch/{space}",
            "The keys of a space, then every change",
            state,
            watch,
        )
        .query(&[("prefix", "only keys that begin so")])
        .gives(Content::Events("{event, key, value}")),
    ]
}

async fn scan(
    State(state): State<Resource>,
    segments: Segments,
    query: Query,
) -> Result<axum::Json<Vec<KeyValueBody>>, ApiError> {
    let limit = query.parsed("limit")?.unwrap_or(100).min(MAX_PAGE);
    let prefix = query.bytes("prefix").unwrap_or_default();
    let page = space(&state, &segments)?.scan(prefix, query.bytes("after"), limit).await?;
    Ok(axum::Json(
        page.into_iter().map(|entry| KeyValueBody { key: entry.key, value: entry.value }).collect(),
    ))
}

async fn get(State(state): State<Resource>, segments: Segments) -> Result<Response, ApiError> {
    match space(&state, &segments)?.get(segments.bytes(2)).await? {
        Some(value) => Ok(([(CONTENT_TYPE, "application/octet-stream")], value).into_response()),
        None => Err(ApiError::not_found("no-such-key", "there is no such key")),
    }
}

async fn set(
    State(state): State<Resource>,
    segments: Segments,
    query: Query,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let ttl = query.parsed("ttl_ms")?.map(Duration::from_millis);
    let value: Bytes = to_bytes(request.into_body(), MAX_VALUE_BODY).await.map_err(|_| {
        let message = format!("the value is longer than {} bytes", starfish_memory::MAX_VALUE);
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message).with_hint("put it into a file")
    })?;
    space(&state, &segments)?.set(segments.bytes(2), value, ttl).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn delete(State(state): State<Resource>, segments: Segments) -> Result<axum::Json<Deleted>, ApiError> {
    let deleted = space(&state, &segments)?.delete(segments.bytes(2)).await?;
    Ok(axum::Json(Deleted { deleted }))
}

async fn increment(
    State(state): State<Resource>,
    segments: Segments,
    Json(request): Json<IncrementRequest>,
) -> Result<axum::Json<Counted>, ApiError> {
    let value = space(&state, &segments)?.incr(segments.bytes(2), request.by).await?;
    Ok(axum::Json(Counted { value }))
}

async fn watch(
    State(state): State<Resource>,
    segments: Segments,
    query: Query,
) -> Result<Sse<impl Stream<Item = Result<Event, axum::Error>>>, ApiError> {
    let watch = space(&state, &segments)?.watch(query.bytes("prefix").unwrap_or_default());
    let events = stream::unfold(watch, async |mut watch| Some((watch.next().await?, watch)));
    let events = events.map(|event| Event::default().json_data(wire_event(event)));
    let until_stop = events.take_until(state.stopping.cancelled_owned());
    // The comments show a client behind a silent connection that the node lives.
    Ok(Sse::new(until_stop).keep_alive(KeepAlive::default()))
}

fn wire_event(event: starfish_memory::Event) -> WatchEvent {
    match event {
        starfish_memory::Event::Value { key, value } => WatchEvent::Value { key, value },
        starfish_memory::Event::Deleted { key } => WatchEvent::Deleted { key },
        starfish_memory::Event::Lagged => WatchEvent::Lagged,
    }
}

/// The space that the URL names; system spaces are not for users.
fn space(state: &Resource, segments: &Segments) -> Result<Space, ApiError> {
    let name = segments.text(1)?;
    if ["sys", "fs"].contains(&name) || starfish_memory::is_documents_space(name) {
        let message = format!("the space {name:?} belongs to the system");
        return Err(ApiError::new(StatusCode::FORBIDDEN, "system-space", message));
    }
    state.memory.space(name).map_err(|error| ApiError::bad_request("bad-space", error.to_string()))
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        Self::internal(&error)
    }
}

impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> Self {
        let message = chain(&error);
        match error {
            WriteError::ValueTooLong { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message).with_hint("put it into a file")
            }
            WriteError::KeyTooLong { .. } | WriteError::FieldTooLong { .. } | WriteError::ReservedField => {
                Self::bad_request("bad-key", message)
            }
            WriteError::Increment(_) => Self::new(StatusCode::CONFLICT, "not-a-counter", message),
            WriteError::Stopped => Self::unavailable("stopped", message),
            _ => Self::internal(&error),
        }
    }
}
