//! `/api/v1/mem`: the shared memory. Keys are percent-encoded segments of the URL and may be any bytes.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use starfish_memory::{
    BlobError, Condition, Cursor, Holding, IncrementError, KeyKind, KeyRange, Lifetime, Memory, ReadError,
    Space, Stamp, Value, WriteError,
};
use tokio_util::sync::CancellationToken;

use super::error::{ApiError, chain};
use super::extract::{Json, Query, Segments};
use super::keys;
use super::route::{Content, Route, Verb};
use crate::wire::{Counted, Deleted, IncrementRequest, KeyKindBody, KeyValueBody, WatchEvent};

/// The most entries in one page; a page of the largest values is 16 MiB.
const MAX_PAGE: usize = 1000;
/// When a value's time is over, in Unix milliseconds.
const EXPIRES_MS: HeaderName = HeaderName::from_static("x-starfish-expires-ms");

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
            ("from", "not the keys before this one"),
            ("to", "not this key and those behind it"),
            ("after", "only keys behind this one: the last of the page before"),
            ("limit", "at most so many; 1000 at most, 100 if missing"),
            (
                "kinds",
                "true: all keys, each with its kind (value, fields, members); only the first has a value",
            ),
        ])
        .gives(Content::Json(
            "[{key, value}], keys percent-encoded, values in base64; with kinds, {key, kind, value}; of a value over \
             16 KiB `bytes` says how long it is",

        )),
        Route::new(Verb::Get, "/api/v1/mem/{space}/{key}", "The value of a key", state, get)
            .gives(Content::Bytes("the value; its version is the ETag, which If-Match of a write may name")),
        Route::new(Verb::Put, "/api/v1/mem/{space}/{key}", "Set a key, on disk when answered", state, set)
            .query(&[
                ("ttl_ms", "the key is gone after so many milliseconds"),
                ("keep_ttl", "true: it is gone when the value before would have been"),
            ])
            .takes(Content::Bytes("the value, of up to 64 MiB")),
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
        .query(&[
            ("prefix", "only keys that begin so"),
            (
                "cursor",
                "go on behind this event of the same node: its id; the header Last-Event-ID does the same",
            ),
        ])
        .gives(Content::Events("{event, key, value}")),
    ]
}

async fn scan(State(state): State<Resource>, segments: Segments, query: Query) -> Result<Response, ApiError> {
    let limit = query.parsed("limit")?.unwrap_or(100).min(MAX_PAGE);
    let owned = |name| query.bytes(name).map(Bytes::copy_from_slice);
    let prefix = owned("prefix").unwrap_or_default();
    let range = KeyRange { prefix, from: owned("from"), to: owned("to"), after: owned("after") };
    let space = space(&state, &segments)?;
    if query.parsed("kinds")?.unwrap_or(false) {
        return Ok(axum::Json(keys_and_kinds(&space, range, limit).await?).into_response());
    }
    let page = space.scan_range(range, limit).await?.into_iter();
    let page: Vec<_> = page.map(|entry| key_value(entry.key, entry.value)).collect();
    Ok(axum::Json(page).into_response())
}

async fn keys_and_kinds(space: &Space, range: KeyRange, limit: usize) -> Result<Vec<KeyKindBody>, ReadError> {
    let body = |Holding { key, kind, value }: Holding| {
        let kind = match kind {
            KeyKind::Value => "value",
            KeyKind::Fields => "fields",
            KeyKind::Members => "members",
        };
        let (value, bytes) = value.map_or((None, None), keys::among_others);
        KeyKindBody { key, kind: kind.to_owned(), value, bytes }
    };
    Ok(space.holdings(range, limit).await?.into_iter().map(body).collect())
}

fn key_value(key: Bytes, value: Value) -> KeyValueBody {
    let (value, bytes) = keys::among_others(value);
    KeyValueBody { key, value, bytes }
}

async fn get(State(state): State<Resource>, segments: Segments) -> Result<Response, ApiError> {
    let Some((entry, content)) = space(&state, &segments)?.open(segments.bytes(2)).await? else {
        return Err(ApiError::not_found("no-such-key", "there is no such key"));
    };
    let expires = entry.expires_ms.map(|ms| [(EXPIRES_MS, ms.to_string())]);
    let expires = expires.map_or_else(HeaderMap::new, headers_of);
    let tag = [(ETAG, tag(entry.version))];
    Ok((keys::body_headers(&entry.value), tag, expires, Body::from_stream(content)).into_response())
}

