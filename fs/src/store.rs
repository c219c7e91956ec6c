//! This node's part of the swarm's disk: whole segments that it wrote or read, and the shards that it keeps.
//!
//! An item is *kept* until others are known to keep enough of it, or *cached*: it may go whenever space is needed.
//! Everything that is read is checked, a whole against its name and shards against the hash that they were stored
//! with; what the disk has damaged is removed, reported and as good as never there, so that it is mended like
//! anything that is lost. What was written outlives a crash after the next [`Store::flush`].
//!
//! Its limits: a quota for all that is kept, a smaller one for what is cached, and a reserve of the disk that is never
//! touched. Cached items are evicted before anything is refused.

mod bundle;
mod cache;
mod disk;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

pub(crate) use bundle::{Bundle, cut};
use cache::Recency;
use disk::Disk;
pub(crate) use disk::{Kind, Meta};

use crate::hash::BlobHash;
use crate::index_set::IndexSet;

/// Locks that all hashes share, so that two changes of one item never meet.
const LOCKS: usize = 64;
/// Damaged items that are remembered; repair finds the rest when it looks.
const MAX_DAMAGE: usize = 10_000;
/// Of a small disk this share is left free, ...
const RESERVE_SHARE: u64 = 50;
/// ... and of a large one no more than this.
const MAX_RESERVE: u64 = 256 << 20;

/// Limits of the store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes that may be kept.
    pub(crate) quota: u64,
    /// Bytes that may be cached.
    pub(crate) cache: u64,
}

/// What a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holdings {
    /// Items that are kept: shards, and segments on their way to others.
    pub(crate) kept: u64,
    /// The bytes that they take.
    pub(crate) kept_bytes: u64,
    /// Cached items.
    pub(crate) cached: u64,
    /// The bytes that they take.
    pub(crate) cached_bytes: u64,
    /// Items that the disk was found to have damaged or lost since the start.
    pub(crate) damaged: u64,
}

/// Shards that the disk was found to have damaged or lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) segment: BlobHash,
    /// The segment's length.
    pub(crate) len: u64,
    pub(crate) indices: IndexSet,
}

/// This node's items. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    disk: Disk,
    limits: Limits,
    holdings: Mutex<Holdings>,
    recency: Mutex<Recency>,
    /// Damage that nobody has asked for yet.
    damage: Mutex<Vec<Damage>>,
    locks: Vec<Mutex<()>>,
    flush: Flush,
}

