//! What a node knows of a batch whose tasks several nodes run: who has pledged what, what was opened, and what follows.
//! A pure state machine.
//!
//! A node opens what it pledged when it sees that enough nodes have pledged themselves on each of those tasks: as many as
//! the batch asks for, or fewer if its keeper found that there are no more of them ([`Jury::lower`]). A node that pledges
//! two things for one slice, or something that it cannot show, is outvoted like one that says something else than what
//! counts.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use rangemap::RangeSet;
use starfish_dht::PeerId;

use super::ballot::{Ballot, Outvoted, quorum, said};
use super::pace::MAX_SLICE;
use super::receipt::TaskResult;
use super::results::Place;
use super::sealed::SealKey;
use crate::task::Digest;

/// Keys whose pledges are on their way.
const MAX_EARLY: usize = 10_000;

/// See the [module](self).
#[derive(Clone, Debug)]
pub(crate) struct Jury {
    copies: u8,
    enough: u8,
    pledged: BTreeMap<Place, Pledged>,
    early: BTreeMap<Place, SealKey>,
    ballot: Ballot,
}

#[derive(Clone, Debug)]
struct Pledged {
    end: u64,
    digest: Digest,
    key: Option<SealKey>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Sealed,
    Open,
    /// It does not say what it should.
    Void,
}

/// Tasks that are decided, and how.
pub(crate) type Decided = Vec<(Range<u64>, Vec<TaskResult>)>;

impl Jury {
    /// That of a batch whose tasks so many nodes are to run.
    pub(crate) fn new(copies: u8) -> Self {
        let ballot = Ballot::new(copies);
        Self { copies, enough: copies, pledged: BTreeMap::new(), early: BTreeMap::new(), ballot }
    }

    /// How many nodes are to run each task.
    pub(crate) fn copies(&self) -> u8 {
        self.copies
    }

    /// How many of them must have run it before anybody tells.
    pub(crate) fn enough(&self) -> u8 {
        self.enough
    }

    /// There are no more nodes than this. Fewer than must agree are never enough.
    pub(crate) fn lower(&mut self, enough: u8) {
        let least = u8::try_from(quorum(self.copies)).unwrap_or(self.copies);
        self.enough = self.enough.min(enough.max(least));
    }

