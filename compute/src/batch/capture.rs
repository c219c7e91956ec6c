//! What a task says, while it says it: in memory if it is short, in a nameless file if not.

use std::io::{self, SeekFrom};
use std::path::Path;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use starfish_fs::vfs::{ByteStream, VfsError, stream_of};
use tokio::fs::File;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;

use super::receipt::{MAX_INLINE, Said};
use crate::task::{Digest, OutputFrame};
use crate::wire::CHUNK;

/// Both streams of a task.
#[derive(Debug)]
pub(super) struct Captured {
    pub(super) stdout: Speech,
    pub(super) stderr: Speech,
}

/// One of them.
#[derive(Debug)]
pub(super) enum Speech {
    Short(BytesMut),
    Long(File, u64, Box<blake3::Hasher>),
}

impl Captured {
    /// Takes down all that comes. Files are made in `dir` and have no name there.
    pub(super) async fn capture(mut frames: mpsc::Receiver<OutputFrame>, dir: &Path) -> io::Result<Self> {
        let [mut stdout, mut stderr] = [(); 2].map(|()| Speech::Short(BytesMut::new()));
        while let Some(frame) = frames.recv().await {
            match frame {
                OutputFrame::Stdout(bytes) => stdout.add(bytes, dir).await?,
                OutputFrame::Stderr(bytes) => stderr.add(bytes, dir).await?,
                OutputFrame::Exit(_) => {}
            }
        }
        Ok(Self { stdout, stderr })
    }
}

impl Speech {
    async fn add(&mut self, bytes: Bytes, dir: &Path) -> io::Result<()> {
        if let Self::Short(said) = self {
            if said.len() + bytes.len() <= MAX_INLINE {
                said.extend_from_slice(&bytes);
                return Ok(());
            }
            let dir = dir.to_owned();
            let file = tokio::task::spawn_blocking(move || tempfile::tempfile_in(dir)).await;
            let mut file = File::from_std(file.map_err(io::Error::other)??);
            file.write_all(said).await?;
            let mut hasher = blake3::Hasher::new();
            hasher.update(said);
            *self = Self::Long(file, said.len() as u64, Box::new(hasher));
        }
        if let Self::Long(file, size, hasher) = self {
            file.write_all(&bytes).await?;
            hasher.update(&bytes);
            *size += bytes.len() as u64;
        }
        Ok(())
    }

    pub(super) fn is_long(&self) -> bool {
        matches!(self, Self::Long(..))
    }

    /// All of it, from the beginning.
    pub(super) async fn stream(&mut self) -> io::Result<ByteStream> {
        match self {
            Self::Short(said) => Ok(stream_of(said.clone().freeze())),
            Self::Long(file, ..) => {
                file.flush().await?;
                file.seek(SeekFrom::Start(0)).await?;
                let bytes = ReaderStream::with_capacity(file.try_clone().await?, CHUNK);
                let what = || "reading what a task said".to_owned();
                Ok(bytes.map_err(move |source| VfsError::Io { what: what(), source }).boxed())
            }
        }
    }

    /// What its receipt says of it.
    pub(super) fn into_said(self) -> Said {
        match self {
            Self::Short(said) => Said::here(said.freeze()),
            Self::Long(_, size, hasher) => Said::Kept { size, digest: Digest(*hasher.finalize().as_bytes()) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_said_comes_back_whole_however_long_it_is() {
        let dir = tempfile::tempdir().unwrap();
        for size in [0, 1, MAX_INLINE, MAX_INLINE + 1, 1 << 20] {
            let (frames, from) = mpsc::channel(8);
            let said: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let parts: Vec<_> = said.chunks(1000).map(Bytes::copy_from_slice).collect();
            let speaking = tokio::spawn(async move {
                for part in parts {
                    frames.send(OutputFrame::Stdout(part)).await.unwrap();
                }
                frames.send(OutputFrame::Stderr(Bytes::from_static(b"x"))).await.unwrap();
            });
            let mut captured = Captured::capture(from, dir.path()).await.unwrap();
            speaking.await.unwrap();
            for _ in 0..2 {
                let read: Vec<Bytes> = captured.stdout.stream().await.unwrap().try_collect().await.unwrap();
                assert_eq!(read.concat(), said);
            }
            assert_eq!(captured.stdout.is_long(), size > MAX_INLINE);
            assert_eq!(captured.stdout.into_said().size(), size as u64);
            assert_eq!(captured.stderr.into_said(), Said::here(Bytes::from_static(b"x")));
        }
    }
}