/// Flushes are numbered: `wanted` counts requests, `done` the last one that a finished flush covers.
#[derive(Debug, Default)]
struct Flush {
    wanted: AtomicU64,
    done: tokio::sync::Mutex<u64>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Store").field("dir", &self.inner.dir).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens (or makes) the store in `dir` and sums up what it holds.
    pub(crate) async fn open(dir: &Path, limits: Limits) -> io::Result<Self> {
        let dir = dir.to_owned();
        let inner = blocking(move || Inner::open(dir, limits)).await?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Adds a whole segment or manifest, which is named by its hash. What is kept already stays kept.
    pub(crate) async fn add(&self, hash: BlobHash, bytes: Bytes, is_cached: bool) -> io::Result<()> {
        self.run(move |inner| inner.add(&hash, &bytes, is_cached)).await
    }

    /// Whether the whole is here.
    pub(crate) fn has(&self, hash: &BlobHash) -> io::Result<bool> {
        Ok(self.inner.disk.meta(Kind::Whole, hash)?.is_some())
    }

    /// Whether the whole is here and must stay.
    pub(crate) fn is_kept(&self, hash: &BlobHash) -> io::Result<bool> {
        Ok(self.inner.disk.meta(Kind::Whole, hash)?.is_some_and(|meta| !meta.is_cached))
    }

    /// A whole item, checked.
    pub(crate) async fn get(&self, hash: BlobHash) -> io::Result<Option<Bytes>> {
        self.run(move |inner| inner.get(&hash)).await
    }

    /// Others keep enough of this segment: the whole may go when space is needed.
    pub(crate) async fn release(&self, hash: BlobHash) -> io::Result<()> {
        self.run(move |inner| inner.release(&hash)).await
    }

    /// Adds shards of a segment to those that are here.
    pub(crate) async fn add_shards(&self, segment: BlobHash, bundle: Bundle) -> io::Result<()> {
        self.run(move |inner| inner.add_shards(&segment, bundle)).await
    }

    /// Which shards of a segment are here.
    pub(crate) fn held(&self, segment: &BlobHash) -> io::Result<IndexSet> {
        Ok(self.inner.disk.meta(Kind::Shards, segment)?.map(|meta| meta.indices).unwrap_or_default())
    }

    /// All shards of a segment that are here, checked.
    pub(crate) async fn shards(&self, segment: BlobHash) -> io::Result<Option<Bundle>> {
        self.run(move |inner| inner.shards(&segment)).await
    }

    /// Removes some shards of a segment.
    pub(crate) async fn drop_shards(&self, segment: BlobHash, indices: IndexSet) -> io::Result<()> {
        self.run(move |inner| inner.drop_shards(&segment, &indices)).await
    }

    /// Removes an item whole.
    pub(crate) async fn remove(&self, kind: Kind, hash: BlobHash) -> io::Result<()> {
        self.run(move |inner| inner.remove(kind, &hash)).await
    }

    /// Some items of one kind in the order of their hashes, after `after`; fewer than `max` at the end.
    pub(crate) async fn page(
        &self,
        kind: Kind,
        after: Option<BlobHash>,
        max: usize,
    ) -> io::Result<Vec<(BlobHash, Meta)>> {
        self.run(move |inner| {
            let mut page = Vec::new();
            inner.disk.scan(kind, after.as_ref(), |hash, meta| {
                page.push((hash, meta));
                page.len() < max
            })?;
            Ok(page)
        })
        .await
    }

    /// Returns when everything added so far outlives a crash. Calls at the same time share one write to disk.
    pub(crate) async fn flush(&self) -> io::Result<()> {
        let flush = &self.inner.flush;
        let ticket = flush.wanted.fetch_add(1, Ordering::SeqCst) + 1;
        let mut done = flush.done.lock().await;
        if *done >= ticket {
            return Ok(());
        }
        let covers = flush.wanted.load(Ordering::SeqCst);
        self.run(|inner| inner.disk.flush()).await?;
        *done = covers;
        Ok(())
    }

    /// Shards that were found damaged since the last call.
    pub(crate) fn take_damaged(&self) -> Vec<Damage> {
        std::mem::take(&mut *lock(&self.inner.damage))
    }

    /// What is here.
    pub(crate) fn holdings(&self) -> Holdings {
        let mut holdings = *lock(&self.inner.holdings);
        holdings.cached_bytes = lock(&self.inner.recency).bytes();
        holdings
    }

    /// Bytes that may still be kept: what quota and disk leave, counting what is cached as free.
    pub(crate) fn room(&self) -> io::Result<u64> {
        let holdings = self.holdings();
        let by_quota = self.inner.limits.quota.saturating_sub(holdings.kept_bytes);
        Ok(by_quota.min(self.inner.free()?.saturating_add(holdings.cached_bytes)))
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let inner = Arc::clone(&self.inner);
        blocking(move || work(&inner)).await
    }
}

impl Inner {
    fn open(dir: PathBuf, limits: Limits) -> io::Result<Self> {
        let disk = Disk::open(&dir)?;
        let (mut holdings, mut recency) = (Holdings::default(), Recency::default());
        for kind in [Kind::Whole, Kind::Shards] {
            disk.scan(kind, None, |hash, meta| {
                holdings.count(&meta);
                if meta.is_cached {
                    recency.add(hash, meta.stored);
                }
                true
            })?;
        }
        let locks = std::iter::repeat_with(Mutex::default).take(LOCKS).collect();
        let (holdings, recency) = (Mutex::new(holdings), Mutex::new(recency));
        let (damage, flush) = (Mutex::default(), Flush::default());
        Ok(Self { dir, disk, limits, holdings, recency, damage, locks, flush })
    }

