//! The tree as the kernel asks for it: by inode numbers and handles. What all requests share is here; what they do is
//! in [`super::names`], [`super::content`] and [`super::directories`].
//!
//! Order: the kernel itself has a program wait for each answer, so one program's requests never overtake each other.
//! What different programs do at once is ordered by two kinds of locks, always taken in this order:
//! 1. `names`: shared by whatever must find a path unchanged at its end (a file being brought to the tree, a new
//!    entry); alone for moving a directory, which changes the paths of everything below it.
//! 2. [`OpenFile::change`]: one file's content and name. Of two files, the lower number first.
//!
//! The `std` locks inside of the table and the files are held for a look, never while waiting.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuser::FileAttr;
use tokio::sync::{RwLock, Semaphore};

use super::attributes::{Owner, Shown};
use super::directories::Listings;
use super::fault::Fault;
use super::open_file::{OpenFile, OpenFiles};
use super::table::Table;
use crate::path::VfsPath;
use crate::vfs::{Entry, Vfs, VfsError};

/// Requests that are worked on at once. Others wait: for each a program of this machine waits as well, which bounds
/// them.
const AT_ONCE: usize = 64;

/// The tree, mounted.
#[derive(Debug)]
pub(super) struct Mounted {
    pub(super) tree: Arc<dyn Vfs>,
    pub(super) owner: Owner,
    /// A folder on whose disk contents are staged.
    pub(super) staging: PathBuf,
    pub(super) files: OpenFiles,
    pub(super) listings: Listings,
    pub(super) names: RwLock<()>,
    pub(super) turns: Semaphore,
    table: Mutex<Table>,
    next_handle: AtomicU64,
}

impl Mounted {
    pub(super) fn new(tree: Arc<dyn Vfs>, owner: Owner, staging: PathBuf) -> Self {
        Self {
            tree,
            owner,
            staging,
            files: OpenFiles::default(),
            listings: Listings::default(),
            names: RwLock::default(),
            turns: Semaphore::new(AT_ONCE),
            table: Mutex::default(),
            next_handle: AtomicU64::new(1),
        }
    }

    /// For a look at the table, or a change of it; never held while waiting.
    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a handle.
    pub(super) fn handle(&self) -> u64 {
        self.next_handle.fetch_add(1, Ordering::Relaxed)
    }

    /// Where `name` of the directory is.
    pub(super) fn path_of(&self, parent: u64, name: &str) -> Result<VfsPath, Fault> {
        Ok(self.table().path(parent)?.join(name)?)
    }

    /// Asks the tree about an inode.
    pub(super) async fn stat(&self, ino: u64) -> Result<Entry, Fault> {
        let (tree, table) = (&self.tree, || self.table().path(ino));
        let mut path = table()?;
        loop {
            match tree.stat(&path).await {
                Ok(entry) => return Ok(entry),
                Err(error) => path = moved(path, table()?, error)?,
            }
        }
    }

    /// How an inode is shown now.
    pub(super) async fn attributes(&self, ino: u64) -> Result<FileAttr, Fault> {
        let file = self.files.get(ino);
        if let Some(shown) = file.as_ref().and_then(|file| file.shown()) {
            return Ok(self.owner.attributes(ino, shown));
        }
        let entry = match self.stat(ino).await {
            // The kernel asked by number: it must look for the name anew.
            Err(fault) if fault.is_not_found() => return Err(Fault::Stale(ino)),
            answer => answer?,
        };
        Ok(self.shown_entry(ino, &entry))
    }

    /// How an inode is shown that the tree just described.
    pub(super) fn shown_entry(&self, ino: u64, entry: &Entry) -> FileAttr {
        if let Some(file) = self.files.get(ino) {
            file.seen(entry);
            if let Some(shown) = file.shown() {
                return self.owner.attributes(ino, shown);
            }
        }
        self.owner.attributes(ino, Shown::from(entry))
    }

    /// One more handle of a file.
    pub(super) fn hold(&self, ino: u64, first: impl FnOnce() -> OpenFile) -> Arc<OpenFile> {
        self.table().pin(ino);
        self.files.hold(ino, first)
    }

    /// One handle less.
    pub(super) fn let_go(&self, ino: u64) {
        self.files.let_go(ino);
        self.table().unpin(ino);
    }

    /// Listings that were made before now do not have the last word on this entry.
    pub(super) fn touch(&self, ino: u64) {
        let place = self.table().place(ino);
        if let Some((parent, name)) = place {
            self.listings.touch(parent, &name);
        }
    }
}

/// The new path of something that was not found at its old one, because its directory was moved meanwhile.
pub(super) fn moved(old: VfsPath, new: VfsPath, error: VfsError) -> Result<VfsPath, Fault> {
    let is_gone = matches!(error, VfsError::NotFound { .. } | VfsError::NotADirectory { .. });
    if is_gone && old != new { Ok(new) } else { Err(error.into()) }
}
