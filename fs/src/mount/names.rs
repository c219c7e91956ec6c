//! Names and attributes: looking up, making, removing, moving.

use std::ffi::OsStr;
use std::sync::Arc;

use fuser::{FileAttr, RenameFlags};
use tokio::sync::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

use super::fault::Fault;
use super::mounted::Mounted;
use super::open_file::OpenFile;
use crate::path::VfsPath;
use crate::vfs::{Attributes, Entry, Kind, Parents, Removal, VfsError};

/// Held while something is moved: alone when the paths of others change with it.
#[derive(Debug)]
enum NamesGuard<'a> {
    Shared(#[expect(dead_code, reason = "held")] RwLockReadGuard<'a, ()>),
    Alone(#[expect(dead_code, reason = "held")] RwLockWriteGuard<'a, ()>),
}

/// Attributes that a program sets; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    pub(super) mode: Option<u32>,
    pub(super) size: Option<u64>,
    /// Whether it is asked for by a handle of a file that is open, not by the file's name.
    pub(super) by_handle: bool,
    pub(super) mtime_ms: Option<u64>,
}

/// The tree's names are text.
fn text(name: &OsStr) -> Result<&str, Fault> {
    name.to_str().ok_or(Fault::NotUtf8)
}

/// Looking.
impl Mounted {
    pub(super) async fn look_up(&self, parent: u64, name: &OsStr) -> Result<FileAttr, Fault> {
        let name = text(name)?;
        if let Some(attributes) = self.look_up_ours(parent, name) {
            return Ok(attributes);
        }
        let entry = self.tree.stat(&self.path_of(parent, name)?).await?;
        Ok(self.found(parent, &entry))
    }

    /// What is being written here, the tree need not be asked about.
    pub(super) fn look_up_ours(&self, parent: u64, name: &str) -> Option<FileAttr> {
        let mut table = self.table();
        let ino = table.child(parent, name)?;
        let shown = self.files.get(ino)?.shown()?;
        table.look_up(ino);
        Some(self.owner.attributes(ino, shown))
    }

    /// The kernel gets to know an entry that the tree just described.
    pub(super) fn found(&self, parent: u64, entry: &Entry) -> FileAttr {
        let ino = self.table().found(parent, entry);
        self.shown_entry(ino, entry)
    }

    pub(super) async fn read_link(&self, ino: u64) -> Result<String, Fault> {
        self.stat(ino).await?.target.ok_or(Fault::Unsupported)
    }
}

/// Making.
impl Mounted {
    /// Makes a file and opens it. The tree hears of it when it is first brought there: others never see half of it.
    pub(super) fn create(&self, parent: u64, name: &OsStr, mode: u32) -> Result<FileAttr, Fault> {
        let name = text(name)?;
        // Tells what is wrong with the name before it is too late.
        self.path_of(parent, name)?;
        let ino = self.table().made(parent, name);
        let file = self.hold(ino, || OpenFile::fresh(ino, mode & 0o7777));
        self.listings.touch(parent, name);
        let shown = file.shown().ok_or(Fault::Stale(ino))?;
        Ok(self.owner.attributes(ino, shown))
    }

    /// Makes an empty file that nobody has opened.
    pub(super) async fn make_file(&self, parent: u64, name: &OsStr, mode: u32) -> Result<FileAttr, Fault> {
        let made = self.create(parent, name, mode)?;
        let ino = made.ino.0;
        let committed = match self.files.get(ino) {
            Some(file) => self.commit(&file).await,
            None => Ok(()),
        };
        self.let_go(ino);
        if let Err(fault) = committed {
            self.table().removed(ino);
            self.table().forget(ino, 1);
            return Err(fault);
        }
        Ok(made)
    }