    /// Whether nobody has run anything yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.pledged.is_empty()
    }

    /// A node pledges itself for the tasks from `place` up to `end`.
    pub(crate) fn pledge(&mut self, place: Place, end: u64, digest: Digest) {
        let Some(by) = place.by else { return };
        if end <= place.start || end - place.start > MAX_SLICE {
            return;
        }
        let key = self.early.remove(&place);
        let first = Pledged { end, digest, key, state: State::Sealed };
        let known = self.pledged.entry(place).or_insert(first);
        if (known.end, known.digest) != (end, digest) && known.state != State::Void {
            known.state = State::Void;
            self.ballot.catch(by, place.start);
        }
    }

    /// The key to a pledge is published.
    pub(crate) fn key(&mut self, place: Place, key: SealKey) {
        match self.pledged.get_mut(&place) {
            Some(pledged) if pledged.state == State::Sealed => pledged.key = Some(key),
            Some(_) => {}
            None if self.early.len() < MAX_EARLY => {
                self.early.insert(place, key);
            }
            None => {}
        }
    }

    /// Pledges that can be opened and have not been, with their keys and what they must be.
    pub(crate) fn to_open(&self) -> Vec<(Place, Digest, SealKey)> {
        let sealed = self.pledged.iter().filter(|(_, pledged)| pledged.state == State::Sealed);
        sealed.filter_map(|(place, pledged)| Some((*place, pledged.digest, pledged.key?))).collect()
    }

    /// A pledge was opened, and says this of its tasks. Returns what is decided by it.
    pub(crate) fn opened(&mut self, place: Place, results: &[TaskResult]) -> Decided {
        let (Some(by), Some(pledged)) = (place.by, self.pledged.get_mut(&place)) else { return Vec::new() };
        if pledged.state != State::Sealed {
            return Vec::new();
        }
        pledged.state = State::Open;
        let range = place.start..pledged.end;
        let mut decided = Decided::new();
        for (task, result) in range.zip(results) {
            let Some(said) = said(result) else { continue };
            if !self.ballot.vote(place.generation, task, by, said) {
                continue;
            }
            match decided.last_mut() {
                Some((run, results)) if run.end == task => {
                    run.end += 1;
                    results.push(result.clone());
                }
                _ => decided.push((task..task + 1, vec![result.clone()])),
            }
        }
        decided
    }

    /// A key does not fit: it may not be of the node that pledged.
    pub(crate) fn misfits(&mut self, place: Place) {
        if let Some(pledged) = self.pledged.get_mut(&place) {
            pledged.key = None;
        }
    }

    /// What was pledged is what was signed, and makes no sense.
    pub(crate) fn void(&mut self, place: Place) {
        if let (Some(by), Some(pledged)) = (place.by, self.pledged.get_mut(&place)) {
            pledged.state = State::Void;
            self.ballot.catch(by, place.start);
        }
    }

    /// What a pledge that was opened is, and its key.
    pub(crate) fn opened_with(&self, place: &Place) -> Option<(Digest, SealKey)> {
        let open = self.pledged.get(place).filter(|pledged| pledged.state == State::Open)?;
        Some((open.digest, open.key?))
    }

    /// What `me` has pledged and may open now.
    pub(crate) fn to_reveal(&self, me: PeerId) -> Vec<Place> {
        let mine = self.pledged.iter().filter(|(place, pledged)| {
            place.by == Some(me) && pledged.state == State::Sealed && pledged.key.is_none()
        });
        let ready = mine.filter(|(place, pledged)| {
            self.voters(place.generation, &(place.start..pledged.end)) >= usize::from(self.enough)
        });
        ready.map(|(place, _)| *place).collect()
    }

    /// Whether a node has pledged itself for any of these tasks.
    pub(crate) fn has_had(&self, by: PeerId, generation: u32, range: &Range<u64>) -> bool {
        self.around(generation, range).any(|(voter, _)| voter == by)
    }

    /// Who has pledged for which tasks.
    pub(crate) fn pledges(&self, generation: u32) -> impl Iterator<Item = (Range<u64>, PeerId)> {
        self.standing(generation).filter_map(|(place, pledged)| Some((place.start..pledged.end, place.by?)))
    }

    /// Pledges that do not count. Who made them is not asked again.
    pub(crate) fn void_pledges(&self, generation: u32) -> impl Iterator<Item = (Range<u64>, PeerId)> {
        let void = self
            .pledged
            .iter()
            .filter(move |(place, pledged)| place.generation == generation && pledged.state == State::Void);
        void.filter_map(|(place, pledged)| Some((place.start..pledged.end, place.by?)))
    }

    /// Whether everything is open.
    pub(crate) fn is_all_open(&self, generation: u32) -> bool {
        self.standing(generation).all(|(_, pledged)| pledged.state == State::Open)
    }

    /// What was said of a task that is not decided.
    pub(crate) fn votes(&self, generation: u32, task: u64) -> &[(PeerId, Digest)] {
        self.ballot.votes(generation, task)
    }

    /// Who was outvoted, or caught.
    pub(crate) fn outvoted(&self) -> &BTreeMap<PeerId, Outvoted> {
        self.ballot.outvoted()
    }

    /// The tasks for which a node has pledged itself, also where that does not count.
    pub(crate) fn had(&self, node: &PeerId, generation: u32) -> RangeSet<u64> {
        let by_it = self
            .pledged
            .iter()
            .filter(|(place, _)| place.generation == generation && place.by.as_ref() == Some(node));
        by_it.map(|(place, pledged)| place.start..pledged.end).collect()
    }

    /// Those of some tasks that any of these nodes could still run.
    pub(crate) fn left_for(
        &self,
        able: &BTreeSet<PeerId>,
        generation: u32,
        tasks: &RangeSet<u64>,
    ) -> RangeSet<u64> {
        let mut left = RangeSet::new();
        for node in able {
            let had = self.had(node, generation);
            left.extend(tasks.iter().flat_map(|run| had.gaps(run)));
        }
        left
    }

    fn standing(&self, generation: u32) -> impl Iterator<Item = (&Place, &Pledged)> {
        let of_it = self.pledged.iter().filter(move |(place, _)| place.generation == generation);
        of_it.filter(|(_, pledged)| pledged.state != State::Void)
    }

    /// On each of these tasks at least so many nodes have pledged themselves.
    fn voters(&self, generation: u32, range: &Range<u64>) -> usize {
        let around: Vec<_> = self.around(generation, range).collect();
        let cuts = around.iter().flat_map(|(_, part)| [part.start, part.end]);
        let cuts: BTreeSet<u64> = cuts.filter(|at| range.contains(at)).chain([range.start]).collect();
        let at = |task: u64| {
            let there = around.iter().filter(|(_, part)| part.contains(&task));
            there.map(|(voter, _)| *voter).collect::<BTreeSet<_>>().len()
        };
        cuts.into_iter().map(at).min().unwrap_or(0)
    }

    /// Pledges that overlap with these tasks.
    fn around(&self, generation: u32, range: &Range<u64>) -> impl Iterator<Item = (PeerId, Range<u64>)> {
        let first = Place { start: range.start.saturating_sub(MAX_SLICE), generation: 0, by: None };
        let last = Place { start: range.end, generation: 0, by: None };
        let (start, near) = (range.start, self.pledged.range(first..last));
        near.filter_map(move |(place, pledged)| {
            let counts =
                place.generation == generation && pledged.end > start && pledged.state != State::Void;
            counts.then_some((place.by?, place.start..pledged.end))
        })
    }
}

