//! `/api/v1/mem/{space}/{key}/...`: what else a key can hold than a value, and writes of several keys at once.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, StatusCode};
use starfish_memory::{
    BlobError, Lifetime, MAX_BATCH_BYTES, MAX_BATCH_CELLS, MAX_LARGE, Memory, Payload, Value, WriteError,
};

use super::content::Upload;
use super::error::ApiError;
use super::extract::{Json, LongJson, Segments};
use super::memory::{Resource, space};
use super::route::{Content, Route, Verb};
use crate::wire::{
    Base64, Changed, Counted, Deleted, ExpireRequest, FieldBody, FieldsChanged, FieldsRequest,
    IncrementRequest, Length, MemberBody, MembersChanged, MembersRequest, NameBody, WriteBody,
};

/// The longest body with a batch in it, in bytes: with as many keys as a batch takes and as long ones, each byte of them
/// escaped, which is more than base64 makes of values.
const MAX_BATCH_JSON: usize = 3 * MAX_BATCH_BYTES + MAX_AROUND * MAX_BATCH_CELLS;
/// What stands around one write of a batch, with room for blanks.
const MAX_AROUND: usize = 64;

/// A body with a batch in it.
type BatchJson<T> = LongJson<T, MAX_BATCH_JSON>;

/// What is added to a value at once, in bytes.
const MAX_MORE: usize = MAX_BATCH_BYTES;

pub(super) fn routes(state: &Resource) -> Vec<Route> {
    let tables = [value_routes(state), field_routes(state), member_routes(state)];
    tables.into_iter().flatten().collect()
}

fn value_routes(state: &Resource) -> Vec<Route> {
    vec![
        Route::new(
            Verb::Post,
            "/api/v1/mem/{space}",
            "Write and delete values and fields, all or none, on disk when answered",
            state,
            write,
        )
        .takes(Content::Json(
            "[{key, field, value}], keys and fields percent-encoded, values in base64; no value deletes",
        )),
        Route::new(
            Verb::Post,
            "/api/v1/mem/{space}/{key}/append",
            "Add to the end of a value",
            state,
            append,
        )
        .takes(Content::Bytes("what to add"))
        .gives(Content::Json("{length}")),
        Route::new(
            Verb::Post,
            "/api/v1/mem/{space}/{key}/expire",
            "Change how long a value counts",
            state,
            expire,
        )
        .takes(Content::Json("{ttl_ms}; without, it lasts"))
        .gives(Content::Json("{changed}")),
    ]
}

fn field_routes(state: &Resource) -> Vec<Route> {
    const FIELD: &str = "/api/v1/mem/{space}/{key}/fields/{field}";
    vec![
        Route::new(
            Verb::Get,
            "/api/v1/mem/{space}/{key}/fields",
            "The fields of a key, in order",
            state,
            fields,
        )
        .gives(Content::Json(
            "[{field, value}], fields percent-encoded, values in base64; of one over 16 KiB {field, bytes}",
        )),
        Route::new(
            Verb::Post,
            "/api/v1/mem/{space}/{key}/fields",
            "Delete several fields, all at once, on disk when answered",
            state,
            change_fields,
        )
        .takes(Content::Json("{delete: [field]}, percent-encoded"))
        .gives(Content::Json("{deleted}: how many there were")),
        Route::new(Verb::Get, FIELD, "The value of a field", state, field).gives(Content::Bytes("the value")),
        Route::new(Verb::Put, FIELD, "Set a field, on disk when answered", state, set_field)
            .takes(Content::Bytes("the value")),
        Route::new(Verb::Delete, FIELD, "Delete a field", state, delete_field)
            .gives(Content::Json("{deleted}")),
        Route::new(
            Verb::Post,
            "/api/v1/mem/{space}/{key}/fields/{field}/incr",
            "Add to a field; of two nodes at once, the later counts",
            state,
            increment_field,
        )
        .takes(Content::Json("{by}"))
        .gives(Content::Json("{value}")),
    ]
}