    pub(super) async fn make_dir(&self, parent: u64, name: &OsStr, mode: u32) -> Result<FileAttr, Fault> {
        let (name, mode) = (text(name)?, mode & 0o7777);
        let _names = self.names.read().await;
        let path = self.path_of(parent, name)?;
        let mut entry = self.tree.mkdir(&path, Parents::MustExist).await?;
        if entry.mode != mode {
            entry = self.tree.set_attributes(&path, Attributes { mode: Some(mode), mtime_ms: None }).await?;
        }
        self.listings.touch(parent, name);
        Ok(self.found(parent, &entry))
    }

    pub(super) async fn make_link(
        &self,
        parent: u64,
        name: &OsStr,
        target: &OsStr,
    ) -> Result<FileAttr, Fault> {
        let (name, target) = (text(name)?, text(target)?);
        let _names = self.names.read().await;
        let entry = self.tree.symlink(&self.path_of(parent, name)?, target).await?;
        self.listings.touch(parent, name);
        Ok(self.found(parent, &entry))
    }
}

/// Removing and moving.
impl Mounted {
    pub(super) async fn unlink(&self, parent: u64, name: &OsStr) -> Result<(), Fault> {
        let name = text(name)?;
        let _names = self.names.read().await;
        let path = self.path_of(parent, name)?;
        let ino = self.table().child(parent, name);
        let file = ino.and_then(|ino| self.files.get(ino));
        let _changing = match &file {
            Some(file) => Some(file.change().await),
            None => None,
        };
        self.keep_content(file.as_deref()).await;
        if !file.as_ref().is_some_and(|file| file.is_fresh()) {
            self.tree.remove(&path, Removal::Single).await?;
        }
        self.gone(parent, name, ino, file.as_deref());
        Ok(())
    }

    pub(super) async fn remove_dir(&self, parent: u64, name: &OsStr) -> Result<(), Fault> {
        let name = text(name)?;
        let _names = self.names.read().await;
        let path = self.path_of(parent, name)?;
        if self.tree.stat(&path).await?.kind != Kind::Dir {
            return Err(Fault::NotADirectory);
        }
        let ino = self.table().child(parent, name);
        self.check_nothing_fresh_in(ino)?;
        self.tree.remove(&path, Removal::Single).await?;
        self.gone(parent, name, ino, None);
        Ok(())
    }

    pub(super) async fn rename(
        &self,
        (parent, name): (u64, &OsStr),
        (new_parent, new_name): (u64, &OsStr),
        flags: RenameFlags,
    ) -> Result<(), Fault> {
        let (name, new_name) = (text(name)?, text(new_name)?);
        if flags.intersects(RenameFlags::RENAME_EXCHANGE | RenameFlags::RENAME_WHITEOUT) {
            return Err(Fault::Unsupported);
        }
        let moved = self.table().child(parent, name).ok_or(Fault::Stale(parent))?;
        let _names = self.to_move(moved).await;
        let (from, to) = (self.path_of(parent, name)?, self.path_of(new_parent, new_name)?);
        let replaced = self.table().child(new_parent, new_name);
        let files = [Some(moved), replaced].map(|ino| ino.and_then(|ino| self.files.get(ino)));
        let _changing = change_both(&files).await;
        let [file, other] = &files;
        if flags.contains(RenameFlags::RENAME_NOREPLACE) && self.is_taken(&to, other.as_deref()).await? {
            return Err(Fault::Exists);
        }
        self.check_nothing_fresh_in(replaced)?;
        if let Some(file) = file.as_ref().filter(|file| file.is_fresh()) {
            self.commit_changing(file).await?;
        }
        self.keep_content(other.as_deref()).await;
        self.tree.rename(&from, &to).await?;
        self.gone(new_parent, new_name, replaced, other.as_deref());
        self.table().moved(moved, new_parent, new_name);
        self.listings.touch(parent, name);
        Ok(())
    }

