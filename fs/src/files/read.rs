//! Reading: from a range of a file to the segments it touches, fetched ahead and handed on in order.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use tokio_util::task::AbortOnDropHandle;

use super::Files;
use super::announce::{self, Announcer};
use crate::blob::{BlobStore, Sources};
use crate::hash::BlobHash;
use crate::links::Last;
use crate::manifest::{MAX_MANIFEST, Manifest, Slice};
use crate::path::VfsPath;
use crate::tree::Found;
use crate::tree::cell::{Body, Content, FileContent};
use crate::vfs::{ByteStream, VfsError};

/// What the fetches of one reader share.
#[derive(Debug)]
struct Reading {
    path: VfsPath,
    root: BlobHash,
    blobs: BlobStore,
    sources: Arc<Sources>,
    /// Whether anything had to come from a peer.
    has_fetched: AtomicBool,
}

impl Files {
    pub(super) async fn read_range(&self, path: &VfsPath, range: Range<u64>) -> Result<ByteStream, VfsError> {
        let at = self.resolve(path, Last::Follow)?;
        let inode = match self.find(&at).map_err(|error| super::about(error, path))? {
            Found::Dir(_) => return Err(VfsError::IsADirectory { path: path.clone() }),
            Found::Leaf(inode) => inode,
        };
        let Some(Content::File(file)) = self.inner.tree.content(inode).await? else {
            return Err(VfsError::NotFound { path: path.clone() });
        };
        let range = range.start.min(file.size)..range.end.min(file.size);
        if let Body::Inline(bytes) = &file.body {
            let bytes =
                Bytes::copy_from_slice(bytes.get(range.start as usize..range.end as usize).unwrap_or(&[]));
            return Ok(stream::iter((!bytes.is_empty()).then_some(Ok(bytes))).boxed());
        }
        let reading = Arc::new(Reading {
            path: path.clone(),
            root: file.hash,
            blobs: self.inner.blobs.clone(),
            sources: Arc::new(Sources::of_file(file.hash, file.holder)),
            has_fetched: AtomicBool::new(false),
        });
        let manifest = reading.manifest(&file).await?;
        let is_announced = range == (0..file.size) && announce::is_worth_it(file.size);
        Ok(self.stream(reading, manifest.slices(range), is_announced))
    }

    fn stream(&self, reading: Arc<Reading>, slices: Vec<Slice>, is_announced: bool) -> ByteStream {
        let finished = Arc::clone(&reading);
        let parts = stream::iter(slices)
            .map(move |slice| {
                let reading = Arc::clone(&reading);
                // A task of its own, so that it goes on while the reader is busy with what came before.
                let part = AbortOnDropHandle::new(tokio::spawn(async move { reading.slice(&slice).await }));
                async move { part.await.map_err(|error| failed("read a segment", io::Error::other(error)))? }
            })
            .buffered(self.inner.options.read_ahead.max(1));
        let mut announcer = is_announced.then(|| self.inner.announcer.clone());
        let at_end = stream::poll_fn(move |_| {
            if let Some(announcer) = announcer.take() {
                finished.announce(&announcer);
            }
            std::task::Poll::Ready(None)
        });
        parts.chain(at_end).boxed()
    }
}

impl Reading {
    async fn manifest(&self, file: &FileContent) -> Result<Manifest, VfsError> {
        let manifest = match &file.body {
            Body::Inline(_) => return Err(failed("read the manifest", io::ErrorKind::InvalidData.into())),
            Body::Manifest(bytes) => Manifest::decode(bytes),
            Body::ManifestBlob(blob) => {
                let len = blob.len.min(MAX_MANIFEST as u64);
                self.ensure(blob.hash, len).await?;
                let bytes = self.blobs.get_bytes(blob.hash, len).await;
                Manifest::decode(&bytes.map_err(|error| failed("read the manifest", error))?)
            }
        };
        let manifest = manifest.map_err(|error| failed("read the manifest", io::Error::other(error)))?;
        if manifest.hash() != file.hash || manifest.size() != file.size {
            let error = io::Error::new(io::ErrorKind::InvalidData, "it is of another file");
            return Err(failed("read the manifest", error));
        }
        Ok(manifest)
    }

    async fn slice(&self, Slice { segment, range, .. }: &Slice) -> Result<Bytes, VfsError> {
        self.ensure(segment.hash, u64::from(segment.len)).await?;
        let bytes = self.blobs.read_range(segment.hash, range.clone()).await;
        bytes.map_err(|error| failed("read a segment", error))
    }

    async fn ensure(&self, hash: BlobHash, len: u64) -> Result<(), VfsError> {
        if self.blobs.has(hash).await.map_err(|error| failed("look for a segment", error))? {
            return Ok(());
        }
        if !self.has_fetched.swap(true, Ordering::Relaxed) {
            self.blobs.look_for_providers(&self.sources);
        }
        self.blobs.ensure(hash, len, &self.sources).await.map_err(|error| VfsError::Unavailable {
            path: self.path.clone(),
            hash: error.hash.to_string(),
            asked: error.asked,
        })
    }

    /// After the whole file came from elsewhere, this node is one more that has it.
    fn announce(&self, announcer: &Announcer) {
        if self.has_fetched.load(Ordering::Relaxed) {
            announcer.announce(self.root);
        }
    }
}

fn failed(what: &str, source: io::Error) -> VfsError {
    VfsError::Io { what: format!("could not {what}"), source }
}
