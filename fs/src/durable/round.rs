//! Some segments on their way to their holders.

use std::collections::HashMap;
use std::io;

use starfish_dht::PeerId;

use crate::code::Code;
use crate::hash::BlobHash;
use crate::holders::Holders;
use crate::index_set::IndexSet;
use crate::manifest::Segment;
use crate::members::View;
use crate::mend::{health, mend};
use crate::peers::wire::Kept;
use crate::place::{Candidate, loads_among, order};
use crate::store::{Bundle, Store, cut, cut_now};

/// What a round needs.
pub(super) struct Round<'a> {
    pub(super) store: &'a Store,
    pub(super) holders: &'a Holders,
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

/// What everybody holds of a segment already, by member.
type Holdings = HashMap<PeerId, IndexSet>;
/// Which shards members are to be given.
type Shares = Vec<(PeerId, IndexSet)>;
/// A segment's position in its round, and what is to be done with it.
type Planned = (usize, (Segment, Result<Shares, String>));
/// What became of the shards that members were given, by segment.
type Answers = HashMap<PeerId, HashMap<BlobHash, Kept>>;

/// Which shards each holder is given, beyond what it holds: on a fresh segment, the first in the order get the data.
fn shares(segment: &Segment, view: &View, full: &[PeerId], held: &Holdings) -> Option<Shares> {
    let code = Code::of(segment.len.into());
    if full.is_empty() {
        let members = order(&segment.hash, &view.alive);
        let held: Vec<IndexSet> =
            members.iter().map(|member| held.get(&member.peer).copied().unwrap_or_default()).collect();
        let work = mend(code.k(), &held);
        // The whole is here, so what would be moved is sent from here as well.
        let moved = work.moves.iter().map(|step| (step.to, step.shards));
        let mut shares: HashMap<usize, IndexSet> = HashMap::new();
        for (position, indices) in work.makes.iter().copied().chain(moved) {
            let share = shares.entry(position).or_default();
            *share = share.union(&indices);
        }
        return Some(shares.into_iter().map(|(at, indices)| (members[at].peer, indices)).collect());
    }
    let with_room: Vec<Candidate> =
        view.alive.iter().filter(|member| !full.contains(&member.peer)).cloned().collect();
    let loads = loads_among(code.k(), with_room.len(), view.alive.len())?;
    let mut next = 0;
    let shares = order(&segment.hash, &with_room).into_iter().zip(loads).map(|(member, load)| {
        let start = next;
        next += load;
        (member.peer, IndexSet::range(start..next))
    });
    Some(shares.filter(|(_, indices)| !indices.is_empty()).collect())
}

