//! Streams that outlive their readers: what a job was given and what it said, in files of its keeper.
//!
//! A spool is written once, from its beginning to its end, and read by any number of readers, each from the
//! beginning and at its own pace, while it is still being written. So a task that is run a second time gets
//! its input again, and a client that comes late, or comes again, sees all of the output.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Mutex, watch};

/// How a spool stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Level {
    /// Bytes that readers may read.
    pub(crate) length: u64,
    /// Whether that is all.
    pub(crate) end: Option<End>,
}

/// How a spool ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It is complete.
    Complete,
    /// Its writer went away in the middle.
    Broken,
}

/// A file that grows, and those who wait for it.
#[derive(Clone, Debug)]
pub(crate) struct Spool {
    path: PathBuf,
    file: Arc<Mutex<File>>,
    level: Arc<watch::Sender<Level>>,
}

impl Spool {
    pub(crate) async fn create(path: PathBuf) -> std::io::Result<Self> {
        let file = File::options().write(true).create_new(true).open(&path).await?;
        Ok(Self { path, file: Arc::new(Mutex::new(file)), level: Arc::new(watch::Sender::default()) })
    }

    /// Appends bytes; readers see all of them or none.
    pub(crate) async fn append(&self, bytes: &[u8]) -> std::io::Result<()> {
        let mut file = self.file.lock().await;
        file.write_all(bytes).await?;
        file.flush().await?;
        self.level.send_modify(|level| level.length += bytes.len() as u64);
        Ok(())
    }

    /// Nothing more comes. The first end counts.
    pub(crate) fn end(&self, end: End) {
        self.level.send_if_modified(|level| level.end.is_none() && level.end.replace(end).is_none());
    }

    pub(crate) fn level(&self) -> Level {
        *self.level.borrow()
    }

    /// A reader that begins at the beginning.
    pub(crate) async fn read(&self) -> std::io::Result<SpoolReader> {
        let file = File::open(&self.path).await?;
        Ok(SpoolReader { file, offset: 0, level: self.level.subscribe() })
    }
}

/// Reads a spool, waiting where it has not been written yet.
#[derive(Debug)]
pub(crate) struct SpoolReader {
    file: File,
    offset: u64,
    level: watch::Receiver<Level>,
}

impl SpoolReader {
    /// Waits until [`Self::some`] would not wait. Cancel-safe.
    pub(crate) async fn ready(&mut self) {
        let offset = self.offset;
        self.wait(|level| level.length > offset || level.end.is_some()).await;
    }

    /// Between 1 and `limit` bytes, or how it ended. Not cancel-safe.
    pub(crate) async fn some(&mut self, limit: usize) -> std::io::Result<Result<Bytes, End>> {
        let offset = self.offset;
        let level = self.wait(|level| level.length > offset || level.end.is_some()).await;
        let available = usize::try_from(level.length - offset).unwrap_or(usize::MAX);
        match (available, level.end) {
            (0, end) => Ok(Err(end.unwrap_or(End::Broken))),
            (available, _) => self.take(available.min(limit)).await.map(Ok),
        }
    }

    /// Exactly `length` bytes, or how it ended before that. Not cancel-safe.
    pub(crate) async fn exactly(&mut self, length: usize) -> std::io::Result<Result<Bytes, End>> {
        let needed = self.offset + length as u64;
        let level = self.wait(|level| level.length >= needed || level.end.is_some()).await;
        if level.length < needed {
            return Ok(Err(level.end.unwrap_or(End::Broken)));
        }
        self.take(length).await.map(Ok)
    }

    async fn wait(&mut self, enough: impl Fn(&Level) -> bool) -> Level {
        let reached = self.level.wait_for(enough).await.map(|level| *level);
        // Without its spool, what is there is all that there will ever be.
        reached.unwrap_or_else(|_| Level { end: Some(End::Broken), ..*self.level.borrow() })
    }

    async fn take(&mut self, length: usize) -> std::io::Result<Bytes> {
        let mut bytes = BytesMut::zeroed(length);
        self.file.read_exact(&mut bytes).await?;
        self.offset += length as u64;
        Ok(bytes.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn late_and_early_readers_see_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::create(dir.path().join("spool")).await.unwrap();
        let mut early = spool.read().await.unwrap();
        let reading = tokio::spawn(async move {
            let mut all = Vec::new();
            while let Ok(bytes) = early.some(3).await.unwrap() {
                all.extend_from_slice(&bytes);
            }
            all
        });
        for part in [&b"one "[..], b"two ", b"three"] {
            spool.append(part).await.unwrap();
        }
        spool.end(End::Complete);
        spool.end(End::Broken);
        assert_eq!(reading.await.unwrap(), b"one two three");
        let mut late = spool.read().await.unwrap();
        assert_eq!(late.exactly(13).await.unwrap().unwrap(), "one two three");
        assert_eq!(late.some(1).await.unwrap(), Err(End::Complete));
    }
}
