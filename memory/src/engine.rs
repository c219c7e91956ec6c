//! A storage engine (`fjall`) that outlives a full disk.
//!
//! Once a write has failed, the engine takes no other before it is opened anew, since nobody knows what reached the
//! disk; and a full disk fails writes at any point. So [`Engine`] writes nothing while the disk has next to no room,
//! and opens the database anew where a write has failed all the same, as soon as there is room again. Reading goes on
//! throughout.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, config::PartitioningPolicy};

/// Of a small disk this share is left free, ...
const RESERVE_SHARE: u64 = 50;
/// ... and of a large one no more than this, in bytes: what flushing and compacting need at a time.
const MAX_RESERVE: u64 = 64 << 20;
/// With as little as this the database can be opened, so that what is there can be made less.
const LEAST_ROOM: u64 = 1 << 20;
/// How long readers are waited for before the database is closed. Each holds it for the length of one read.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is new in a keyspace is in memory until it is so much. More would take longer to search than it saves in
/// compacting, and all of it is read again at start.
const MAX_NEW: u64 = 16 << 20;
/// What is kept of the journal at most, so that reading it again takes a fraction of a second. The engine takes no less.
const MAX_JOURNALS: u64 = 64 << 20;

/// What is new is read again in no time if it is less than this.
const WORTH_SETTLING: u64 = 2 << 20;
/// How long a stop waits until what is new is in tables. So much takes a fraction of it.
const SETTLES_WITHIN: Duration = Duration::from_secs(2);

/// How long a database that is still open elsewhere is waited for: a node that was told to stop may be at its last read.
const LOCKED_FOR: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How a database is opened.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions<const N: usize> {
    /// Its keyspaces.
    pub keyspaces: [&'static str; N],
    /// Threads that flush and compact.
    pub workers: usize,
    /// Blocks kept in memory, in bytes.
    pub cache_bytes: u64,
    /// Whether filters and indexes of new tables are in parts. Whole, those of a large table are more than a small cache takes,
    /// and each look reads them anew; in parts, a scan takes longer.
    pub in_parts: bool,
}

/// What a write is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It adds something, and is refused while the disk is all but full.
    Add,
    /// It makes room.
    Free,
}

/// A database on this node's disk. Everything here blocks.
pub struct Engine<const N: usize> {
    path: PathBuf,
    options: EngineOptions<N>,
    /// `None` while it could not be opened again.
    opened: RwLock<Option<Arc<Opened<N>>>>,
    is_broken: AtomicBool,
}

/// An open database with its keyspaces, in the order of [`EngineOptions::keyspaces`].
pub struct Opened<const N: usize> {
    /// The database.
    pub database: Database,
    /// Its keyspaces.
    pub keyspaces: [Keyspace; N],
    generation: u32,
}

impl<const N: usize> std::fmt::Debug for Opened<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").finish_non_exhaustive()
    }
}

/// The disk does not take a write.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// There is next to no room on the disk. Nothing was written.
    #[error("no space left on the disk: {free} bytes are free, and {needed} are kept so")]
    NoRoom {
        /// What is free, in bytes.
        free: u64,
        /// What must be.
        needed: u64,
    },
    /// The engine failed. Whether the write will be found later is unknown.
    #[error("the storage engine failed")]
    Failed(#[source] fjall::Error),
    /// The engine stumbled over its own assumptions.
    #[error("the storage engine gave up")]
    GaveUp,
    /// The database is closed: it could not be opened again after a failure.
    #[error("the database is closed until it can be opened again")]
    Closed,
    /// The disk cannot be asked how much room it has.
    #[error("the disk does not say how much room it has")]
    Disk(#[source] io::Error),
}

impl EngineError {
    /// Whether it is room that is missing.
    pub fn is_no_room(&self) -> bool {
        match self {
            Self::NoRoom { .. } => true,
            Self::Failed(fjall::Error::Io(error)) => error.kind() == io::ErrorKind::StorageFull,
            Self::Failed(_) | Self::GaveUp | Self::Closed | Self::Disk(_) => false,
        }
    }
}

impl<const N: usize> std::fmt::Debug for Engine<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("path", &self.path).finish_non_exhaustive()
    }
}

impl<const N: usize> Engine<N> {
    /// Opens the database in `path`, or makes it.
    pub fn open(path: &Path, options: EngineOptions<N>) -> Result<Self, fjall::Error> {
        let start = Instant::now();
        let opened = loop {
            match Opened::open(path, &options) {
                // Who had it is about to let go of it.
                Err(fjall::Error::Locked) if start.elapsed() < LOCKED_FOR => std::thread::sleep(LOOK_AGAIN),
                opened => break opened?,
            }
        };
        let opened = RwLock::new(Some(Arc::new(opened)));
        Ok(Self { path: path.to_owned(), options, opened, is_broken: AtomicBool::new(false) })
    }