async fn set(
    State(state): State<Resource>,
    segments: Segments,
    query: Query,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, ApiError> {
    let condition = condition(&headers)?;
    let ttl = query.parsed("ttl_ms")?.map(keys::lasting).transpose()?;
    let keeps_ttl = query.parsed("keep_ttl")?.unwrap_or(false);
    let (space, key) = (space(&state, &segments)?, segments.bytes(2));
    let value = keys::payload(&state.memory, request).await?;
    let version = match (condition, ttl) {
        // What depends on nothing that is there is written without a look at it.
        (Condition::Always, None) if !keeps_ttl => Some(space.set_payload(key, value, None).await?),
        (Condition::Always, Some(ttl)) => Some(space.set_payload(key, value, Some(ttl)).await?),
        (condition, ttl) => {
            let otherwise = if keeps_ttl { Lifetime::Keep } else { Lifetime::Forever };
            space.put_payload(key, value, ttl.map_or(otherwise, Lifetime::For), condition).await?.version
        }
    };
    match version {
        Some(version) => Ok((StatusCode::NO_CONTENT, [(ETAG, tag(version))]).into_response()),
        None => Err(ApiError::precondition_failed()),
    }
}

async fn delete(
    State(state): State<Resource>,
    segments: Segments,
    headers: HeaderMap,
) -> Result<axum::Json<Deleted>, ApiError> {
    let space = space(&state, &segments)?;
    let deleted = match condition(&headers)? {
        Condition::Always => space.delete(segments.bytes(2)).await?,
        condition => match space.remove(segments.bytes(2), condition).await?.version {
            Some(_) => true,
            None => return Err(ApiError::precondition_failed()),
        },
    };
    Ok(axum::Json(Deleted { deleted }))
}

/// What the usual headers ask for: `If-None-Match: *`, `If-Match: *`, `If-Match: "VERSION"`.
fn condition(headers: &HeaderMap) -> Result<Condition, ApiError> {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or_default().trim());
    let bad = |name: &str| ApiError::bad_request("bad-condition", format!("{name} names no version"));
    match (text(IF_MATCH), text(IF_NONE_MATCH)) {
        (None, None) => Ok(Condition::Always),
        (None, Some("*")) => Ok(Condition::Absent),
        (Some("*"), None) => Ok(Condition::Present),
        (Some(version), None) => {
            let version = version.strip_prefix('"').and_then(|version| version.strip_suffix('"'));
            let version = version.and_then(|version| version.parse().ok());
            version.map(Condition::Version).ok_or_else(|| bad("If-Match"))
        }
        (_, Some(_)) => Err(bad("If-None-Match")),
    }
}

fn tag(version: Stamp) -> String {
    format!("\"{version}\"")
}

fn headers_of<const N: usize>(headers: [(HeaderName, String); N]) -> HeaderMap {
    headers.into_iter().filter_map(|(name, value)| Some((name, value.parse().ok()?))).collect()
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
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, axum::Error>>>, ApiError> {
    let (space, prefix) = (space(&state, &segments)?, query.bytes("prefix").unwrap_or_default());
    let header = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok());
    let watch = match query.parsed::<Cursor>("cursor")?.or(header) {
        Some(cursor) => space.watch_from(prefix, cursor),
        None => space.watch(prefix),
    };
    let events = stream::unfold(watch, async |mut watch| {
        let event = watch.next().await?;
        Some(((event, watch.cursor()), watch))
    });
    let events = events.map(|(event, cursor)| {
        let sent = Event::default();
        let sent = match cursor {
            Some(cursor) => sent.id(cursor.to_string()),
            None => sent,
        };
        sent.json_data(wire_event(event))
    });
    let until_stop = events.take_until(state.stopping.cancelled_owned());
    // The comments show a client behind a silent connection that the node lives.
    Ok(Sse::new(until_stop).keep_alive(KeepAlive::default()))
}