#[cfg(test)]
mod tests {
    use starfish_dht::Identity;

    use super::*;
    use crate::task::{JobId, Outcome};

    fn place(start: u64, by: &Identity) -> Place {
        Place { start, generation: 0, by: Some(by.peer_id()) }
    }

    fn key(by: &Identity, start: u64) -> SealKey {
        SealKey::new(by, &JobId([1; 16]), 0, start)
    }

    fn results(codes: &[i32]) -> Vec<TaskResult> {
        codes.iter().map(|code| TaskResult::exited(*code)).collect()
    }

    #[test]
    fn nobody_tells_before_enough_have_pledged_on_each_task() {
        let [one, two, three] = [(); 3].map(|()| Identity::generate());
        let mut jury = Jury::new(3);
        jury.pledge(place(0, &one), 10, Digest([1; 32]));
        jury.pledge(place(0, &two), 5, Digest([2; 32]));
        jury.pledge(place(0, &three), 10, Digest([3; 32]));
        assert!(jury.to_reveal(one.peer_id()).is_empty(), "two have yet to pledge on the last five");
        assert_eq!(jury.to_reveal(two.peer_id()), [place(0, &two)]);
        jury.pledge(place(5, &two), 10, Digest([4; 32]));
        assert_eq!(jury.to_reveal(one.peer_id()), [place(0, &one)]);
        jury.key(place(0, &one), key(&one, 0));
        assert!(jury.to_reveal(one.peer_id()).is_empty(), "it has told");
    }

    #[test]
    fn fewer_are_enough_when_the_keeper_says_so_but_never_fewer_than_must_agree() {
        let [one, two] = [(); 2].map(|()| Identity::generate());
        let mut jury = Jury::new(3);
        jury.pledge(place(0, &one), 1, Digest([1; 32]));
        jury.lower(1);
        assert!(jury.to_reveal(one.peer_id()).is_empty());
        jury.pledge(place(0, &two), 1, Digest([2; 32]));
        assert_eq!(jury.to_reveal(one.peer_id()).len(), 1);
    }

    #[test]
    fn what_two_of_three_found_counts_in_whatever_order_it_is_opened() {
        let nodes = [(); 3].map(|()| Identity::generate());
        let found = [results(&[0, 0, 1]), results(&[0, 7, 1]), results(&[0, 7, 1])];
        for order in [[0, 1, 2], [1, 2, 0], [2, 0, 1]] {
            let mut jury = Jury::new(3);
            let mut decided = Vec::new();
            for at in order {
                jury.key(place(0, &nodes[at]), key(&nodes[at], 0));
                jury.pledge(place(0, &nodes[at]), 3, Digest([0; 32]));
                assert_eq!(jury.to_open().len(), 1, "a key may come before its pledge");
                for (run, results) in jury.opened(place(0, &nodes[at]), &found[at]) {
                    decided.extend(run.zip(results.into_iter().map(|result| result.outcome)));
                }
            }
            decided.sort_by_key(|(task, _)| *task);
            let outcomes: Vec<_> = decided.into_iter().map(|(_, outcome)| outcome).collect();
            assert_eq!(outcomes, [0, 7, 1].map(Outcome::Exited));
            assert_eq!(jury.outvoted().keys().collect::<Vec<_>>(), [&nodes[0].peer_id()]);
            assert!(jury.is_all_open(0));
        }
    }

    #[test]
    fn who_pledges_two_things_for_one_slice_is_caught_and_does_not_count() {
        let liar = Identity::generate();
        let mut jury = Jury::new(2);
        jury.pledge(place(0, &liar), 2, Digest([1; 32]));
        jury.pledge(place(0, &liar), 2, Digest([1; 32]));
        assert!(jury.outvoted().is_empty(), "the same again is the same");
        jury.pledge(place(0, &liar), 2, Digest([2; 32]));
        assert_eq!(jury.outvoted().len(), 1);
        assert_eq!(jury.pledges(0).count(), 0);
        assert!(jury.opened(place(0, &liar), &results(&[0, 0])).is_empty());
    }
}