fn member_routes(state: &Resource) -> Vec<Route> {
    const MEMBER: &str = "/api/v1/mem/{space}/{key}/members/{member}";
    vec![
        Route::new(
            Verb::Get,
            "/api/v1/mem/{space}/{key}/members",
            "The members of a key, in order",
            state,
            members,
        )
        .gives(Content::Json("[{member}], percent-encoded")),
        Route::new(
            Verb::Post,
            "/api/v1/mem/{space}/{key}/members",
            "Add and remove several members, all at once, on disk when answered",
            state,
            change_members,
        )
        .takes(Content::Json("{add: [member], remove: [member]}, percent-encoded"))
        .gives(Content::Json("{added, removed}: how many")),
        Route::new(Verb::Get, MEMBER, "Whether it is a member: 204 or 404", state, member),
        Route::new(Verb::Put, MEMBER, "Add a member, on disk when answered", state, add_member)
            .gives(Content::Json("{changed}")),
        Route::new(Verb::Delete, MEMBER, "Remove a member", state, remove_member)
            .gives(Content::Json("{deleted}")),
    ]
}

async fn write(
    State(state): State<Resource>,
    segments: Segments,
    LongJson(writes): BatchJson<Vec<WriteBody>>,
) -> Result<StatusCode, ApiError> {
    let mut batch = space(&state, &segments)?.batch();
    for WriteBody { key, field, value } in writes {
        // Only whoever names no field means the plain value: a name that is empty is a mistake.
        let field = match field {
            Some(NameBody(field)) if field.is_empty() => {
                return Err(WriteError::Empty { what: "field" }.into());
            }
            Some(NameBody(field)) => field,
            None => Bytes::new(),
        };
        match value {
            Some(value) => batch.put(key, field, value.0),
            None => batch.delete(key, field),
        };
    }
    state.memory.commit(batch).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn append(
    State(state): State<Resource>,
    segments: Segments,
    request: Request,
) -> Result<axum::Json<Length>, ApiError> {
    let more = to_bytes(request.into_body(), MAX_MORE).await.map_err(|_| {
        let message = format!("more than {MAX_MORE} bytes at once cannot be added");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message).with_hint("add it in parts")
    })?;
    let length = space(&state, &segments)?.append(segments.bytes(2), more).await?;
    Ok(axum::Json(Length { length }))
}

async fn expire(
    State(state): State<Resource>,
    segments: Segments,
    Json(request): Json<ExpireRequest>,
) -> Result<axum::Json<Changed>, ApiError> {
    let lifetime = match request.ttl_ms {
        Some(ms) => Lifetime::For(lasting(ms)?),
        None => Lifetime::Forever,
    };
    let changed = space(&state, &segments)?.expire(segments.bytes(2), lifetime).await?;
    Ok(axum::Json(Changed { changed }))
}

async fn fields(
    State(state): State<Resource>,
    segments: Segments,
) -> Result<axum::Json<Vec<FieldBody>>, ApiError> {
    let fields = space(&state, &segments)?.fields(segments.bytes(2)).await?;
    Ok(axum::Json(fields.into_iter().map(|(field, value)| field_body(field, value)).collect()))
}

async fn field(State(state): State<Resource>, segments: Segments) -> Result<Response, ApiError> {
    match space(&state, &segments)?.open_field(segments.bytes(2), segments.bytes(4)).await? {
        Some((value, content)) => Ok((body_headers(&value), Body::from_stream(content)).into_response()),
        None => Err(ApiError::not_found("no-such-key", "there is no such field")),
    }
}

