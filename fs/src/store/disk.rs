//! Files and index of the store. Everything here blocks.
//!
//! An item's bytes stand in the index's own database while they are short, else in a file of their own below
//! `ab/`, named by kind and hash. A file is complete and (unless it is only cached) synced before it gets its name, and gets its name before the
//! index tells of it; so what the index tells of is there, unless the disk lost it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use fjall::{PersistMode, Slice};
use serde::{Deserialize, Serialize};
use starfish_memory::engine::{Engine, EngineError, EngineOptions, Opened, Purpose};

use crate::hash::BlobHash;
use crate::index_set::IndexSet;

/// Items up to this length stand in the database: a file each would cost more than they hold.
const MAX_INLINE: usize = 16 * 1024;
/// Blocks kept in memory; the page cache keeps the rest.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// Threads that flush and compact. One alone lets what is new grow without end while it compacts, all of which is in memory, and
/// read again at start.
const WORKERS: usize = 2;
/// The position of each keyspace.
const INDEX: usize = 0;
const SMALL: usize = 1;
const OPTIONS: EngineOptions<2> = EngineOptions {
    keyspaces: ["items", "small"],
    workers: WORKERS,
    cache_bytes: CACHE_BYTES,
    in_parts: true,
};
/// Folders that files are spread over.
const FOLDERS: usize = 256;
/// The folder of files that are being written.
const TEMPORARY: &str = "tmp";

/// Folders that are waited for at once.
const SYNCS_AT_ONCE: usize = 8;

/// What an item is.
// On disk: the first byte of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// A whole segment or manifest, named by its hash.
    Whole,
    /// Shards of the segment of that name.
    Shards,
}

/// What the index tells of an item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// The length of the segment, or of the manifest.
    pub(crate) len: u64,
    /// The bytes that it takes here.
    pub(crate) stored: u64,
    /// When it came, in seconds since the Unix epoch.
    pub(crate) since: u64,
    /// It may go when space is needed: others keep it.
    pub(crate) is_cached: bool,
    /// Which shards; of none, where the whole is.
    pub(crate) indices: IndexSet,
}

/// Files and index.
pub(crate) struct Disk {
    dir: PathBuf,
    engine: Engine<2>,
    /// Folders in which names have changed since the last flush.
    dirty: Mutex<Vec<bool>>,
    temporary: AtomicU64,
}

impl Kind {
    fn letter(self) -> u8 {
        match self {
            Self::Whole => b'w',
            Self::Shards => b's',
        }
    }

    fn key(self, hash: &BlobHash) -> [u8; 33] {
        let mut key = [self.letter(); 33];
        key[1..].copy_from_slice(hash.as_bytes());
        key
    }
}

