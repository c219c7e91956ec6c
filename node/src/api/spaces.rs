//! `/api/v1/spaces`: what spaces are asked to do; and the versions that they keep.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use starfish_memory::{KeyVersion, MAX_VERSIONS, SpaceSettings, Stamp};

use super::error::ApiError;
use super::extract::{Json, Query, Segments};
use super::keys::body_headers;
use super::memory::{Resource, space};
use super::route::{Content, Route, Verb};
use crate::wire::{RestoreValueRequest, SpaceBody, VersionBody};

const FIELD: (&str, &str) = ("field", "of this field; of the plain value if missing");

pub(super) fn routes(state: &Resource) -> Vec<Route> {
    vec![
        Route::new(Verb::Get, "/api/v1/spaces", "The spaces that keep versions", state, list)
            .gives(Content::Json("[{space, versions, keep_ms}]")),
        Route::new(Verb::Get, "/api/v1/spaces/{space}", "What a space is asked to do", state, show)
            .gives(Content::Json("{space, versions, keep_ms}")),
        Route::new(Verb::Put, "/api/v1/spaces/{space}", "Ask it of a space, on all nodes", state, ask)
            .takes(Content::Json("{versions, keep_ms}"))
            .gives(Content::Json("{space, versions, keep_ms}")),
        Route::new(
            Verb::Get,
            "/api/v1/mem/{space}/{key}/versions",
            "The versions of a value or field that are kept, the newest first",
            state,
            versions,
        )
        .query(&[FIELD])
        .gives(Content::Json("[{version, at_ms, author, bytes, current, conflict}]")),
        Route::new(
            Verb::Get,
            "/api/v1/mem/{space}/{key}/versions/{version}",
            "The value in one version",
            state,
            version,
        )
        .query(&[FIELD])
        .gives(Content::Bytes("the value")),
        Route::new(
            Verb::Post,
            "/api/v1/mem/{space}/{key}/restore",
            "Make an old version the current one, as a new version",
            state,
            restore,
        )
        .takes(Content::Json("{version, field}")),
    ]
}

async fn list(State(state): State<Resource>) -> axum::Json<Vec<SpaceBody>> {
    let all = state.memory.settings().into_iter();
    axum::Json(all.map(|(name, settings)| body_of(&name, settings)).collect())
}

async fn show(State(state): State<Resource>, segments: Segments) -> Result<axum::Json<SpaceBody>, ApiError> {
    let space = space(&state, &segments)?;
    Ok(axum::Json(body_of(space.name(), space.settings())))
}

async fn ask(
    State(state): State<Resource>,
    segments: Segments,
    Json(settings): Json<SpaceSettings>,
) -> Result<axum::Json<SpaceBody>, ApiError> {
    let space = space(&state, &segments)?;
    if settings.versions > MAX_VERSIONS {
        let message = format!("a space keeps {MAX_VERSIONS} versions at the most");
        return Err(ApiError::bad_request("too-many", message));
    }
    space.set_settings(settings).await?;
    Ok(axum::Json(body_of(space.name(), settings)))
}

async fn versions(
    State(state): State<Resource>,
    segments: Segments,
    query: Query,
) -> Result<axum::Json<Vec<VersionBody>>, ApiError> {
    let field = query.bytes("field").unwrap_or_default();
    let versions = space(&state, &segments)?.versions(segments.bytes(2), field).await?;
    if versions.is_empty() {
        return Err(ApiError::not_found("no-such-key", "there is no such key"));
    }
    Ok(axum::Json(versions.into_iter().map(VersionBody::from).collect()))
}

async fn version(
    State(state): State<Resource>,
    segments: Segments,
    query: Query,
) -> Result<Response, ApiError> {
    let (space, field) = (space(&state, &segments)?, query.bytes("field").unwrap_or_default());
    let wanted = segments.parsed::<Stamp>(4)?;
    let versions = space.versions(segments.bytes(2), field).await?;
    let value = versions.into_iter().find(|version| version.version == wanted).and_then(|found| found.value);
    let Some(value) = value else { return Err(no_version()) };
    let content = space.content_of(&value).await?;
    Ok((body_headers(&value), Body::from_stream(content)).into_response())
}

async fn restore(
    State(state): State<Resource>,
    segments: Segments,
    Json(request): Json<RestoreValueRequest>,
) -> Result<StatusCode, ApiError> {
    let version = request.version.parse::<Stamp>();
    let version = version.map_err(|error| ApiError::bad_request("bad-version", error.to_string()))?;
    match space(&state, &segments)?.restore(segments.bytes(2), &request.field, version).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(no_version()),
    }
}

fn no_version() -> ApiError {
    ApiError::not_found("no-such-key", "there is no such version, or it is that of a deletion")
}

fn body_of(space: &str, settings: SpaceSettings) -> SpaceBody {
    let SpaceSettings { versions, keep_ms } = settings;
    SpaceBody { space: space.to_owned(), versions, keep_ms }
}

impl From<KeyVersion> for VersionBody {
    fn from(version: KeyVersion) -> Self {
        let KeyVersion { version, at_ms, value, is_current, is_conflict } = version;
        Self {
            version: version.to_string(),
            at_ms,
            author: version.author.to_string(),
            bytes: value.map(|value| value.len()),
            current: is_current,
            conflict: is_conflict,
        }
    }
}
