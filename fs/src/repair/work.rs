//! One batch of files: ask who holds what, decide, have it done.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use starfish_dht::PeerId;

use super::{Repair, Report, Scope};
use crate::code::Code;
use crate::hash::BlobHash;
use crate::holders::Handed;
use crate::index_set::IndexSet;
use crate::manifest::Segment;
use crate::members::View;
use crate::mend::{Health, Mend, health, mend};
use crate::peers::AskError;
use crate::peers::wire::{self, Held, Part};
use crate::place::order;
use crate::store::{Bundle, cut};

/// A segment is mended at once if fewer than this share of its data shards may still be lost.
const THIN: i32 = 4;
/// Segments that are made anew before what was made is sent.
const MAKE_AT_ONCE: usize = 4;

/// What everybody holds, by segment, in the order of `View::alive`.
type Survey = HashMap<BlobHash, Vec<Held>>;

/// A segment that needs something.
struct Case {
    segment: Segment,
    /// The members in the segment's order, by which `mend` names them.
    members: Vec<PeerId>,
    health: Health,
    mend: Mend,
}

impl Repair {
    pub(super) async fn mend(
        &self,
        files: Vec<Vec<Segment>>,
        view: &View,
        scope: Scope,
        report: &mut Report,
    ) {
        if files.is_empty() {
            return;
        }
        let segments: HashMap<BlobHash, Segment> =
            files.iter().flatten().map(|segment| (segment.hash, *segment)).collect();
        let Ok(survey) = self.survey(view, segments.keys().copied().collect()).await else {
            // Somebody does not say what it holds. It may be gone, and then the view will say so soon.
            report.is_complete = false;
            return;
        };
        let mut troubles: HashMap<BlobHash, (String, bool)> = HashMap::new();
        let mut cases = Vec::new();
        for segment in segments.values() {
            match self.judge(*segment, view, &survey[&segment.hash], scope) {
                Verdict::Well => {}
                Verdict::Wait(why) => {
                    troubles.insert(segment.hash, (why, false));
                }
                Verdict::Lost(why) => {
                    troubles.insert(segment.hash, (why, true));
                }
                Verdict::Mend(case) => cases.push(case),
            }
        }
        cases.sort_by_key(|case| case.health.margin);
        // Where shards are is a matter of room; that any half may vanish is not.
        let durable: HashSet<BlobHash> =
            cases.iter().filter(|case| case.health.is_durable).map(|case| case.segment.hash).collect();
        for (segment, why) in self.do_all(cases, scope).await {
            if durable.contains(&segment) {
                tracing::debug!(%segment, why, "durable, but not where it should be");
            } else {
                troubles.insert(segment, (why, false));
            }
        }
        for file in files {
            let trouble = file.iter().filter_map(|segment| troubles.get(&segment.hash));
            if let Some((why, is_lost)) = trouble.max_by_key(|(_, is_lost)| *is_lost) {
                report.note(why.clone(), *is_lost);
            }
        }
    }

    async fn survey(&self, view: &View, segments: Vec<BlobHash>) -> Result<Survey, AskError> {
        let answers = self.inner.holders.survey(view, &segments).await.into_iter();
        let answers: Vec<Vec<Held>> = answers.map(|(_, held)| held).collect::<Result<_, _>>()?;
        let held = |position: usize| answers.iter().map(|answer| answer[position]).collect();
        Ok(segments.iter().enumerate().map(|(position, segment)| (*segment, held(position))).collect())
    }

    fn judge(&self, segment: Segment, view: &View, held: &[Held], scope: Scope) -> Verdict {
        let k = Code::of(segment.len.into()).k();
        // Whoever wrote it is there and at work on it. Alone, that is all there is to do.
        if held.iter().any(|held| held.is_publishing) {
            return if view.alive.len() == 1 { Verdict::Well } else { Verdict::Wait("is being sent".into()) };
        }
        let by_peer: HashMap<PeerId, IndexSet> =
            view.peers().zip(held).map(|(peer, held)| (peer, held.indices)).collect();
        let members: Vec<PeerId> =
            order(&segment.hash, &view.alive).iter().map(|member| member.peer).collect();
        let held: Vec<IndexSet> = members.iter().map(|peer| by_peer[peer]).collect();
        let health = health(k, &held);
        if health.margin < 0 {
            let have = i32::from(k) + health.margin;
            return Verdict::Lost(format!("only {have} of the {k} shards that are needed can be reached"));
        }
        let is_thin = !health.is_durable && health.margin * THIN < i32::from(k);
        if !scope.mends_all && !is_thin {
            return if health.is_durable {
                Verdict::Well
            } else {
                // Who was started lately does not know yet who is missing.
                let why = match view.away.is_empty() {
                    true => "members that hold shards may still come back",
                    false => "members that hold shards are away",
                };
                Verdict::Wait(why.into())
            };
        }
        let mend = mend(k, &held);
        if mend.is_empty() { Verdict::Well } else { Verdict::Mend(Case { segment, members, health, mend }) }
    }

