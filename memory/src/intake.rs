//! What is let in: cells from peers, who may be careless, broken or hostile.
//!
//! Sizes come first, then names, then who may say so, then the clock. What is refused is counted and forgotten; it
//! does not end the conversation, since an honest peer may be passing on what it was given.

use starfish_dht::PeerId;

use crate::{
    cell::{Author, Cell},
    clock::Ahead,
    codec,
    memory::Shared,
    page,
};

/// Whose cells a peer may bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Authorship {
    /// Its own: it tells what it has just written.
    Own,
    /// Anybody's: it passes on what it holds.
    Anybody,
}

/// The cells of `page`, brought by `from`, that may be merged.
pub(crate) fn admit(shared: &Shared, page: &[u8], from: &PeerId, authorship: Authorship) -> Vec<Cell> {
    let counters = &shared.counters;
    let sender = Author::of(from);
    let mut admitted = Vec::new();
    for record in page::records(page) {
        let Ok(cell) = record.and_then(|(address, record)| codec::decode(address, record)) else {
            counters.refused_malformed.add(1);
            continue;
        };
        if authorship == Authorship::Own && cell.stamp.author != sender {
            counters.refused_author.add(1);
        } else if let Err(Ahead(ahead)) = shared.clock.accept(cell.stamp.time) {
            counters.refuse_future(cell.stamp.author, *from, ahead);
        } else if shared.admits(&cell) {
            admitted.push(cell);
        }
    }
    admitted
}
