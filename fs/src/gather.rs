//! Reading one segment: from this disk, or of the shards of many nodes at once.
//!
//! Everybody is asked for the data shards that they hold. Who stalls is not waited for: after [`HEDGE`] parity is
//! asked of the others, and who is known to stall is not asked first. What is decoded is held against the segment's
//! hash. If it does not fit, somebody lied: the segment is decoded without each of the givers in turn, which finds the
//! right bytes and whoever gave wrong ones.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use starfish_dht::PeerId;
use tokio::sync::{OnceCell, Semaphore};

use crate::code::{Code, MAX_SHARDS};
use crate::hash::BlobHash;
use crate::index_set::IndexSet;
use crate::manifest::Segment;
use crate::peers::wire::Want;
use crate::peers::{AskError, Peers};
use crate::place::{Candidate, order};
use crate::store::{Bundle, Store};

/// After this long with nothing coming, parity is asked for, and who was asked and has not answered while others have
/// is not asked first for a while.
const HEDGE: Duration = Duration::from_millis(120);
/// Segments read lately that are kept in memory, in bytes: whoever reads a file bit by bit meets each many times.
const HOT_BYTES: usize = 16 << 20;
/// Segments on their way to the cache at once.
const MAX_CACHING: usize = 4;

/// The way to segments, wherever they are. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Segments {
    store: Store,
    peers: Peers,
    others: Arc<dyn Fn() -> Vec<Candidate> + Send + Sync>,
    hot: Arc<Mutex<VecDeque<(BlobHash, Bytes)>>>,
    under_way: Arc<Mutex<HashMap<BlobHash, Arc<OnceCell<Bytes>>>>>,
    caching: Arc<Semaphore>,
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
        let (hot, under_way, fetched_bytes) = (Arc::default(), Arc::default(), Arc::default());
        Self { store, peers, others, hot, under_way, caching, fetched_bytes }
    }

    /// Bytes of shards that were fetched since the start.
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
        // What this node can decode by itself need not be here twice.
        if gathering.has_fetched {
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

type Answer = (PeerId, Want, Result<(Bundle, bool), AskError>);

/// One segment on its way.
struct Gathering<'a> {
    segments: &'a Segments,
    segment: BlobHash,
    len: u64,
    code: Code,
    /// Who gave what; this node's own shards are under `None`.
    given: HashMap<Option<PeerId>, BTreeMap<u16, Bytes>>,
    have: IndexSet,
    /// Peers that have not been asked, those to be asked first at the end.
    fresh: Vec<PeerId>,
    /// Peers that were asked and have not answered, with the time of the question.
    waiting: HashMap<PeerId, Instant>,
    /// Peers that have answered and may have more.
    willing: Vec<PeerId>,
    with_whole: Vec<PeerId>,
    n_asked: usize,
    has_fetched: bool,
}

impl<'a> Gathering<'a> {
    fn new(segments: &'a Segments, segment: BlobHash, len: u64) -> Self {
        let others = (segments.others)();
        let mut fresh: Vec<PeerId> = order(&segment, &others).iter().map(|other| other.peer).collect();
        let now = Instant::now();
        let scores = segments.peers.scores();
        fresh.sort_by_key(|peer| !scores.is_trusted(peer, now));
        fresh.reverse();
        drop(scores);
        Self {
            segments,
            segment,
            len,
            code: Code::of(len),
            given: HashMap::new(),
            have: IndexSet::default(),
            fresh,
            waiting: HashMap::new(),
            willing: Vec::new(),
            with_whole: Vec::new(),
            n_asked: 0,
            has_fetched: false,
        }
    }

    fn failure(&self) -> GatherError {
        let (have, need) = (self.have.len(), self.code.k());
        GatherError { segment: self.segment, have, need, asked: self.n_asked }
    }

    async fn take_local(&mut self) {
        if let Ok(Some(bundle)) = self.segments.store.shards(self.segment).await
            && bundle.segment_len() == self.len
        {
            self.take(None, &bundle);
        }
    }