fn wire_event(event: starfish_memory::Event) -> WatchEvent {
    match event {
        starfish_memory::Event::Value { key, value: Value::Inline(value) } => {
            WatchEvent::Value { key, value }
        }
        starfish_memory::Event::Value { key, value } => WatchEvent::Large { key, bytes: value.len() },
        starfish_memory::Event::Deleted { key } => WatchEvent::Deleted { key },
        starfish_memory::Event::Field { key, field, value: Value::Inline(value) } => {
            WatchEvent::Field { key, field, value }
        }
        starfish_memory::Event::Field { key, field, value } => {
            WatchEvent::LargeField { key, field, bytes: value.len() }
        }
        starfish_memory::Event::FieldDeleted { key, field } => WatchEvent::FieldDeleted { key, field },
        starfish_memory::Event::Member { key, member } => WatchEvent::Member { key, member },
        starfish_memory::Event::MemberRemoved { key, member } => WatchEvent::MemberRemoved { key, member },
        starfish_memory::Event::Live => WatchEvent::Live,
        starfish_memory::Event::Lagged => WatchEvent::Lagged,
    }
}

/// The space that the URL names; system spaces are not for users.
pub(super) fn space(state: &Resource, segments: &Segments) -> Result<Space, ApiError> {
    let name = segments.text(1)?;
    not_of_the_system(name)?;
    state.memory.space(name).map_err(|error| ApiError::bad_request("bad-space", error.to_string()))
}

/// Refuses a path below a space with a name in it that is empty, which no route takes.
pub(super) fn check_named(path: &str) -> Result<(), ApiError> {
    let names = path.strip_prefix("/api/v1/mem/").and_then(|rest| rest.split_once('/'));
    match names {
        Some((_, names)) if names.split('/').any(str::is_empty) => {
            Err(ApiError::bad_request("bad-key", "a key, field or member must not be empty"))
        }
        _ => Ok(()),
    }
}

/// What the system keeps is not for users.
pub(super) fn not_of_the_system(name: &str) -> Result<(), ApiError> {
    if starfish_compute::reach::is_internal_space(name) {
        let message = format!("the space {name:?} belongs to the system");
        return Err(ApiError::new(StatusCode::FORBIDDEN, "system-space", message));
    }
    Ok(())
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match &error {
            ReadError::Blob(cause) => blob_error(cause, chain(&error)),
            _ if error.may_pass() => Self::unavailable("damaged", chain(&error)),
            _ => Self::internal(&error),
        }
    }
}

/// Why a large value cannot be kept or given.
fn blob_error(error: &BlobError, message: String) -> ApiError {
    match error {
        BlobError::NotFound | BlobError::Unavailable(_) => ApiError::unavailable("unavailable", message),
        BlobError::Busy => ApiError::unavailable("busy", message),
        BlobError::NoSpace(_) => ApiError::new(StatusCode::INSUFFICIENT_STORAGE, "no-space", message),
        BlobError::NoKeeper | BlobError::Failed(_) => {
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
        }
    }
}

impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> Self {
        let message = chain(&error);
        match error {
            WriteError::ValueTooLong { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message).with_hint("put it into a file")
            }
            WriteError::Empty { .. }
            | WriteError::KeyTooLong { .. }
            | WriteError::FieldTooLong { .. }
            | WriteError::MemberTooLong { .. }
            | WriteError::ReservedField => Self::bad_request("bad-key", message),
            WriteError::BatchTooLarge { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message).with_hint("write it in parts")
            }
            WriteError::Increment(IncrementError::Overflow) => {
                Self::new(StatusCode::CONFLICT, "counter-overflow", message)
            }
            WriteError::Increment(IncrementError::NotAnInteger) => {
                Self::new(StatusCode::CONFLICT, "not-a-counter", message)
            }
            WriteError::Commit(_) if error.is_no_room() => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "no-space", message)
            }
            WriteError::Blob(cause) => blob_error(&cause, message),
            WriteError::Read(cause) if cause.may_pass() => Self::unavailable("damaged", message),
            WriteError::Contended | WriteError::Late => Self::unavailable("busy", message),
            WriteError::Stopped => Self::unavailable("stopped", message),
            _ => Self::internal(&error),
        }
    }
}
