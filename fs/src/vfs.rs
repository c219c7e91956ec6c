//! The one file-system interface: shell, HTTP, WebDAV, FUSE and guests all see files through [`Vfs`].
//!
//! Paths are absolute, UTF-8, normalised ([`VfsPath`]); contents are streams of bytes and are never held
//! whole. Two implementations live in this crate: the swarm's tree ([`crate::Files`]) and an in-memory twin
//! for tests ([`crate::mem_vfs::MemVfs`]); `node` adds a third, a client of a running node.

use std::fmt;
use std::ops::Range;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::host::{self, HostFile, OnMoved};
use crate::path::{PathError, VfsPath};

/// A file's bytes, in order. An error ends the stream; what came before it was verified.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, VfsError>> + Send>>;

/// Bytes that are at hand, as a stream.
pub fn stream_of(bytes: impl Into<Bytes>) -> ByteStream {
    let bytes = bytes.into();
    stream::iter((!bytes.is_empty()).then_some(Ok(bytes))).boxed()
}

/// All bytes of a stream, which must not be more than `max`.
pub async fn collect(mut stream: ByteStream, max: usize) -> Result<Bytes, VfsError> {
    let mut bytes = BytesMut::new();
    while let Some(part) = stream.try_next().await? {
        if bytes.len() + part.len() > max {
            let source = std::io::ErrorKind::FileTooLarge.into();
            return Err(VfsError::Io { what: format!("content is longer than {max} bytes"), source });
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes.freeze())
}

/// What an entry of the tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link; its target is any string, never followed outside the tree.
    Symlink,
}

/// One entry of the tree, as `stat` and `ls -l` show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The name in its directory; empty for the root.
    pub name: String,
    /// File, directory or link.
    pub kind: Kind,
    /// Length in bytes: of the content, or of a link's target; 0 for directories.
    pub size: u64,
    /// POSIX permission bits (`0o7777`).
    pub mode: u32,
    /// Last change of the content, in milliseconds since the Unix epoch.
    pub mtime_ms: u64,
    /// BLAKE3 of the whole content as hex, for files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Where a symbolic link points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Stable identity of the file over renames, as hex.
    pub inode: String,
}

/// The last thing that happened to an entry: it got its content, or got to where it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Changed {
    /// Grows with every change of the entry, and is the same wherever it is asked for.
    pub version: String,
    /// When, in milliseconds since the Unix epoch by the clock of who did it. A [`mtime_ms`](Entry::mtime_ms) is what
    /// somebody says; this is not.
    pub at_ms: u64,
}

/// Attributes to give to an entry; `None` leaves one as it is (or as its default for a new entry).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// POSIX permission bits.
    pub mode: Option<u32>,
    /// Modification time in milliseconds since the Unix epoch.
    pub mtime_ms: Option<u64>,
}

/// Whether missing parents are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parents {
    /// A missing parent is an error, as in `mkdir`.
    MustExist,
    /// Missing parents are made and an existing directory is fine, as in `mkdir -p`.
    Create,
}

/// How far a removal reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// A file, a link or an empty directory.
    Single,
    /// Everything below as well, as in `rm -r`.
    Recursive,
}

/// Files and directories of one tree.
///
/// Symbolic links on the way to the last name of a path are followed. A link at the end is followed where content is
/// meant (`read`, `write`, `list`, `mkdir` with [`Parents::Create`], and the target of `copy`), and is meant itself
/// everywhere else.
///
/// Every method is safe to cancel: dropping its future leaves either the old or the new state, and a
/// half-written file is never visible. (Removing or copying a directory of thousands of entries is done in several
/// steps, each of which leaves a whole tree.)
#[async_trait]
pub trait Vfs: Send + Sync + fmt::Debug {
    /// Describes one entry; a symbolic link is described itself, not followed.
    async fn stat(&self, path: &VfsPath) -> Result<Entry, VfsError>;

    /// The entries of a directory, sorted by name.
    async fn list(&self, path: &VfsPath) -> Result<Vec<Entry>, VfsError>;

    /// Streams a file's bytes in `range`; a range past the end is cut to it.
    async fn read(&self, path: &VfsPath, range: Range<u64>) -> Result<ByteStream, VfsError>;

    /// Replaces (or makes) a file with all of `content`: the change is atomic and happens at the end of the stream.
    async fn write(
        &self,
        path: &VfsPath,
        content: ByteStream,
        attributes: Attributes,
    ) -> Result<Entry, VfsError>;