    fn take(&mut self, from: Option<PeerId>, bundle: &Bundle) {
        for (index, bytes) in bundle.shards() {
            if !self.have.contains(*index) {
                self.have.insert(*index);
                self.given.entry(from).or_default().insert(*index, bytes.clone());
            }
        }
    }

    fn missing(&self) -> usize {
        usize::from(self.code.k()).saturating_sub(self.have.len())
    }

    /// Asks in waves. A further one goes out when the one before is answered and was not enough, when it keeps
    /// everybody waiting, or when what came does not decode. Nobody who was asked is given up.
    async fn run(&mut self) -> Option<Bytes> {
        let mut answers = FuturesUnordered::new();
        loop {
            if self.missing() == 0
                && let Some(bytes) = self.decode().await
            {
                return Some(bytes);
            }
            if answers.is_empty() || self.missing() == 0 {
                let wave = self.wave();
                if wave.is_empty() && answers.is_empty() {
                    return None;
                }
                wave.into_iter().for_each(|(peer, want)| answers.push(self.ask(peer, want)));
            }
            match tokio::time::timeout(HEDGE, answers.next()).await {
                Ok(Some(answer)) => self.on_answer(answer),
                Ok(None) => {}
                Err(_) => {
                    self.note_stalled();
                    self.wave().into_iter().for_each(|(peer, want)| answers.push(self.ask(peer, want)));
                }
            }
        }
    }

    fn ask(&self, peer: PeerId, want: Want) -> impl Future<Output = Answer> + use<> {
        let peers = self.segments.peers.clone();
        async move {
            let answer = peers.fetch(peer, want.clone()).await;
            (peer, want, answer)
        }
    }

    /// The next questions: first for the data shards; then for any shards, of those who have answered; then for what a
    /// whole copy gives; at last of those who are known to stall or to lie.
    fn wave(&mut self) -> Vec<(PeerId, Want)> {
        let any = IndexSet::range(0..MAX_SHARDS).minus(&self.have);
        let missing = self.missing().max(1);
        if self.code.k() == 1 {
            let peers = self.next_fresh(2);
            return self.questions(peers, any, 1, true);
        }
        if self.n_asked == 0 {
            let now = Instant::now();
            let trusted = |peer: &&PeerId| self.segments.peers.scores().is_trusted(peer, now);
            let n = self.fresh.iter().filter(trusted).count();
            let peers = self.next_fresh(n.max(1));
            let data = IndexSet::range(0..self.code.k()).minus(&self.have);
            return self.questions(peers, data, data.len(), false);
        }
        if !self.willing.is_empty() {
            let peers = std::mem::take(&mut self.willing);
            let each = missing.div_ceil(peers.len()) + 1;
            return self.questions(peers, any, each, false);
        }
        if let Some(peer) = self.with_whole.pop() {
            let data = IndexSet::range(0..self.code.k()).minus(&self.have);
            return self.questions(vec![peer], data, data.len(), true);
        }
        let peers = self.next_fresh(usize::MAX);
        self.questions(peers, any, missing, false)
    }

    fn next_fresh(&mut self, n: usize) -> Vec<PeerId> {
        let rest = self.fresh.len().saturating_sub(n);
        self.fresh.split_off(rest)
    }

    fn questions(
        &mut self,
        peers: Vec<PeerId>,
        indices: IndexSet,
        limit: usize,
        from_whole: bool,
    ) -> Vec<(PeerId, Want)> {
        if indices.is_empty() {
            return Vec::new();
        }
        self.n_asked += peers.len();
        let now = Instant::now();
        let limit = u16::try_from(limit).unwrap_or(u16::MAX);
        let want = Want { segment: self.segment, len: self.len, indices, limit, from_whole };
        self.waiting.extend(peers.iter().map(|peer| (*peer, now)));
        peers.into_iter().map(|peer| (peer, want.clone())).collect()
    }

