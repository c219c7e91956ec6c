//! Some segments on their way to their holders.

use std::collections::{BTreeMap, HashMap};

use starfish_dht::PeerId;

use crate::code::Code;
use crate::hash::BlobHash;
use crate::index_set::IndexSet;
use crate::manifest::Segment;
use crate::members::View;
use crate::peers::Peers;
use crate::peers::wire::Kept;
use crate::place::{Candidate, loads_among, order, survives};
use crate::store::{Bundle, Store};

/// What a round needs.
pub(super) struct Round<'a> {
    pub(super) store: &'a Store,
    pub(super) peers: &'a Peers,
    pub(super) view: &'a View,
    /// Members that have no room.
    pub(super) full: Vec<PeerId>,
}

/// What became of a segment.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) segment: Segment,
    /// Why it is not at full durability; `None` if it is.
    pub(super) why: Option<String>,
    /// Members that had no room for their share.
    pub(super) full: Vec<PeerId>,
}

/// A segment's shards, by holder.
struct Cut {
    segment: Segment,
    shares: Vec<(PeerId, Bundle)>,
}

/// Which shards each holder gets. The first in the order get the data.
fn shares(segment: &Segment, view: &View, full: &[PeerId]) -> Option<Vec<(PeerId, Vec<u16>)>> {
    let with_room: Vec<Candidate> =
        view.alive.iter().filter(|member| !full.contains(&member.peer)).cloned().collect();
    let code = Code::of(segment.len.into());
    let loads = loads_among(code.k(), with_room.len(), view.alive.len())?;
    let mut next = 0;
    let shares = order(&segment.hash, &with_room).into_iter().zip(loads).map(|(member, load)| {
        let start = next;
        next += load;
        (member.peer, (start..next).collect())
    });
    Some(shares.filter(|(_, indices): &(_, Vec<u16>)| !indices.is_empty()).collect())
}

impl Round<'_> {
    /// Sends the segments; those at full durability are released here.
    pub(super) async fn send(&self, segments: &[Segment]) -> Vec<Sent> {
        let cuts = futures::future::join_all(segments.iter().map(|segment| self.cut(*segment))).await;
        let mut by_peer: HashMap<PeerId, Vec<(BlobHash, Bundle)>> = HashMap::new();
        for cut in cuts.iter().flatten() {
            for (peer, bundle) in &cut.shares {
                by_peer.entry(*peer).or_default().push((cut.segment.hash, bundle.clone()));
            }
        }
        let pushes =
            by_peer.iter().map(|(peer, bundles)| async move { (*peer, self.give(*peer, bundles).await) });
        let answers: HashMap<PeerId, Vec<(BlobHash, Kept)>> =
            futures::future::join_all(pushes).await.into_iter().collect();
        let mut outcome = Vec::with_capacity(segments.len());
        for (segment, cut) in segments.iter().zip(cuts) {
            let mut sent = match cut {
                Ok(cut) => self.judge(&cut, &answers),
                Err(why) => Sent { segment: *segment, why, full: Vec::new() },
            };
            if sent.why.is_none()
                && let Err(error) = self.store.release(segment.hash).await
            {
                sent.why = Some(format!("the store failed: {error}"));
            }
            outcome.push(sent);
        }
        outcome
    }

    /// Reads a segment and makes its shards. An error without words: there is nothing to do for it.
    async fn cut(&self, segment: Segment) -> Result<Cut, Option<String>> {
        if !self.store.is_kept(&segment.hash).unwrap_or(true) {
            return Err(None);
        }
        let shares = shares(&segment, self.view, &self.full)
            .ok_or_else(|| Some("too few members have room".to_owned()))?;
        let bytes = match self.store.get(segment.hash).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Err(Some(format!("segment {} is damaged here", segment.hash.short()))),
            Err(error) => return Err(Some(format!("the store failed: {error}"))),
        };
        let coding = tokio::task::spawn_blocking(move || {
            let code = Code::of(segment.len.into());
            let all: Vec<u16> = shares.iter().flat_map(|(_, indices)| indices.clone()).collect();
            let mut shards = code.shards(&bytes, &all).ok()?.into_iter();
            let mut cut = Cut { segment, shares: Vec::with_capacity(shares.len()) };
            for (peer, indices) in shares {
                let own: BTreeMap<u16, _> = indices.into_iter().zip(shards.by_ref()).collect();
                cut.shares.push((peer, Bundle::new(segment.len.into(), own)?));
            }
            Some(cut)
        });
        match coding.await {
            Ok(Some(cut)) => Ok(cut),
            _ => Err(Some(format!("segment {} cannot be coded", segment.hash.short()))),
        }
    }

    async fn give(&self, peer: PeerId, bundles: &[(BlobHash, Bundle)]) -> Vec<(BlobHash, Kept)> {
        let answers = if peer == self.peers.local() {
            self.keep(bundles).await
        } else {
            self.peers.push(peer, bundles).await.unwrap_or_else(|error| {
                tracing::debug!(%peer, %error, "shards were not taken");
                vec![Kept::Failed; bundles.len()]
            })
        };
        bundles.iter().map(|(segment, _)| *segment).zip(answers).collect()
    }

    async fn keep(&self, bundles: &[(BlobHash, Bundle)]) -> Vec<Kept> {
        let mut answers = Vec::with_capacity(bundles.len());
        for (segment, bundle) in bundles {
            let kept = self.store.add_shards(*segment, bundle.clone()).await;
            answers.push(if kept.is_ok() { Kept::Yes } else { Kept::NoRoom });
        }
        if self.store.flush().await.is_err() {
            answers.fill(Kept::Failed);
        }
        answers
    }

    fn judge(&self, cut: &Cut, answers: &HashMap<PeerId, Vec<(BlobHash, Kept)>>) -> Sent {
        let answer = |peer: &PeerId| {
            let of_peer = answers.get(peer)?.iter();
            of_peer.clone().find(|(segment, _)| *segment == cut.segment.hash).map(|(_, kept)| *kept)
        };
        let load = |peer: &PeerId| {
            let share = cut.shares.iter().find(|(holder, _)| holder == peer);
            let kept = share.filter(|(peer, _)| answer(peer) == Some(Kept::Yes));
            kept.map_or(IndexSet::default(), |(_, bundle)| bundle.indices()).len() as u16
        };
        let loads: Vec<u16> = self.view.peers().map(|peer| load(&peer)).collect();
        let k = Code::of(cut.segment.len.into()).k();
        let is_durable = survives(k, &loads, self.view.alive.len() / 2);
        let of = |kind: Kept| {
            let peers = cut.shares.iter().map(|(peer, _)| *peer);
            peers.filter(|peer| answer(peer) == Some(kind)).collect::<Vec<_>>()
        };
        let full = of(Kept::NoRoom);
        let why = (!is_durable).then(|| match (full.len(), of(Kept::NotMine).len()) {
            (0, 0) => format!("{} of {} holders cannot be reached", of(Kept::Failed).len(), cut.shares.len()),
            (0, n) => format!("{n} holders see other members than this node"),
            (n, _) => format!("{n} of {} holders have no room", cut.shares.len()),
        });
        Sent { segment: cut.segment, why, full }
    }
}
