//! Leaving: what this node holds goes to the others first.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use starfish_dht::PeerId;

use crate::code::Code;
use crate::hash::BlobHash;
use crate::holders::{Handed, Holders};
use crate::index_set::IndexSet;
use crate::members::View;
use crate::mend::owned;
use crate::peers::wire::Part;
use crate::place::{order, survives};
use crate::store::{Kind, Meta, Store};

/// Segments that are surveyed and handed over at once.
const PAGE: usize = 256;

/// How far it is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Bytes of shards at the beginning.
    pub(crate) total: AtomicU64,
    /// Bytes that others hold by now, or do not need.
    pub(crate) done: AtomicU64,
}

/// Not everything could be handed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandoverError {
    /// Nobody else is there.
    #[error("no other member is there to take what this node holds")]
    Alone,
    /// Others did not take everything.
    #[error("{segments} segments could not be handed over: {why}")]
    Refused {
        /// How many.
        segments: u64,
        /// Why the last of them was not taken.
        why: String,
    },
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(String),
}

/// Hands over every shard that the others need to keep the promise among themselves. Safe to stop at any time: what is
/// gone from here is on another disk.
pub(crate) async fn hand_over(
    store: &Store,
    holders: &Holders,
    others: &View,
    progress: &Progress,
) -> Result<(), HandoverError> {
    let failed = |error: std::io::Error| HandoverError::Store(error.to_string());
    let (mut after, mut refused, mut why) = (None, 0, String::new());
    progress.total.store(store.holdings().kept_bytes, Ordering::Relaxed);
    progress.done.store(0, Ordering::Relaxed);
    loop {
        let page = store.page(Kind::Shards, after, PAGE).await.map_err(failed)?;
        let Some((last, _)) = page.last() else { break };
        if others.alive.is_empty() {
            return Err(HandoverError::Alone);
        }
        after = Some(*last);
        for refusal in hand_over_page(holders, others, &page).await {
            refused += 1;
            why = refusal;
        }
        let bytes: u64 = page.iter().map(|(_, meta)| meta.stored).sum();
        progress.done.fetch_add(bytes, Ordering::Relaxed);
    }
    if refused == 0 { Ok(()) } else { Err(HandoverError::Refused { segments: refused, why }) }
}

/// Why segments of the page were not taken.
async fn hand_over_page(holders: &Holders, others: &View, page: &[(BlobHash, Meta)]) -> Vec<String> {
    let segments: Vec<BlobHash> = page.iter().map(|(segment, _)| *segment).collect();
    let answers = holders.survey(others, &segments).await;
    // Who does not answer counts as one who holds nothing.
    let held = |position: usize| {
        let held = answers.iter().map(|(_, held)| held.as_ref().ok().and_then(|held| held.get(position)));
        held.map(|held| held.map(|held| held.indices).unwrap_or_default()).collect::<Vec<_>>()
    };
    let mut by_peer: HashMap<PeerId, Vec<Part>> = HashMap::new();
    for (position, (segment, meta)) in page.iter().enumerate() {
        for (peer, indices) in shares(others, segment, meta, &held(position)) {
            by_peer.entry(peer).or_default().push(Part { segment: *segment, len: meta.len, indices });
        }
    }
    let mut refused = HashMap::new();
    for (peer, parts) in by_peer {
        for (part, why) in give(holders, peer, &parts).await {
            if !give_to_any(holders, others, peer, &part).await {
                refused.insert(part.segment, why);
            }
        }
    }
    refused.into_values().collect()
}

/// Who gets what of a segment: those that hold the least, until the promise holds without this node.
fn shares(others: &View, segment: &BlobHash, meta: &Meta, held: &[IndexSet]) -> Vec<(PeerId, IndexSet)> {
    let k = Code::of(meta.len).k();
    let all = held.iter().fold(IndexSet::default(), |all, held| all.union(held));
    let ranks = order(segment, &others.alive);
    let rank = |peer: &PeerId| ranks.iter().position(|member| member.peer == *peer);
    // What two hold counts once: one of them may drop it.
    let mut loads: Vec<u16> = owned(k, held).iter().map(|owned| owned.len() as u16).collect();
    let lost = others.alive.len() / 2;
    let peers: Vec<PeerId> = others.peers().collect();
    let mut shares = vec![IndexSet::default(); peers.len()];
    // With k = 1 all shards are alike: one is given to whoever has none.
    let mine = if k == 1 { meta.indices.first(1) } else { meta.indices.minus(&all) };
    for index in mine.iter() {
        if survives(k, &loads, lost) {
            break;
        }
        let Some(position) =
            (0..peers.len()).min_by_key(|position| (loads[*position], rank(&peers[*position])))
        else {
            break;
        };
        shares[position].insert(index);
        loads[position] += 1;
    }
    peers.into_iter().zip(shares).filter(|(_, share)| !share.is_empty()).collect()
}

/// Gives shards to a member; those that it did not take, and why.
async fn give(holders: &Holders, to: PeerId, parts: &[Part]) -> Vec<(Part, String)> {
    let handed = holders.hand_over(to, parts).await;
    let refused = parts.iter().zip(handed).filter_map(|(part, handed)| match handed {
        Handed::Refused(why) => Some((part.clone(), why)),
        Handed::Over | Handed::Absent => None,
    });
    refused.collect()
}

/// Whether somebody takes what the one that should have it did not.
async fn give_to_any(holders: &Holders, others: &View, first: PeerId, part: &Part) -> bool {
    for peer in others.peers().filter(|peer| *peer != first) {
        if give(holders, peer, std::slice::from_ref(part)).await.is_empty() {
            return true;
        }
    }
    false
}
