//! What nodes do about batches whose tasks several of them run: open what was pledged, and, as the keeper, see to it that
//! enough agree.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, PoisonError};

use starfish_dht::PeerId;
use tracing::{debug, warn};

use super::ballot::quorum;
use super::definition::Ending;
use super::docket::Known;
use super::jury::Jury;
use super::keeper::KeptBatch;
use super::sealed::SealKey;
use super::service::Batches;
use crate::board::Millis;
use crate::task::JobId;

/// How long nodes that have pledged themselves are waited for before others are asked: they tell within a few round trips.
const TELL_WITHIN: Millis = 3000;
/// How long it is hoped that more nodes come, when there are fewer than a batch asks for.
const LONELY_FOR: Millis = 5000;
/// How long somebody who could decide a task is waited for, when everybody who is there has run it.
const GIVE_UP_AFTER: Millis = 60_000;
/// How many times as many nodes as were asked for run a task on which they do not agree.
const MOST: usize = 2;
/// Tasks that are given up at a time.
const MAX_GIVEN_UP: usize = 1000;

/// What the keeper does next.
pub(super) enum Next {
    Wait,
    End(Ending),
    /// So many nodes are enough.
    Enough(u8),
    /// On these tasks nobody will agree any more.
    GiveUp(u32, Vec<(u64, String)>),
}

impl Batches {
    /// Opens all pledges of some batches to which there are keys.
    pub(super) async fn open_pledges(&self, jobs: BTreeSet<JobId>) {
        for job in jobs {
            let sealed = {
                let docket = self.docket();
                docket.get(&job).and_then(|known| Some(known.jury.as_ref()?.to_open())).unwrap_or_default()
            };
            for (place, digest, key) in sealed {
                let Ok(pledge) = self.store().read_pledge(job, place, digest).await else { continue };
                let opened = pledge.open(&job, &key);
                let mut docket = self.docket();
                let Some(known) = docket.news(&job) else { break };
                let Some(jury) = &mut known.jury else { break };
                match opened {
                    Ok((receipt, results)) => {
                        let decided = jury.opened(place, &results);
                        known.decide(place, receipt.range.end, &decided);
                    }
                    Err(super::receipt::BadReceipt::Seal) => jury.misfits(place),
                    Err(error) => {
                        debug!(%job, %error, "a pledge was for nothing");
                        jury.void(place);
                    }
                }
            }
        }
    }

    /// Whether this node may pledge itself for these tasks: it does so once, whatever its slots have been given. From
    /// here on it has.
    pub(super) fn may_pledge(&self, job: JobId, generation: u32, range: &Range<u64>) -> bool {
        let has_had = {
            let docket = self.docket();
            let jury = docket.get(&job).and_then(|known| known.jury.as_ref());
            jury.is_some_and(|jury| jury.has_had(self.me(), generation, range))
        };
        let mut pledged = self.pledged.lock().unwrap_or_else(PoisonError::into_inner);
        let of_it = pledged.entry((job, generation)).or_default();
        if has_had || of_it.overlaps(range) {
            return false;
        }
        of_it.insert(range.clone());
        true
    }

    /// Publishes the keys to what this node has pledged, where enough others have too.
    pub(super) async fn reveal(&self) {
        let (me, identity) = (self.me(), self.service.network.identity());
        let ready: Vec<_> = {
            let docket = self.docket();
            let ready = docket.iter().filter_map(|(job, known)| {
                let places = known.jury.as_ref()?.to_reveal(me);
                let key = |place: &super::results::Place| {
                    (*place, SealKey::new(identity, job, place.generation, place.start))
                };
                (!places.is_empty()).then(|| (*job, places.iter().map(key).collect::<Vec<_>>()))
            });
            ready.collect()
        };
        for (job, keys) in ready {
            if let Err(error) = self.store().reveal(job, &keys).await {
                warn!(%job, %error, "cannot tell what was found out");
            }
        }
    }

