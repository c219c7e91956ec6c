//! `/api/v1/fs/import` and `/export`: contents that go between the tree and a file which the client has open, without
//! the socket in between.
//!
//! The client names a file by its descriptor. Whose descriptor is meant is for the kernel to say: the process at the other
//! end of the socket. Opening it anew (through `/proc`) asks the kernel whether this process may look into that one, and
//! open such a file, so nothing can be read or written this way that is not in both their reach. Where that fails,
//! in another container for instance, the client sends or takes the bytes itself.

use std::convert::Infallible;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use http::StatusCode;
use starfish_fs::host::{HostFile, content_of, pour};
use starfish_fs::vfs::{Attributes, Entry, Vfs, VfsError};
use tokio::sync::watch;

use super::error::ApiError;
use super::extract::Json;
use super::ndjson;
use super::route::{Content, Route, Verb};
use super::serve::Process;
use crate::wire::{ClientFile, CopyLine, ExportRequest, ImportRequest};

type Files = State<Arc<dyn Vfs>>;
type Client = Option<Extension<Process>>;

/// Why the client's file was not opened; see [`crate::client`], which then sends the bytes itself.
pub(crate) const NOT_OPENED: &str = "not-opened";

pub(super) fn routes(files: &Arc<dyn Vfs>) -> Vec<Route> {
    let lines =
        Content::Text("NDJSON: {moved: bytes} as it goes on, then {done: Entry or null} or {failed: error}");
    vec![
        Route::new(
            Verb::Post,
            "/api/v1/fs/import",
            "Make or replace a file with what the client's open file holds (through the node's socket only)",
            files,
            import,
        )
        .takes(Content::Json("{path, source: {descriptor, device, inode, name}, mode, mtime_ms}"))
        .gives(lines),
        Route::new(
            Verb::Post,
            "/api/v1/fs/export",
            "Write bytes of a file to the client's open file (through the node's socket only)",
            files,
            export,
        )
        .takes(Content::Json("{path, from, to, target: {descriptor, device, inode, name}}"))
        .gives(lines),
    ]
}

async fn import(
    State(files): Files,
    client: Client,
    Json(request): Json<ImportRequest>,
) -> Result<Response, ApiError> {
    let ImportRequest { path, source, mode, mtime_ms } = request;
    let source = open(client, source, OpenOptions::new().read(true)).await?;
    let (moved, progress) = watch::channel(0);
    let content =
        content_of(source).inspect_ok(move |part| moved.send_modify(|all| *all += part.len() as u64));
    let copy =
        async move { files.write(&path, Box::pin(content), Attributes { mode, mtime_ms }).await.map(Some) };
    Ok(answer(progress, copy))
}

async fn export(
    State(files): Files,
    client: Client,
    Json(request): Json<ExportRequest>,
) -> Result<Response, ApiError> {
    let ExportRequest { path, from, to, target } = request;
    let target = open(client, target, OpenOptions::new().write(true)).await?;
    let (moved, progress) = watch::channel(0);
    let copy = async move {
        let content = files.read(&path, from..to.max(from)).await?;
        pour(content, target, from, &|len| moved.send_modify(|all| *all += len)).await.map(|()| None)
    };
    Ok(answer(progress, copy))
}

/// Opens the client's file anew.
async fn open(client: Client, file: ClientFile, how: &OpenOptions) -> Result<HostFile, ApiError> {
    let refused = |why: String| {
        ApiError::new(
            StatusCode::CONFLICT,
            NOT_OPENED,
            format!("your open file cannot be opened here: {why}"),
        )
        .with_hint("send or take the bytes through `/api/v1/fs/content`")
    };
    let Some(Extension(Process(pid))) = client else {
        return Err(refused("this connection does not tell which process you are".to_owned()));
    };
    let path = format!("/proc/{pid}/fd/{}", file.descriptor);
    let mut how = how.clone();
    // Whoever opens a pipe may have to wait for its other end.
    how.custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    let is_meant = move |found: &Metadata| (found.dev(), found.ino()) == (file.device, file.inode);
    let open = move || -> io::Result<File> {
        let refused = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        if !std::fs::metadata(&path)?.is_file() {
            return refused("it is no regular file");
        }
        let opened = how.open(&path)?;
        if is_meant(&opened.metadata()?) { Ok(opened) } else { refused("the descriptor is of another file") }
    };
    let opened = tokio::task::spawn_blocking(open).await.map_err(io::Error::other).flatten();
    opened
        .map(|opened| HostFile { file: opened, name: file.name })
        .map_err(|error| refused(error.to_string()))
}

/// The copy goes on while its lines are taken, and ends when nobody does any more.
fn answer(
    progress: watch::Receiver<u64>,
    copy: impl Future<Output = Result<Option<Entry>, VfsError>> + Send + 'static,
) -> Response {
    let lines = stream::unfold(Some((progress, copy.boxed())), async |under_way| {
        let (mut progress, mut copy) = under_way?;
        let ended = tokio::select! {
            biased;
            ended = &mut copy => ended,
            // An end of the progress is followed by that of the copy.
            Ok(()) = progress.changed() => {
                let moved = *progress.borrow_and_update();
                return Some((ndjson::line(&CopyLine::Moved(moved)), Some((progress, copy))));
            }
        };
        let last = match ended {
            Ok(entry) => CopyLine::Done(entry),
            Err(error) => CopyLine::Failed((&error).into()),
        };
        // It may have ended with its last progress.
        let moved = CopyLine::Moved(*progress.borrow_and_update());
        Some(([ndjson::line(&moved), ndjson::line(&last)].concat().into(), None))
    });
    ndjson::answer(lines.map(Ok::<_, Infallible>))
}
