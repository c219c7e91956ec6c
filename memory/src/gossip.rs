//! Deltas: what this node has just written, told to everybody at once.
//!
//! Local commits go into an outbox, which is emptied every few milliseconds into as few messages as they fit. Gossip
//! promises nothing; what is too large for it, or too much at once, is left to reconciliation on purpose.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use starfish_dht::{Network, PeerId, Subscription, gossip::MAX_MESSAGE};
use tokio::sync::Notify;

use crate::{
    cell::Cell,
    codec::{self, Encoded},
    intake::{self, Authorship},
    memory::Memory,
    page::Page,
};

/// The topic that deltas are published on.
pub(crate) const TOPIC: &str = "starfish/memory/1";

// WIRE: the first byte of a message is the version of what follows: here, a page.
const VERSION: u8 = 1;

/// How long a write waits for company. Shorter than anyone notices, long enough that a burst shares messages.
const COALESCE: Duration = Duration::from_millis(3);

/// Cells that wait to be told, in bytes. More than that is faster by reconciliation anyway.
const MAX_OUTBOX_BYTES: usize = 4 * 1024 * 1024;

/// Local commits on their way out.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    /// There is something to tell.
    filled: Notify,
    /// Something was not told, and others should compare notes soon.
    behind: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Whether anybody empties it: only while the node is joined to a network.
    open: bool,
    batches: Vec<Vec<Cell>>,
    bytes: usize,
}

/// Keeps an outbox open.
#[derive(Debug)]
pub(crate) struct OpenOutbox(Memory);

impl Drop for OpenOutbox {
    fn drop(&mut self) {
        let outbox = &self.0.shared().outbox;
        *outbox.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Waiting::default();
    }
}

impl Outbox {
    /// Opens the outbox of `memory`, unless it is open.
    pub(crate) fn open(memory: &Memory) -> Option<OpenOutbox> {
        let mut waiting = memory.shared().outbox.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let was_open = std::mem::replace(&mut waiting.open, true);
        (!was_open).then(|| OpenOutbox(memory.clone()))
    }

    /// Takes a batch, or leaves it to reconciliation; returns how many cells were left. Never waits.
    pub(crate) fn offer(&self, cells: &[Cell]) -> u64 {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.open {
            return 0;
        }
        let bytes = cells.iter().map(weight).sum::<usize>();
        if waiting.bytes + bytes > MAX_OUTBOX_BYTES {
            self.behind.notify_one();
            return cells.len() as u64;
        }
        waiting.bytes += bytes;
        waiting.batches.push(cells.to_vec());
        self.filled.notify_one();
        0
    }

    /// Waits until something was left to reconciliation.
    pub(crate) async fn fell_behind(&self) {
        self.behind.notified().await;
    }

    async fn take(&self) -> Vec<Vec<Cell>> {
        self.filled.notified().await;
        tokio::time::sleep(COALESCE).await;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.bytes = 0;
        std::mem::take(&mut waiting.batches)
    }
}

fn weight(cell: &Cell) -> usize {
    let value = match &cell.content {
        crate::Content::Value(value) => value.len(),
        crate::Content::Tombstone | crate::Content::Large(_) | crate::Content::Kept(_) => 0,
    };
    size_of::<Cell>() + cell.key.len() + cell.field.len() + value
}

/// Publishes what is in the outbox, for ever.
pub(crate) async fn publish(open: OpenOutbox, network: Network) {
    let shared = open.0.shared();
    loop {
        let packed = pack(&shared.outbox.take().await);
        if packed.skipped > 0 {
            shared.counters.gossip_skipped.add(packed.skipped);
            shared.outbox.behind.notify_one();
        }
        for message in packed.messages {
            match network.publish(TOPIC, message).await {
                Ok(()) => shared.counters.gossip_sent.add(1),
                Err(error) => {
                    tracing::debug!(%error, "a delta was not published");
                    shared.outbox.behind.notify_one();
                }
            }
        }
    }
}

/// Merges what others publish, until the network stops.
pub(crate) async fn receive(memory: Memory, mut deltas: Subscription) {
    while let Some(delta) = deltas.next().await {
        memory.shared().counters.gossip_received.add(1);
        if let Err(error) = merge(&memory, &delta.author, &delta.data).await {
            tracing::error!(%error, "a delta could not be stored");
        }
    }
}

async fn merge(memory: &Memory, author: &PeerId, message: &[u8]) -> Result<(), crate::WriteError> {
    let shared = memory.shared();
    let Some((&VERSION, page)) = message.split_first() else {
        shared.counters.refused_malformed.add(1);
        return Ok(());
    };
    let cells = intake::admit(shared, page, author, Authorship::Own);
    if cells.is_empty() { Ok(()) } else { memory.merge(cells).await }
}

/// Batches as messages.
#[derive(Debug, Default)]
struct Packed {
    messages: Vec<Vec<u8>>,
    /// Cells that no message can carry.
    skipped: u64,
}

/// Packs batches into as few messages as keep their order; a batch is divided only if it does not fit one message.
fn pack(batches: &[Vec<Cell>]) -> Packed {
    let new_page = || Page::new(&[VERSION], MAX_MESSAGE);
    let mut packed = Packed::default();
    let mut page = new_page();
    let mut flush = |page: &mut Page| {
        let full = std::mem::replace(page, new_page()).into_bytes();
        if full.len() > 1 {
            packed.messages.push(full);
        }
    };
    for batch in batches {
        let encoded: Vec<Encoded> = batch.iter().filter_map(|cell| codec::encode(cell).ok()).collect();
        if !page.fits(&encoded) {
            flush(&mut page);
        }
        for cell in &encoded {
            if !page.push(cell) {
                flush(&mut page);
                if !page.push(cell) {
                    packed.skipped += 1;
                }
            }
        }
    }
    flush(&mut page);
    packed
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{Author, Content, SpaceName, Stamp, page};

    fn batch(cells: usize, value: usize) -> Vec<Cell> {
        let cell = |i: usize| Cell {
            space: SpaceName::new("s").unwrap(),
            key: i.to_string().into(),
            field: Bytes::new(),
            stamp: Stamp { time: 1, author: Author::from_bytes([1; 16]) },
            content: Content::Value(vec![7; value].into()),
            expires_ms: None,
        };
        (0..cells).map(cell).collect()
    }

    fn cells_in(message: &[u8]) -> usize {
        assert!(message.len() <= MAX_MESSAGE);
        assert_eq!(message[0], VERSION);
        page::records(&message[1..]).map(Result::unwrap).count()
    }

    fn shape(batches: &[Vec<Cell>]) -> (Vec<usize>, u64) {
        let packed = pack(batches);
        (packed.messages.iter().map(|message| cells_in(message)).collect(), packed.skipped)
    }

    #[test]
    fn small_batches_share_a_message() {
        assert_eq!(shape(&[batch(3, 10), batch(4, 10)]), (vec![7], 0));
    }

    #[test]
    fn a_batch_is_not_divided_while_it_fits_a_message_of_its_own() {
        assert_eq!(shape(&[batch(10, 1000), batch(10, 1000)]), (vec![10, 10], 0));
    }

    #[test]
    fn a_large_batch_is_divided_and_a_too_large_cell_left_out() {
        let (messages, skipped) = shape(&[batch(40, 1000), batch(1, MAX_MESSAGE)]);
        assert_eq!(messages.iter().sum::<usize>(), 40);
        assert_eq!(skipped, 1);
    }

    #[test]
    fn nothing_to_tell_is_no_message() {
        assert_eq!(shape(&[]), (vec![], 0));
    }
}