    /// What the keeper of a batch is to do next.
    pub(super) fn deliberate(&self, known: &Known, jury: &Jury, kept: &mut KeptBatch, now: Millis) -> Next {
        let able = self.able(known);
        if !kept.desk.is_complete() {
            kept.complete_since = None;
            kept.desk.give_up(usize::from(jury.enough()), &able);
            return self.lower(jury, &able, kept, now);
        }
        let waited = now.saturating_sub(*kept.complete_since.get_or_insert(now));
        let lacking = known.coverage.done(known.generation).gaps(&(0..known.card.tasks)).collect();
        // Who has run tasks says so sooner than memory does.
        let is_known = kept.desk.is_known(&lacking, |node| jury.had(node, known.generation));
        if (!is_known || !jury.is_all_open(known.generation)) && waited < TELL_WITHIN {
            return Next::Wait;
        }
        let progress = known.progress();
        if progress.done == progress.tasks {
            return Next::End(Ending::Complete { failed: progress.failed });
        }
        if !is_known {
            warn!(tasks = ?lacking, "what was found out did not arrive: it is asked for again");
            *kept = kept.renewed(known, now);
            return Next::Wait;
        }
        let more = jury.left_for(&able, known.generation, &lacking);
        if !more.is_empty() && kept.desk.copies() < MOST * usize::from(jury.copies()) {
            debug!(tasks = ?more, "nodes do not agree: one more is asked");
            kept.desk.add(&more, now);
            kept.complete_since = None;
            return Next::Wait;
        }
        if !jury.is_all_open(known.generation) && waited < GIVE_UP_AFTER {
            return Next::Wait;
        }
        let tasks = lacking.iter().flat_map(Range::clone).take(MAX_GIVEN_UP);
        Next::GiveUp(
            known.generation,
            tasks.map(|task| (task, disagreement(jury, known.generation, task))).collect(),
        )
    }

    /// Fewer nodes than were asked for must do, where there are no more.
    fn lower(&self, jury: &Jury, able: &BTreeSet<PeerId>, kept: &mut KeptBatch, now: Millis) -> Next {
        if able.len() >= usize::from(jury.enough()) || able.len() < quorum(jury.copies()) {
            kept.lonely_since = None;
            return Next::Wait;
        }
        if now < *kept.lonely_since.get_or_insert(now) + LONELY_FOR {
            return Next::Wait;
        }
        kept.lonely_since = None;
        u8::try_from(able.len()).map_or(Next::Wait, Next::Enough)
    }

    /// The nodes that can run tasks of a batch.
    pub(super) fn able(&self, known: &Known) -> BTreeSet<PeerId> {
        let board = self.service.board();
        let nodes = std::iter::once(self.me()).chain(board.peers().filter(|peer| self.may_compute(peer)));
        nodes.filter(|node| self.inability(known, node, &board).is_none()).collect()
    }

    /// Has the swarm remember who was outvoted on batches that this node keeps, or kept last.
    pub(super) async fn remember(&self) {
        let outvoted: Vec<_> = {
            let docket = self.docket();
            let mine = docket.iter().filter(|(job, _)| docket.keeper(job) == Some(self.me()));
            let outvoted = mine.filter_map(|(job, known)| {
                let outvoted = known.jury.as_ref()?.outvoted();
                (!outvoted.is_empty() && known.end.is_some()).then(|| (*job, outvoted.clone()))
            });
            outvoted.collect()
        };
        for (job, outvoted) in outvoted {
            if let Err(error) = self.suspects.remember(job, &outvoted, self.unix_ms()).await {
                warn!(%job, %error, "cannot write down who was outvoted");
            }
        }
    }

    pub(super) fn follow(self: &Arc<Self>, job: JobId, next: Next) {
        match next {
            Next::Wait => {}
            Next::End(ending) => self.end(job, ending),
            Next::Enough(nodes) => {
                let this = Arc::clone(self);
                self.service.spawn(async move {
                    if let Err(error) = this.store().enough(job, nodes).await {
                        warn!(%job, %error, "cannot write down how many nodes are enough");
                    }
                });
            }
            Next::GiveUp(generation, tasks) => {
                let this = Arc::clone(self);
                self.service.spawn(async move {
                    for (task, why) in tasks {
                        this.give_up(job, generation, task, why).await;
                    }
                });
            }
        }
    }
}

fn disagreement(jury: &Jury, generation: u32, task: u64) -> String {
    let votes = jury.votes(generation, task);
    let words: Vec<_> = votes.iter().map(|(by, said)| format!("{by}: {}", &said.to_string()[..8])).collect();
    format!(
        "fewer than {} of the nodes that ran it found the same ({})",
        quorum(jury.copies()),
        words.join(", ")
    )
}
