//! Between the tree's streams and tokio's: reading, following links, and writing that becomes visible at
//! the end or not at all.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BytesMut;
use futures::TryStreamExt;
use futures::stream::{self, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::io::StreamReader;
use tokio_util::task::AbortOnDropHandle;

use super::fs::path::VfsPath;
use super::fs::vfs::{Attributes, ByteStream, Entry, Kind, Vfs, VfsError};
use super::io::{BoxReader, Input, Output, PIPE_BYTES, pipe};

/// How many links are followed one after another; what Linux allows.
const MAX_LINKS: usize = 40;

/// All of a file.
pub(super) const WHOLE: std::ops::Range<u64> = 0..u64::MAX;

/// Where a chain of links ends, and what is there.
pub(super) async fn follow(vfs: &dyn Vfs, path: &VfsPath) -> Result<(VfsPath, Entry), VfsError> {
    let mut here = path.clone();
    for _ in 0..MAX_LINKS {
        let entry = vfs.stat(&here).await?;
        match link_target(&here, &entry)? {
            Some(target) => here = target,
            None => return Ok((here, entry)),
        }
    }
    Err(VfsError::LinkLoop { path: path.clone() })
}

/// Where a write to `path` lands: behind its links, whether or not there is something yet.
pub(super) async fn destination(vfs: &dyn Vfs, path: &VfsPath) -> Result<VfsPath, VfsError> {
    let mut here = path.clone();
    for _ in 0..MAX_LINKS {
        let target = match vfs.stat(&here).await {
            Ok(entry) if entry.kind == Kind::Dir => return Err(VfsError::IsADirectory { path: here }),
            Ok(entry) => link_target(&here, &entry)?,
            Err(VfsError::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        match target {
            Some(target) => here = target,
            None => return Ok(here),
        }
    }
    Err(VfsError::LinkLoop { path: path.clone() })
}

fn link_target(path: &VfsPath, entry: &Entry) -> Result<Option<VfsPath>, VfsError> {
    let Some(target) = entry.target.as_deref().filter(|_| entry.kind == Kind::Symlink) else {
        return Ok(None);
    };
    let directory = path.parent().unwrap_or_else(VfsPath::root);
    Ok(Some(directory.resolve(target)?))
}

/// Opens a file for reading.
pub(super) async fn open(vfs: &dyn Vfs, path: &VfsPath) -> Result<BoxReader, VfsError> {
    let (path, entry) = follow(vfs, path).await?;
    if entry.kind == Kind::Dir {
        return Err(VfsError::IsADirectory { path });
    }
    let stream = vfs.read(&path, WHOLE).await?;
    Ok(Box::new(StreamReader::new(stream.map_err(io_error))))
}

/// An error of the tree in the clothes of a stream's; `Failure` takes them off again.
pub(super) fn io_error(error: VfsError) -> io::Error {
    io::Error::other(error)
}

/// A file that is being written. Dropped before [`Sink::finish`], it leaves the tree as it was.
#[derive(Debug)]
pub(super) struct Sink {
    /// Where the new content goes.
    pub(super) output: Output,
    complete: Arc<AtomicBool>,
    write: AbortOnDropHandle<Result<Entry, VfsError>>,
}

impl Sink {
    /// Begins to replace the file at `path`, or to write on after what it holds.
    pub(super) async fn open(vfs: &Arc<dyn Vfs>, path: &VfsPath, append: bool) -> Result<Self, VfsError> {
        let path = destination(&**vfs, path).await?;
        check_parent(&**vfs, &path).await?;
        let before = if append { existing(&**vfs, &path).await? } else { stream::empty().boxed() };
        let (output, input) = pipe();
        let complete = Arc::new(AtomicBool::new(false));
        let content = before.chain(until_complete(input, Arc::clone(&complete))).boxed();
        let vfs = Arc::clone(vfs);
        let write = tokio::spawn(async move { vfs.write(&path, content, Attributes::default()).await });
        Ok(Self { output, complete, write: AbortOnDropHandle::new(write) })
    }

    /// Makes what was written visible.
    pub(super) async fn finish(mut self) -> Result<(), VfsError> {
        self.complete.store(true, Ordering::Release);
        // Fails only if the write has ended already; then it says why.
        let _ = self.output.shutdown().await;
        match self.write.await {
            Ok(written) => written.map(|_| ()),
            Err(lost) => {
                Err(VfsError::Io { what: "writing a file".to_owned(), source: io::Error::other(lost) })
            }
        }
    }
}

/// A missing directory is told before the command runs, not after.
async fn check_parent(vfs: &dyn Vfs, path: &VfsPath) -> Result<(), VfsError> {
    let parent = path.parent().unwrap_or_else(VfsPath::root);
    match follow(vfs, &parent).await {
        Ok((_, entry)) if entry.kind == Kind::Dir => Ok(()),
        Ok(_) => Err(VfsError::NotADirectory { path: parent }),
        Err(VfsError::NotFound { .. }) => Err(VfsError::NotFound { path: path.clone() }),
        Err(error) => Err(error),
    }
}

async fn existing(vfs: &dyn Vfs, path: &VfsPath) -> Result<ByteStream, VfsError> {
    match vfs.read(path, WHOLE).await {
        Err(VfsError::NotFound { .. }) => Ok(stream::empty().boxed()),
        result => result,
    }
}

/// The end of a pipe is the end of the content only if its writer says so; else it was cut off.
fn until_complete(input: Input, complete: Arc<AtomicBool>) -> ByteStream {
    let chunks = stream::try_unfold((input, complete), |(mut input, complete)| async move {
        let mut chunk = BytesMut::with_capacity(PIPE_BYTES);
        let read = input.read_buf(&mut chunk).await.map_err(cut_off)?;
        if read == 0 && !complete.load(Ordering::Acquire) {
            return Err(cut_off(io::ErrorKind::Interrupted.into()));
        }
        Ok((read > 0).then(|| (chunk.freeze(), (input, complete))))
    });
    chunks.boxed()
}

fn cut_off(source: io::Error) -> VfsError {
    VfsError::Io { what: "the writing command was cut off".to_owned(), source }
}