    /// [`write`](Vfs::write) of what an open file of this machine holds.
    async fn write_from(
        &self,
        path: &VfsPath,
        source: HostFile,
        attributes: Attributes,
        on_moved: OnMoved<'_>,
    ) -> Result<Entry, VfsError> {
        host::write_from(self, path, source, attributes, on_moved).await
    }

    /// [`read`](Vfs::read) to an open file of this machine: the bytes of `range` are written where they stand in the
    /// content. What was written before an error stays.
    async fn read_to(
        &self,
        path: &VfsPath,
        range: Range<u64>,
        target: HostFile,
        on_moved: OnMoved<'_>,
    ) -> Result<(), VfsError> {
        host::read_to(self, path, range, target, on_moved).await
    }

    /// Makes a directory.
    async fn mkdir(&self, path: &VfsPath, parents: Parents) -> Result<Entry, VfsError>;

    /// Makes a symbolic link at `path` that points to `target`.
    async fn symlink(&self, path: &VfsPath, target: &str) -> Result<Entry, VfsError>;

    /// Removes an entry. With [`Removal::Single`], a directory that is not empty is an error.
    async fn remove(&self, path: &VfsPath, removal: Removal) -> Result<(), VfsError>;

    /// Moves an entry; an existing file or empty directory at `to` is replaced, as POSIX `rename` does.
    async fn rename(&self, from: &VfsPath, to: &VfsPath) -> Result<(), VfsError>;

    /// Copies a file, link or (recursively) directory. Contents are shared, so this costs metadata only.
    async fn copy(&self, from: &VfsPath, to: &VfsPath) -> Result<(), VfsError>;

    /// Changes attributes.
    async fn set_attributes(&self, path: &VfsPath, attributes: Attributes) -> Result<Entry, VfsError>;

    /// How many of a file's bytes are on this machine: what a reader here need not wait for others for.
    async fn bytes_here(&self, path: &VfsPath) -> Result<u64, VfsError> {
        Ok(self.stat(path).await?.size)
    }

    /// What happened to an entry last, itself or a directory that it is in being moved included; `None` where that is not
    /// known.
    async fn changed(&self, path: &VfsPath) -> Result<Option<Changed>, VfsError> {
        let _ = path;
        Ok(None)
    }

    /// Waits until what was written to `path` outlives this node, as far as there are others to keep it; not for
    /// ever, since those may be gone. Where contents are kept once, there is nothing to wait for.
    async fn settle(&self, path: &VfsPath) -> Result<(), VfsError> {
        let _ = path;
        Ok(())
    }
}

/// Why an operation on the tree failed. Each variant has one POSIX errno and one HTTP status.
#[derive(Debug, thiserror::Error)]
pub enum VfsError {
    /// The path is malformed.
    #[error(transparent)]
    Path(#[from] PathError),
    /// There is nothing at the path (`ENOENT`).
    #[error("{path}: no such file or directory")]
    NotFound {
        /// What was looked for.
        path: VfsPath,
    },
    /// Something is there already (`EEXIST`).
    #[error("{path}: already exists")]
    Exists {
        /// What was to be made.
        path: VfsPath,
    },
    /// A directory was needed (`ENOTDIR`).
    #[error("{path}: not a directory")]
    NotADirectory {
        /// What is not a directory.
        path: VfsPath,
    },
    /// A file was needed (`EISDIR`).
    #[error("{path}: is a directory")]
    IsADirectory {
        /// What is a directory.
        path: VfsPath,
    },
    /// The directory still has entries (`ENOTEMPTY`).
    #[error("{path}: directory not empty")]
    NotEmpty {
        /// The directory.
        path: VfsPath,
    },
    /// The change makes no sense: a directory into itself, the root removed (`EINVAL`).
    #[error("{path}: {reason}")]
    Invalid {
        /// Where.
        path: VfsPath,
        /// Why not.
        reason: &'static str,
    },
    /// A link leads in a circle (`ELOOP`).
    #[error("{path}: too many levels of symbolic links")]
    LinkLoop {
        /// Where.
        path: VfsPath,
    },
    /// The bytes are not here and nobody who has them can be reached now; trying again may help (`EIO`).
    #[error("{path}: content {hash} is not on this node, and none of {asked} peers asked could give it")]
    Unavailable {
        /// The file.
        path: VfsPath,
        /// The missing blob, as hex.
        hash: String,
        /// How many peers were asked.
        asked: usize,
    },
    /// The disk or the quota is full (`ENOSPC`).
    #[error("no space left for {what}")]
    NoSpace {
        /// What did not fit.
        what: String,
    },
    /// The source of a write failed, or the store under the tree did (`EIO`).
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },
}
