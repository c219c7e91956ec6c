//! `PUT`: a file, made or replaced at once when all of it is here.
//!
//! The body streams into the tree and is never held. What breaks off leaves what was there. Conditions are judged
//! before the body and again behind it; since nobody leads, two nodes can still both pass at the same moment, and then
//! the later one wins, as with any write.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use http::header::{CONTENT_RANGE, EXPECT};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use starfish_fs::path::VfsPath;
use starfish_fs::vfs::{Attributes, ByteStream, Entry, Kind, Parents, Vfs, VfsError};

use super::conditions::{self, Verdict, Version};
use super::download::with;
use super::place::Place;
use crate::api::content::Upload;
use crate::api::error::ApiError;
use starfish_fs::links;

/// When the file was changed last, in seconds since the Unix epoch: what `rclone` and ownCloud's clients send along.
const MTIME: HeaderName = HeaderName::from_static("x-oc-mtime");

/// Writes the body to `place`. With [`Parents::Create`], folders on the way are made.
pub(super) async fn put(
    files: &Arc<dyn Vfs>,
    place: &Place,
    asked: &Parts,
    body: Body,
    parents: Parents,
) -> Result<Response, ApiError> {
    let upload = Upload::new(body);
    let outcome = write(files, place, &asked.headers, &upload, parents).await;
    // Who waits for a word before sending anything gets this one.
    if outcome.is_err() && !asked.headers.contains_key(EXPECT) {
        upload.drain().await;
    }
    outcome
}

async fn write(
    files: &Arc<dyn Vfs>,
    place: &Place,
    headers: &HeaderMap,
    upload: &Upload,
    parents: Parents,
) -> Result<Response, ApiError> {
    let path = &place.path;
    if place.is_folder {
        return Err(ApiError::bad_request("is-a-folder", "the name of a file does not end with a slash"));
    }
    if headers.contains_key(CONTENT_RANGE) {
        return Err(ApiError::bad_request("partial", "a file is written whole or not at all"));
    }
    let before = current(&**files, path).await?;
    if before.as_ref().is_some_and(|entry| entry.kind == Kind::Dir) {
        return Err(VfsError::IsADirectory { path: path.clone() }.into());
    }
    judge(headers, before.as_ref())?;
    if let (Parents::Create, None, Some(parent)) = (parents, &before, path.parent()) {
        files.mkdir(&parent, Parents::Create).await?;
    }
    let mtime = headers.get(&MTIME).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let attributes = Attributes { mtime_ms: mtime.map(|seconds| seconds.saturating_mul(1000)), mode: None };
    let last_word = LastWord::default();
    let content = last_word.after(upload.content(), files, path, headers);
    let written = files.write(path, content, attributes).await;
    let entry = written.map_err(|error| match error {
        _ if last_word.was_no() => ApiError::precondition_failed(),
        VfsError::NotFound { .. } | VfsError::NotADirectory { .. } => no_parent(),
        error => error.into(),
    })?;
    let status = if before.is_some() { StatusCode::NO_CONTENT } else { StatusCode::CREATED };
    let taken = mtime.map(|_| (MTIME, HeaderValue::from_static("accepted")));
    Ok(with(status.into_response(), Version::of(&entry).headers().chain(taken)))
}

/// The folder that something is to be made in is not there.
pub(super) fn no_parent() -> ApiError {
    ApiError::new(StatusCode::CONFLICT, "no-parent", "the folder around it is not there")
}

/// What is at the path now, if anything.
pub(super) async fn current(files: &dyn Vfs, path: &VfsPath) -> Result<Option<Entry>, VfsError> {
    match links::stat(files, path).await {
        Ok(entry) => Ok(Some(entry)),
        Err(VfsError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Refuses a change whose conditions do not hold.
pub(super) fn judge(headers: &HeaderMap, current: Option<&Entry>) -> Result<(), ApiError> {
    match conditions::to_change(headers, current.map(Version::of).as_ref()) {
        Verdict::Go | Verdict::NotModified => Ok(()),
        Verdict::Failed => Err(ApiError::precondition_failed()),
    }
}

/// The conditions, judged once more when all bytes are here and nothing is changed yet.
#[derive(Clone, Default)]
struct LastWord(Arc<AtomicBool>);

impl LastWord {
    fn after(
        &self,
        content: ByteStream,
        files: &Arc<dyn Vfs>,
        path: &VfsPath,
        headers: &HeaderMap,
    ) -> ByteStream {
        let (word, files, path, headers) = (self.clone(), files.clone(), path.clone(), headers.clone());
        let judged = async move {
            let current = current(&*files, &path).await.ok()?;
            judge(&headers, current.as_ref()).is_err().then(|| {
                word.0.store(true, Ordering::Relaxed);
                let source = std::io::ErrorKind::Interrupted.into();
                Err(VfsError::Io { what: "its conditions hold no more".to_owned(), source })
            })
        };
        content.chain(stream::once(judged).filter_map(std::future::ready)).boxed()
    }

    fn was_no(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