    /// Does what can be done; what could not, and why.
    async fn do_all(&self, cases: Vec<Case>, scope: Scope) -> Vec<(BlobHash, String)> {
        let mut failed = Vec::new();
        for some in cases.chunks(MAKE_AT_ONCE) {
            failed.extend(self.make(some).await);
        }
        failed.extend(self.shift(&cases).await);
        let failed_segments: HashSet<BlobHash> = failed.iter().map(|(segment, _)| *segment).collect();
        let whole: Vec<&Case> =
            cases.iter().filter(|case| !failed_segments.contains(&case.segment.hash)).collect();
        if scope.drops {
            self.drop_surplus(&whole).await;
        }
        failed
    }

    /// Makes shards anew: reads the segment once for all that are missing, and pushes each to its new holder.
    async fn make(&self, cases: &[Case]) -> Vec<(BlobHash, String)> {
        let mut failed = Vec::new();
        let mut by_peer: HashMap<PeerId, Vec<(BlobHash, Bundle)>> = HashMap::new();
        for case in cases.iter().filter(|case| !case.mend.makes.is_empty()) {
            match self.made(case).await {
                Ok(made) => made.into_iter().for_each(|(peer, bundle)| {
                    by_peer.entry(peer).or_default().push((case.segment.hash, bundle));
                }),
                Err(why) => failed.push((case.segment.hash, why)),
            }
        }
        for (peer, bundles) in by_peer {
            let kept = self.inner.holders.give(peer, &bundles).await;
            for ((segment, bundle), kept) in bundles.iter().zip(kept) {
                if kept == wire::Kept::Yes {
                    self.pace(bundle.shards().values().map(bytes::Bytes::len).sum()).await;
                } else {
                    failed.push((*segment, format!("a holder {}", kept.why_not())));
                }
            }
        }
        failed
    }

    async fn made(&self, case: &Case) -> Result<Vec<(PeerId, Bundle)>, String> {
        let len = u64::from(case.segment.len);
        let bytes =
            self.inner.segments.get(case.segment.hash, len).await.map_err(|error| error.to_string())?;
        let makes = case.mend.makes.iter().map(|(position, indices)| (case.members[*position], *indices));
        cut(bytes, makes.collect()).await.ok_or_else(|| "the segment cannot be coded".to_owned())
    }

    /// Has shards moved from one member to another, all those of a pair at once.
    async fn shift(&self, cases: &[Case]) -> Vec<(BlobHash, String)> {
        let mut by_pair: HashMap<(PeerId, PeerId), Vec<Part>> = HashMap::new();
        for case in cases {
            for step in &case.mend.moves {
                let part = part(case, step.shards);
                by_pair.entry((case.members[step.from], case.members[step.to])).or_default().push(part);
            }
        }
        let mut failed = Vec::new();
        for ((from, to), parts) in by_pair {
            for parts in parts.chunks(super::BATCH / 4) {
                let moved = if from == self.inner.peers.local() {
                    let handed = self.inner.holders.hand_over(to, parts).await;
                    handed.iter().map(|handed| *handed == Handed::Over).collect()
                } else {
                    let asked = self.inner.peers.move_shards(from, to, parts.to_vec()).await;
                    asked.unwrap_or_else(|_| vec![false; parts.len()])
                };
                for (part, moved) in parts.iter().zip(moved) {
                    if moved {
                        self.pace(part.body_len().unwrap_or_default()).await;
                    } else {
                        failed.push((part.segment, format!("shards could not be moved to {to}")));
                    }
                }
            }
        }
        failed
    }

    /// Has shards dropped that others hold as well, or that nobody needs. What stays is only space; nothing is retried.
    async fn drop_surplus(&self, cases: &[&Case]) {
        for case in cases {
            for (position, indices) in &case.mend.trims {
                self.release(case.members[*position], None, part(case, *indices)).await;
            }
            for (position, indices) in &case.mend.drops {
                let keepers = case.members.iter().filter(|peer| **peer != case.members[*position]);
                for keeper in keepers {
                    // Who does not have them says so, and nothing is dropped.
                    self.release(case.members[*position], Some(*keeper), part(case, *indices)).await;
                }
            }
        }
    }

    async fn release(&self, holder: PeerId, kept_by: Option<PeerId>, part: Part) {
        let released = if holder == self.inner.peers.local() {
            let Some(keeper) = kept_by.filter(|keeper| *keeper != holder) else {
                let _ = self.inner.store.drop_shards(part.segment, part.indices).await;
                return;
            };
            let Ok(held) = self.inner.peers.survey(keeper, &[part.segment]).await else { return };
            let spare = held.first().map(|held| held.indices.intersection(&part.indices)).unwrap_or_default();
            self.inner.store.drop_shards(part.segment, spare).await.map_err(|error| error.to_string())
        } else {
            let asked = self.inner.peers.release(holder, kept_by, vec![part]).await;
            asked.map(drop).map_err(|error| error.to_string())
        };
        if let Err(error) = released {
            tracing::debug!(%holder, error, "surplus shards stay");
        }
    }

    /// Sleeps as long as moving so many bytes may take at the set rate.
    async fn pace(&self, bytes: usize) {
        let seconds = bytes as f64 / self.inner.pace.rate.max(1) as f64;
        if seconds > 0.001 {
            tokio::time::sleep(Duration::from_secs_f64(seconds.min(60.0))).await;
        }
    }
}

enum Verdict {
    Well,
    Wait(String),
    Lost(String),
    Mend(Case),
}

fn part(case: &Case, indices: IndexSet) -> Part {
    Part { segment: case.segment.hash, len: case.segment.len.into(), indices }
}
