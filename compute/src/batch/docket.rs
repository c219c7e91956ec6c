//! What each node knows of all batches, and what it decides by itself: whose keeper it is, and what it works on next.
//! A pure state machine.
//!
//! There is no vote about who keeps a batch: each node works it out from who is there. Two nodes that see different
//! members may each take themselves for the keeper; then some tasks are run twice, which their receipts bear.

use std::collections::{BTreeMap, BTreeSet};

use starfish_dht::PeerId;

use super::coverage::Coverage;
use super::definition::{Card, End, Ending, Progress};
use super::jury::{Decided, Jury};
use super::pace::MAX_SLICE;
use super::receipt::{SliceReceipt, TaskResult};
use super::results::Place;
use crate::board::Millis;
use crate::task::{JobId, Outcome};

/// Batches that a node knows of. Beyond this, further ones are not taken on, and none can be submitted.
pub const MAX_BATCHES: usize = 10_000;

/// A batch as this node knows it.
#[derive(Clone, Debug)]
pub struct Known {
    /// What everybody knows of it.
    pub card: Card,
    /// Which time it was begun.
    pub generation: u32,
    /// Somebody asked for its end.
    pub is_stopped: bool,
    /// How it ended, if it has since it was begun the last time.
    pub end: Option<End>,
    pub(crate) coverage: Coverage,
    /// Where several nodes run each of its tasks.
    pub(crate) jury: Option<Jury>,
    /// Where its receipts begin and end.
    pub(crate) receipts: BTreeMap<Place, u64>,
    /// How its task ended, where it has only one.
    pub(crate) only: Option<Outcome>,
    /// There is no use in asking its keeper before.
    not_before: Millis,
    /// How long to wait after the next `Later`.
    patience: Millis,
}

/// What stands between a batch and its tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing: its tasks can be run.
    Open,
    /// It waits for the end of another.
    Waits(JobId),
    /// It has ended.
    Ended,
    /// It is to end like this.
    Ends(Ending),
}

/// See the [module](self).
#[derive(Debug)]
pub struct Docket {
    me: PeerId,
    memory_bytes: u64,
    living: BTreeSet<PeerId>,
    batches: BTreeMap<JobId, Known>,
}

/// The first wait after a keeper had nothing to do; it doubles up to [`MAX_PATIENCE`].
const PATIENCE: Millis = 100;
const MAX_PATIENCE: Millis = 2000;

impl Docket {
    /// The docket of node `me`, which can give a task so much memory.
    pub fn new(me: PeerId, memory_bytes: u64) -> Self {
        Self { me, memory_bytes, living: BTreeSet::from([me]), batches: BTreeMap::new() }
    }

    /// A batch is there. One that is known already stays as it is: its card never changes.
    pub fn insert(&mut self, job: JobId, card: Card) {
        if self.batches.len() < MAX_BATCHES {
            self.batches.entry(job).or_insert_with(|| Known {
                jury: (card.copies > 1).then(|| Jury::new(card.copies)),
                card,
                generation: 0,
                is_stopped: false,
                end: None,
                coverage: Coverage::default(),
                receipts: BTreeMap::new(),
                only: None,
                not_before: 0,
                patience: PATIENCE,
            });
        }
    }

    /// Its results are no longer kept.
    pub fn remove(&mut self, job: &JobId) {
        self.batches.remove(job);
    }

    /// One of the batches.
    pub fn get(&self, job: &JobId) -> Option<&Known> {
        self.batches.get(job)
    }

    /// The same, to tell it what has happened. It is worth a look again at once.
    pub(crate) fn news(&mut self, job: &JobId) -> Option<&mut Known> {
        let known = self.batches.get_mut(job)?;
        (known.not_before, known.patience) = (0, PATIENCE);
        Some(known)
    }

