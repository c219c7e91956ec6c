//! The bytes of memory's large values: files without versions, in a folder of their own.
//!
//! So they are coded, spread, repaired and fetched as all files are. Their names are drawn for one write each, and their
//! contents never change.
//!
//! WIRE: the folder, and that a file has its value's name.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use starfish_memory::{BlobError, BlobName, Blobs, ByteStream};

use super::{Files, now_ms};
use crate::hash::BlobHash;
use crate::path::{PathError, VfsPath};
use crate::tree::store::Edits;
use crate::vfs::{Attributes, Parents, Vfs, VfsError};

/// The folder of the swarm's tree that large values have.
const FOLDER: &str = "/.values";
/// Nobody needs to read them by themselves.
const MODE: u32 = 0o600;

#[async_trait]
impl Blobs for Files {
    async fn put(&self, name: BlobName, content: ByteStream) -> Result<(), BlobError> {
        let path = self.make_place(name).await?;
        let content = content.map_err(|error| VfsError::Io {
            what: "reading a value".to_owned(),
            source: io::Error::other(error),
        });
        let attributes = Attributes { mode: Some(MODE), mtime_ms: Some(now_ms()) };
        self.write(&path, content.boxed(), attributes).await.map_err(failed)?;
        Ok(())
    }

    async fn fetch(&self, name: BlobName, hash: &[u8; 32]) -> Result<ByteStream, BlobError> {
        let path = path(name)?;
        let entry = self.stat(&path).await.map_err(failed)?;
        if entry.hash != Some(BlobHash::from_bytes(*hash).to_string()) {
            let cause = io::Error::new(io::ErrorKind::InvalidData, format!("{path} was written over"));
            return Err(BlobError::Failed(Arc::new(cause)));
        }
        let content = self.read(&path, 0..u64::MAX).await.map_err(failed)?;
        Ok(content.map_err(failed).boxed())
    }

    async fn copy(&self, from: BlobName, to: BlobName) -> Result<(), BlobError> {
        let to = self.make_place(to).await?;
        Vfs::copy(self, &path(from)?, &to).await.map_err(failed)
    }

    async fn remove(&self, name: BlobName) -> Result<(), BlobError> {
        let path = path(name)?;
        let _guard = self.inner.locks.entry(&path).await;
        let inode = match self.find(&path) {
            Ok(found) => found.inode(),
            Err(VfsError::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        // Not only removed: what was removed is kept for a while, and a value is gone when it is gone.
        let mut edits = Edits::default();
        edits.expunge(inode);
        self.inner.tree.commit(edits).await.map_err(failed)
    }

    async fn names(&self) -> Result<Vec<BlobName>, BlobError> {
        let folder = folder().map_err(cause)?;
        match self.list(&folder).await {
            Ok(entries) => Ok(entries.iter().filter_map(|entry| BlobName::parse(&entry.name)).collect()),
            Err(VfsError::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(failed(error)),
        }
    }
}

impl Files {
    async fn make_place(&self, name: BlobName) -> Result<VfsPath, BlobError> {
        let folder = folder().map_err(cause)?;
        if self.find(&folder).is_err() {
            self.mkdir(&folder, Parents::Create).await.map_err(failed)?;
        }
        path(name)
    }
}

fn folder() -> Result<VfsPath, PathError> {
    VfsPath::parse(FOLDER)
}

fn path(name: BlobName) -> Result<VfsPath, BlobError> {
    folder().and_then(|folder| folder.join(&name.to_string())).map_err(cause)
}

fn cause(error: PathError) -> BlobError {
    BlobError::Failed(Arc::new(error))
}

fn failed(error: VfsError) -> BlobError {
    match error {
        VfsError::NotFound { .. } => BlobError::NotFound,
        VfsError::Unavailable { .. } => BlobError::Unavailable(Arc::new(error)),
        VfsError::NoSpace { .. } => BlobError::NoSpace(Arc::new(error)),
        error => BlobError::Failed(Arc::new(error)),
    }
}