    fn add(&self, hash: &BlobHash, bytes: &[u8], is_cached: bool) -> io::Result<()> {
        let _guard = self.lock_item(hash);
        let old = self.disk.meta(Kind::Whole, hash)?;
        match old {
            Some(old) if is_cached || !old.is_cached => {
                lock(&self.recency).touch(hash);
                return Ok(());
            }
            _ => {}
        }
        let stored = bytes.len() as u64;
        if is_cached {
            // A cache that does not fit is no failure.
            if stored > self.limits.cache || !self.has_room_for_cache(stored)? {
                return Ok(());
            }
        } else {
            self.make_room(stored)?;
        }
        let meta = Meta { len: stored, stored, since: now(), is_cached, indices: IndexSet::default() };
        self.put(Kind::Whole, hash, old, &meta, bytes)
    }

    fn get(&self, hash: &BlobHash) -> io::Result<Option<Bytes>> {
        let Some(meta) = self.disk.meta(Kind::Whole, hash)? else { return Ok(None) };
        if let Some(bytes) = self.disk.read(Kind::Whole, hash, &meta)?
            && BlobHash::of(&bytes) == *hash
        {
            lock(&self.recency).touch(hash);
            return Ok(Some(bytes));
        }
        // It may have gone while it was looked for.
        if self.disk.meta(Kind::Whole, hash)?.as_ref() == Some(&meta) {
            self.damaged(Kind::Whole, hash, &meta)?;
        }
        Ok(None)
    }

    fn release(&self, hash: &BlobHash) -> io::Result<()> {
        let _guard = self.lock_item(hash);
        let Some(old) = self.disk.meta(Kind::Whole, hash)?.filter(|meta| !meta.is_cached) else {
            return Ok(());
        };
        let meta = Meta { is_cached: true, ..old.clone() };
        self.disk.write_meta(Kind::Whole, hash, &meta)?;
        self.recount(hash, Some(&old), Some(&meta));
        self.shrink_cache()
    }

    fn add_shards(&self, segment: &BlobHash, bundle: Bundle) -> io::Result<()> {
        let _guard = self.lock_item(segment);
        let old = self.disk.meta(Kind::Shards, segment)?;
        let bundle = match self.read_bundle(segment, old.as_ref())? {
            Some(present) if present.indices().union(&bundle.indices()) == present.indices() => return Ok(()),
            Some(present) => present.merge(bundle),
            None => bundle,
        };
        self.put_bundle(segment, old, &bundle)
    }

    fn shards(&self, segment: &BlobHash) -> io::Result<Option<Bundle>> {
        let meta = self.disk.meta(Kind::Shards, segment)?;
        if let Some(bundle) = self.read_bundle(segment, meta.as_ref())? {
            return Ok(Some(bundle));
        }
        if let Some(meta) = &meta
            && self.disk.meta(Kind::Shards, segment)?.as_ref() == Some(meta)
        {
            self.damaged(Kind::Shards, segment, meta)?;
        }
        Ok(None)
    }

    fn drop_shards(&self, segment: &BlobHash, indices: &IndexSet) -> io::Result<()> {
        let _guard = self.lock_item(segment);
        let Some(old) = self.disk.meta(Kind::Shards, segment)? else { return Ok(()) };
        let rest = old.indices.minus(indices);
        if rest.is_empty() {
            return self.forget(Kind::Shards, segment, &old);
        }
        match self.read_bundle(segment, Some(&old))? {
            Some(bundle) if rest != old.indices => self.put_bundle(segment, Some(old), &bundle.only(&rest)),
            _ => Ok(()),
        }
    }

    fn remove(&self, kind: Kind, hash: &BlobHash) -> io::Result<()> {
        let _guard = self.lock_item(hash);
        match self.disk.meta(kind, hash)? {
            Some(meta) => self.forget(kind, hash, &meta),
            None => Ok(()),
        }
    }

    fn read_bundle(&self, segment: &BlobHash, meta: Option<&Meta>) -> io::Result<Option<Bundle>> {
        let Some(meta) = meta else { return Ok(None) };
        let bytes = self.disk.read(Kind::Shards, segment, meta)?;
        Ok(bytes.and_then(Bundle::decode).filter(|bundle| bundle.segment_len() == meta.len))
    }

