//! `/api/v1/mem/{space}/{key}/...`: what else a key can hold than a value, and writes of several keys at once.

use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use starfish_memory::{Lifetime, MAX_VALUE};

use super::error::ApiError;
use super::extract::{Json, Segments};
use super::memory::{Resource, space};
use super::route::{Content, Route, Verb};
use crate::wire::{
    Changed, Counted, Deleted, ExpireRequest, FieldBody, IncrementRequest, Length, MemberBody, WriteBody,
};

/// What is read of a value's body: one byte more than the store takes, so that its own error is the answer.
const MAX_BODY: usize = MAX_VALUE + 1;

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
        .gives(Content::Json("[{field, value}], fields percent-encoded, values in base64")),
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
    Json(writes): Json<Vec<WriteBody>>,
) -> Result<StatusCode, ApiError> {
    let mut batch = space(&state, &segments)?.batch();
    for WriteBody { key, field, value } in writes {
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
    let more = body(request).await?;
    let length = space(&state, &segments)?.append(segments.bytes(2), more).await?;
    Ok(axum::Json(Length { length }))
}

async fn expire(
    State(state): State<Resource>,
    segments: Segments,
    Json(request): Json<ExpireRequest>,
) -> Result<axum::Json<Changed>, ApiError> {
    let lifetime = match request.ttl_ms {
        Some(ms) => Lifetime::For(std::time::Duration::from_millis(ms)),
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
    Ok(axum::Json(fields.into_iter().map(|(field, value)| FieldBody { field, value }).collect()))
}

async fn field(State(state): State<Resource>, segments: Segments) -> Result<Response, ApiError> {
    match space(&state, &segments)?.field(segments.bytes(2), segments.bytes(4)).await? {
        Some(value) => Ok(([(CONTENT_TYPE, "application/octet-stream")], value).into_response()),
        None => Err(ApiError::not_found("no-such-key", "there is no such field")),
    }
}

async fn set_field(
    State(state): State<Resource>,
    segments: Segments,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let field = (Bytes::copy_from_slice(segments.bytes(4)), body(request).await?);
    space(&state, &segments)?.set_fields(segments.bytes(2), vec![field]).await?;
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

/// A value's body.
pub(super) async fn body(request: Request) -> Result<Bytes, ApiError> {
    to_bytes(request.into_body(), MAX_BODY).await.map_err(|_| {
        let message = format!("the value is longer than {MAX_VALUE} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message).with_hint("put it into a file")
    })
}