    /// Where the database lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The database, for one read.
    pub fn read(&self) -> Result<Arc<Opened<N>>, EngineError> {
        self.opened.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or(EngineError::Closed)
    }

    /// Writes. After a write that failed no other is done before [`Engine::mend`], so that whoever has summed up what is
    /// there hears of it.
    pub fn write<T>(
        &self,
        purpose: Purpose,
        work: impl FnOnce(&Opened<N>) -> Result<T, fjall::Error>,
    ) -> Result<T, EngineError> {
        if purpose == Purpose::Add {
            self.check_room(|total| (total / RESERVE_SHARE).min(MAX_RESERVE))?;
        }
        if self.is_broken.load(Ordering::Acquire) {
            return Err(EngineError::Closed);
        }
        let opened = self.read()?;
        let outcome = catch_unwind(AssertUnwindSafe(|| work(&opened)));
        let outcome = outcome.unwrap_or(Err(fjall::Error::Poisoned));
        outcome.map_err(|error| {
            self.is_broken.store(true, Ordering::Release);
            EngineError::Failed(error)
        })
    }

    /// Before the database is closed: brings what is new into tables, if it is much, so that the next start has not to read it again
    /// from the journal. What is not done in time stays there.
    pub fn settle(&self) -> Result<(), EngineError> {
        self.write(Purpose::Add, |opened| {
            if opened.database.write_buffer_size() < WORTH_SETTLING {
                return Ok(());
            }
            opened.relieve()?;
            let start = Instant::now();
            let is_settled = || opened.keyspaces.iter().all(|keyspace| keyspace.sealed_memtable_count() == 0);
            while !is_settled() && start.elapsed() < SETTLES_WITHIN {
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        })
    }

    /// Opens the database anew if a write has failed; says whether it did.
    pub fn mend(&self) -> Result<bool, EngineError> {
        if !self.is_broken.load(Ordering::Acquire) {
            return Ok(false);
        }
        self.check_room(|_| LEAST_ROOM)?;
        let mut slot = self.opened.write().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have been quicker.
        if !self.is_broken.load(Ordering::Acquire) {
            return Ok(false);
        }
        if let Some(old) = slot.take() {
            let start = Instant::now();
            while Arc::strong_count(&old) > 1 {
                if start.elapsed() > PATIENCE {
                    *slot = Some(old);
                    return Err(EngineError::Closed);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            let _ = catch_unwind(AssertUnwindSafe(|| drop(old)));
        }
        let opened = catch_unwind(AssertUnwindSafe(|| Opened::open(&self.path, &self.options)));
        let opened = opened.map_err(|_| EngineError::GaveUp)?.map_err(EngineError::Failed)?;
        *slot = Some(Arc::new(opened));
        self.is_broken.store(false, Ordering::Release);
        tracing::info!(path = %self.path.display(), "opened anew after a write had failed");
        Ok(true)
    }

    /// Puts new keyspaces in the place of the old ones, and `fill`s them before anybody reads from them. Nobody may write
    /// meanwhile. A crash leaves the old ones or the new ones.
    pub fn renew<T>(
        &self,
        fill: impl FnOnce(&Opened<N>, &Opened<N>) -> Result<T, fjall::Error>,
    ) -> Result<T, EngineError> {
        let old = self.read()?;
        let filled = catch_unwind(AssertUnwindSafe(|| {
            let new = old.successor(&self.options)?;
            let answer = fill(&old, &new)?;
            new.database.persist(PersistMode::SyncAll)?;
            Ok((new, answer))
        }));
        let (new, answer) = filled.map_err(|_| EngineError::GaveUp)?.map_err(EngineError::Failed)?;
        *self.opened.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(new));
        // Who reads the old ones is let finish, for a while.
        let start = Instant::now();
        while Arc::strong_count(&old) > 1 && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        old.delete().map_err(EngineError::Failed)?;
        Ok(answer)
    }

    /// Fails if less is free than is needed, which may depend on the disk's size.
    fn check_room(&self, needed: impl FnOnce(u64) -> u64) -> Result<(), EngineError> {
        let disk = rustix::fs::statvfs(&self.path).map_err(|error| EngineError::Disk(error.into()))?;
        let of = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        let (free, needed) = (of(disk.f_bavail), needed(of(disk.f_blocks)));
        if free < needed { Err(EngineError::NoRoom { free, needed }) } else { Ok(()) }
    }
}

impl<const N: usize> Opened<N> {
    fn open(path: &Path, options: &EngineOptions<N>) -> Result<Self, fjall::Error> {
        let database = Database::builder(path)
            .worker_threads(options.workers)
            .cache_size(options.cache_bytes)
            .max_journaling_size(MAX_JOURNALS)
            .open()?;
        // Keyspaces that are renewed have names with the number of their generation. While there are two, the newer one is not
        // complete.
        let names = database.list_keyspace_names();
        let first = options.keyspaces[0];
        let generation = names.iter().filter_map(|name| generation_of(first, name)).min().unwrap_or(0);
        for name in names {
            // What an earlier version kept, and nobody knows of any more, goes as well.
            let is_current = |base: &&str| generation_of(base, &name) == Some(generation);
            if !options.keyspaces.iter().any(is_current) {
                database.delete_keyspace(database.keyspace(&name, KeyspaceCreateOptions::default)?)?;
            }
        }
        let opened = Self::with_generation(database, options, generation)?;
        // Who was killed amid a flood may have had much more in memory than is let be, and all of it is there again.
        if opened.database.write_buffer_size() > MAX_JOURNALS {
            opened.relieve()?;
        }
        Ok(opened)
    }

    /// The keyspaces that are to take the place of these.
    fn successor(&self, options: &EngineOptions<N>) -> Result<Self, fjall::Error> {
        // A try before may have failed halfway.
        for name in options.keyspaces.map(|base| name_of(base, self.generation + 1)) {
            if self.database.keyspace_exists(&name) {
                let left = self.database.keyspace(&name, KeyspaceCreateOptions::default)?;
                self.database.delete_keyspace(left)?;
            }
        }
        Self::with_generation(self.database.clone(), options, self.generation + 1)
    }

    /// The first one goes first: without it the others are not looked at.
    fn delete(&self) -> Result<(), fjall::Error> {
        self.keyspaces.iter().try_for_each(|keyspace| self.database.delete_keyspace(keyspace.clone()))
    }

    fn with_generation(
        database: Database,
        options: &EngineOptions<N>,
        generation: u32,
    ) -> Result<Self, fjall::Error> {
        let mut keyspaces = Vec::with_capacity(N);
        for base in options.keyspaces {
            keyspaces
                .push(database.keyspace(&name_of(base, generation), || keyspace_options(options.in_parts))?);
        }
        // As many as there are names.
        let keyspaces = keyspaces.try_into().map_err(|_| fjall::Error::Unrecoverable)?;
        Ok(Self { database, keyspaces, generation })
    }

    /// Begins to bring what is new into tables.
    fn relieve(&self) -> Result<(), fjall::Error> {
        self.keyspaces.iter().try_for_each(|keyspace| keyspace.rotate_memtable().map(drop))
    }
}

fn keyspace_options(in_parts: bool) -> KeyspaceCreateOptions {
    let options = KeyspaceCreateOptions::default().max_memtable_size(MAX_NEW);
    if !in_parts {
        return options;
    }
    options
        .filter_block_partitioning_policy(PartitioningPolicy::all(true))
        .index_block_partitioning_policy(PartitioningPolicy::all(true))
}

fn name_of(base: &str, generation: u32) -> String {
    match generation {
        0 => base.to_owned(),
        _ => format!("{base}.{generation}"),
    }
}

fn generation_of(base: &str, name: &str) -> Option<u32> {
    match name.strip_prefix(base)? {
        "" => Some(0),
        number => number.strip_prefix('.')?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: EngineOptions<1> =
        EngineOptions { keyspaces: ["things"], workers: 1, cache_bytes: 1 << 20, in_parts: true };

    fn put(engine: &Engine<1>, key: &str) -> Result<(), EngineError> {
        engine.mend()?;
        engine.write(Purpose::Add, |opened| opened.keyspaces[0].insert(key, "value"))
    }

    fn has(engine: &Engine<1>, key: &str) -> bool {
        engine.read().unwrap().keyspaces[0].get(key).unwrap().is_some()
    }

    #[test]
    fn after_a_write_that_failed_the_next_one_finds_a_database_that_takes_it() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::open(folder.path(), OPTIONS).unwrap();
        put(&engine, "before").unwrap();
        let failed = engine.write::<()>(Purpose::Add, |_| Err(fjall::Error::Poisoned));
        assert!(matches!(failed, Err(EngineError::Failed(_))));
        assert!(has(&engine, "before"), "reading goes on");
        let early = engine.write(Purpose::Free, |_| Ok(()));
        assert!(matches!(early, Err(EngineError::Closed)), "it is not mended by the way");
        put(&engine, "after").unwrap();
        assert!(has(&engine, "before") && has(&engine, "after"));
        assert!(!engine.mend().unwrap(), "there is nothing left to mend");
    }

    #[test]
    fn what_is_new_is_in_tables_when_it_has_settled() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::open(folder.path(), OPTIONS).unwrap();
        put(&engine, "small").unwrap();
        engine.settle().unwrap();
        let new = |engine: &Engine<1>| engine.read().unwrap().database.write_buffer_size();
        assert!(new(&engine) > 0, "a little is not worth it");
        let large = vec![0; usize::try_from(WORTH_SETTLING).unwrap()];
        engine.write(Purpose::Add, |opened| opened.keyspaces[0].insert("large", large.as_slice())).unwrap();
        engine.settle().unwrap();
        // It is told a moment after.
        let start = Instant::now();
        while new(&engine) > 0 {
            assert!(start.elapsed() < PATIENCE, "it is not in tables");
            std::thread::yield_now();
        }
        drop(engine);
        let engine = Engine::open(folder.path(), OPTIONS).unwrap();
        assert_eq!(new(&engine), 0, "nothing is read again");
        assert!(has(&engine, "small") && has(&engine, "large"));
    }

    #[test]
    fn what_an_earlier_version_kept_and_this_one_does_not_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let earlier =
            EngineOptions { keyspaces: ["things", "more"], workers: 1, cache_bytes: 1 << 20, in_parts: true };
        let engine = Engine::open(folder.path(), earlier).unwrap();
        let both =
            |opened: &Opened<2>| opened.keyspaces.iter().try_for_each(|all| all.insert("key", "value"));
        engine.write(Purpose::Add, both).unwrap();
        drop(engine);
        let engine = Engine::open(folder.path(), OPTIONS).unwrap();
        assert!(has(&engine, "key"));
        assert_eq!(engine.read().unwrap().database.list_keyspace_names().len(), 1);
    }

