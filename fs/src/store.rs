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
mod items;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

pub(crate) use bundle::{Bundle, cut, cut_now};
pub(crate) use disk::{Kind, Meta};
use items::Items;

use crate::hash::BlobHash;
use crate::index_set::IndexSet;

/// How long one step of a look at all items may take: whatever else waits for the disk is not held up for longer.
const STEP: Duration = Duration::from_millis(5);

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
    items: Arc<Items>,
    flush: Arc<Flush>,
}

/// Flushes are numbered: `wanted` counts requests, `done` the last one that a finished flush covers.
#[derive(Debug, Default)]
struct Flush {
    wanted: AtomicU64,
    done: tokio::sync::Mutex<u64>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Store").field("dir", &self.items.dir).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens (or makes) the store in `dir` and sums up what it holds.
    pub(crate) async fn open(dir: &Path, limits: Limits) -> io::Result<Self> {
        let dir = dir.to_owned();
        let items = blocking(move || Items::open(dir, limits)).await?;
        Ok(Self { items: Arc::new(items), flush: Arc::default() })
    }

    /// Adds a whole segment or manifest, which is named by its hash. What is kept already stays kept.
    pub(crate) async fn add(&self, hash: BlobHash, bytes: Bytes, is_cached: bool) -> io::Result<()> {
        self.run(move |items| items.add(&hash, &bytes, is_cached)).await
    }

    /// Whether the whole is here.
    pub(crate) fn has(&self, hash: &BlobHash) -> io::Result<bool> {
        Ok(self.items.disk.meta(Kind::Whole, hash)?.is_some())
    }

    /// Whether the whole is here and must stay.
    pub(crate) fn is_kept(&self, hash: &BlobHash) -> io::Result<bool> {
        Ok(self.items.disk.meta(Kind::Whole, hash)?.is_some_and(|meta| !meta.is_cached))
    }

    /// A whole item, checked.
    pub(crate) async fn get(&self, hash: BlobHash) -> io::Result<Option<Bytes>> {
        self.run(move |items| items.get(&hash)).await
    }

    /// Several whole items, checked: many short ones take less time than the way to another thread and back for each.
    pub(crate) async fn get_all(&self, hashes: Vec<BlobHash>) -> io::Result<Vec<io::Result<Option<Bytes>>>> {
        self.run(move |items| Ok(hashes.iter().map(|hash| items.get(hash)).collect())).await
    }

    /// Others keep enough of these segments: the wholes may go when space is needed.
    pub(crate) async fn release_all(&self, hashes: Vec<BlobHash>) -> io::Result<Vec<io::Result<()>>> {
        self.run(move |items| Ok(hashes.iter().map(|hash| items.release(hash)).collect())).await
    }

    /// Adds shards of a segment to those that are here.
    pub(crate) async fn add_shards(&self, segment: BlobHash, bundle: Bundle) -> io::Result<()> {
        self.run(move |items| items.add_shards(&segment, bundle)).await
    }

    /// Adds shards of several segments; what became of each.
    pub(crate) async fn add_all_shards(
        &self,
        bundles: Vec<(BlobHash, Bundle)>,
    ) -> io::Result<Vec<io::Result<()>>> {
        let add = |items: &Items, (segment, bundle): (BlobHash, Bundle)| items.add_shards(&segment, bundle);
        self.run(move |items| Ok(bundles.into_iter().map(|bundle| add(items, bundle)).collect())).await
    }

    /// Which shards of a segment are here.
    pub(crate) fn held(&self, segment: &BlobHash) -> io::Result<IndexSet> {
        Ok(self.items.disk.meta(Kind::Shards, segment)?.map(|meta| meta.indices).unwrap_or_default())
    }

    /// All shards of a segment that are here, checked.
    pub(crate) async fn shards(&self, segment: BlobHash) -> io::Result<Option<Bundle>> {
        self.run(move |items| items.shards(&segment)).await
    }

    /// Holds items against their hashes, as reading them does.
    pub(crate) async fn check(&self, kind: Kind, hashes: Vec<BlobHash>) -> io::Result<()> {
        self.run(move |items| {
            hashes.iter().try_for_each(|hash| match kind {
                Kind::Whole => items.get(hash).map(drop),
                Kind::Shards => items.shards(hash).map(drop),
            })
        })
        .await
    }

    /// Removes some shards of a segment.
    pub(crate) async fn drop_shards(&self, segment: BlobHash, indices: IndexSet) -> io::Result<()> {
        self.run(move |items| items.drop_shards(&segment, &indices)).await
    }

    /// Removes an item whole.
    pub(crate) async fn remove(&self, kind: Kind, hash: BlobHash) -> io::Result<()> {
        self.remove_if(kind, hash, |_| true).await.map(drop)
    }

    /// Removes an item whole if `may_go` says so, of what it is at that moment: nobody can add it in between. Says
    /// whether it went.
    pub(crate) async fn remove_if(
        &self,
        kind: Kind,
        hash: BlobHash,
        may_go: impl FnOnce(&Meta) -> bool + Send + 'static,
    ) -> io::Result<bool> {
        self.run(move |items| items.remove_if(kind, &hash, may_go)).await
    }

    /// Some items of one kind in the order of their hashes, after `after`: as many as [`STEP`] allows, but for a first
    /// one, and no more than `max`; none at the end.
    pub(crate) async fn page(
        &self,
        kind: Kind,
        after: Option<BlobHash>,
        max: usize,
    ) -> io::Result<Vec<(BlobHash, Meta)>> {
        self.run(move |items| {
            let (mut page, begun) = (Vec::new(), Instant::now());
            items.disk.scan(kind, after.as_ref(), |hash, meta| {
                page.push((hash, meta));
                page.len() < max && begun.elapsed() < STEP
            })?;
            Ok(page)
        })
        .await
    }

    /// Returns when everything added so far outlives a crash. Calls at the same time share one write to disk.
    pub(crate) async fn flush(&self) -> io::Result<()> {
        let flush = &self.flush;
        let ticket = flush.wanted.fetch_add(1, Ordering::SeqCst) + 1;
        let mut done = flush.done.lock().await;
        if *done >= ticket {
            return Ok(());
        }
        let covers = flush.wanted.load(Ordering::SeqCst);
        self.run(|items| items.disk.flush()).await?;
        *done = covers;
        Ok(())
    }

    /// Before the end: the same, and the next start has little to read again.
    pub(crate) async fn close(&self) -> io::Result<()> {
        self.run(|items| items.disk.close()).await
    }

    /// Shards that were found damaged since the last call.
    pub(crate) fn take_damaged(&self) -> Vec<Damage> {
        std::mem::take(&mut *lock(&self.items.damage))
    }

    /// What is here.
    pub(crate) fn holdings(&self) -> Holdings {
        let mut holdings = *lock(&self.items.holdings);
        holdings.cached_bytes = lock(&self.items.recency).bytes();
        holdings
    }

    /// Bytes that may still be kept: what quota and disk leave, counting what is cached as free.
    pub(crate) fn room(&self) -> io::Result<u64> {
        let holdings = self.holdings();
        let by_quota = self.items.limits.quota.saturating_sub(holdings.kept_bytes);
        Ok(by_quota.min(self.items.free()?.saturating_add(holdings.cached_bytes)))
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Items) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let items = Arc::clone(&self.items);
        blocking(move || work(&items)).await
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
