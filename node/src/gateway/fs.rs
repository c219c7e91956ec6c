//! `/fs/<path>`: the tree as any web server would show it, and writable.
//!
//! A `PUT` makes the folders on its way, as object stores do, so that `curl -T` just works; an upload that fails then
//! leaves them, empty. A folder is made by putting something into it. `DELETE` takes a folder with something in it only
//! with `?recursive`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use http::request::Parts;
use starfish_fs::vfs::{Parents, Removal, Vfs, VfsError};

use super::download::{self, View};
use super::place::Place;
use super::upload;
use crate::api::error::ApiError;
use crate::api::extract::Query;
use crate::api::route::{Content, Route, Verb};

/// Where it is, without the slash behind it.
pub(super) const PREFIX: &str = "/fs";

type Files = State<Arc<dyn Vfs>>;

pub(super) fn routes(files: &Arc<dyn Vfs>) -> Vec<Route> {
    let root = |path| {
        Route::new(Verb::Get, path, "The root folder, as a page or as JSON", files, read)
            .gives(Content::Text("a page, or JSON if asked for"))
    };
    vec![
        root("/fs"),
        root("/fs/"),
        Route::new(Verb::Get, "/fs/{*path}", "A file or folder; knows ranges and conditions", files, read)
            .query(&[("json", "a folder as JSON; so does `Accept: application/json`")])
            .gives(Content::Bytes("the content, or what is in the folder")),
        Route::new(
            Verb::Put,
            "/fs/{*path}",
            "Make or replace a file, with the folders around it",
            files,
            write,
        )
        .takes(Content::Bytes("the content")),
        Route::new(Verb::Delete, "/fs/{*path}", "Remove a file, a link or a folder", files, remove)
            .query(&[("recursive", "a folder with everything below it")]),
    ]
}

async fn read(State(files): Files, asked: Parts) -> Result<Response, ApiError> {
    show(&files, PREFIX, &asked).await
}

/// What somebody with all rights sees behind `prefix`.
pub(super) async fn show(files: &Arc<dyn Vfs>, prefix: &str, asked: &Parts) -> Result<Response, ApiError> {
    let place = &Place::of(&asked.uri, prefix)?;
    let has_parent = !place.path.is_root();
    let view = View { files, place, path: &place.path, has_parent, shows_targets: true };
    download::answer(view, asked).await
}

async fn write(State(files): Files, request: Request) -> Result<Response, ApiError> {
    let (asked, body) = request.into_parts();
    upload::put(&files, &Place::of(&asked.uri, PREFIX)?, &asked, body, Parents::Create).await
}

async fn remove(State(files): Files, query: Query, asked: Parts) -> Result<StatusCode, ApiError> {
    let is_recursive = matches!(query.bytes("recursive"), Some(b"" | b"1" | b"true"));
    let removal = if is_recursive { Removal::Recursive } else { Removal::Single };
    delete(&files, &Place::of(&asked.uri, PREFIX)?, &asked, removal).await
}

/// Removes what is at `place`.
pub(super) async fn delete(
    files: &Arc<dyn Vfs>,
    place: &Place,
    asked: &Parts,
    removal: Removal,
) -> Result<StatusCode, ApiError> {
    let there = files.stat(&place.path).await?;
    upload::judge(&asked.headers, Some(&there))?;
    match files.remove(&place.path, removal).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(error @ VfsError::NotEmpty { .. }) => {
            Err(ApiError::from(error).with_hint("`?recursive` removes a folder with all that is in it"))
        }
        Err(error) => Err(error.into()),
    }
}