    /// All of them, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (&JobId, &Known)> {
        self.batches.iter()
    }

    /// A node that may compute has come.
    pub fn met(&mut self, peer: PeerId) {
        self.living.insert(peer);
    }

    /// A node is gone.
    pub fn lost(&mut self, peer: &PeerId) {
        if *peer != self.me {
            self.living.remove(peer);
        }
    }

    /// The nodes that are there, this one among them.
    pub fn living(&self) -> &BTreeSet<PeerId> {
        &self.living
    }

    /// Who keeps a batch, as far as this node can see: the submitter, or else the first of the batch's rendezvous
    /// order (Thaler and Ravishankar 1998: the greatest hash of both names).
    pub fn keeper(&self, job: &JobId) -> Option<PeerId> {
        let submitter = self.batches.get(job)?.card.submitter;
        if self.living.contains(&submitter) {
            return Some(submitter);
        }
        self.living.iter().copied().max_by_key(|peer| score(job, peer))
    }

    /// What is to become of a batch now. `unix_ms` is this node's clock.
    pub fn standing(&self, job: &JobId, unix_ms: u64) -> Standing {
        let Some(known) = self.batches.get(job) else { return Standing::Ended };
        if known.end.is_some() {
            return Standing::Ended;
        }
        if known.is_stopped {
            return Standing::Ends(Ending::Killed);
        }
        if known.card.deadline_ms.is_some_and(|deadline| deadline <= unix_ms) {
            return Standing::Ends(Ending::Failed { reason: "its deadline has passed".to_owned() });
        }
        for before in &known.card.after {
            match self.batches.get(before).map(|known| &known.end) {
                Some(Some(end)) if end.ending.is_well() => {}
                // One that is not known may be on its way still; it is known where this batch was submitted.
                Some(None) | None => return Standing::Waits(*before),
                Some(Some(_)) => {
                    let reason = format!("job {before}, which it waits for, has failed");
                    return Standing::Ends(Ending::Failed { reason });
                }
            }
        }
        Standing::Open
    }

    /// The batches that this node has to keep.
    pub fn mine(&self) -> Vec<JobId> {
        let unfinished = self.batches.iter().filter(|(_, known)| known.end.is_none());
        unfinished.filter(|(job, _)| self.keeper(job) == Some(self.me)).map(|(job, _)| *job).collect()
    }

    /// What a free slot of this node asks for next, and whom: the batch of the highest priority, then the oldest.
    pub fn choose(&self, now: Millis, unix_ms: u64) -> Option<(JobId, PeerId)> {
        let may_run = |known: &Known| {
            known.end.is_none()
                && known.not_before <= now
                && known.card.on.is_none_or(|on| on == self.me)
                && known.card.memory_bytes <= self.memory_bytes
        };
        let mut open: Vec<_> = self.batches.iter().filter(|(_, known)| may_run(known)).collect();
        open.sort_unstable_by_key(|(job, known)| {
            (std::cmp::Reverse(known.card.priority), known.card.submitted_ms, **job)
        });
        let open = open.into_iter().find(|(job, _)| self.standing(job, unix_ms) == Standing::Open);
        open.and_then(|(job, _)| Some((*job, self.keeper(job)?)))
    }

    /// The keeper of a batch has nothing to do now, or cannot be asked: it is asked again after a while, sooner if
    /// there is news of the batch.
    pub fn pause(&mut self, now: Millis, job: &JobId) {
        if let Some(known) = self.batches.get_mut(job) {
            known.not_before = now + known.patience;
            known.patience = (known.patience * 2).min(MAX_PATIENCE);
        }
    }

    /// There was work after all.
    pub fn found_work(&mut self, job: &JobId) {
        if let Some(known) = self.batches.get_mut(job) {
            known.patience = PATIENCE;
        }
    }
}

impl Known {
    /// There is a receipt.
    pub(crate) fn add(&mut self, receipt: &SliceReceipt, results: &[TaskResult]) {
        let is_of_it = receipt.range.end <= self.card.tasks && results.len() as u64 <= MAX_SLICE;
        // Where what nodes find is compared, nobody says by himself more than that a task cannot be run.
        let is_said = |result: &TaskResult| !matches!(result.outcome, Outcome::Failed { .. });
        if !is_of_it || (self.jury.is_some() && results.iter().any(is_said)) {
            return;
        }
        self.coverage.add(receipt.generation, &receipt.range, results);
        let place = Place { start: receipt.range.start, generation: receipt.generation, by: None };
        self.receipts.insert(place, receipt.range.end);
        self.note_only(results);
    }

    /// What several nodes found was compared, with this result; the last of it was `place`, up to `end`.
    pub(crate) fn decide(&mut self, place: Place, end: u64, decided: &Decided) {
        self.receipts.insert(place, end);
        for (run, results) in decided {
            self.coverage.add(place.generation, run, results);
            self.note_only(results);
        }
    }

    fn note_only(&mut self, results: &[TaskResult]) {
        if self.card.tasks == 1 && !self.only.as_ref().is_some_and(Outcome::is_success) {
            self.only = results.first().map(|result| result.outcome.clone());
        }
    }

    /// Whether any of its tasks has ended, for all that this node knows.
    pub(crate) fn is_begun(&self) -> bool {
        !self.coverage.is_empty() || self.jury.as_ref().is_some_and(|jury| !jury.is_empty())
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.coverage.progress(self.generation, self.card.tasks)
    }
}

/// How near the front a node is in the rendezvous order of a job: the greatest is the first.
pub(crate) fn score(job: &JobId, peer: &PeerId) -> [u8; 32] {
    *blake3::Hasher::new().update(&job.0).update(&peer.to_bytes()).finalize().as_bytes()
}

