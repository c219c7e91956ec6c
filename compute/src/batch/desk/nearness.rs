//! Which nodes have the files of which tasks, and who waits for the sake of it. Pure.
//!
//! A node is given tasks whose files it has; then those whose files nobody has who asked; and what others have only after it
//! has waited for [`MOVE_AFTER`], so that it moves no files which the others are about to get at anyway, and nobody waits
//! for long. This is delay scheduling (Zaharia et al., EuroSys 2010).

use std::collections::BTreeMap;
use std::ops::Range;

use rangemap::RangeSet;
use starfish_dht::PeerId;

use crate::board::Millis;

/// How long a node waits for tasks that no other has the files of. Small against what fetching the files of a slice takes
/// over most networks, and against what a job takes that is worth a swarm.
pub(super) const MOVE_AFTER: Millis = 500;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Nearness {
    near: BTreeMap<PeerId, RangeSet<u64>>,
    /// All of `near`, of whomever.
    anybodys: RangeSet<u64>,
    /// Since when a node waits.
    waiting: BTreeMap<PeerId, Millis>,
}

impl Nearness {
    /// A node has the files of these tasks.
    pub(super) fn note(&mut self, by: PeerId, tasks: RangeSet<u64>) {
        if tasks.is_empty() {
            return self.forget(&by);
        }
        self.near.insert(by, tasks);
        self.unite();
    }

    /// A node is gone, and what it has is not to be waited for.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.waiting.remove(peer);
        if self.near.remove(peer).is_some() {
            self.unite();
        }
    }

    fn unite(&mut self) {
        self.anybodys = self.near.values().flat_map(RangeSet::iter).cloned().collect();
    }

    /// Of the open tasks, the run that a node is to take the next from, and whether from its end; nothing if it is to wait.
    pub(super) fn choose(
        &mut self,
        now: Millis,
        by: PeerId,
        open: &RangeSet<u64>,
    ) -> Option<(Range<u64>, End)> {
        let own = self.near.get(&by).and_then(|near| near.iter().find_map(|near| common(near, open)));
        if let Some(run) = own {
            self.waiting.remove(&by);
            return Some((run, End::Front));
        }
        if let Some(run) = open.iter().find_map(|open| self.anybodys.gaps(open).next()) {
            self.waiting.remove(&by);
            return Some((run, End::Front));
        }
        let last = open.iter().next_back()?.clone();
        let since = *self.waiting.entry(by).or_insert(now);
        if now < since + MOVE_AFTER {
            return None;
        }
        self.waiting.remove(&by);
        // From the other end than where those are at work who have the files.
        Some((last, End::Back))
    }
}

/// Which end of a run a slice is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Front,
    Back,
}

/// The first run of `near` that is open.
fn common(near: &Range<u64>, open: &RangeSet<u64>) -> Option<Range<u64>> {
    let first = open.overlapping(near).next()?;
    Some(first.start.max(near.start)..first.end.min(near.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(range: Range<u64>) -> RangeSet<u64> {
        std::iter::once(range).collect()
    }

    #[test]
    fn a_node_gets_what_it_has_then_what_nobody_has_and_then_waits_for_the_rest() {
        let ([one, other], mut nearness) = ([(); 2].map(|()| PeerId::random()), Nearness::default());
        nearness.note(one, run(10..20));
        nearness.note(other, run(0..5));
        let mut open = run(0..30);
        assert_eq!(nearness.choose(0, one, &open), Some((10..20, End::Front)));
        open.remove(10..20);
        assert_eq!(nearness.choose(0, one, &open), Some((5..10, End::Front)), "nobody has these");
        open.remove(5..30);
        assert_eq!(nearness.choose(100, one, &open), None);
        assert_eq!(nearness.choose(99 + MOVE_AFTER, one, &open), None);
        assert_eq!(nearness.choose(100 + MOVE_AFTER, one, &open), Some((0..5, End::Back)));
        assert_eq!(nearness.choose(101 + MOVE_AFTER, one, &open), None, "it waits for each");
        assert_eq!(nearness.choose(0, other, &open), Some((0..5, End::Front)));
    }

    #[test]
    fn nobody_waits_for_a_node_that_is_gone() {
        let ([one, other], mut nearness) = ([(); 2].map(|()| PeerId::random()), Nearness::default());
        nearness.note(other, run(0..5));
        let open = run(0..5);
        assert_eq!(nearness.choose(0, one, &open), None);
        nearness.forget(&other);
        assert_eq!(nearness.choose(1, one, &open), Some((0..5, End::Front)));
    }
}