impl Round<'_> {
    /// Sends the segments; those at full durability are released here.
    pub(super) async fn send(&self, segments: &[Segment]) -> Vec<Sent> {
        let held = self.survey(segments).await;
        let cuts = self.cut(segments, &held).await;
        let mut by_peer: HashMap<PeerId, Vec<(BlobHash, Bundle)>> = HashMap::new();
        for cut in cuts.iter().flatten() {
            for (peer, bundle) in &cut.shares {
                by_peer.entry(*peer).or_default().push((cut.segment.hash, bundle.clone()));
            }
        }
        let pushes =
            by_peer.iter().map(|(peer, bundles)| async move { (*peer, self.give(*peer, bundles).await) });
        let answers: Answers = futures::future::join_all(pushes).await.into_iter().collect();
        let mut outcome = Vec::with_capacity(segments.len());
        for ((segment, cut), held) in segments.iter().zip(cuts).zip(&held) {
            outcome.push(match cut {
                Ok(cut) => self.judge(&cut, &answers, held),
                Err(why) => Sent { segment: *segment, why: Some(why), full: Vec::new() },
            });
        }
        self.release(&mut outcome).await;
        outcome
    }

    /// What is at full durability need not be here whole.
    async fn release(&self, outcome: &mut [Sent]) {
        let done: Vec<&mut Sent> = outcome.iter_mut().filter(|sent| sent.why.is_none()).collect();
        let hashes = done.iter().map(|sent| sent.segment.hash).collect();
        let released = self.store.release_all(hashes).await;
        let failed = |error: &io::Error| Some(format!("the store failed: {error}"));
        for (position, sent) in done.into_iter().enumerate() {
            sent.why = match &released {
                Ok(released) => released.get(position).and_then(|released| failed(released.as_ref().err()?)),
                Err(error) => failed(error),
            };
        }
    }

    /// What everybody holds of these segments already: content may have been here before. Who does not answer counts as
    /// one who holds nothing.
    async fn survey(&self, segments: &[Segment]) -> Vec<Holdings> {
        let hashes: Vec<BlobHash> = segments.iter().map(|segment| segment.hash).collect();
        let answers = self.holders.survey(self.view, &hashes).await;
        let of = |position: usize| {
            let held =
                answers.iter().filter_map(|(peer, held)| Some((*peer, held.as_ref().ok()?.get(position)?)));
            held.map(|(peer, held)| (peer, held.indices)).collect()
        };
        (0..segments.len()).map(of).collect()
    }

    /// Reads segments and makes their shards. An error says why that cannot be.
    async fn cut(&self, segments: &[Segment], held: &[Holdings]) -> Vec<Result<Cut, String>> {
        let plans = segments.iter().zip(held).map(|(segment, held)| (*segment, self.plan(segment, held)));
        // Short ones together, and each long one by itself.
        let mut groups: Vec<Vec<Planned>> = vec![Vec::new()];
        for (position, plan) in plans.enumerate() {
            match Code::of(plan.0.len.into()).k() {
                1 => groups[0].push((position, plan)),
                _ => groups.push(vec![(position, plan)]),
            }
        }
        let cuts = futures::future::join_all(groups.into_iter().map(|group| self.cut_group(group))).await;
        let mut cuts: Vec<_> = cuts.into_iter().flatten().collect();
        cuts.sort_by_key(|(position, _)| *position);
        cuts.into_iter().map(|(_, cut)| cut).collect()
    }

    /// Who is to be given what of a segment.
    fn plan(&self, segment: &Segment, held: &Holdings) -> Result<Shares, String> {
        if !self.store.is_kept(&segment.hash).unwrap_or(true) && self.is_durable(segment, held) {
            // It was another file's as well, and others keep enough of it by now.
            return Ok(Vec::new());
        }
        shares(segment, self.view, &self.full, held).ok_or_else(|| "too few members have room".to_owned())
    }

    async fn cut_group(&self, group: Vec<Planned>) -> Vec<(usize, Result<Cut, String>)> {
        let is_needed = |plan: &Result<Shares, String>| plan.as_ref().is_ok_and(|shares| !shares.is_empty());
        let hashes =
            group.iter().filter(|(_, (_, plan))| is_needed(plan)).map(|(_, (segment, _))| segment.hash);
        let mut all = match self.store.get_all(hashes.collect()).await {
            Ok(all) => all.into_iter(),
            Err(error) => {
                let why = format!("the store failed: {error}");
                return group.into_iter().map(|(position, _)| (position, Err(why.clone()))).collect();
            }
        };
        let mut cuts = Vec::with_capacity(group.len());
        for (position, (segment, plan)) in group {
            let bytes = if is_needed(&plan) { all.next() } else { None };
            let cut = match (plan, bytes) {
                (Err(why), _) => Err(why),
                (Ok(_), None) => Ok(Vec::new()),
                (Ok(shares), Some(Ok(Some(bytes)))) => {
                    let is_one_shard = Code::of(segment.len.into()).k() == 1;
                    let shares =
                        if is_one_shard { cut_now(&bytes, shares) } else { cut(bytes, shares).await };
                    shares.ok_or_else(|| format!("segment {} cannot be coded", segment.hash.short()))
                }
                (Ok(_), Some(Ok(None))) => {
                    Err(format!("segment {} is lost or damaged here", segment.hash.short()))
                }
                (Ok(_), Some(Err(error))) => Err(format!("the store failed: {error}")),
            };
            cuts.push((position, cut.map(|shares| Cut { segment, shares })));
        }
        cuts
    }

    /// Whether members hold enough of a segment.
    fn is_durable(&self, segment: &Segment, held: &Holdings) -> bool {
        let held: Vec<IndexSet> =
            self.view.peers().map(|peer| held.get(&peer).copied().unwrap_or_default()).collect();
        health(Code::of(segment.len.into()).k(), &held).is_durable
    }

    async fn give(&self, peer: PeerId, bundles: &[(BlobHash, Bundle)]) -> HashMap<BlobHash, Kept> {
        let answers = self.holders.give(peer, bundles).await;
        bundles.iter().map(|(segment, _)| *segment).zip(answers).collect()
    }

    fn judge(&self, cut: &Cut, answers: &Answers, held: &Holdings) -> Sent {
        let answer = |peer: &PeerId| answers.get(peer)?.get(&cut.segment.hash).copied();
        let holds = |peer: PeerId| {
            let share = cut.shares.iter().find(|(holder, _)| *holder == peer);
            let kept = share.filter(|(peer, _)| answer(peer) == Some(Kept::Yes));
            let given = kept.map_or(IndexSet::default(), |(_, bundle)| bundle.indices());
            held.get(&peer).copied().unwrap_or_default().union(&given)
        };
        let held: Vec<IndexSet> = self.view.peers().map(holds).collect();
        let is_durable = health(Code::of(cut.segment.len.into()).k(), &held).is_durable;
        let of = |kind: Kept| {
            let peers = cut.shares.iter().map(|(peer, _)| *peer);
            peers.filter(|peer| answer(peer) == Some(kind)).collect::<Vec<_>>()
        };
        let full = of(Kept::NoRoom);
        let why = (!is_durable).then(|| match (full.len(), of(Kept::NotMine).len()) {
            (0, 0) => format!("{} of {} holders cannot be reached", of(Kept::Failed).len(), cut.shares.len()),
            (0, n) => format!("{n} of {} holders have as much of it as they may", cut.shares.len()),
            (n, _) => format!("{n} of {} holders have no room", cut.shares.len()),
        });
        Sent { segment: cut.segment, why, full }
    }
}
