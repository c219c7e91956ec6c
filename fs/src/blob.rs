//! Blobs: immutable bytes named by their BLAKE3 hash, on this node's disk and on others'.
//!
//! [`local`] keeps them on disk, [`protocol`] gives them to peers, [`fetch`] gets them from peers. The store and
//! the protocol are those of `iroh-blobs` (verified streaming, resumable), over this swarm's own network; its
//! types stay inside this folder. Nothing is ever taken that was not asked for: peers can get, never push.
//!
//! There is no collection of garbage here: a blob stays until the layer above decides otherwise.

mod fetch;
mod local;
mod protocol;
mod stream;
#[cfg(test)]
mod tests;

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use starfish_dht::Network;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use fetch::Fetcher;
pub use fetch::{FetchError, Sources};
use local::LocalBlobs;

use crate::hash::BlobHash;

/// What [`BlobStore::read`] reads at a time: enough to keep a disk busy, little to hold.
const READ_STEP: u64 = 1 << 20;

/// This node's blobs, and the way to those of others. Cheap to clone.
#[derive(Clone, Debug)]
pub struct BlobStore {
    local: LocalBlobs,
    fetcher: Arc<Fetcher>,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

/// What a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlobUsage {
    /// How many blobs, whole or in part.
    pub blobs: u64,
    /// The bytes that they take on disk, with the store's own index.
    pub bytes: u64,
}

impl BlobStore {
    /// Opens (or makes) the store in `dir` and begins to serve its blobs to members of the swarm.
    pub async fn open(dir: &Path, network: Network) -> io::Result<Self> {
        let local = LocalBlobs::open(dir).await?;
        let incoming = network.accept(protocol::NAME).map_err(io::Error::other)?;
        let (tasks, stopping) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(protocol::serve(incoming, local.clone(), stopping.clone()));
        let fetcher = Arc::new(Fetcher::new(local.clone(), network));
        Ok(Self { local, fetcher, tasks, stopping })
    }

    /// Ends serving and writes everything to disk. Operations fail from then on.
    pub async fn stop(&self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.local.stop().await;
    }

    /// Adds bytes. They are durable after the next [`BlobStore::flush`].
    pub async fn add_bytes(&self, bytes: Bytes) -> io::Result<BlobHash> {
        self.local.add_bytes(bytes).await
    }

    /// Adds one blob of any length. It is durable after the next [`BlobStore::flush`].
    pub async fn add_stream<S>(&self, bytes: S) -> io::Result<BlobHash>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        self.local.add_stream(bytes).await
    }

    /// Returns when everything added so far outlives a crash. Calls at the same time share one write to disk.
    pub async fn flush(&self) -> io::Result<()> {
        self.local.flush().await
    }

    /// Whether the whole blob is on this node.
    pub async fn has(&self, hash: BlobHash) -> io::Result<bool> {
        self.local.has(hash).await
    }

    /// Gets the blob onto this node unless it is here already. Calls for one blob at the same time share one
    /// transfer; what an interrupted transfer brought is kept and not asked for again. A blob longer than `max`
    /// is given up.
    pub async fn ensure(&self, hash: BlobHash, max: u64, sources: &Sources) -> Result<(), FetchError> {
        self.fetcher.ensure(hash, max, sources).await
    }

    /// Begins to look for peers that provide the file of `sources`, so that its segments come from several.
    pub(crate) fn look_for_providers(&self, sources: &Arc<Sources>) {
        let (fetcher, sources) = (Arc::clone(&self.fetcher), Arc::clone(sources));
        let look = async move { fetcher.look_for_providers(&sources).await };
        let stopping = self.stopping.clone();
        self.tasks.spawn(async move { stopping.run_until_cancelled(look).await });
    }

    /// The whole of a blob that is on this node, checked against its hash; an error if it is longer than `max`.
    pub async fn get_bytes(&self, hash: BlobHash, max: u64) -> io::Result<Bytes> {
        match self.local.size(hash).await? {
            None => Err(io::Error::new(io::ErrorKind::NotFound, format!("blob {hash} is not on this node"))),
            Some(size) if size > max => Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("blob {hash} has {size} bytes, more than {max}"),
            )),
            Some(size) => self.local.read_range(hash, 0..size).await,
        }
    }

    /// Bytes of a blob that is on this node, checked against its hash. The range must be small enough to hold.
    pub(crate) async fn read_range(&self, hash: BlobHash, range: Range<u64>) -> io::Result<Bytes> {
        self.local.read_range(hash, range).await
    }

    /// Streams a blob that is on this node, checked against its hash.
    pub async fn read(
        &self,
        hash: BlobHash,
    ) -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>> {
        let size = self.local.size(hash).await?.ok_or(io::ErrorKind::NotFound)?;
        let local = self.local.clone();
        let steps = futures::stream::iter((0..size).step_by(READ_STEP as usize));
        Ok(steps
            .map(move |start| {
                let local = local.clone();
                async move { local.read_range(hash, start..(start + READ_STEP).min(size)).await }
            })
            .buffered(2)
            .into_stream())
    }

    /// How many blobs there are and what they take on disk; walks the folder, so not for every request.
    pub async fn usage(&self) -> io::Result<BlobUsage> {
        self.local.usage().await
    }

    /// The bytes that blobs take on this node's disk.
    pub async fn used_bytes(&self) -> io::Result<u64> {
        Ok(self.usage().await?.bytes)
    }
}