    #[test]
    fn who_is_about_to_let_go_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::open(folder.path(), OPTIONS).unwrap();
        let reading = engine.read().unwrap();
        let reader = std::thread::spawn(move || {
            std::thread::sleep(LOOK_AGAIN * 3);
            drop(reading);
        });
        drop(engine);
        assert!(Engine::open(folder.path(), OPTIONS).is_ok());
        reader.join().unwrap();
    }

    #[test]
    fn renewed_keyspaces_are_there_when_they_are_complete() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::open(folder.path(), OPTIONS).unwrap();
        put(&engine, "old").unwrap();
        let failed = engine.renew::<()>(|_, new| {
            new.keyspaces[0].insert("half", "value")?;
            Err(fjall::Error::Poisoned)
        });
        assert!(failed.is_err());
        assert!(has(&engine, "old") && !has(&engine, "half"));
        drop(engine);
        let engine = Engine::open(folder.path(), OPTIONS).unwrap();
        assert!(has(&engine, "old") && !has(&engine, "half"), "what was not complete is gone");
        for round in 0..3 {
            let key = format!("new{round}");
            engine.renew(|_, new| new.keyspaces[0].insert(&key, "value")).unwrap();
            assert!(has(&engine, &key) && !has(&engine, "old"));
        }
        drop(engine);
        let engine = Engine::open(folder.path(), OPTIONS).unwrap();
        assert!(has(&engine, "new2") && !has(&engine, "new1") && !has(&engine, "half"));
        put(&engine, "after").unwrap();
        assert!(has(&engine, "after"));
    }

    #[test]
    fn an_engine_that_panics_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::open(folder.path(), OPTIONS).unwrap();
        let gave_up = engine.write::<()>(Purpose::Add, |_| panic!("a lock is poisoned"));
        assert!(gave_up.is_err());
        put(&engine, "after").unwrap();
        assert!(has(&engine, "after"));
    }

    #[test]
    fn who_reads_for_long_does_not_lose_the_database() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::open(folder.path(), OPTIONS).unwrap();
        put(&engine, "before").unwrap();
        let reading = engine.read().unwrap();
        engine.write::<()>(Purpose::Add, |_| Err(fjall::Error::Poisoned)).unwrap_err();
        assert!(put(&engine, "after").is_err());
        assert!(reading.keyspaces[0].get("before").unwrap().is_some());
        drop(reading);
        put(&engine, "after").unwrap();
    }
}
