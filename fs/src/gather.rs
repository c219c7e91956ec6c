//! Reading one segment: from this disk, or of the shards of many nodes at once.
//!
//! Everybody is asked for the data shards that they hold, or a few for what the shards here leave to be fetched
//! ([`segment`]). Who stalls is not waited for: after [`HEDGE`] others are asked, and who is known to stall is not asked
//! first. What is decoded is held against the segment's hash. If it does not fit, somebody lied: the segment is decoded
//! without each of the givers in turn, which finds the right bytes and whoever gave wrong ones.

mod part;
pub(crate) mod proof;
mod segment;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OnceCell, Semaphore};

use crate::code::Code;
use crate::hash::BlobHash;
use crate::manifest::Segment;
use crate::peers::Peers;
use crate::place::Candidate;
use crate::recent::Recent;
use crate::store::Store;
use part::Parts;
use segment::Gathering;

/// After this long with nothing coming, parity is asked for, and who was asked and has not answered while others have
/// is not asked first for a while.
const HEDGE: Duration = Duration::from_millis(120);
/// Segments read lately that are kept in memory, in bytes: whoever reads a file bit by bit meets each many times.
const HOT_BYTES: usize = 16 << 20;
/// Segments on their way to the cache at once.
const MAX_CACHING: usize = 4;
/// Segments fetched lately that are remembered by name: the next time they are fetched, they go to the cache.
const MAX_FETCHED: usize = 4096;

/// The way to segments, wherever they are. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Segments {
    store: Store,
    peers: Peers,
    others: Arc<dyn Fn() -> Vec<Candidate> + Send + Sync>,
    hot: Arc<Mutex<VecDeque<(BlobHash, Bytes)>>>,
    under_way: Arc<Mutex<HashMap<BlobHash, Arc<OnceCell<Bytes>>>>>,
    caching: Arc<Semaphore>,
    /// Segments that were fetched lately.
    fetched: Arc<Mutex<Recent<(), MAX_FETCHED>>>,
    parts: Arc<Mutex<Parts>>,
    fetched_bytes: Arc<AtomicU64>,
}

/// A segment cannot be had now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{have} of {need} shards of {segment} were found; {asked} peers were asked")]
pub(crate) struct GatherError {
    /// The segment.
    pub(crate) segment: BlobHash,
    /// Shards that were found.
    pub(crate) have: usize,
    /// Shards that are needed.
    pub(crate) need: u16,
    /// Peers that were asked.
    pub(crate) asked: usize,
}

impl std::fmt::Debug for Segments {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Segments").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Segments {
    /// `others` tells which other members are alive.
    pub(crate) fn new(
        store: Store,
        peers: Peers,
        others: Arc<dyn Fn() -> Vec<Candidate> + Send + Sync>,
    ) -> Self {
        let caching = Arc::new(Semaphore::new(MAX_CACHING));
        let (hot, under_way) = (Arc::default(), Arc::default());
        let (fetched, parts, fetched_bytes) = (Arc::default(), Arc::default(), Arc::default());
        Self { store, peers, others, hot, under_way, caching, fetched, parts, fetched_bytes }
    }

    /// Bytes of shards, and of proofs, that were fetched since the start.
    pub(crate) fn fetched_bytes(&self) -> u64 {
        self.fetched_bytes.load(Ordering::Relaxed)
    }

    /// How many bytes of a segment need not be fetched.
    pub(crate) fn held_bytes(&self, segment: &Segment) -> io::Result<u64> {
        let len = u64::from(segment.len);
        if self.store.has(&segment.hash)? {
            return Ok(len);
        }
        let (held, k) = (self.store.held(&segment.hash)?.len() as u64, u64::from(Code::of(len).k()));
        Ok(len * held.min(k) / k.max(1))
    }

    /// The bytes of a segment of this length. Calls for one segment at the same time share the work.
    pub(crate) async fn get(&self, segment: BlobHash, len: u64) -> Result<Bytes, GatherError> {
        if let Some(bytes) = self.hot(&segment) {
            return Ok(bytes);
        }
        let cell = Arc::clone(lock(&self.under_way).entry(segment).or_default());
        let waiting = Waiting { segments: self, segment, cell };
        // The first to come does the work; if it is cancelled, the next one who waits goes on.
        waiting.cell.get_or_try_init(|| self.load(segment, len)).await.cloned()
    }

    async fn load(&self, segment: BlobHash, len: u64) -> Result<Bytes, GatherError> {
        match self.store.get(segment).await {
            Ok(Some(bytes)) => {
                self.heat(segment, &bytes);
                return Ok(bytes);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%segment, %error, "the store does not answer"),
        }
        let mut gathering = Gathering::new(self, segment, len);
        gathering.take_local().await;
        let Some(bytes) = gathering.run().await else { return Err(gathering.failure()) };
        self.heat(segment, &bytes);
        // What this node can decode by itself need not be here twice. What streams by once would only push out of the
        // cache what is read again and again.
        if gathering.has_fetched && !lock(&self.fetched).note(segment, ()) {
            self.cache(segment, bytes.clone());
        }
        Ok(bytes)
    }

    fn cache(&self, segment: BlobHash, bytes: Bytes) {
        let Ok(permit) = Arc::clone(&self.caching).try_acquire_owned() else { return };
        let store = self.store.clone();
        tokio::spawn(async move {
            if let Err(error) = store.add(segment, bytes, true).await {
                tracing::debug!(%segment, %error, "not cached");
            }
            drop(permit);
        });
    }

    fn hot(&self, segment: &BlobHash) -> Option<Bytes> {
        lock(&self.hot).iter().find(|(hash, _)| hash == segment).map(|(_, bytes)| bytes.clone())
    }

    fn heat(&self, segment: BlobHash, bytes: &Bytes) {
        let mut hot = lock(&self.hot);
        hot.push_back((segment, bytes.clone()));
        while hot.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > HOT_BYTES {
            hot.pop_front();
        }
    }
}

/// Forgets a segment under way when the last one who waits for it goes, whether it came or not.
struct Waiting<'a> {
    segments: &'a Segments,
    segment: BlobHash,
    cell: Arc<OnceCell<Bytes>>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut under_way = lock(&self.segments.under_way);
        // Let go of while the map is locked, so that of several who leave at once the last one sees that it is.
        let cell = std::mem::take(&mut self.cell);
        let is_known = under_way.get(&self.segment).is_some_and(|known| Arc::ptr_eq(known, &cell));
        // Two hold it now: the map and this one.
        if is_known && (cell.initialized() || Arc::strong_count(&cell) == 2) {
            under_way.remove(&self.segment);
        }
    }
}

impl From<GatherError> for io::Error {
    fn from(error: GatherError) -> Self {
        Self::new(io::ErrorKind::NotFound, error)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
