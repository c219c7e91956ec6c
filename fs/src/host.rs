//! Contents between the tree and files that are open on this machine.
//!
//! Any [`Vfs`] can take a content from such a file, or give one to it, as a stream. One that is in another process may do
//! better: have that process read or write the file itself.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use rustix::buffer::spare_capacity;
use tokio::sync::mpsc;

use crate::path::VfsPath;
use crate::vfs::{Attributes, ByteStream, Entry, Vfs, VfsError};

/// What is read of a file at a time: as much as is cut at a time.
const PART: usize = 4 << 20;

/// A regular file that is open on this machine.
#[derive(Debug)]
pub struct HostFile {
    /// The file; where it stands does not matter.
    pub file: File,
    /// What its user calls it, for errors.
    pub name: String,
}

/// Hears how many bytes more have come over.
pub type OnMoved<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// What the file holds, from its start to the end that it has when that is come to.
pub fn content_of(source: HostFile) -> ByteStream {
    let source = Arc::new(source);
    stream::try_unfold(0, move |offset| {
        let source = Arc::clone(&source);
        async move {
            let name = source.name.clone();
            let failed = |error| VfsError::Io { what: format!("could not read {name}"), source: error };
            let read = tokio::task::spawn_blocking(move || read_part(&source.file, offset)).await;
            let part = read.map_err(io::Error::other).flatten().map_err(failed)?;
            let end = offset + part.len() as u64;
            Ok((!part.is_empty()).then_some((part, end)))
        }
    })
    .boxed()
}

/// Writes a content to the file, its first byte at `offset`.
///
/// # Errors
///
/// What ended the content early, or kept it from being written. What was written until then stays.
pub async fn pour(
    mut content: ByteStream,
    target: HostFile,
    offset: u64,
    on_moved: OnMoved<'_>,
) -> Result<(), VfsError> {
    let (target, mut offset) = (Arc::new(target), offset);
    let mut next = content.try_next().await?;
    while let Some(part) = next {
        let (len, file) = (part.len() as u64, Arc::clone(&target));
        // It is written while more is on its way. No thread waits for that: many do this at once, and what they wait for
        // may need a thread.
        let writing = tokio::task::spawn_blocking(move || write_part(&file, offset, &part));
        let (written, read) = tokio::join!(writing, content.try_next());
        let stopped =
            |error| VfsError::Io { what: "could not write".to_owned(), source: io::Error::other(error) };
        written.map_err(stopped)??;
        on_moved(len);
        offset += len;
        next = read?;
    }
    Ok(())
}

/// [`Vfs::write_from`], by a stream.
pub async fn write_from<V: Vfs + ?Sized>(
    vfs: &V,
    path: &VfsPath,
    source: HostFile,
    attributes: Attributes,
    on_moved: OnMoved<'_>,
) -> Result<Entry, VfsError> {
    // The listener is borrowed and a stream may not be: its parts go through a channel.
    let (sender, receiver) = mpsc::channel(1);
    let parts =
        stream::unfold(
            receiver,
            |mut receiver| async move { receiver.recv().await.map(|part| (part, receiver)) },
        );
    let forward = async move {
        let mut content = content_of(source);
        while let Some(part) = content.next().await {
            on_moved(part.as_ref().map_or(0, |part| part.len() as u64));
            if sender.send(part).await.is_err() {
                break;
            }
        }
    };
    let (written, ()) = tokio::join!(vfs.write(path, parts.boxed(), attributes), forward);
    written
}

/// [`Vfs::read_to`], by a stream.
pub async fn read_to<V: Vfs + ?Sized>(
    vfs: &V,
    path: &VfsPath,
    range: Range<u64>,
    target: HostFile,
    on_moved: OnMoved<'_>,
) -> Result<(), VfsError> {
    let offset = range.start;
    pour(vfs.read(path, range).await?, target, offset, on_moved).await
}

fn read_part(file: &File, offset: u64) -> io::Result<Bytes> {
    let left = file.metadata()?.len().saturating_sub(offset);
    // One byte more than there seems to be, or the end of a short file would take a second look.
    let mut part = Vec::with_capacity(usize::try_from(left).unwrap_or(PART).min(PART - 1) + 1);
    while part.len() < part.capacity() {
        let at = offset + part.len() as u64;
        match rustix::io::pread(file, spare_capacity(&mut part), at) {
            Ok(0) => break,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(part.into())
}

fn write_part(target: &HostFile, offset: u64, part: &[u8]) -> Result<(), VfsError> {
    let written = target.file.write_all_at(part, offset);
    written.map_err(|source| VfsError::Io { what: format!("could not write {}", target.name), source })
}
