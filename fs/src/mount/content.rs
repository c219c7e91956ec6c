//! Contents: opening, reading, writing, and bringing what was written to the tree.
//!
//! Reading goes to the tree, a window at a time. The first write fetches the whole file into a [`Stage`], since the
//! tree takes a file only whole; from then on all handles read and write there. The tree gets the content on `fsync`
//! and when a handle that can write is closed.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::fault::Fault;
use super::mounted::{Mounted, moved};
use super::open_file::{OpenFile, Window};
use super::stage::Stage;
use crate::vfs::{Attributes, Entry, Kind, collect, stream_of};

/// How much is fetched at a time by a program that reads on and on: few calls, and little memory for each open file.
const WINDOW: u64 = 1 << 20;

/// A file was opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened {
    /// Whether what the kernel has cached of its content is still right.
    pub(super) is_cached: bool,
}

/// Handles.
impl Mounted {
    pub(super) async fn open(&self, ino: u64) -> Result<Opened, Fault> {
        let is_ours = self.files.get(ino).is_some_and(|file| file.shown().is_some());
        if is_ours {
            self.hold(ino, || OpenFile::fresh(ino, 0));
            return Ok(Opened { is_cached: false });
        }
        let entry = self.stat(ino).await?;
        check_is_file(&entry)?;
        let is_cached = self.table().is_cached(ino, (entry.hash.clone(), entry.mtime_ms));
        self.hold(ino, || OpenFile::known(ino, &entry)).seen(&entry);
        Ok(Opened { is_cached })
    }

    /// A handle is gone. What could not be brought to the tree is lost now, so that is said where an operator sees it.
    pub(super) async fn release(&self, ino: u64, can_write: bool) {
        if let Some(file) = self.files.get(ino).filter(|_| can_write)
            && let Err(error) = self.commit(&file).await
        {
            let path = self.table().path(ino).map(|path| path.to_string()).unwrap_or_default();
            tracing::error!(path, "what was written is lost: {error:#}");
        }
        self.let_go(ino);
    }

    /// The open file of an inode.
    pub(super) fn open_file(&self, ino: u64) -> Result<Arc<OpenFile>, Fault> {
        self.files.get(ino).ok_or(Fault::Stale(ino))
    }
}

/// Reading.
impl Mounted {
    pub(super) async fn read(&self, ino: u64, offset: u64, length: u32) -> Result<Bytes, Fault> {
        let file = self.open_file(ino)?;
        if let Some(stage) = file.stage() {
            return stage.read(offset, length as usize).await;
        }
        if file.is_fresh() {
            return Ok(Bytes::new());
        }
        if file.is_removed() {
            return Err(Fault::Lost(ino));
        }
        let (hash, size) = file.version();
        let wanted = offset..offset.saturating_add(u64::from(length)).min(size).max(offset);
        let mut window = file.window.lock().await;
        let known = window.as_ref().filter(|known| known.hash == hash);
        if let Some(bytes) = known.and_then(|known| known.slice(&wanted)) {
            return Ok(bytes);
        }
        // Requests of one reader may come in any order, a little around where it was.
        let near = known.map_or(0..1, |known| known.start..known.end() + WINDOW);
        if !near.contains(&offset) {
            drop(window);
            return self.fetch(ino, wanted).await;
        }
        let bytes = self.fetch(ino, offset..wanted.end.max(offset + WINDOW)).await?;
        let part = bytes.slice(..bytes.len().min(length as usize));
        // Who has read up to the end does not come back, mostly.
        *window = (bytes.len() > part.len()).then_some(Window { start: offset, bytes, hash });
        Ok(part)
    }

    async fn fetch(&self, ino: u64, range: Range<u64>) -> Result<Bytes, Fault> {
        let mut path = self.table().path(ino)?;
        loop {
            let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            let bytes = match self.tree.read(&path, range.clone()).await {
                Ok(content) => collect(content, length).await,
                Err(error) => Err(error),
            };
            match bytes {
                Ok(bytes) => return Ok(bytes),
                Err(error) => path = moved(path, self.table().path(ino)?, error)?,
            }
        }
    }
}

