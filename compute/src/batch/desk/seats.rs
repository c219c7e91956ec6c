//! Desks side by side, where each task is to be run by several nodes: one for the first copy of every task, one for the
//! second, and so on. No node is given a task twice.
//!
//! All desks are worked off from the front, the lowest task first, so that the copies of a task are run at about the same
//! time. A batch that is not verified has one desk, and nothing here makes a difference.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use rangemap::RangeSet;
use starfish_dht::PeerId;

use super::{Answer, Desk};
use crate::board::Millis;

/// See the [module](self).
#[derive(Debug)]
pub struct Seats {
    tasks: u64,
    desks: Vec<Desk>,
    /// Of each node, the tasks that it has run, where there is more than one desk.
    had: BTreeMap<PeerId, RangeSet<u64>>,
}

impl Seats {
    /// The desks of a batch of so many tasks, of which `done` need not be run; the others so many times. Nothing is handed
    /// out before `settled`.
    pub fn new(tasks: u64, done: &RangeSet<u64>, copies: usize, settled: Millis) -> Self {
        let desks = (0..copies.max(1)).map(|_| Desk::new(tasks, done.clone(), settled)).collect();
        Self { tasks, desks, had: BTreeMap::new() }
    }

    /// One more copy of these tasks is needed.
    pub fn add(&mut self, of: &RangeSet<u64>, now: Millis) {
        let all = 0..self.tasks;
        let done = of.gaps(&all).collect();
        self.desks.push(Desk::new(self.tasks, done, now));
    }

    /// Copies that were added are not waited for where none of these nodes can make them.
    pub fn give_up(&mut self, first: usize, able: &BTreeSet<PeerId>) {
        for desk in self.desks.iter_mut().skip(first) {
            let mut left = desk.open();
            for node in able {
                let had = self.had.get(node).cloned().unwrap_or_default();
                let may: Vec<_> = left.iter().flat_map(|run| had.gaps(run)).collect();
                may.into_iter().for_each(|run| left.remove(run));
            }
            left.iter().for_each(|run| desk.ended(run, 0));
        }
    }

    /// Whether `pledged` knows of all that nodes said to have run, of these tasks.
    pub fn is_known<'desk>(
        &'desk self,
        of: &RangeSet<u64>,
        pledged: impl Fn(&'desk PeerId) -> RangeSet<u64>,
    ) -> bool {
        self.had.iter().all(|(node, had)| {
            let known = pledged(node);
            let mut said = of.iter().flat_map(|run| had.overlapping(run).map(|part| common(run, part)));
            said.all(|part| known.gaps(&part).next().is_none())
        })
    }

    /// How many copies there are of a task, at the most.
    pub fn copies(&self) -> usize {
        self.desks.len()
    }

    /// Node `by` asks for work.
    pub fn claim(&mut self, now: Millis, by: PeerId) -> Answer {
        if let [only] = self.desks.as_mut_slice() {
            return only.claim(now, by);
        }
        let mut taken = self.had.get(&by).cloned().unwrap_or_default();
        taken.extend(self.desks.iter().flat_map(|desk| desk.leases_of(by)));
        let mut order: Vec<_> = (0..self.desks.len()).collect();
        order.sort_by_key(|at| self.desks[*at].first_open_but(&taken).unwrap_or(u64::MAX));
        for at in order {
            let answer = self.desks[at].claim_but(now, by, &taken);
            if let Answer::Slice(_) = answer {
                return answer;
            }
        }
        if self.is_complete() { Answer::Over } else { Answer::Later }
    }

    /// See [`Desk::span`].
    pub fn span(&self, now: Millis) -> Millis {
        self.desks.iter().map(|desk| desk.span(now)).max().unwrap_or(0)
    }

    /// See [`Desk::adopt`].
    pub fn adopt(&mut self, now: Millis, range: &Range<u64>, by: PeerId) -> bool {
        self.desks.iter_mut().any(|desk| desk.adopt(now, range, by))
    }

    /// See [`Desk::note_near`].
    pub fn note_near(&mut self, by: PeerId, tasks: RangeSet<u64>) {
        if let [only] = self.desks.as_mut_slice() {
            only.note_near(by, tasks);
        }
    }

