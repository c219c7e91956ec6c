//! What comparing notes reads from this node's store. All of it reads the disk, so it runs beside the async tasks.

use std::{collections::HashSet, sync::Arc};

use negentropy::{Id, Negentropy, NegentropyStorageVector};

use crate::{
    cell::{Cell, Content, Stamp},
    codec::{self, Digest},
    fingerprint::Fingerprints,
    memory::Shared,
    page::Page,
    store::ReadError,
    wire::{MAX_MATES, MAX_PAGE, MAX_WHOLE},
};

/// Cells that one negentropy exchange compares; more are compared a few shards at a time. 40 bytes each.
pub(crate) const MAX_COMPARED: u64 = 65_536;

/// The peer's count of a shard and ours may differ by what was just written: so much slack before we refuse.
pub(crate) const COMPARED_SLACK: u64 = 4;

/// Batches that are remembered as sent over one link.
const MAX_SENT: usize = 65_536;

/// Versions of a shard that are taken from the index at once.
const LOOKED_UP_AT_ONCE: usize = 256;

/// Bytes of one negentropy message.
const MAX_MESSAGE: u64 = 256 * 1024;

/// Cells on their way to a peer.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) page: Vec<u8>,
    /// How many of the wanted digests were gone through.
    pub(crate) served: usize,
    /// Where to go on in a shard; `None` at its end.
    pub(crate) next: Option<Digest>,
    /// The batches that were sent so far.
    pub(crate) sent: Sent,
}

/// The batches that were sent over a link. Each is sent as a whole when the first of its cells is.
#[derive(Debug, Default)]
pub(crate) struct Sent(HashSet<Stamp>);

impl Sent {
    fn add(&mut self, stamp: Stamp) {
        // To send one again does no harm.
        if self.0.len() >= MAX_SENT {
            self.0.clear();
        }
        self.0.insert(stamp);
    }

    /// Puts a cell on a page, with all that were written together with it. False if the page is too full.
    fn push(&mut self, shared: &Shared, page: &mut Page, address: &[u8]) -> Result<bool, ReplicaError> {
        let was_sent = |stamp: &Stamp| self.0.contains(stamp);
        let Some((cell, stamp, mates)) = shared.store.together(address, was_sent, MAX_MATES)? else {
            return Ok(true);
        };
        // One that is larger than a batch may be was never promised to arrive as a whole.
        if mates.len() < 2 || !Page::could_fit(&mates, MAX_WHOLE) {
            return Ok(page.push(&cell));
        }
        let is_pushed = page.push_all(&mates, MAX_WHOLE);
        if is_pushed {
            self.add(stamp);
        }
        Ok(is_pushed)
    }
}

/// Why a set cannot be compared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplicaError {
    #[error("this node's cells cannot be read")]
    Read(#[from] ReadError),
    #[error("the sets cannot be compared")]
    Negentropy(#[from] negentropy::Error),
    #[error("reading was interrupted")]
    Interrupted,
}

impl Shared {
    /// Where the cell of this version lies, while there is one.
    fn address(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.store.address(&self.index, &codec::split_digest(digest).0)
    }
}

/// Runs `read` where it holds up no other task.
pub(crate) async fn blocking<T: Send + 'static>(
    shared: &Arc<Shared>,
    read: impl FnOnce(&Shared) -> Result<T, ReplicaError> + Send + 'static,
) -> Result<T, ReplicaError> {
    let shared = shared.clone();
    tokio::task::spawn_blocking(move || read(&shared)).await.map_err(|_| ReplicaError::Interrupted)?
}

/// The versions of the cells in `shards`, ready to be compared. They are ordered by time: what two nodes have not
/// yet told each other is mostly recent, so the differences lie together and few ranges need a closer look.
pub(crate) fn versions(
    shared: &Shared,
    shards: &[u8],
) -> Result<Negentropy<'static, NegentropyStorageVector>, ReplicaError> {
    let mut versions = NegentropyStorageVector::new();
    for &shard in shards {
        for (digest, known) in shared.index.after(shard, None, usize::MAX) {
            versions.insert(known.time, Id::from_byte_array(digest))?;
        }
    }
    versions.seal()?;
    Ok(Negentropy::owned(versions, MAX_MESSAGE)?)
}

/// As many of the cells with these digests as fit a page. One that has been replaced since is left out: its successor
/// is told by gossip, or found in the next round.
/// So is one that the peer is presumed to have deleted, with a stamp of at most `floor`.
pub(crate) fn page_of(
    shared: &Shared,
    digests: &[Digest],
    floor: Option<u64>,
    mut sent: Sent,
) -> Result<Outgoing, ReplicaError> {
    let mut page = Page::new(&[], MAX_PAGE);
    let mut served = 0;
    for digest in digests {
        if let Some(known) = shared.index.version(digest)
            && !is_below(known.time, floor)
            && let Some(address) = shared.address(digest)
            && !sent.push(shared, &mut page, &address)?
        {
            break;
        }
        served += 1;
    }
    Ok(Outgoing { page: page.into_bytes(), served, next: None, sent })
}

/// A page of the cells of `shard`, in the order of digests, after `after`, without those at or below `floor`.
pub(crate) fn page_after(
    shared: &Shared,
    shard: u8,
    after: Option<Digest>,
    floor: Option<u64>,
    mut sent: Sent,
) -> Result<Outgoing, ReplicaError> {
    let mut page = Page::new(&[], MAX_PAGE);
    let mut last = after;
    loop {
        let behind = shared.index.after(shard, last, LOOKED_UP_AT_ONCE);
        if behind.is_empty() {
            return Ok(Outgoing { page: page.into_bytes(), served: 0, next: None, sent });
        }
        for (digest, known) in behind {
            if !is_below(known.time, floor)
                && let Some(address) = shared.address(&digest)
                && !sent.push(shared, &mut page, &address)?
            {
                return Ok(Outgoing { page: page.into_bytes(), served: 0, next: last, sent });
            }
            last = Some(digest);
        }
    }
}

/// Tombstones for those of `digests` that hold values with a stamp of at most `floor`. Each wins over that value alone, and
/// over nothing that was written since.
pub(crate) fn burials(shared: &Shared, digests: &[Digest], floor: u64) -> Result<Vec<Cell>, ReplicaError> {
    let mut burials = Vec::new();
    for digest in digests {
        if let Some(known) = shared.index.version(digest)
            && !known.is_tombstone
            && known.time <= floor
            && let Some(address) = shared.address(digest)
            && let Some(cell) = shared.store.cell(&address)?
        {
            let stamp = Stamp { time: cell.stamp.time.saturating_add(1), ..cell.stamp };
            burials.push(Cell { stamp, content: Content::Tombstone, expires_ms: None, renews: None, ..cell });
        }
    }
    Ok(burials)
}

/// Whether a cell is presumed to be deleted elsewhere; its burial has a stamp that is greater by one.
fn is_below(time: u64, floor: Option<u64>) -> bool {
    floor.is_some_and(|floor| time <= floor.saturating_add(1))
}

/// Whether comparing `shards` is more work than a peer may ask for at once.
pub(crate) fn too_many(fingerprints: &Fingerprints, shards: &[u8]) -> bool {
    let cells = |shard: &u8| u64::from(fingerprints.shards()[usize::from(*shard)].cells);
    shards.len() > 1 && shards.iter().map(cells).sum::<u64>() > COMPARED_SLACK * MAX_COMPARED
}