impl Disk {
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        // What a crash left half written has no name yet.
        match fs::remove_dir_all(dir.join(TEMPORARY)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => make_folders(dir)?,
        }
        let engine =
            Engine::open(&dir.join("index"), OPTIONS).map_err(EngineError::Failed).map_err(engine)?;
        let (dirty, temporary) = (Mutex::new(vec![true; FOLDERS]), AtomicU64::new(0));
        Ok(Self { dir: dir.to_owned(), engine, dirty, temporary })
    }

    /// What is known of an item.
    pub(crate) fn meta(&self, kind: Kind, hash: &BlobHash) -> io::Result<Option<Meta>> {
        let value = self.read_from(INDEX, &kind.key(hash))?;
        let Some(value) = value else { return Ok(None) };
        postcard::from_bytes(&value).map(Some).map_err(io::Error::other)
    }

    /// An item's bytes, unchecked; `None` if they are not there.
    pub(crate) fn read(&self, kind: Kind, hash: &BlobHash, meta: &Meta) -> io::Result<Option<Bytes>> {
        if is_inline(meta.stored) {
            let value = self.read_from(SMALL, &kind.key(hash))?;
            return Ok(value.map(|value| Bytes::copy_from_slice(&value)));
        }
        match fs::read(self.path(kind, hash)) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes to the database, which is opened anew first if a write before has failed.
    fn change<T>(
        &self,
        purpose: Purpose,
        work: impl FnOnce(&Opened<2>) -> Result<T, fjall::Error>,
    ) -> Result<T, EngineError> {
        self.engine.mend()?;
        self.engine.write(purpose, work)
    }

    fn read_from(&self, keyspace: usize, key: &[u8]) -> io::Result<Option<Slice>> {
        let opened = self.engine.read().map_err(engine)?;
        opened.keyspaces[keyspace].get(key).map_err(|error| engine(EngineError::Failed(error)))
    }

    /// Writes an item, in place of the one of that name, `old`. It outlives a crash after [`Disk::flush`].
    pub(crate) fn write(
        &self,
        kind: Kind,
        hash: &BlobHash,
        old: Option<&Meta>,
        meta: &Meta,
        bytes: &[u8],
    ) -> io::Result<()> {
        let was_inline = old.map(|old| is_inline(old.stored));
        let is_inline = is_inline(meta.stored);
        if !is_inline {
            // What is only cached may be lost with a crash: its hash tells.
            self.write_file(&self.path(kind, hash), bytes, !meta.is_cached)?;
            self.mark(hash);
        }
        let (key, entry) = (kind.key(hash), postcard::to_stdvec(meta).map_err(io::Error::other)?);
        let written = self.change(Purpose::Add, |opened| {
            let [index, small] = &opened.keyspaces;
            let mut batch = opened.database.batch();
            if is_inline {
                batch.insert(small, key.as_slice(), bytes);
            } else if was_inline == Some(true) {
                batch.remove(small, key.as_slice());
            }
            batch.insert(index, key.as_slice(), entry.as_slice());
            batch.commit()
        });
        if written.is_err() && !is_inline && was_inline.is_none() {
            // Nothing tells of it, so nothing would ever remove it.
            let _ = fs::remove_file(self.path(kind, hash));
        }
        written.map_err(engine)?;
        if was_inline == Some(false) && is_inline {
            self.unlink(kind, hash)?;
        }
        Ok(())
    }

    /// Changes what the index tells of an item whose bytes stay.
    pub(crate) fn write_meta(&self, kind: Kind, hash: &BlobHash, meta: &Meta) -> io::Result<()> {
        let entry = postcard::to_stdvec(meta).map_err(io::Error::other)?;
        self.change(Purpose::Free, |opened| opened.keyspaces[INDEX].insert(kind.key(hash), entry))
            .map_err(engine)
    }

    /// Removes an item: from the index first, so that it never tells of what is gone.
    pub(crate) fn remove(&self, kind: Kind, hash: &BlobHash, meta: &Meta) -> io::Result<()> {
        let key = kind.key(hash);
        let removed = self.change(Purpose::Free, |opened| {
            let [index, small] = &opened.keyspaces;
            let mut batch = opened.database.batch();
            batch.remove(index, key.as_slice());
            if is_inline(meta.stored) {
                batch.remove(small, key.as_slice());
            }
            batch.commit()
        });
        match removed {
            // The index can do without what was cached, and cannot be written before something goes.
            Err(error) if error.is_no_room() && meta.is_cached && !is_inline(meta.stored) => {}
            removed => removed.map_err(engine)?,
        }
        if is_inline(meta.stored) { Ok(()) } else { self.unlink(kind, hash) }
    }

    /// Returns when all that was written so far outlives a crash.
    pub(crate) fn flush(&self) -> io::Result<()> {
        let dirty = {
            let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *dirty, vec![false; FOLDERS])
        };
        let folders: Vec<usize> = (0..FOLDERS).filter(|folder| dirty[*folder]).collect();
        if let Err(error) = self.sync_folders(&folders) {
            let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
            folders.iter().for_each(|folder| dirty[*folder] = true);
            return Err(error);
        }
        self.change(Purpose::Free, |opened| opened.database.persist(PersistMode::SyncData)).map_err(engine)
    }

    /// The same, and the next start has little to read again.
    pub(crate) fn close(&self) -> io::Result<()> {
        self.flush()?;
        self.engine.settle().map_err(engine)
    }

    /// Each folder is waited for by itself, and the disk does in one go what is asked of it at once.
    fn sync_folders(&self, folders: &[usize]) -> io::Result<()> {
        let sync = |part: &[usize]| -> io::Result<()> {
            part.iter().try_for_each(|folder| match File::open(self.dir.join(format!("{folder:02x}"))) {
                // With what was in it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                opened => opened?.sync_data(),
            })
        };
        let (first, rest) = folders.split_at(folders.len().div_ceil(SYNCS_AT_ONCE));
        std::thread::scope(|threads| {
            let others = rest.chunks(first.len().max(1)).map(|part| threads.spawn(move || sync(part)));
            let others: Vec<_> = others.collect();
            let synced = sync(first);
            let failed = |_| io::Error::other("a thread that waited for the disk has panicked");
            others.into_iter().fold(synced, |synced, other| synced.and(other.join().map_err(failed)?))
        })
    }

    /// Items of one kind in the order of their hashes, after `after`, until told to stop.
    pub(crate) fn scan(
        &self,
        kind: Kind,
        after: Option<&BlobHash>,
        mut visit: impl FnMut(BlobHash, Meta) -> bool,
    ) -> io::Result<()> {
        let start = after.map_or_else(|| vec![kind.letter()], |hash| [&kind.key(hash)[..], &[0]].concat());
        let opened = self.engine.read().map_err(engine)?;
        for guard in opened.keyspaces[INDEX].range(start..vec![kind.letter() + 1]) {
            let (key, value) = guard.into_inner().map_err(|error| engine(EngineError::Failed(error)))?;
            let hash = key.get(1..).and_then(|hash| hash.try_into().ok()).map(BlobHash::from_bytes);
            // An entry that does not decode is damage of the disk; it is found when the item is asked for.
            if let (Some(hash), Ok(meta)) = (hash, postcard::from_bytes(&value))
                && !visit(hash, meta)
            {
                break;
            }
        }
        Ok(())
    }

    fn write_file(&self, path: &Path, bytes: &[u8], is_synced: bool) -> io::Result<()> {
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        let temporary = self.dir.join(TEMPORARY).join(number.to_string());
        let write = || {
            let mut file = File::create(&temporary)?;
            file.write_all(bytes)?;
            if is_synced {
                file.sync_data()?;
            }
            fs::rename(&temporary, path)
        };
        let written = match write() {
            // Somebody has removed folders.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_folders(&self.dir).and_then(|()| write())
            }
            written => written,
        };
        if written.is_err() {
            // The disk may be full: leave it nothing.
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    fn unlink(&self, kind: Kind, hash: &BlobHash) -> io::Result<()> {
        self.mark(hash);
        match fs::remove_file(self.path(kind, hash)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn mark(&self, hash: &BlobHash) {
        let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        dirty[usize::from(hash.as_bytes()[0])] = true;
    }

    fn path(&self, kind: Kind, hash: &BlobHash) -> PathBuf {
        let name = hash.to_string();
        let (folder, rest) = name.split_at(2);
        self.dir.join(folder).join(format!("{}-{rest}", char::from(kind.letter())))
    }
}

fn is_inline(stored: u64) -> bool {
    stored <= MAX_INLINE as u64
}

/// A full disk stays recognisable.
fn engine(error: EngineError) -> io::Error {
    if error.is_no_room() {
        return io::Error::new(io::ErrorKind::StorageFull, error);
    }
    match error {
        EngineError::Failed(fjall::Error::Io(error)) => error,
        other => io::Error::other(other),
    }
}

/// Makes the folders of a store that are not there.
fn make_folders(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir.join(TEMPORARY))?;
    (0..FOLDERS).try_for_each(|folder| fs::create_dir_all(dir.join(format!("{folder:02x}"))))
}
