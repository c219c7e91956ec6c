//! Telling the network which files this node has, so that others find a second holder.
//!
//! Best effort and in the background: the content cell names its writer, and connected peers are asked anyway.

use std::time::Duration;

use starfish_dht::Network;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::chunk::MAX_SEGMENT;
use crate::hash::BlobHash;

/// Announcements that wait; each is a lookup of about a second in a large swarm. Further ones are dropped.
const MAX_WAITING: usize = 1024;
/// How long one announcement may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Whether a file of this size is announced: one of several segments. A folder of small files would fill the network
/// with records that save nothing.
pub(super) fn is_worth_it(size: u64) -> bool {
    size > MAX_SEGMENT as u64
}

/// Where announcements are left.
#[derive(Clone, Debug)]
pub(super) struct Announcer {
    queue: mpsc::Sender<BlobHash>,
}

impl Announcer {
    /// The queue's two ends: leave announcements with the one, run the other.
    pub(super) fn new(network: Network, stopping: CancellationToken) -> (Self, impl Future<Output = ()>) {
        let (queue, mut waiting) = mpsc::channel::<BlobHash>(MAX_WAITING);
        let work = async move {
            while let Some(root) = waiting.recv().await {
                match tokio::time::timeout(TIMEOUT, network.provide(*root.as_bytes())).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(root = %root.short(), %error, "file not announced"),
                    Err(_) => tracing::debug!(root = %root.short(), "announcing a file took too long"),
                }
            }
        };
        let run = async move {
            stopping.run_until_cancelled(work).await;
        };
        (Self { queue }, run)
    }

    /// Announces soon that the whole file named by `root` is here.
    pub(super) fn announce(&self, root: BlobHash) {
        if self.queue.try_send(root).is_err() {
            tracing::debug!(root = %root.short(), "file not announced: too many wait");
        }
    }
}
