//! Listing directories.
//!
//! A listing is made when a directory is first read through a handle, and read on from there by position: each entry
//! costs the same, however many there are. With each entry the kernel may be given its attributes, which saves asking
//! for them one by one. For that an entry must be right: one that was changed here since the listing was made is
//! asked for anew, and of an old listing the kernel is told to believe nothing for long.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fuser::{FileAttr, FileType};

use super::attributes::{Shown, file_type};
use super::fault::Fault;
use super::mounted::Mounted;
use super::table::ROOT;
use crate::vfs::{Entry, Kind};

/// How long the kernel may believe what it was told without asking again: what other nodes do shows within it.
pub(super) const TTL: Duration = Duration::from_secs(1);
/// How long entries of a listing are believed for [`TTL`]: enough to read a hundred thousand of them.
const FRESH: Duration = Duration::from_secs(3);
/// Changes that a listing keeps by name; with more, each of its entries counts as changed.
const MAX_CHANGED: usize = 10_000;
/// The number of an entry that the kernel has not been told about; `libfuse` says the same.
const UNKNOWN_INO: u64 = 0xffff_ffff;
/// Rows before the first entry: `.` and `..`.
const DOTS: u64 = 2;

/// One row of a plain listing.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) ino: u64,
    /// Where to go on after it.
    pub(super) next: u64,
    pub(super) kind: FileType,
    pub(super) name: &'a OsStr,
}

/// One row of a listing with attributes.
#[derive(Debug)]
pub(super) struct RowPlus<'a> {
    pub(super) attributes: FileAttr,
    pub(super) next: u64,
    pub(super) ttl: Duration,
    pub(super) name: &'a OsStr,
}

/// All directories that are open, each as long as its handle.
#[derive(Debug, Default)]
pub(super) struct Listings(Mutex<HashMap<u64, Arc<Listing>>>);

#[derive(Debug)]
struct Listing {
    dir: u64,
    /// Made at the first read.
    snapshot: tokio::sync::Mutex<Option<Arc<Snapshot>>>,
    changed: Mutex<Changed>,
}

#[derive(Debug)]
struct Snapshot {
    entries: Vec<Entry>,
    made: Instant,
}

/// Names that were changed here since the directory was opened.
#[derive(Debug)]
enum Changed {
    Only(HashSet<String>),
    Everything,
}

