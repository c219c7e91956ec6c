//! Announcements to everybody: small, signed by their author, with no promise of delivery.

use bytes::Bytes;
use libp2p::PeerId;
use tokio::sync::mpsc;

/// The longest announcement, in bytes. What is bigger travels on a stream.
pub const MAX_MESSAGE: usize = 16 * 1024;
/// Announcements that wait for one slow subscriber; beyond it the newest are dropped, as gossip may.
pub(crate) const SUBSCRIPTION_QUEUE: usize = 1_024;

/// One announcement. Its author's signature has been checked, and the author is not revoked.
#[derive(Clone, Debug)]
pub struct Gossip {
    /// Who wrote it, which is not always who passed it on.
    pub author: PeerId,
    /// The message.
    pub data: Bytes,
}

/// The announcements on one topic from now on. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription {
    pub(crate) receiver: mpsc::Receiver<Gossip>,
}

impl Subscription {
    /// The next announcement; `None` when the network has stopped. Safe to cancel.
    pub async fn next(&mut self) -> Option<Gossip> {
        self.receiver.recv().await
    }
}

/// Why an announcement did not leave this node.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// It is longer than [`MAX_MESSAGE`].
    #[error("announcement of {0} bytes is longer than {MAX_MESSAGE}")]
    TooLong(usize),
    /// Every queue to every peer is full; try again.
    #[error("the announcement's queues are full")]
    Busy,
    /// The network has stopped.
    #[error("the network has stopped")]
    Stopped,
}
