//! Getting blobs from peers.
//!
//! A blob is asked of one peer at a time: first of those said to have it (in turns, so that the segments of one
//! file come from all of them), then of everyone connected, then of whoever the network's provider records name.
//! What comes is verified piece by piece; a peer that lies, stalls or lacks the blob is passed over, and the next
//! one is asked only for what is still missing.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use iroh_blobs::HashAndFormat;
use iroh_blobs::api::remote::GetProgressItem;
use iroh_blobs::get::StreamPair;
use starfish_dht::{Network, PeerId};
use tokio::sync::{OnceCell, Semaphore};

use super::local::{LocalBlobs, iroh};
use super::protocol;
use super::stream::halves;
use crate::hash::BlobHash;

/// Transfers in at the same time; beyond this they queue. Each holds about 1 MiB.
const MAX_TRANSFERS: usize = 32;
/// Peers asked for one blob before it counts as unavailable; the rest of a large swarm is found by provider records.
const MAX_ASKED: usize = 64;
/// How long opening a stream to a peer may take, dialling included.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the search for provider records may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a blob, or the segments of one file, may be found.
#[derive(Debug, Default)]
pub struct Sources {
    /// Whose provider records tell of holders: the file's hash; without one, the blob's own.
    root: Option<BlobHash>,
    candidates: Mutex<Vec<PeerId>>,
}

/// A blob could not be had: nobody reachable gave it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("blob {hash} is not on this node, and none of {asked} peers asked could give it")]
pub struct FetchError {
    /// The blob.
    pub hash: BlobHash,
    /// How many peers were asked.
    pub asked: usize,
}

impl Sources {
    /// Peers that are said to hold the blob.
    pub fn peers(peers: impl IntoIterator<Item = PeerId>) -> Self {
        Self { root: None, candidates: Mutex::new(peers.into_iter().collect()) }
    }

    /// Peers that are said to hold parts of the file named by `root`, and whoever announces that name.
    pub fn of_file(root: BlobHash, peers: impl IntoIterator<Item = PeerId>) -> Self {
        Self { root: Some(root), ..Self::peers(peers) }
    }

    /// The candidates, beginning at another one for each blob.
    fn in_turn(&self, hash: BlobHash) -> Vec<PeerId> {
        let mut candidates = self.lock().clone();
        if !candidates.is_empty() {
            let first = usize::from(hash.as_bytes()[0]) % candidates.len();
            candidates.rotate_left(first);
        }
        candidates
    }

    fn add(&self, peer: PeerId) {
        let mut candidates = self.lock();
        if candidates.len() < MAX_ASKED && !candidates.contains(&peer) {
            candidates.push(peer);
        }
    }

    fn remove(&self, peer: &PeerId) {
        self.lock().retain(|candidate| candidate != peer);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<PeerId>> {
        self.candidates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is asked for.
#[derive(Clone, Copy)]
struct Wanted {
    hash: BlobHash,
    /// More bytes than this are not taken: whoever named the hash may have lied about what it names.
    max: u64,
}

type Outcome = Arc<OnceCell<Result<(), FetchError>>>;

/// Fetches under way and the means to make them.
#[derive(Debug)]
pub(super) struct Fetcher {
    local: LocalBlobs,
    network: Network,
    slots: Semaphore,
    under_way: Mutex<HashMap<BlobHash, Outcome>>,
}

/// Forgets a fetch when the last one who waits for it goes, whether it ended or not.
struct Waiting<'a> {
    fetcher: &'a Fetcher,
    hash: BlobHash,
    outcome: Outcome,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut under_way = self.fetcher.lock();
        // Let go of while the map is locked, so that of several who leave at once the last one sees that it is.
        let outcome = std::mem::take(&mut self.outcome);
        let is_known = under_way.get(&self.hash).is_some_and(|known| Arc::ptr_eq(known, &outcome));
        // Two hold it now: the map and this one.
        if is_known && (outcome.initialized() || Arc::strong_count(&outcome) == 2) {
            under_way.remove(&self.hash);
        }
    }
}

impl Fetcher {
    pub(super) fn new(local: LocalBlobs, network: Network) -> Self {
        Self { local, network, slots: Semaphore::new(MAX_TRANSFERS), under_way: Mutex::default() }
    }