    /// See [`Desk::shorten`].
    pub fn shorten(&mut self, start: u64, end: u64, by: PeerId) {
        if let Some(desk) = self.desk_of(start, by) {
            desk.shorten(start, end);
        }
    }

    /// See [`Desk::beat`].
    pub fn beat(&mut self, now: Millis, start: u64, by: PeerId) -> bool {
        self.desks.iter_mut().any(|desk| desk.beat(now, start, by))
    }

    /// See [`Desk::give_back`].
    pub fn give_back(&mut self, start: u64, by: PeerId) {
        if let Some(desk) = self.desk_of(start, by) {
            desk.give_back(start, by);
        }
    }

    /// Node `by` has run these tasks.
    pub fn ended(&mut self, range: &Range<u64>, elapsed_us: u64, by: PeerId) {
        if let [only] = self.desks.as_mut_slice() {
            return only.ended(range, elapsed_us);
        }
        if range.is_empty() || range.end > self.tasks {
            return;
        }
        let had = self.had.entry(by).or_default();
        let news: Vec<_> = had.gaps(range).collect();
        had.insert(range.clone());
        for mut rest in news.into_iter().map(|part| std::iter::once(part).collect::<RangeSet<u64>>()) {
            // First where it was given them, and then where they are missing.
            let given = |desk: &Desk| desk.leases_of(by).any(|lease| rest.overlaps(&lease));
            let given = self.desks.iter().position(given);
            for at in given.into_iter().chain(0..self.desks.len()) {
                let desk = &mut self.desks[at];
                for part in rest.iter().cloned().collect::<Vec<_>>() {
                    for missing in desk.missing(&part) {
                        desk.ended(&missing, elapsed_us);
                        rest.remove(missing);
                    }
                }
            }
        }
    }

    /// Node `by` is not asked for these tasks any more, though what it found does not count.
    pub fn exclude(&mut self, range: &Range<u64>, by: PeerId) {
        if !range.is_empty() {
            self.had.entry(by).or_default().insert(range.clone());
        }
    }

    /// Who is at work on what goes on with it at these desks, where they have room for it.
    pub fn take_over(&mut self, other: &Self, now: Millis) {
        for (range, by) in other.desks.iter().flat_map(Desk::leases) {
            self.adopt(now, &range, by);
        }
    }

    /// Nobody need run these tasks any more.
    pub fn settle(&mut self, range: &Range<u64>) {
        self.desks.iter_mut().for_each(|desk| desk.ended(range, 0));
    }

    /// See [`Desk::lost`].
    pub fn lost(&mut self, now: Millis, task: u64, start: u64, by: PeerId, why: &str) -> Option<String> {
        let reason = self.desk_of(start, by)?.lost(now, task, by, why)?;
        self.settle(&(task..task + 1));
        Some(reason)
    }

    /// See [`Desk::gone`].
    pub fn gone(&mut self, peer: PeerId) {
        self.desks.iter_mut().for_each(|desk| desk.gone(peer));
    }

    /// See [`Desk::tick`].
    pub fn tick(&mut self, now: Millis) {
        self.desks.iter_mut().for_each(|desk| desk.tick(now));
    }

    /// Whether every task has been run as often as it is to be.
    pub fn is_complete(&self) -> bool {
        self.desks.iter().all(Desk::is_complete)
    }

    /// The nodes at work.
    pub fn workers(&self) -> BTreeSet<PeerId> {
        self.desks.iter().flat_map(Desk::workers).collect()
    }

    /// See [`Desk::losses`].
    pub fn losses(&self) -> impl Iterator<Item = (u64, PeerId, &str)> {
        self.desks.iter().flat_map(Desk::losses)
    }

    fn desk_of(&mut self, start: u64, by: PeerId) -> Option<&mut Desk> {
        self.desks.iter_mut().find(|desk| desk.leases_of(by).any(|lease| lease.start == start))
    }
}

