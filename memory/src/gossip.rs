//! Deltas: what this node has just written, told to everybody at once.
//!
//! Local commits go into an outbox, which is emptied every few milliseconds into as few messages as they fit. Gossip
//! promises nothing. Of a batch that is too large for a message it is only told that it is there: whoever hears that
//! fetches it, as a whole. What is too much at once is left to reconciliation on purpose.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use starfish_dht::{Network, PeerId, Subscription, gossip::MAX_MESSAGE};
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
};

use crate::{
    cell::Cell,
    codec::{self, Digest, Encoded},
    intake::{self, Authorship},
    memory::Memory,
    page::Page,
    reconcile,
    wire::PROTOCOL,
};

/// The topic that deltas are published on.
pub(crate) const TOPIC: &str = "starfish/memory/1";

// WIRE: the first byte of a message says what follows: a page of cells, ...
const VERSION: u8 = 1;
// ... or the digests of some cells of a batch that is too large for a message, which is to be fetched as a whole.
const NOTE: u8 = 2;

/// Digests in a note: should the first cell be written over meanwhile, the others still lead to the batch.
const MAX_NOTED: usize = 8;
/// Batches that are fetched at once because of notes, and wait for it. Of more, comparing notes finds them.
const MAX_FETCHED: usize = 4;
const MAX_NOTES: usize = 64;
/// Messages whose cells are with the writer at once, so that those of a flood share commits.
const MAX_MERGED: usize = 16;
/// A batch that weighs more is surely too large for a message.
const MAX_WEIGHT: usize = 4 * MAX_MESSAGE;

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
    news: Vec<News>,
    bytes: usize,
}

