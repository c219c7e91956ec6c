//! [`RemoteVfs`]: the swarm's tree through a running node, as the same interface that the node itself uses.

use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use http::header::TE;
use http::{HeaderMap, HeaderValue, Method, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;
use starfish_fs::host::{self, HostFile, OnMoved};
use starfish_fs::path::VfsPath;
use starfish_fs::vfs::{Attributes, ByteStream, Entry, Parents, Removal, Vfs, VfsError};

use super::connection::{self, Answer, Kept, RequestBody, empty, streamed};
use super::{Client, ClientError, json_request, request};
use crate::api::host_files::NOT_OPENED;
use crate::percent;
use crate::wire::{
    AttributesRequest, ClientFile, CopyLine, ERROR_TRAILER, ExportRequest, FromTo, ImportRequest,
    MkdirRequest, RemoveRequest, SymlinkRequest, WireVfsError,
};

/// The longest line of a copy: an entry, or an error that names some paths, each with escapes.
const MAX_COPY_LINE: usize = 1 << 20;

/// The tree, over the API. Errors are those that the node met, variant by variant.
#[derive(Clone, Debug)]
pub struct RemoteVfs {
    client: Client,
    kept: Kept,
}

impl Client {
    /// The swarm's files.
    pub fn files(&self) -> RemoteVfs {
        RemoteVfs { client: self.clone(), kept: Kept::default() }
    }
}

#[async_trait]
impl Vfs for RemoteVfs {
    async fn stat(&self, path: &VfsPath) -> Result<Entry, VfsError> {
        self.get(&at("stat", path)).await
    }

    async fn list(&self, path: &VfsPath) -> Result<Vec<Entry>, VfsError> {
        self.get(&at("list", path)).await
    }

    async fn read(&self, path: &VfsPath, range: Range<u64>) -> Result<ByteStream, VfsError> {
        let query = format!("{}&from={}&to={}", at("content", path), range.start, range.end);
        let mut request = request(Method::GET, &query, empty());
        // For errors that come after the first bytes.
        request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
        let answer = self.send(request).await.map_err(vfs_error)?;
        let chunks = answer.frames().map(|frame| match frame.map_err(vfs_error)?.into_data() {
            Ok(bytes) => Ok(bytes),
            Err(trailers) => match trailers.trailers_ref().and_then(broken_off) {
                Some(error) => Err(error),
                None => Ok(Bytes::new()),
            },
        });
        Ok(Box::pin(chunks))
    }

    async fn write(
        &self,
        path: &VfsPath,
        content: ByteStream,
        attributes: Attributes,
    ) -> Result<Entry, VfsError> {
        let mut query = at("content", path);
        if let Some(mode) = attributes.mode {
            query.push_str(&format!("&mode={mode:o}"));
        }
        if let Some(mtime_ms) = attributes.mtime_ms {
            query.push_str(&format!("&mtime_ms={mtime_ms}"));
        }
        let failure = Failure::default();
        let body = streamed(failure.watch(content));
        let written = async { self.send(request(Method::PUT, &query, body)).await?.json().await };
        written.await.map_err(|error| failure.take().unwrap_or_else(|| vfs_error(error)))
    }

    async fn write_from(
        &self,
        path: &VfsPath,
        source: HostFile,
        attributes: Attributes,
        on_moved: OnMoved<'_>,
    ) -> Result<Entry, VfsError> {
        let Attributes { mode, mtime_ms } = attributes;
        let request = ImportRequest { path: path.clone(), source: client_file(&source)?, mode, mtime_ms };
        match self.copy_files("import", &request, on_moved).await? {
            Copied::Done(Some(entry)) => Ok(entry),
            Copied::Done(None) => Err(nonsense("the node does not say what it made")),
            Copied::NotOpened => host::write_from(self, path, source, attributes, on_moved).await,
        }
    }

    async fn read_to(
        &self,
        path: &VfsPath,
        range: Range<u64>,
        target: HostFile,
        on_moved: OnMoved<'_>,
    ) -> Result<(), VfsError> {
        let (from, to) = (range.start, range.end);
        let request = ExportRequest { path: path.clone(), from, to, target: client_file(&target)? };
        match self.copy_files("export", &request, on_moved).await? {
            Copied::Done(_) => Ok(()),
            Copied::NotOpened => host::read_to(self, path, range, target, on_moved).await,
        }
    }

    async fn mkdir(&self, path: &VfsPath, parents: Parents) -> Result<Entry, VfsError> {
        let parents = parents == Parents::Create;
        self.post("mkdir", &MkdirRequest { path: path.clone(), parents }).await
    }

    async fn symlink(&self, path: &VfsPath, target: &str) -> Result<Entry, VfsError> {
        self.post("symlink", &SymlinkRequest { path: path.clone(), target: target.to_owned() }).await
    }

    async fn remove(&self, path: &VfsPath, removal: Removal) -> Result<(), VfsError> {
        let recursive = removal == Removal::Recursive;
        self.order("remove", &RemoveRequest { path: path.clone(), recursive }).await
    }

    async fn rename(&self, from: &VfsPath, to: &VfsPath) -> Result<(), VfsError> {
        self.order("rename", &FromTo { from: from.clone(), to: to.clone() }).await
    }

    async fn copy(&self, from: &VfsPath, to: &VfsPath) -> Result<(), VfsError> {
        self.order("copy", &FromTo { from: from.clone(), to: to.clone() }).await
    }

    async fn set_attributes(&self, path: &VfsPath, attributes: Attributes) -> Result<Entry, VfsError> {
        let Attributes { mode, mtime_ms } = attributes;
        self.post("attributes", &AttributesRequest { path: path.clone(), mode, mtime_ms }).await
    }
}

impl RemoteVfs {
    async fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, VfsError> {
        let got = async { self.send(request(Method::GET, path, empty())).await?.json().await };
        got.await.map_err(vfs_error)
    }

    async fn post<A: DeserializeOwned>(
        &self,
        verb: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<A, VfsError> {
        let path = format!("/api/v1/fs/{verb}");
        let posted = async { self.send(json_request(&path, body)?).await?.json().await };
        posted.await.map_err(vfs_error)
    }

    async fn order(&self, verb: &str, body: &(impl Serialize + Sync)) -> Result<(), VfsError> {
        let path = format!("/api/v1/fs/{verb}");
        let ordered = async { self.send(json_request(&path, body)?).await?.done().await };
        ordered.await.map_err(vfs_error)
    }

    /// Has the node copy between the tree and a file that is open here.
    async fn copy_files(
        &self,
        verb: &str,
        body: &(impl Serialize + Sync),
        on_moved: OnMoved<'_>,
    ) -> Result<Copied, VfsError> {
        let path = format!("/api/v1/fs/{verb}");
        let answer = match self.send(json_request(&path, body).map_err(vfs_error)?).await {
            Err(ClientError::Refused(problem)) if problem.body.code == NOT_OPENED => {
                return Ok(Copied::NotOpened);
            }
            answer => answer.map_err(vfs_error)?,
        };
        let mut lines = answer.lines(MAX_COPY_LINE);
        let mut so_far = 0;
        while let Some(line) = lines.try_next().await.map_err(vfs_error)? {
            match serde_json::from_str(&line).map_err(nonsense)? {
                CopyLine::Moved(all) => {
                    on_moved(all.saturating_sub(so_far));
                    so_far = so_far.max(all);
                }
                CopyLine::Done(entry) => return Ok(Copied::Done(entry)),
                CopyLine::Failed(error) => return Err(error.into()),
            }
        }
        Err(nonsense("the node does not say how it ended"))
    }

    async fn send(&self, request: Request<RequestBody>) -> Result<Answer, ClientError> {
        connection::send(&self.client.dir, request, Some(&self.kept)).await
    }
}

/// What came of a copy.
enum Copied {
    Done(Option<Entry>),
    /// The node cannot open the file that is open here.
    NotOpened,
}

fn client_file(file: &HostFile) -> Result<ClientFile, VfsError> {
    let failed = |source| VfsError::Io { what: format!("could not look at {}", file.name), source };
    let metadata = file.file.metadata().map_err(failed)?;
    Ok(ClientFile {
        descriptor: file.file.as_raw_fd().unsigned_abs(),
        device: metadata.dev(),
        inode: metadata.ino(),
        name: file.name.clone(),
    })
}

fn nonsense(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> VfsError {
    VfsError::Io { what: "asking the node".to_owned(), source: io::Error::other(why) }
}

fn at(verb: &str, path: &VfsPath) -> String {
    format!("/api/v1/fs/{verb}?path={}", percent::encode(path.as_str().as_bytes()))
}

/// The error as the node's file system said it, or what kept us from asking.
fn vfs_error(error: ClientError) -> VfsError {
    if let ClientError::Refused(problem) = &error
        && let Some(detail) = &problem.body.detail
        && let Ok(said) = serde_json::from_value::<WireVfsError>(detail.clone())
    {
        return said.into();
    }
    VfsError::Io { what: "asking the node".to_owned(), source: io::Error::other(error) }
}

/// Why a read broke off, from the trailers.
fn broken_off(trailers: &HeaderMap) -> Option<VfsError> {
    let json = data_encoding::BASE64.decode(trailers.get(ERROR_TRAILER)?.as_bytes()).ok()?;
    serde_json::from_slice::<WireVfsError>(&json).ok().map(VfsError::from)
}

/// Why the source of a write failed: its own error says more than the connection that breaks off for it.
#[derive(Clone, Default)]
struct Failure(Arc<Mutex<Option<VfsError>>>);

impl Failure {
    fn watch(&self, content: ByteStream) -> impl Stream<Item = Result<Bytes, io::Error>> + Send + use<> {
        let failure = self.clone();
        content.map(move |chunk| {
            chunk.map_err(|error| {
                let broken = io::Error::other(error.to_string());
                *failure.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                broken
            })
        })
    }

    fn take(&self) -> Option<VfsError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
