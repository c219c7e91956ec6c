//! `/api/v1/fs`: names and attributes of the tree. Contents are in [`super::content`].

use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;
use starfish_fs::path::VfsPath;
use starfish_fs::vfs::{Attributes, Entry, Parents, Removal, Vfs};

use super::error::ApiError;
use super::extract::{Json, Query};
use super::route::{Content, Route, Verb};
use crate::wire::{AttributesRequest, FromTo, MkdirRequest, RemoveRequest, RestoreRequest, SymlinkRequest};

type Files = State<Arc<dyn Vfs>>;
type EntryAnswer = Result<axum::Json<Entry>, ApiError>;
type NoAnswer = Result<StatusCode, ApiError>;

pub(super) fn routes(files: &Arc<dyn Vfs>) -> Vec<Route> {
    const PATH: &[(&str, &str)] = &[("path", "absolute path in the tree")];
    let entry = Content::Json("Entry");
    vec![
        Route::new(Verb::Get, "/api/v1/fs/stat", "Describe an entry", files, stat).query(PATH).gives(entry),
        Route::new(Verb::Get, "/api/v1/fs/list", "The entries of a directory, sorted by name", files, list)
            .query(PATH)
            .gives(Content::Json("[Entry]")),
        Route::new(Verb::Post, "/api/v1/fs/mkdir", "Make a directory", files, mkdir)
            .takes(Content::Json("{path, parents}"))
            .gives(entry),
        Route::new(Verb::Post, "/api/v1/fs/symlink", "Make a symbolic link", files, symlink)
            .takes(Content::Json("{path, target}"))
            .gives(entry),
        Route::new(Verb::Post, "/api/v1/fs/rename", "Move an entry", files, rename)
            .takes(Content::Json("{from, to}")),
        Route::new(Verb::Post, "/api/v1/fs/copy", "Copy an entry with all below it", files, copy)
            .takes(Content::Json("{from, to}")),
        Route::new(Verb::Post, "/api/v1/fs/remove", "Remove an entry", files, remove)
            .takes(Content::Json("{path, recursive}")),
        Route::new(
            Verb::Post,
            "/api/v1/fs/attributes",
            "Change mode or modification time",
            files,
            attributes,
        )
        .takes(Content::Json("{path, mode, mtime_ms}"))
        .gives(entry),
    ]
}

/// Usage is this node's own, and so not a matter of [`Vfs`].
pub(super) fn usage_routes(files: &starfish_fs::Files) -> Vec<Route> {
    vec![
        Route::new(Verb::Get, "/api/v1/fs/usage", "What the files amount to", files, usage).gives(
            Content::Json("{files, dirs, content, blobs, bytes, cached, swarm, members, free, total}"),
        ),
        Route::new(
            Verb::Get,
            "/api/v1/fs/waiting",
            "What was written here and is not at full durability yet",
            files,
            waiting,
        )
        .query(&[("path", "at or below this path; everything if missing")])
        .gives(Content::Json("{files, bytes, why}")),
        Route::new(Verb::Get, "/api/v1/fs/versions", "What a file is and was", files, versions)
            .query(&[("path", "absolute path in the tree")])
            .gives(Content::Json("[{id, size, hash, since_ms, until_ms}]")),
        Route::new(Verb::Get, "/api/v1/fs/retention", "How long versions are kept", files, retention)
            .gives(Content::Json("{age_ms, count}")),
        Route::new(Verb::Post, "/api/v1/fs/retention", "Keep versions for so long", files, set_retention)
            .takes(Content::Json("{age_ms, count}")),
        Route::new(Verb::Post, "/api/v1/fs/restore", "Make a file what it was", files, restore)
            .takes(Content::Json("{path, version}"))
            .gives(Content::Json("Entry")),
        Route::new(
            Verb::Get,
            "/api/v1/fs/shortfall",
            "Files of the whole swarm below full durability, and why",
            files,
            shortfall,
        )
        .gives(Content::Json("{files, unreadable, why: [[reason, files]]}")),
    ]
}

async fn usage(State(files): State<starfish_fs::Files>) -> Result<axum::Json<starfish_fs::Usage>, ApiError> {
    files.usage().map(axum::Json).map_err(|error| ApiError::internal(&error))
}

async fn waiting(
    State(files): State<starfish_fs::Files>,
    query: Query,
) -> Result<axum::Json<starfish_fs::Waiting>, ApiError> {
    let path = match query.text("path")? {
        Some(path) => VfsPath::parse(path)?,
        None => VfsPath::root(),
    };
    Ok(axum::Json(files.waiting(&path)))
}

async fn versions(
    State(files): State<starfish_fs::Files>,
    query: Query,
) -> Result<axum::Json<Vec<starfish_fs::Version>>, ApiError> {
    Ok(axum::Json(files.versions(&path(&query)?).await?))
}

async fn retention(
    State(files): State<starfish_fs::Files>,
) -> Result<axum::Json<starfish_fs::Retention>, ApiError> {
    Ok(axum::Json(files.retention().await?))
}

async fn set_retention(
    State(files): State<starfish_fs::Files>,
    Json(retention): Json<starfish_fs::Retention>,
) -> Result<StatusCode, ApiError> {
    if retention.count > starfish_fs::MAX_VERSIONS {
        let message = format!("of a file, {} versions are kept at the most", starfish_fs::MAX_VERSIONS);
        return Err(ApiError::bad_request("too-many-versions", message));
    }
    files.set_retention(retention).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn restore(
    State(files): State<starfish_fs::Files>,
    Json(request): Json<RestoreRequest>,
) -> EntryAnswer {
    Ok(axum::Json(files.restore(&request.path, &request.version).await?))
}

async fn shortfall(State(files): State<starfish_fs::Files>) -> axum::Json<starfish_fs::Shortfall> {
    axum::Json(files.shortfall().await)
}

async fn stat(State(files): Files, query: Query) -> EntryAnswer {
    Ok(axum::Json(files.stat(&path(&query)?).await?))
}

async fn list(State(files): Files, query: Query) -> Result<axum::Json<Vec<Entry>>, ApiError> {
    Ok(axum::Json(files.list(&path(&query)?).await?))
}

async fn mkdir(State(files): Files, Json(request): Json<MkdirRequest>) -> EntryAnswer {
    let parents = if request.parents { Parents::Create } else { Parents::MustExist };
    Ok(axum::Json(files.mkdir(&request.path, parents).await?))
}

async fn symlink(State(files): Files, Json(request): Json<SymlinkRequest>) -> EntryAnswer {
    Ok(axum::Json(files.symlink(&request.path, &request.target).await?))
}

async fn rename(State(files): Files, Json(request): Json<FromTo>) -> NoAnswer {
    files.rename(&request.from, &request.to).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn copy(State(files): Files, Json(request): Json<FromTo>) -> NoAnswer {
    files.copy(&request.from, &request.to).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove(State(files): Files, Json(request): Json<RemoveRequest>) -> NoAnswer {
    let removal = if request.recursive { Removal::Recursive } else { Removal::Single };
    files.remove(&request.path, removal).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn attributes(State(files): Files, Json(request): Json<AttributesRequest>) -> EntryAnswer {
    let attributes = Attributes { mode: request.mode, mtime_ms: request.mtime_ms };
    Ok(axum::Json(files.set_attributes(&request.path, attributes).await?))
}

/// The `path` of a query; a malformed one is the file system's own error.
pub(super) fn path(query: &Query) -> Result<VfsPath, ApiError> {
    let text = query.text("path")?.ok_or_else(|| ApiError::bad_request("bad-query", "path is missing"))?;
    Ok(VfsPath::parse(text)?)
}
