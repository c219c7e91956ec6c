//! The content of a file that is being changed: a file without a name on this machine's disk.
//!
//! The tree takes a file only whole, and programs write it in pieces, in any order. The pieces go here; the disk
//! bounds them, and what a crash leaves has no name and is gone.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use rustix::fs::{Mode, OFlags};

use super::fault::Fault;
use crate::vfs::{ByteStream, VfsError};

/// How much is read at a time when the content goes to the tree.
const PIECE: u64 = 1 << 20;

/// A file without a name. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Stage(Arc<File>);

impl Stage {
    /// An empty one, on the disk of `dir`.
    pub(super) async fn new(dir: &Path) -> Result<Self, Fault> {
        let dir = dir.to_owned();
        let file = blocking(move || nameless(&dir)).await.map_err(Fault::stage("make"))?;
        Ok(Self(Arc::new(file)))
    }

    /// One with this content.
    pub(super) async fn of(dir: &Path, mut content: ByteStream) -> Result<(Self, u64), Fault> {
        let stage = Self::new(dir).await?;
        let mut size = 0;
        while let Some(bytes) = content.try_next().await? {
            let length = bytes.len() as u64;
            stage.write(size, bytes).await?;
            size += length;
        }
        Ok((stage, size))
    }

    /// Writes all of `bytes` at `offset`.
    pub(super) async fn write(&self, offset: u64, bytes: Bytes) -> Result<(), Fault> {
        let file = Arc::clone(&self.0);
        blocking(move || file.write_all_at(&bytes, offset)).await.map_err(Fault::stage("write"))
    }

    /// Reads what there is of `length` bytes at `offset`.
    pub(super) async fn read(&self, offset: u64, length: usize) -> Result<Bytes, Fault> {
        let file = Arc::clone(&self.0);
        let bytes = blocking(move || read(&file, offset, length)).await;
        bytes.map_err(Fault::stage("read"))
    }

    /// Cuts it, or lengthens it with zeroes.
    pub(super) async fn resize(&self, size: u64) -> Result<(), Fault> {
        let file = Arc::clone(&self.0);
        blocking(move || file.set_len(size)).await.map_err(Fault::stage("resize"))
    }

    /// The first `size` bytes, for the tree.
    pub(super) fn content(&self, size: u64) -> ByteStream {
        let file = Arc::clone(&self.0);
        let pieces = stream::iter((0..size).step_by(PIECE as usize)).then(move |offset| {
            let file = Arc::clone(&file);
            let length = PIECE.min(size - offset) as usize;
            async move {
                let bytes = blocking(move || read(&file, offset, length)).await;
                let failed =
                    |source| VfsError::Io { what: "could not read staged content".to_owned(), source };
                match bytes.map_err(failed)? {
                    bytes if bytes.len() == length => Ok(bytes),
                    _ => Err(failed(io::ErrorKind::UnexpectedEof.into())),
                }
            }
        });
        Box::pin(pieces)
    }
}

/// Runs `work` where it holds nobody up.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn read(file: &File, offset: u64, length: usize) -> io::Result<Bytes> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes.into())
}

fn nameless(dir: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(file.into()),
        // Not every file system knows files without a name.
        Err(_) => unlinked(dir),
    }
}

fn unlinked(dir: &Path) -> io::Result<File> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!(".staged-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = dir.join(name);
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::{collect, stream_of};

    #[tokio::test]
    async fn pieces_in_any_order_come_out_as_one_content() {
        let dir = tempfile::tempdir().unwrap();
        let (stage, size) = Stage::of(dir.path(), stream_of("hello")).await.unwrap();
        assert_eq!(size, 5);
        stage.write(7, Bytes::from_static(b"there")).await.unwrap();
        stage.write(0, Bytes::from_static(b"J")).await.unwrap();
        let content = collect(stage.content(12), 100).await.unwrap();
        assert_eq!(content, "Jello\0\0there");
        stage.resize(4).await.unwrap();
        assert_eq!(stage.read(1, 100).await.unwrap(), "ell");
        assert_eq!(stage.read(9, 100).await.unwrap(), "");
    }

    #[tokio::test]
    async fn a_content_of_many_pieces_is_streamed_whole() {
        let dir = tempfile::tempdir().unwrap();
        let long: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
        let (stage, size) = Stage::of(dir.path(), stream_of(long.clone())).await.unwrap();
        assert_eq!(collect(stage.content(size), long.len()).await.unwrap(), long);
    }

    #[test]
    fn nothing_is_left_in_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (nameless(dir.path()).unwrap(), unlinked(dir.path()).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        drop((first, second));
    }
}
