//! Numbers about a node's memory, for `status` and for metrics.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use starfish_dht::PeerId;

use crate::cell::Author;

/// Authors with wrong clocks that are remembered by name; of more, only the number of their cells is kept.
const MAX_OFFENDERS: usize = 64;

/// A node whose clock runs ahead, so that its cells were refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offender {
    /// Who wrote the cells.
    pub author: Author,
    /// The peer that brought the last of them; by gossip that is the author itself.
    pub brought_by: PeerId,
    /// How many cells were refused.
    pub cells: u64,
    /// How far ahead of this node's clock the last one was.
    pub ahead: Duration,
}

/// What a node's memory holds and has done since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// Cells on disk, tombstones among them.
    pub cells: u64,
    /// Cells that are tombstones.
    pub tombstones: u64,
    /// Cells that were damaged on the disk.
    pub damaged: u64,
    /// Those of them that have not come back from other members yet.
    pub lost: u64,
    /// Dead cells that were taken out because everybody has heard of them.
    pub reaped: u64,
    /// Cells refused because their stamp was too far in the future.
    pub refused_future: u64,
    /// Cells and messages refused because they did not decode or were too large.
    pub refused_malformed: u64,
    /// Gossiped cells refused because their stamp names another author than the peer that signed the message.
    pub refused_author: u64,
    /// Who wrote the cells that were too far in the future.
    pub offenders: Vec<Offender>,
    /// Comparisons with a peer that this node began and finished.
    pub sync_rounds: u64,
    /// Those of them that found nothing to exchange.
    pub sync_rounds_agreed: u64,
    /// Comparisons that ended early: the peer went away, was busy or misbehaved.
    pub sync_rounds_failed: u64,
    /// Bytes of comparisons sent, those that peers began included.
    pub sync_bytes_sent: u64,
    /// Bytes of comparisons received, those that peers began included.
    pub sync_bytes_received: u64,
    /// Gossip messages published.
    pub gossip_sent: u64,
    /// Gossip messages received.
    pub gossip_received: u64,
    /// Local cells that were not gossiped (too large for a message, or too many at once) and left to comparisons.
    pub gossip_skipped: u64,
}

/// The counters behind [`MemoryStats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) damaged: Counter,
    pub(crate) reaped: Counter,
    pub(crate) refused_future: Counter,
    pub(crate) refused_malformed: Counter,
    pub(crate) refused_author: Counter,
    pub(crate) sync_rounds: Counter,
    pub(crate) sync_rounds_agreed: Counter,
    pub(crate) sync_rounds_failed: Counter,
    pub(crate) sync_bytes_sent: Counter,
    pub(crate) sync_bytes_received: Counter,
    pub(crate) gossip_sent: Counter,
    pub(crate) gossip_received: Counter,
    pub(crate) gossip_skipped: Counter,
    offenders: Mutex<BTreeMap<Author, Offender>>,
}

impl Counters {
    pub(crate) fn refuse_future(&self, author: Author, brought_by: PeerId, ahead: Duration) {
        self.refused_future.add(1);
        let mut offenders = self.offenders.lock().unwrap_or_else(PoisonError::into_inner);
        if offenders.len() >= MAX_OFFENDERS && !offenders.contains_key(&author) {
            return;
        }
        let offender = offenders.entry(author).or_insert_with(|| {
            tracing::warn!(%author, peer = %brought_by, ?ahead, "refused a cell from the future: is a clock wrong?");
            Offender { author, brought_by, cells: 0, ahead }
        });
        offender.cells += 1;
        (offender.brought_by, offender.ahead) = (brought_by, ahead);
    }

    pub(crate) fn snapshot(&self, cells: u64, tombstones: u64, lost: u64) -> MemoryStats {
        let offenders = self.offenders.lock().unwrap_or_else(PoisonError::into_inner);
        MemoryStats {
            cells,
            tombstones,
            damaged: self.damaged.get(),
            lost,
            reaped: self.reaped.get(),
            refused_future: self.refused_future.get(),
            refused_malformed: self.refused_malformed.get(),
            refused_author: self.refused_author.get(),
            offenders: offenders.values().cloned().collect(),
            sync_rounds: self.sync_rounds.get(),
            sync_rounds_agreed: self.sync_rounds_agreed.get(),
            sync_rounds_failed: self.sync_rounds_failed.get(),
            sync_bytes_sent: self.sync_bytes_sent.get(),
            sync_bytes_received: self.sync_bytes_received.get(),
            gossip_sent: self.gossip_sent.get(),
            gossip_received: self.gossip_received.get(),
            gossip_skipped: self.gossip_skipped.get(),
        }
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