/// Writing.
impl Mounted {
    pub(super) async fn write(&self, ino: u64, offset: u64, bytes: Bytes) -> Result<(), Fault> {
        let file = self.open_file(ino)?;
        let _changing = file.change().await;
        let end = offset.saturating_add(bytes.len() as u64);
        self.staged(&file).await?.write(offset, bytes).await?;
        file.written(end);
        self.touch(ino);
        Ok(())
    }

    /// Cuts or lengthens a file, open or not, by its name: no handle's end would bring that to the tree.
    pub(super) async fn resize(&self, ino: u64, size: u64) -> Result<(), Fault> {
        self.open(ino).await?;
        let resized = self.resize_open(ino, size).await;
        let committed = match self.open_file(ino) {
            Ok(file) if resized.is_ok() => self.commit(&file).await,
            _ => Ok(()),
        };
        self.let_go(ino);
        resized.and(committed)
    }

    /// The same by a handle that can write.
    pub(super) async fn resize_open(&self, ino: u64, size: u64) -> Result<(), Fault> {
        let file = self.open_file(ino)?;
        let _changing = file.change().await;
        if size == 0 && file.stage().is_none() {
            // What is thrown away need not be fetched.
            file.staged(Stage::new(&self.staging).await?, 0);
        }
        self.staged(&file).await?.resize(size).await?;
        file.resized(size);
        self.touch(ino);
        Ok(())
    }

    /// The file's whole content on this disk; the caller holds [`OpenFile::change`].
    pub(super) async fn staged(&self, file: &OpenFile) -> Result<Stage, Fault> {
        if let Some(stage) = file.stage() {
            return Ok(stage);
        }
        let (stage, size) = if file.is_fresh() {
            (Stage::new(&self.staging).await?, 0)
        } else if file.is_removed() {
            return Err(Fault::Lost(file.ino));
        } else {
            let path = self.table().path(file.ino)?;
            Stage::of(&self.staging, self.tree.read(&path, 0..u64::MAX).await?).await?
        };
        file.staged(stage.clone(), size);
        Ok(stage)
    }

    /// Brings what was written to the tree, which has it on disk when this is done.
    pub(super) async fn commit(&self, file: &OpenFile) -> Result<(), Fault> {
        let _names = self.names.read().await;
        let _changing = file.change().await;
        self.commit_changing(file).await
    }

    /// The same for an inode; one that is not open was brought there when it was closed.
    pub(super) async fn sync(&self, ino: u64) -> Result<(), Fault> {
        match self.files.get(ino) {
            Some(file) => self.commit(&file).await,
            None => Ok(()),
        }
    }

    /// The same, for who holds both locks.
    pub(super) async fn commit_changing(&self, file: &OpenFile) -> Result<(), Fault> {
        let Some(draft) = file.draft() else { return Ok(()) };
        let path = self.table().path(file.ino)?;
        let content = draft.stage.map_or_else(|| stream_of(""), |stage| stage.content(draft.size));
        let attributes = Attributes { mode: draft.mode, mtime_ms: Some(draft.mtime_ms) };
        let entry = self.tree.write(&path, content, attributes).await?;
        {
            let mut table = self.table();
            table.identify(file.ino, &entry.inode);
            table.uncached(file.ino);
        }
        file.committed(&entry);
        self.touch(file.ino);
        Ok(())
    }

    /// Brings all to the tree that programs wrote and did not close; says how many files could not be.
    pub(super) async fn commit_all(&self) -> usize {
        let mut lost = 0;
        for file in self.files.all() {
            if let Err(error) = self.commit(&file).await {
                tracing::error!(ino = file.ino, "what was written is lost: {error:#}");
                lost += 1;
            }
        }
        lost
    }
}

fn check_is_file(entry: &Entry) -> Result<(), Fault> {
    match entry.kind {
        Kind::File => Ok(()),
        Kind::Dir => Err(Fault::IsADirectory),
        Kind::Symlink => Err(Fault::IsALink),
    }
}