async fn set_field(
    State(state): State<Resource>,
    segments: Segments,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let (space, field) = (space(&state, &segments)?, Bytes::copy_from_slice(segments.bytes(4)));
    let value = payload(&state.memory, request).await?;
    space.set_field_payload(segments.bytes(2), field, value).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn delete_field(
    State(state): State<Resource>,
    segments: Segments,
) -> Result<axum::Json<Deleted>, ApiError> {
    let field = Bytes::copy_from_slice(segments.bytes(4));
    let deleted = space(&state, &segments)?.delete_fields(segments.bytes(2), vec![field]).await? > 0;
    Ok(axum::Json(Deleted { deleted }))
}

async fn change_fields(
    State(state): State<Resource>,
    segments: Segments,
    LongJson(request): BatchJson<FieldsRequest>,
) -> Result<axum::Json<FieldsChanged>, ApiError> {
    let fields = request.delete.into_iter().map(|NameBody(field)| field).collect();
    let deleted = space(&state, &segments)?.delete_fields(segments.bytes(2), fields).await? as u64;
    Ok(axum::Json(FieldsChanged { deleted }))
}

async fn change_members(
    State(state): State<Resource>,
    segments: Segments,
    LongJson(request): BatchJson<MembersRequest>,
) -> Result<axum::Json<MembersChanged>, ApiError> {
    let names =
        |names: Vec<NameBody>| names.into_iter().map(|NameBody(member)| member).collect::<Vec<Bytes>>();
    let (add, remove) = (names(request.add), names(request.remove));
    let space = space(&state, &segments)?;
    let key = segments.bytes(2);
    // Only of both together all or none is promised.
    let (added, removed) = match (add.is_empty(), remove.is_empty()) {
        (_, true) => (space.add_members(key, add).await?, 0),
        (true, false) => (0, space.remove_members(key, remove).await?),
        (false, false) => space.change_members(key, add, remove).await?,
    };
    Ok(axum::Json(MembersChanged { added: added as u64, removed: removed as u64 }))
}

async fn increment_field(
    State(state): State<Resource>,
    segments: Segments,
    Json(request): Json<IncrementRequest>,
) -> Result<axum::Json<Counted>, ApiError> {
    let space = space(&state, &segments)?;
    let value = space.incr_field(segments.bytes(2), segments.bytes(4), request.by).await?;
    Ok(axum::Json(Counted { value }))
}

async fn members(
    State(state): State<Resource>,
    segments: Segments,
) -> Result<axum::Json<Vec<MemberBody>>, ApiError> {
    let members = space(&state, &segments)?.members(segments.bytes(2)).await?;
    Ok(axum::Json(members.into_iter().map(|member| MemberBody { member }).collect()))
}

async fn member(State(state): State<Resource>, segments: Segments) -> Result<StatusCode, ApiError> {
    match space(&state, &segments)?.is_member(segments.bytes(2), segments.bytes(4)).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(ApiError::not_found("no-such-key", "there is no such member")),
    }
}

async fn add_member(
    State(state): State<Resource>,
    segments: Segments,
) -> Result<axum::Json<Changed>, ApiError> {
    let member = Bytes::copy_from_slice(segments.bytes(4));
    let changed = space(&state, &segments)?.add_members(segments.bytes(2), vec![member]).await? > 0;
    Ok(axum::Json(Changed { changed }))
}

async fn remove_member(
    State(state): State<Resource>,
    segments: Segments,
) -> Result<axum::Json<Deleted>, ApiError> {
    let member = Bytes::copy_from_slice(segments.bytes(4));
    let deleted = space(&state, &segments)?.remove_members(segments.bytes(2), vec![member]).await? > 0;
    Ok(axum::Json(Deleted { deleted }))
}

/// How long a value is to count. Nothing is written to be gone at once.
pub(super) fn lasting(ttl_ms: u64) -> Result<Duration, ApiError> {
    match ttl_ms {
        0 => Err(ApiError::bad_request("bad-ttl", "a value that counts for no time cannot be kept")
            .with_hint("delete it, or name a time of at least a millisecond")),
        ms => Ok(Duration::from_millis(ms)),
    }
}

/// What is said ahead of a value's bytes.
pub(super) fn body_headers(value: &Value) -> [(HeaderName, String); 2] {
    [(CONTENT_TYPE, "application/octet-stream".to_owned()), (CONTENT_LENGTH, value.len().to_string())]
}

/// A value among others: itself, or how long it is.
pub(super) fn among_others(value: Value) -> (Option<Base64>, Option<u64>) {
    match value {
        Value::Inline(bytes) => (Some(Base64(bytes)), None),
        Value::Large(large) => (None, Some(large.len())),
    }
}

fn field_body(field: Bytes, value: Value) -> FieldBody {
    let (value, bytes) = among_others(value);
    FieldBody { field, value, bytes }
}

/// The value that a request brings. A large one is put away as it comes.
pub(super) async fn payload(memory: &Memory, request: Request) -> Result<Payload, ApiError> {
    let announced =
        request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let upload = Upload::new(request.into_body());
    let payload = match announced {
        Some(len) if len > MAX_LARGE => Err(WriteError::ValueTooLong { len }),
        _ => {
            let content = upload.content().map_err(|error| BlobError::Failed(Arc::new(error)));
            memory.stash(content.boxed()).await
        }
    };
    if payload.is_err() {
        upload.drain().await;
    }
    Ok(payload?)
}
