//! Of several nodes that ran the same tasks, what counts: that which more than half of those asked agree on.
//! A pure state machine.
//!
//! Every node works this out by itself from the receipts, so nobody has to be believed. Who said something else than what
//! counts is *outvoted*, by name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use starfish_dht::PeerId;

use super::receipt::TaskResult;
use crate::task::Digest;

/// The most nodes that can be asked to run the same task.
pub const MAX_COPIES: u8 = 9;
/// The most tasks of a batch whose results are compared: each is a few dozen bytes of memory until all have voted.
pub(crate) const MAX_VERIFIED: u64 = 1_000_000;

/// How many must agree, of so many.
pub(crate) fn quorum(copies: u8) -> usize {
    usize::from(copies) / 2 + 1
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub(crate) struct Ballot {
    copies: u8,
    /// Tasks that somebody has yet to vote on, by generation and number.
    open: BTreeMap<(u32, u64), Vec<(PeerId, Digest)>>,
    outvoted: BTreeMap<PeerId, Outvoted>,
}

/// What a node said that did not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outvoted {
    /// On how many tasks.
    pub tasks: u64,
    /// One of them.
    pub example: u64,
}

impl Ballot {
    /// That of a batch whose tasks so many nodes are to run.
    pub(crate) fn new(copies: u8) -> Self {
        Self { copies, open: BTreeMap::new(), outvoted: BTreeMap::new() }
    }

    /// A node has run a task. Says whether what it says counts from now on, since just enough have said the same.
    pub(crate) fn vote(&mut self, generation: u32, task: u64, by: PeerId, said: Digest) -> bool {
        let votes = self.open.entry((generation, task)).or_default();
        if votes.iter().any(|(voter, _)| *voter == by) {
            return false;
        }
        let (before, quorum) = (winner(votes, self.copies), quorum(self.copies));
        votes.push((by, said));
        let after = winner(votes, self.copies);
        let is_decided = before.is_none() && after.is_some();
        if let Some(winner) = after {
            let against =
                votes.iter().filter(|(voter, said)| *said != winner && (is_decided || *voter == by));
            for (voter, _) in against {
                let entry = self.outvoted.entry(*voter).or_insert(Outvoted { tasks: 0, example: task });
                entry.tasks += 1;
            }
            if votes.len() >= usize::from(self.copies).max(quorum) {
                self.open.remove(&(generation, task));
            }
        }
        is_decided
    }

    /// A node was caught at something that no honest node does.
    pub(crate) fn catch(&mut self, by: PeerId, task: u64) {
        self.outvoted.entry(by).or_insert(Outvoted { tasks: 0, example: task }).tasks += 1;
    }

    /// Who voted for what on a task that is not decided.
    pub(crate) fn votes(&self, generation: u32, task: u64) -> &[(PeerId, Digest)] {
        self.open.get(&(generation, task)).map_or(&[], Vec::as_slice)
    }

    /// Who said something else than what counts.
    pub(crate) fn outvoted(&self) -> &BTreeMap<PeerId, Outvoted> {
        &self.outvoted
    }
}

/// What enough agree on.
fn winner(votes: &[(PeerId, Digest)], copies: u8) -> Option<Digest> {
    let mut counts = BTreeMap::<Digest, usize>::new();
    votes.iter().for_each(|(_, said)| *counts.entry(*said).or_default() += 1);
    let (said, count) = counts.into_iter().max_by_key(|(said, count)| (*count, *said))?;
    (count >= quorum(copies)).then_some(said)
}

/// What a result says, without what differs between nodes that did the same: how long it took, and how often it was tried.
pub(crate) fn said(result: &TaskResult) -> Option<Digest> {
    let TaskResult { outcome, stdout, stderr, .. } = result;
    postcard::to_stdvec(&(outcome, stdout, stderr)).ok().map(|bytes| Digest::of(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names<const N: usize>() -> [PeerId; N] {
        [(); N].map(|()| PeerId::random())
    }

    const RIGHT: Digest = Digest([1; 32]);
    const WRONG: Digest = Digest([2; 32]);

    #[test]
    fn two_of_three_decide_and_the_third_is_named_whenever_it_comes() {
        let [one, other, liar] = names();
        for order in [[0, 1, 2], [0, 2, 1], [2, 0, 1], [2, 1, 0]] {
            let mut ballot = Ballot::new(3);
            let votes = [(one, RIGHT), (other, RIGHT), (liar, WRONG)];
            let decided: Vec<_> =
                order.iter().map(|at| ballot.vote(0, 5, votes[*at].0, votes[*at].1)).collect();
            assert_eq!(decided.iter().filter(|decided| **decided).count(), 1, "{order:?}");
            let named: Vec<_> = ballot.outvoted().iter().collect();
            assert_eq!(named, [(&liar, &Outvoted { tasks: 1, example: 5 })]);
            assert!(ballot.open.is_empty(), "nothing is kept of what all have voted on");
        }
    }

    #[test]
    fn nobody_votes_twice() {
        let [one, other] = names();
        let mut ballot = Ballot::new(3);
        assert!(!ballot.vote(0, 0, one, WRONG) && !ballot.vote(0, 0, one, WRONG));
        assert!(!ballot.vote(0, 0, other, RIGHT));
        assert!(ballot.outvoted().is_empty());
    }

    #[test]
    fn where_nobody_agrees_more_are_asked_and_those_decide() {
        let voters = names::<5>();
        let mut ballot = Ballot::new(3);
        for (number, voter) in voters.iter().take(3).enumerate() {
            assert!(!ballot.vote(1, 7, *voter, Digest::of(&[u8::try_from(number).unwrap()])));
        }
        assert_eq!(ballot.votes(1, 7).len(), 3);
        assert!(ballot.vote(1, 7, voters[3], Digest::of(&[1])));
        assert_eq!(ballot.outvoted().len(), 2);
        assert!(!ballot.outvoted().contains_key(&voters[1]));
    }

    #[test]
    fn generations_are_apart() {
        let [one, other] = names();
        let mut ballot = Ballot::new(2);
        assert!(!ballot.vote(0, 0, one, RIGHT));
        assert!(!ballot.vote(1, 0, other, RIGHT));
        assert!(ballot.vote(0, 0, other, RIGHT), "two of two must agree");
    }
}