    fn note_stalled(&mut self) {
        // When nobody answers, it is the network that is slow.
        if self.willing.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut scores = self.segments.peers.scores();
        for (peer, _) in self.waiting.iter().filter(|(_, since)| now - **since >= HEDGE) {
            scores.stalled(*peer, now);
        }
    }

    fn on_answer(&mut self, (peer, want, answer): Answer) {
        self.waiting.remove(&peer);
        match answer {
            Ok((bundle, has_whole)) => {
                let given = bundle.shards().len();
                if given > 0 {
                    self.has_fetched = true;
                    let bytes = bundle.shards().values().map(|shard| shard.len() as u64).sum();
                    self.segments.fetched_bytes.fetch_add(bytes, Ordering::Relaxed);
                    self.take(Some(peer), &bundle);
                }
                // Who gave all that it was allowed to give, or was asked for data alone, may have more.
                let is_first = want.indices.len() <= usize::from(self.code.k()) && !want.from_whole;
                if is_first || (given > 0 && given == usize::from(want.limit)) {
                    self.willing.push(peer);
                }
                if has_whole && !want.from_whole && !self.with_whole.contains(&peer) {
                    self.with_whole.push(peer);
                }
            }
            Err(error) => {
                tracing::debug!(%peer, segment = %self.segment.short(), %error, "no shards");
                if matches!(error, AskError::Open(_)) {
                    self.segments.peers.scores().stalled(peer, Instant::now());
                }
            }
        }
    }

    /// The segment's bytes, if what there is gives them. Who lied is forgotten with all that it gave.
    async fn decode(&mut self) -> Option<Bytes> {
        let (code, segment) = (self.code, self.segment);
        let given = self.given.clone();
        let decoded = tokio::task::spawn_blocking(move || decode_without_liars(code, &segment, &given)).await;
        let (bytes, liars) = decoded.ok()??;
        for liar in liars {
            self.given.remove(&liar);
            let Some(peer) = liar else {
                // Own shards passed their check when they were read: they were wrong when they came.
                let _ = self.segments.store.remove(crate::store::Kind::Shards, segment).await;
                continue;
            };
            let times = self.segments.peers.scores().lied(peer, Instant::now());
            tracing::warn!(%peer, %segment, times, "a peer gave wrong bytes");
        }
        Some(bytes)
    }
}

/// Decodes with all givers, then without each in turn, and names those whose shards do not fit the result.
fn decode_without_liars(
    code: Code,
    segment: &BlobHash,
    given: &HashMap<Option<PeerId>, BTreeMap<u16, Bytes>>,
) -> Option<(Bytes, Vec<Option<PeerId>>)> {
    let decode = |suspect: Option<&Option<PeerId>>| {
        let decoded = code.decode(&all_but(given, suspect)).ok();
        decoded.filter(|bytes| BlobHash::of(bytes) == *segment)
    };
    // If everything together decodes, nobody lied as far as it mattered.
    if let Some(bytes) = decode(None) {
        return Some((bytes, Vec::new()));
    }
    let bytes = given.keys().find_map(|suspect| decode(Some(suspect)))?;
    let lied = |shards: &BTreeMap<u16, Bytes>| {
        let indices: Vec<u16> = shards.keys().copied().collect();
        code.shards(&bytes, &indices).is_ok_and(|right| right.iter().ne(shards.values()))
    };
    let liars = given.iter().filter(|(_, shards)| lied(shards)).map(|(giver, _)| *giver).collect();
    Some((bytes, liars))
}

fn all_but(
    given: &HashMap<Option<PeerId>, BTreeMap<u16, Bytes>>,
    without: Option<&Option<PeerId>>,
) -> BTreeMap<u16, Bytes> {
    let kept = given.iter().filter(|(giver, _)| Some(*giver) != without);
    kept.flat_map(|(_, shards)| shards.iter().map(|(index, bytes)| (*index, bytes.clone()))).collect()
}

impl From<GatherError> for io::Error {
    fn from(error: GatherError) -> Self {
        Self::new(io::ErrorKind::NotFound, error)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