/// What is to be told of one commit.
#[derive(Debug)]
enum News {
    /// Its cells.
    Cells(Vec<Cell>),
    /// That it is there.
    Note(Vec<Digest>),
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
        let (news, bytes) = match bytes > MAX_WEIGHT {
            true => (News::Note(noted(cells)), MAX_NOTED * size_of::<Digest>()),
            false => (News::Cells(cells.to_vec()), bytes),
        };
        if waiting.bytes + bytes > MAX_OUTBOX_BYTES {
            self.behind.notify_one();
            return cells.len() as u64;
        }
        waiting.bytes += bytes;
        waiting.news.push(news);
        self.filled.notify_one();
        0
    }

    /// Has others compared with at once.
    pub(crate) fn hurry(&self) {
        self.behind.notify_one();
    }

    /// Waits until something was left to reconciliation.
    pub(crate) async fn fell_behind(&self) {
        self.behind.notified().await;
    }

    async fn take(&self) -> Vec<News> {
        self.filled.notified().await;
        tokio::time::sleep(COALESCE).await;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.bytes = 0;
        std::mem::take(&mut waiting.news)
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
        let news = shared.outbox.take().await;
        // Messages are signed, which is not cheap. Who comes later compares notes.
        if network.connected().is_empty() {
            continue;
        }
        for message in pack(&news) {
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
pub(crate) async fn receive(memory: Memory, network: Network, mut deltas: Subscription) {
    let (mut fetching, mut merging) = (JoinSet::new(), FuturesUnordered::new());
    let places = Arc::new(Semaphore::new(MAX_FETCHED));
    loop {
        let delta = tokio::select! {
            biased;
            Some(merged) = merging.next() => {
                if let Err(error) = merged {
                    tracing::error!(%error, "a delta could not be stored");
                }
                continue;
            }
            delta = deltas.next(), if merging.len() < MAX_MERGED => delta,
        };
        let Some(delta) = delta else { break };
        memory.shared().counters.gossip_received.add(1);
        while fetching.try_join_next().is_some() {}
        if let Some((&NOTE, digests)) = delta.data.split_first() {
            let digests = read_note(digests);
            if digests.is_empty() || fetching.len() >= MAX_NOTES {
                memory.shared().outbox.behind.notify_one();
            } else {
                let (memory, network, places) = (memory.clone(), network.clone(), Arc::clone(&places));
                fetching.spawn(async move {
                    let _place = places.acquire_owned().await;
                    fetch(&memory, &network, delta.author, digests).await;
                });
            }
            continue;
        }
        let cells = read(&memory, &delta.author, &delta.data);
        if !cells.is_empty() {
            merging.push(memory.merge(cells));
        }
    }
}

/// The cells of a message that are let in.
fn read(memory: &Memory, author: &PeerId, message: &[u8]) -> Vec<Cell> {
    let shared = memory.shared();
    let Some((&VERSION, page)) = message.split_first() else {
        shared.counters.refused_malformed.add(1);
        return Vec::new();
    };
    intake::admit(shared, page, author, Authorship::Own)
}

/// Fetches a batch from its author; if that cannot be, others are asked what they have.
async fn fetch(memory: &Memory, network: &Network, author: PeerId, digests: Vec<Digest>) {
    let shared = memory.shared();
    let first = digests[0];
    if shared.index.version(&first).is_some() {
        return;
    }
    let fetched = async {
        let stream = network.open(author, PROTOCOL).await.ok()?;
        reconcile::fetch(memory, author, stream, digests).await.ok()
    };
    if fetched.await != Some(true) {
        shared.outbox.behind.notify_one();
    }
}

/// The digests of the first cells of a batch.
fn noted(cells: &[Cell]) -> Vec<Digest> {
    let encoded = cells.iter().take(MAX_NOTED).filter_map(|cell| codec::encode(cell).ok());
    encoded.map(|cell| cell.digest()).collect()
}

fn read_note(digests: &[u8]) -> Vec<Digest> {
    let (digests, rest) = digests.as_chunks();
    if rest.is_empty() && digests.len() <= MAX_NOTED { digests.to_vec() } else { Vec::new() }
}

/// Packs news into as few messages as keep their order. A batch is never divided: of one that does not fit a message it is
/// only told that it is there.
fn pack(news: &[News]) -> Vec<Vec<u8>> {
    let new_page = || Page::new(&[VERSION], MAX_MESSAGE);
    let (mut messages, mut page) = (Vec::new(), new_page());
    for news in news {
        let note = match news {
            News::Cells(cells) => {
                let encoded: Vec<Encoded> =
                    cells.iter().filter_map(|cell| codec::encode(cell).ok()).collect();
                if !page.fits(&encoded) {
                    flush(&mut messages, std::mem::replace(&mut page, new_page()));
                }
                if page.fits(&encoded) {
                    page.push_all(&encoded, MAX_MESSAGE);
                    continue;
                }
                noted(cells)
            }
            News::Note(digests) => digests.clone(),
        };
        flush(&mut messages, std::mem::replace(&mut page, new_page()));
        messages.push([&[NOTE], note.concat().as_slice()].concat());
    }
    flush(&mut messages, page);
    messages
}

fn flush(messages: &mut Vec<Vec<u8>>, page: Page) {
    let full = page.into_bytes();
    if full.len() > 1 {
        messages.push(full);
    }
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
            renews: None,
        };
        (0..cells).map(cell).collect()
    }

    fn cells_in(message: &[u8]) -> usize {
        assert!(message.len() <= MAX_MESSAGE);
        assert_eq!(message[0], VERSION);
        page::records(&message[1..]).map(Result::unwrap).count()
    }

    fn shape(batches: Vec<Vec<Cell>>) -> Vec<usize> {
        let news: Vec<News> = batches.into_iter().map(News::Cells).collect();
        pack(&news).iter().map(|message| cells_in(message)).collect()
    }

    #[test]
    fn small_batches_share_a_message() {
        assert_eq!(shape(vec![batch(3, 10), batch(4, 10)]), [7]);
    }

    #[test]
    fn a_batch_that_fits_a_message_is_not_divided() {
        assert_eq!(shape(vec![batch(10, 1000), batch(10, 1000)]), [10, 10]);
    }

    #[test]
    fn of_a_batch_that_fits_no_message_a_note_is_sent_in_its_place() {
        let large = batch(40, 1000);
        let news = [batch(1, 10), large.clone(), batch(1, MAX_MESSAGE), batch(1, 10)].map(News::Cells);
        let messages = pack(&news);
        assert_eq!([&messages[0], &messages[3]].map(|message| cells_in(message)), [1, 1]);
        assert_eq!((messages[1][0], read_note(&messages[1][1..])), (NOTE, noted(&large)));
        assert_eq!(noted(&large).len(), MAX_NOTED);
        assert_eq!((messages[2][0], read_note(&messages[2][1..]).len()), (NOTE, 1));
    }

    #[test]
    fn a_note_that_is_none_names_nothing() {
        for bytes in [vec![], vec![0; 31], vec![0; 33], vec![0; 32 * (MAX_NOTED + 1)]] {
            assert_eq!(read_note(&bytes), Vec::<Digest>::new());
        }
    }

    #[test]
    fn nothing_to_tell_is_no_message() {
        assert_eq!(shape(vec![]), Vec::<usize>::new());
    }
}