/// Nodes in the rendezvous order of an id, the first first: the same for whoever knows the same nodes, and one that goes changes
/// no other's place before it.
pub(crate) fn rendezvous(id: &JobId, nodes: impl IntoIterator<Item = PeerId>) -> Vec<PeerId> {
    let mut nodes: Vec<_> = nodes.into_iter().collect();
    nodes.sort_by_cached_key(|peer| std::cmp::Reverse(score(id, peer)));
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Digest;

    fn card(submitter: PeerId, submitted_ms: u64) -> Card {
        Card {
            name: "batch".to_owned(),
            tasks: 10,
            submitter,
            submitted_ms,
            priority: 0,
            deadline_ms: None,
            on: None,
            memory_bytes: 1,
            after: Vec::new(),
            keep_ms: 0,
            anywhere: false,
            copies: 1,
            definition: Digest([0; 32]),
            call: Digest([0; 32]),
        }
    }

    fn end(ending: Ending) -> Option<End> {
        Some(End { generation: 0, ending, at_ms: 0, by: PeerId::random() })
    }

    #[test]
    fn the_submitter_keeps_a_batch_and_after_it_all_agree_on_the_next() {
        let names: Vec<_> = (0..5).map(|_| PeerId::random()).collect();
        let mut dockets: Vec<_> = names.iter().map(|name| Docket::new(*name, 1)).collect();
        let job = JobId([1; 16]);
        for docket in &mut dockets {
            docket.insert(job, card(names[2], 0));
            names.iter().for_each(|name| docket.met(*name));
            assert_eq!(docket.keeper(&job), Some(names[2]));
            docket.lost(&names[2]);
        }
        let next = dockets[0].keeper(&job).unwrap();
        assert_ne!(next, names[2]);
        for (docket, name) in dockets.iter().zip(&names).filter(|(_, name)| **name != names[2]) {
            assert_eq!(docket.keeper(&job), Some(next));
            assert_eq!(docket.mine().is_empty(), *name != next);
        }
    }

    #[test]
    fn a_free_slot_takes_the_highest_priority_then_the_oldest_and_only_what_it_may() {
        let me = PeerId::random();
        let mut docket = Docket::new(me, 100);
        docket.insert(JobId([1; 16]), card(me, 2));
        docket.insert(JobId([2; 16]), card(me, 1));
        docket.insert(JobId([3; 16]), Card { priority: 1, ..card(me, 9) });
        docket.insert(JobId([4; 16]), Card { priority: 9, on: Some(PeerId::random()), ..card(me, 0) });
        docket.insert(JobId([5; 16]), Card { priority: 9, memory_bytes: 101, ..card(me, 0) });
        for expected in [3, 2, 1] {
            assert_eq!(docket.choose(0, 0), Some((JobId([expected; 16]), me)));
            docket.pause(0, &JobId([expected; 16]));
        }
        assert_eq!(docket.choose(0, 0), None);
        assert_eq!(docket.choose(PATIENCE, 0), Some((JobId([3; 16]), me)));
        docket.news(&JobId([1; 16])).unwrap();
        assert_eq!(docket.choose(0, 0), Some((JobId([1; 16]), me)), "news are worth a look at once");
    }

    #[test]
    fn a_batch_waits_for_others_and_fails_with_them() {
        let me = PeerId::random();
        let (first, then) = (JobId([1; 16]), JobId([2; 16]));
        let mut docket = Docket::new(me, 1);
        docket.insert(then, Card { after: vec![first], ..card(me, 0) });
        assert_eq!(docket.standing(&then, 0), Standing::Waits(first), "it may be on its way");
        docket.insert(first, card(me, 0));
        assert_eq!(docket.standing(&then, 0), Standing::Waits(first));
        assert_eq!(docket.choose(0, 0), Some((first, me)));
        docket.news(&first).unwrap().end = end(Ending::Complete { failed: 1 });
        assert!(matches!(docket.standing(&then, 0), Standing::Ends(Ending::Failed { .. })));
        docket.news(&first).unwrap().end = end(Ending::Complete { failed: 0 });
        assert_eq!(docket.standing(&then, 0), Standing::Open);
    }

    #[test]
    fn a_batch_ends_at_its_deadline_or_when_it_is_stopped() {
        let (me, job) = (PeerId::random(), JobId([1; 16]));
        let mut docket = Docket::new(me, 1);
        docket.insert(job, Card { deadline_ms: Some(5), ..card(me, 0) });
        assert_eq!(docket.standing(&job, 4), Standing::Open);
        assert!(matches!(docket.standing(&job, 5), Standing::Ends(Ending::Failed { .. })));
        docket.news(&job).unwrap().is_stopped = true;
        assert_eq!(docket.standing(&job, 4), Standing::Ends(Ending::Killed));
        docket.news(&job).unwrap().end = end(Ending::Killed);
        assert_eq!(docket.standing(&job, 4), Standing::Ended);
        assert!(docket.mine().is_empty());
    }
}
