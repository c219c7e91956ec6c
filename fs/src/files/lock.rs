//! Order among changes of the tree that are made on this node.
//!
//! A change looks first and commits later; two that run between each other's look and commit could both make
//! the same name. Changes of one entry exclude only others of the same path, so that many commit together;
//! changes that reach further (a move, the removal or the copy of a directory) are alone. Other nodes are not held
//! up by any of this: what they do meanwhile is the tree's to merge.

use std::hash::{BuildHasher, RandomState};

use tokio::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::path::VfsPath;

/// Locks that all paths share; more than the changes that run at once, so that two rarely meet by chance.
const SHARES: usize = 256;

#[derive(Debug)]
pub(super) struct Locks {
    whole: RwLock<()>,
    entries: Vec<Mutex<()>>,
    hasher: RandomState,
}

/// Held while one entry is changed.
#[derive(Debug)]
pub(super) struct EntryGuard<'a> {
    _whole: RwLockReadGuard<'a, ()>,
    _entry: MutexGuard<'a, ()>,
}

impl Locks {
    pub(super) fn new() -> Self {
        let entries = std::iter::repeat_with(Mutex::default).take(SHARES).collect();
        Self { whole: RwLock::default(), entries, hasher: RandomState::new() }
    }

    /// For a change of the entry at `path` alone.
    pub(super) async fn entry(&self, path: &VfsPath) -> EntryGuard<'_> {
        let whole = self.whole.read().await;
        let share = self.hasher.hash_one(path) as usize % self.entries.len();
        EntryGuard { _whole: whole, _entry: self.entries[share].lock().await }
    }

    /// For a change of more than one entry.
    pub(super) async fn whole(&self) -> RwLockWriteGuard<'_, ()> {
        self.whole.write().await
    }
}