    async fn to_move(&self, ino: u64) -> NamesGuard<'_> {
        let kind = self.table().kind(ino);
        match kind {
            Some(Kind::Dir) => NamesGuard::Alone(self.names.write().await),
            _ => NamesGuard::Shared(self.names.read().await),
        }
    }

    async fn is_taken(&self, path: &VfsPath, file: Option<&OpenFile>) -> Result<bool, Fault> {
        if file.is_some_and(OpenFile::is_fresh) {
            return Ok(true);
        }
        match self.tree.stat(path).await {
            Ok(_) => Ok(true),
            Err(VfsError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// A file that is open keeps its content when its name goes; one whose content cannot be had now goes all the same,
    /// and who reads it is told.
    async fn keep_content(&self, file: Option<&OpenFile>) {
        let Some(file) = file else { return };
        if let Err(error) = self.staged(file).await {
            tracing::warn!(ino = file.ino, "an open file that is removed loses its content: {error:#}");
        }
    }

    /// The tree has no such entry any more.
    fn gone(&self, parent: u64, name: &str, ino: Option<u64>, file: Option<&OpenFile>) {
        if let Some(file) = file {
            file.removed();
        }
        if let Some(ino) = ino {
            self.table().removed(ino);
        }
        self.listings.touch(parent, name);
    }

    /// The tree may hold a directory for empty that is not: there are files in it that it has not heard of.
    fn check_nothing_fresh_in(&self, dir: Option<u64>) -> Result<(), Fault> {
        let Some(dir) = dir else { return Ok(()) };
        if self.fresh_in(dir).is_empty() { Ok(()) } else { Err(Fault::NotEmpty) }
    }

    /// The files in a directory that the tree has not heard of, by name.
    pub(super) fn fresh_in(&self, dir: u64) -> Vec<(String, Arc<OpenFile>)> {
        let fresh = self.files.all().into_iter().filter(|file| file.is_fresh());
        let table = self.table();
        let placed = fresh.filter_map(|file| Some((table.place(file.ino)?, file)));
        placed.filter(|((parent, _), _)| *parent == dir).map(|((_, name), file)| (name, file)).collect()
    }
}

/// Attributes.
impl Mounted {
    pub(super) async fn set_attributes(&self, ino: u64, wanted: Wanted) -> Result<FileAttr, Fault> {
        if let Some(size) = wanted.size {
            match wanted.by_handle {
                true => self.resize_open(ino, size).await?,
                false => self.resize(ino, size).await?,
            }
        }
        if wanted.mode.is_none() && wanted.mtime_ms.is_none() {
            return self.attributes(ino).await;
        }
        let mode = wanted.mode.map(|mode| mode & 0o7777);
        let _names = self.names.read().await;
        let Some(file) = self.files.get(ino) else {
            return self.set_in_tree(ino, mode, wanted.mtime_ms).await;
        };
        let changing = file.change().await;
        // What goes with the content, goes when the content goes.
        let later = match file.shown() {
            None => (None, None),
            Some(_) if file.is_fresh() || file.is_removed() => (mode, wanted.mtime_ms),
            Some(_) => (None, wanted.mtime_ms),
        };
        let now = (mode.filter(|_| later.0.is_none()), wanted.mtime_ms.filter(|_| later.1.is_none()));
        if now != (None, None) {
            self.set_in_tree(ino, now.0, now.1).await?;
        }
        file.attributed(mode, wanted.mtime_ms);
        self.touch(ino);
        drop(changing);
        self.attributes(ino).await
    }

    async fn set_in_tree(
        &self,
        ino: u64,
        mode: Option<u32>,
        mtime_ms: Option<u64>,
    ) -> Result<FileAttr, Fault> {
        let path = self.table().path(ino)?;
        let entry = self.tree.set_attributes(&path, Attributes { mode, mtime_ms }).await?;
        self.touch(ino);
        Ok(self.shown_entry(ino, &entry))
    }
}

/// The locks of both files, the lower number first.
async fn change_both(files: &[Option<Arc<OpenFile>>; 2]) -> Vec<MutexGuard<'_, ()>> {
    let mut files: Vec<&Arc<OpenFile>> = files.iter().flatten().collect();
    files.sort_by_key(|file| file.ino);
    files.dedup_by_key(|file| file.ino);
    let mut guards = Vec::with_capacity(files.len());
    for file in files {
        guards.push(file.change().await);
    }
    guards
}