fn common(one: &Range<u64>, other: &Range<u64>) -> Range<u64> {
    one.start.max(other.start)..one.end.min(other.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_task(task: u64) -> RangeSet<u64> {
        std::iter::once(task..task + 1).collect()
    }

    fn names<const N: usize>() -> [PeerId; N] {
        [(); N].map(|()| PeerId::random())
    }

    /// A node runs all that it is given.
    fn run_all(seats: &mut Seats, by: PeerId) {
        while let Answer::Slice(slice) = seats.claim(0, by) {
            seats.ended(&slice, 1, by);
            seats.give_back(slice.start, by);
        }
    }

    #[test]
    fn each_task_is_run_by_so_many_different_nodes() {
        for nodes in 3..7 {
            let workers: Vec<_> = (0..nodes).map(|_| PeerId::random()).collect();
            let (mut seats, mut runs) = (Seats::new(500, &RangeSet::new(), 3, 0), vec![BTreeSet::new(); 500]);
            for turn in 0.. {
                assert!(turn < 100_000);
                let by = workers[turn % nodes];
                match seats.claim(0, by) {
                    Answer::Over => break,
                    Answer::Later => {}
                    Answer::Slice(slice) => {
                        slice
                            .clone()
                            .for_each(|task| assert!(runs[usize::try_from(task).unwrap()].insert(by)));
                        seats.ended(&slice, 1000, by);
                        seats.give_back(slice.start, by);
                    }
                }
            }
            assert!(runs.iter().all(|by| by.len() == 3), "{nodes} nodes");
        }
    }

    #[test]
    fn what_a_lost_node_had_begun_is_run_by_another_that_has_not_had_it() {
        let [one, two, three, four] = names();
        let mut seats = Seats::new(10, &RangeSet::new(), 2, 0);
        let Answer::Slice(begun) = seats.claim(0, one) else { panic!() };
        seats.ended(&(begun.start..begun.start + 1), 1, one);
        seats.gone(one);
        for by in [two, three, four] {
            run_all(&mut seats, by);
        }
        assert!(seats.is_complete());
        assert_eq!(seats.claim(0, one), Answer::Over);
    }

    #[test]
    fn two_nodes_cannot_make_three_copies_and_a_third_completes_them() {
        let [one, two, three] = names();
        let mut seats = Seats::new(20, &RangeSet::new(), 3, 0);
        for by in [one, two, one, two] {
            run_all(&mut seats, by);
        }
        assert_eq!(seats.claim(0, one), Answer::Later);
        assert!(!seats.is_complete());
        while let Answer::Slice(slice) = seats.claim(0, three) {
            seats.ended(&slice, 1, three);
        }
        assert!(seats.is_complete());
    }

    #[test]
    fn a_new_keeper_counts_what_was_run_before_and_asks_for_the_rest() {
        let [one, two, three] = names();
        let mut seats = Seats::new(10, &RangeSet::new(), 3, 0);
        seats.ended(&(0..10), 1, one);
        seats.ended(&(0..4), 1, two);
        seats.ended(&(0..4), 1, two);
        assert_eq!(seats.claim(0, one), Answer::Later);
        let Answer::Slice(slice) = seats.claim(0, two) else { panic!() };
        assert!(slice.start >= 4, "{slice:?}");
        let Answer::Slice(slice) = seats.claim(0, three) else { panic!() };
        assert_eq!(slice.start, 0);
    }

    #[test]
    fn nobody_waits_for_one_more_copy_that_nobody_can_make() {
        let [one, two, three] = names();
        let mut seats = Seats::new(10, &RangeSet::new(), 2, 0);
        seats.ended(&(0..10), 1, one);
        seats.ended(&(0..10), 1, two);
        seats.add(&one_task(4), 0);
        seats.give_up(2, &BTreeSet::from([one, three]));
        assert!(!seats.is_complete(), "the third can");
        seats.give_up(2, &BTreeSet::from([one, two]));
        assert!(seats.is_complete());
    }

    #[test]
    fn one_more_copy_is_of_some_tasks_only_and_by_somebody_else() {
        let [one, two, three] = names();
        let mut seats = Seats::new(10, &RangeSet::new(), 2, 0);
        seats.ended(&(0..10), 1, one);
        seats.ended(&(0..10), 1, two);
        assert!(seats.is_complete());
        seats.add(&one_task(4), 0);
        assert_eq!(seats.claim(0, one), Answer::Later);
        assert_eq!(seats.claim(0, three), Answer::Slice(4..5));
        assert_eq!(seats.copies(), 3);
    }
}
