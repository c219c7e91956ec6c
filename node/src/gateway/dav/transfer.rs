//! `COPY` and `MOVE`.
//!
//! A file takes the place of another at once. A folder does not merge with what is there: it replaces it, and what was
//! there comes back should that fail.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use http::header::HOST;
use http::request::Parts;
use http::{HeaderName, StatusCode, Uri};
use starfish_fs::links;
use starfish_fs::path::VfsPath;
use starfish_fs::vfs::{Entry, Kind, Parents, Removal, Vfs, VfsError};

use super::super::upload::{judge, no_parent};
use super::{DEPTH, PREFIX, Place};
use crate::api::error::ApiError;

const DESTINATION: HeaderName = HeaderName::from_static("destination");
const OVERWRITE: HeaderName = HeaderName::from_static("overwrite");

/// How something gets to where it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Move,
    Copy,
    /// A folder without what is in it.
    Shell,
}

/// Does what `asked` says.
pub(super) async fn transfer(files: &Arc<dyn Vfs>, asked: &Parts) -> Result<Response, ApiError> {
    let files = &**files;
    let from = links::real_place(files, &Place::of(&asked.uri, PREFIX)?.path).await?;
    let to = links::real_place(files, &destination(asked)?.path).await?;
    if from.starts_with(&to) || to.starts_with(&from) {
        let message = "neither can be the other, or within it";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "overlap", message));
    }
    let source = files.stat(&from).await?;
    judge(&asked.headers, Some(&source))?;
    let replaced = match files.stat(&to).await {
        Ok(entry) => Some(entry),
        Err(VfsError::NotFound { .. } | VfsError::NotADirectory { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    if replaced.is_some() && asked.headers.get(OVERWRITE).is_some_and(|value| value == "F") {
        return Err(ApiError::precondition_failed());
    }
    check_parent(files, &to).await?;
    let way = way(asked, &source);
    let status = if replaced.is_some() { StatusCode::NO_CONTENT } else { StatusCode::CREATED };
    match replaced {
        Some(there) if source.kind == Kind::Dir || there.kind == Kind::Dir => {
            replace(files, way, &from, &to).await?;
        }
        _ => go(files, way, &from, &to).await?,
    }
    Ok(status.into_response())
}

fn way(asked: &Parts, source: &Entry) -> Way {
    if asked.method.as_str() == "MOVE" {
        return Way::Move;
    }
    let is_shallow = source.kind == Kind::Dir && asked.headers.get(DEPTH).is_some_and(|depth| depth == "0");
    if is_shallow { Way::Shell } else { Way::Copy }
}

async fn go(files: &dyn Vfs, way: Way, from: &VfsPath, to: &VfsPath) -> Result<(), VfsError> {
    match way {
        Way::Move => files.rename(from, to).await,
        Way::Copy => files.copy(from, to).await,
        Way::Shell => files.mkdir(to, Parents::MustExist).await.map(drop),
    }
}

/// Puts what is there aside, and back should the rest fail.
async fn replace(files: &dyn Vfs, way: Way, from: &VfsPath, to: &VfsPath) -> Result<(), VfsError> {
    let Some((parent, _)) = to.split() else {
        return Err(VfsError::Invalid { path: to.clone(), reason: "is the root" });
    };
    let aside = parent.join(&format!(".replaced-{:016x}", rand::random::<u64>()))?;
    files.rename(to, &aside).await?;
    if let Err(error) = go(files, way, from, to).await {
        files.rename(&aside, to).await?;
        return Err(error);
    }
    files.remove(&aside, Removal::Recursive).await
}

async fn check_parent(files: &dyn Vfs, path: &VfsPath) -> Result<(), ApiError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    match files.stat(&parent).await {
        Ok(Entry { kind: Kind::Dir, .. }) => Ok(()),
        Ok(_) | Err(VfsError::NotFound { .. } | VfsError::NotADirectory { .. }) => Err(no_parent()),
        Err(error) => Err(error.into()),
    }
}

/// Where it should go, which must be on this server.
fn destination(asked: &Parts) -> Result<Place, ApiError> {
    let bad =
        || ApiError::bad_request("bad-destination", "`Destination` is missing, or no URL of this place");
    let text = asked.headers.get(DESTINATION).and_then(|value| value.to_str().ok()).ok_or_else(bad)?;
    let uri: Uri = text.parse().map_err(|_| bad())?;
    let host = asked.headers.get(HOST).and_then(|value| value.to_str().ok());
    if uri.authority().is_some_and(|authority| Some(authority.as_str()) != host) {
        let message = "nothing is moved to another server";
        return Err(ApiError::new(StatusCode::BAD_GATEWAY, "other-server", message));
    }
    let rest = uri.path().strip_prefix(PREFIX).filter(|rest| rest.is_empty() || rest.starts_with('/'));
    Place::parse(rest.ok_or_else(bad)?)
}