    fn put_bundle(&self, segment: &BlobHash, old: Option<Meta>, bundle: &Bundle) -> io::Result<()> {
        let bytes = bundle.encode();
        let stored = bytes.len() as u64;
        self.make_room(stored.saturating_sub(old.as_ref().map_or(0, |old| old.stored)))?;
        let (len, indices) = (bundle.segment_len(), bundle.indices());
        let meta = Meta { len, stored, since: now(), is_cached: false, indices };
        self.put(Kind::Shards, segment, old, &meta, &bytes)
    }

    fn put(
        &self,
        kind: Kind,
        hash: &BlobHash,
        old: Option<Meta>,
        meta: &Meta,
        bytes: &[u8],
    ) -> io::Result<()> {
        self.disk.write(kind, hash, meta, bytes)?;
        self.recount(hash, old.as_ref(), Some(meta));
        if meta.is_cached { self.shrink_cache() } else { Ok(()) }
    }

    fn forget(&self, kind: Kind, hash: &BlobHash, meta: &Meta) -> io::Result<()> {
        self.disk.remove(kind, hash, meta)?;
        self.recount(hash, Some(meta), None);
        Ok(())
    }

    fn damaged(&self, kind: Kind, hash: &BlobHash, meta: &Meta) -> io::Result<()> {
        if meta.is_cached {
            // It was never synced, so a crash may have cut it.
            return self.remove(kind, hash);
        }
        tracing::warn!(%hash, ?kind, "the disk has damaged or lost this");
        lock(&self.holdings).damaged += 1;
        let mut damage = lock(&self.damage);
        if kind == Kind::Shards && damage.len() < MAX_DAMAGE {
            damage.push(Damage { segment: *hash, len: meta.len, indices: meta.indices });
        }
        drop(damage);
        self.remove(kind, hash)
    }

    fn recount(&self, hash: &BlobHash, old: Option<&Meta>, new: Option<&Meta>) {
        let mut holdings = lock(&self.holdings);
        let mut recency = lock(&self.recency);
        if let Some(old) = old {
            holdings.discount(old);
            if old.is_cached {
                recency.remove(hash);
            }
        }
        if let Some(new) = new {
            holdings.count(new);
            if new.is_cached {
                recency.add(*hash, new.stored);
            }
        }
    }

    /// Evicts what is cached until there is room for as many bytes more, or says that there is none.
    fn make_room(&self, bytes: u64) -> io::Result<()> {
        if lock(&self.holdings).kept_bytes.saturating_add(bytes) > self.limits.quota {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        while self.free()? < bytes {
            if !self.evict_one()? {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        Ok(())
    }

    fn has_room_for_cache(&self, bytes: u64) -> io::Result<bool> {
        Ok(self.free()? >= bytes.saturating_mul(2))
    }

    fn shrink_cache(&self) -> io::Result<()> {
        while lock(&self.recency).bytes() > self.limits.cache {
            if !self.evict_one()? {
                break;
            }
        }
        Ok(())
    }

    fn evict_one(&self) -> io::Result<bool> {
        let Some(hash) = lock(&self.recency).oldest() else { return Ok(false) };
        match self.disk.meta(Kind::Whole, &hash)?.filter(|meta| meta.is_cached) {
            Some(meta) => self.forget(Kind::Whole, &hash, &meta)?,
            None => lock(&self.recency).remove(&hash),
        }
        Ok(true)
    }

    /// What the disk has left beyond the reserve.
    fn free(&self) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(&self.dir)?;
        let reserve = (disk.f_blocks * disk.f_frsize / RESERVE_SHARE).min(MAX_RESERVE);
        Ok((disk.f_bavail * disk.f_frsize).saturating_sub(reserve))
    }

    fn lock_item(&self, hash: &BlobHash) -> MutexGuard<'_, ()> {
        lock(&self.locks[usize::from(hash.as_bytes()[1]) % LOCKS])
    }
}

impl Holdings {
    fn count(&mut self, meta: &Meta) {
        if meta.is_cached {
            self.cached += 1;
        } else {
            self.kept += 1;
            self.kept_bytes += meta.stored;
        }
    }

    fn discount(&mut self, meta: &Meta) {
        if meta.is_cached {
            self.cached = self.cached.saturating_sub(1);
        } else {
            self.kept = self.kept.saturating_sub(1);
            self.kept_bytes = self.kept_bytes.saturating_sub(meta.stored);
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