    pub(super) async fn ensure(&self, hash: BlobHash, max: u64, sources: &Sources) -> Result<(), FetchError> {
        let outcome = Arc::clone(self.lock().entry(hash).or_default());
        let waiting = Waiting { fetcher: self, hash, outcome };
        // The first to come fetches; if it is cancelled, the next one who waits goes on from there.
        waiting.outcome.get_or_init(|| self.fetch(hash, max, sources)).await.clone()
    }

    pub(super) async fn look_for_providers(&self, sources: &Sources) {
        let Some(root) = sources.root else { return };
        for peer in self.providers(root).await {
            sources.add(peer);
        }
    }

    async fn fetch(&self, hash: BlobHash, max: u64, sources: &Sources) -> Result<(), FetchError> {
        match self.local.has(hash).await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => tracing::warn!(%hash, %error, "blob store does not answer"),
        }
        let mut asked = HashSet::from([self.network.local_peer()]);
        let unavailable = |asked: &HashSet<PeerId>| FetchError { hash, asked: asked.len() - 1 };
        let Ok(_slot) = self.slots.acquire().await else {
            return Err(unavailable(&asked));
        };
        let wanted = Wanted { hash, max };
        if self.ask_each(wanted, sources.in_turn(hash), &mut asked, sources).await
            || self.ask_each(wanted, self.network.connected(), &mut asked, sources).await
        {
            return Ok(());
        }
        let providers = self.providers(sources.root.unwrap_or(hash)).await;
        if self.ask_each(wanted, providers, &mut asked, sources).await {
            return Ok(());
        }
        Err(unavailable(&asked))
    }

    /// Asks `peers` one after the other; whether one of them gave the blob.
    async fn ask_each(
        &self,
        wanted: Wanted,
        peers: Vec<PeerId>,
        asked: &mut HashSet<PeerId>,
        sources: &Sources,
    ) -> bool {
        for peer in peers {
            if asked.len() > MAX_ASKED || !asked.insert(peer) {
                continue;
            }
            match self.ask(peer, wanted).await {
                Ok(()) => {
                    sources.add(peer);
                    return true;
                }
                Err(error) => {
                    tracing::debug!(%peer, blob = %wanted.hash.short(), %error, "peer did not give the blob");
                    sources.remove(&peer);
                }
            }
        }
        false
    }

    /// Gets what is missing of the blob from one peer.
    async fn ask(&self, peer: PeerId, Wanted { hash, max }: Wanted) -> io::Result<()> {
        let opening = self.network.open(peer, protocol::NAME);
        let stream = tokio::time::timeout(OPEN_TIMEOUT, opening).await?.map_err(io::Error::other)?;
        let (receiving, sending) = halves(stream);
        let pair = StreamPair::new(0, receiving, sending);
        let fetching = self.local.store().remote().fetch(pair, HashAndFormat::raw(iroh(hash)));
        let mut progress = std::pin::pin!(fetching.stream());
        while let Some(item) = progress.next().await {
            match item {
                GetProgressItem::Progress(received) if received > max => {
                    return Err(io::Error::new(
                        io::ErrorKind::FileTooLarge,
                        "the blob is longer than it should be",
                    ));
                }
                GetProgressItem::Progress(_) | GetProgressItem::Done(_) => {}
                GetProgressItem::Error(error) => return Err(io::Error::other(error.to_string())),
            }
        }
        if self.local.has(hash).await? {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the peer has only a part of it"))
        }
    }

    async fn providers(&self, root: BlobHash) -> Vec<PeerId> {
        let lookup = self.network.providers(*root.as_bytes());
        match tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await {
            Ok(Ok(peers)) => peers,
            Ok(Err(error)) => {
                tracing::debug!(root = %root.short(), %error, "no provider records");
                Vec::new()
            }
            Err(_) => Vec::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<BlobHash, Outcome>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