impl Listings {
    /// Listings of `dir` do not have the last word on `name`.
    pub(super) fn touch(&self, dir: u64, name: &str) {
        for listing in self.lock().values().filter(|listing| listing.dir == dir) {
            listing.changed().add(name);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Listing>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listing {
    fn changed(&self) -> MutexGuard<'_, Changed> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Changed {
    fn add(&mut self, name: &str) {
        match self {
            Self::Everything => {}
            Self::Only(names) if names.len() >= MAX_CHANGED => *self = Self::Everything,
            Self::Only(names) => {
                if !names.contains(name) {
                    names.insert(name.to_owned());
                }
            }
        }
    }

    fn contains(&self, name: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Only(names) => names.contains(name),
        }
    }
}

/// Handles.
impl Mounted {
    pub(super) fn open_dir(&self, dir: u64) -> u64 {
        let handle = self.handle();
        let changed = Mutex::new(Changed::Only(HashSet::new()));
        let listing = Listing { dir, snapshot: tokio::sync::Mutex::default(), changed };
        self.listings.lock().insert(handle, Arc::new(listing));
        self.table().pin(dir);
        handle
    }

    pub(super) fn release_dir(&self, handle: u64) {
        let released = self.listings.lock().remove(&handle);
        if let Some(listing) = released {
            self.table().unpin(listing.dir);
        }
    }

    fn listing(&self, handle: u64) -> Result<Arc<Listing>, Fault> {
        self.listings.lock().get(&handle).cloned().ok_or(Fault::Stale(handle))
    }
}

/// Reading.
impl Mounted {
    /// Gives `add` the rows from `from` on until it says that it is full.
    pub(super) async fn list(
        &self,
        handle: u64,
        from: u64,
        mut add: impl FnMut(Row<'_>) -> bool + Send,
    ) -> Result<(), Fault> {
        let listing = self.listing(handle)?;
        let snapshot = self.snapshot(&listing, from).await?;
        for (next, name, ino) in self.dots(listing.dir).into_iter().skip(from as usize) {
            if add(Row { ino, next, kind: FileType::Directory, name: OsStr::new(name) }) {
                return Ok(());
            }
        }
        for (next, entry) in snapshot.after(from) {
            let ino = self.table().child(listing.dir, &entry.name).unwrap_or(UNKNOWN_INO);
            let name = OsStr::new(&entry.name);
            if add(Row { ino, next, kind: file_type(entry.kind), name }) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The same with attributes.
    pub(super) async fn list_plus(
        &self,
        handle: u64,
        from: u64,
        mut add: impl FnMut(RowPlus<'_>) -> bool + Send,
    ) -> Result<(), Fault> {
        let listing = self.listing(handle)?;
        let snapshot = self.snapshot(&listing, from).await?;
        for (next, name, ino) in self.dots(listing.dir).into_iter().skip(from as usize) {
            // The kernel takes no more from these two than the number and the kind.
            let shown = Shown { kind: Kind::Dir, size: 0, mode: 0o755, mtime_ms: 0, is_named: true };
            let attributes = self.owner.attributes(ino, shown);
            if add(RowPlus { attributes, next, ttl: Duration::ZERO, name: OsStr::new(name) }) {
                return Ok(());
            }
        }
        let ttl = if snapshot.made.elapsed() < FRESH { TTL } else { Duration::ZERO };
        for (next, entry) in snapshot.after(from) {
            let Some(attributes) = self.row(&listing, entry).await? else { continue };
            if add(RowPlus { attributes, next, ttl, name: OsStr::new(&entry.name) }) {
                self.table().forget(attributes.ino.0, 1);
                return Ok(());
            }
        }
        Ok(())
    }

    /// How an entry of a listing is now, counted as told to the kernel; `None` if it is gone.
    async fn row(&self, listing: &Listing, entry: &Entry) -> Result<Option<FileAttr>, Fault> {
        if let Some(attributes) = self.look_up_ours(listing.dir, &entry.name) {
            return Ok(Some(attributes));
        }
        let is_changed = listing.changed().contains(&entry.name);
        if !is_changed {
            let known = self.table().listed(listing.dir, entry);
            if let Some(ino) = known {
                return Ok(Some(self.shown_entry(ino, entry)));
            }
        }
        match self.tree.stat(&self.path_of(listing.dir, &entry.name)?).await.map_err(Fault::from) {
            Ok(entry) => Ok(Some(self.found(listing.dir, &entry))),
            Err(fault) if fault.is_not_found() => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// The listing, made anew when it is read from its beginning.
    async fn snapshot(&self, listing: &Listing, from: u64) -> Result<Arc<Snapshot>, Fault> {
        let mut snapshot = listing.snapshot.lock().await;
        if let Some(snapshot) = snapshot.as_ref().filter(|_| from > 0) {
            return Ok(Arc::clone(snapshot));
        }
        *listing.changed() = Changed::Only(HashSet::new());
        let path = self.table().path(listing.dir)?;
        let mut entries = self.tree.list(&path).await?;
        let made = Instant::now();
        let known: HashSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        let fresh = self.fresh_in(listing.dir).into_iter().filter(|(name, _)| !known.contains(name.as_str()));
        let fresh: Vec<Entry> = fresh.map(|(name, _)| unheard_of(name)).collect();
        for entry in &fresh {
            listing.changed().add(&entry.name);
        }
        entries.extend(fresh);
        let made = Arc::new(Snapshot { entries, made });
        *snapshot = Some(Arc::clone(&made));
        Ok(made)
    }

    fn dots(&self, dir: u64) -> [(u64, &'static str, u64); DOTS as usize] {
        let parent = self.table().place(dir).map_or(ROOT, |(parent, _)| parent);
        [(1, ".", dir), (2, "..", parent)]
    }
}

impl Snapshot {
    /// The entries from row `from` on, each with where to go on after it.
    fn after(&self, from: u64) -> impl Iterator<Item = (u64, &Entry)> {
        let skipped = from.saturating_sub(DOTS);
        let entries = self.entries.get(usize::try_from(skipped).unwrap_or(usize::MAX)..).unwrap_or_default();
        entries.iter().zip(1..).map(move |(entry, i)| (DOTS + skipped + i, entry))
    }
}

/// A file that the tree has not heard of, as a row; whoever needs more of it asks for it by name.
fn unheard_of(name: String) -> Entry {
    Entry {
        name,
        kind: Kind::File,
        size: 0,
        mode: 0o600,
        mtime_ms: 0,
        hash: None,
        target: None,
        inode: String::new(),
    }
}
