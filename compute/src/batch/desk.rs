//! What the keeper of a batch decides: who runs which tasks next. A pure state machine.
//!
//! The desk knows which tasks have receipts and who has been given which slice. Nothing of it is lasting: a new keeper
//! makes one from the receipts. Since the old keeper's slices are unknown to it, it waits a moment before it hands out
//! any, in which whoever is at work on them writes down what has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use rangemap::RangeSet;
use starfish_dht::PeerId;

use self::nearness::{End, Nearness};
pub use self::seats::Seats;
use super::pace::{self, Pace};
use crate::board::{LOST_AFTER, MAX_LOST, Millis};

/// How long a new keeper waits for the receipts of what its predecessor had handed out: those at work close theirs
/// at least every second when they have lost their keeper.
pub const SETTLE_FOR: Millis = 2000;
/// Who lost a task is not given it again for so long, so that another node can have it.
const AVOID_FOR: Millis = 1500;

/// What a node that asks for work is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Run these tasks.
    Slice(Range<u64>),
    /// There is nothing at the moment: what is left is at work, or waits for another node.
    Later,
    /// Every task has ended.
    Over,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Desk {
    tasks: u64,
    /// How many of them are not done.
    left: u64,
    /// How many of them are open.
    n_open: u64,
    /// Tasks that need not be run any more.
    done: RangeSet<u64>,
    /// Tasks that nobody has, but for those in `again`.
    open: RangeSet<u64>,
    leases: BTreeMap<u64, Lease>,
    /// Tasks that were lost with a worker process, each to be run by itself.
    again: BTreeMap<u64, Again>,
    /// Of each such task, who lost it and why.
    lost: BTreeMap<u64, Vec<(PeerId, String)>>,
    pace: Pace,
    nearness: Nearness,
    settled: Millis,
    /// When the first slice was handed out.
    began: Option<Millis>,
}

#[derive(Clone, Debug)]
struct Lease {
    end: u64,
    by: PeerId,
    heard: Millis,
}

#[derive(Clone, Debug)]
struct Again {
    avoid: PeerId,
    until: Millis,
}

impl Desk {
    /// The desk of a batch of so many tasks, of which `done` need not be run. It hands out nothing before `settled`.
    pub fn new(tasks: u64, done: RangeSet<u64>, settled: Millis) -> Self {
        let all = 0..tasks;
        let open: RangeSet<u64> = if tasks == 0 { RangeSet::new() } else { done.gaps(&all).collect() };
        let left = open.iter().map(length).sum();
        let (leases, again, lost) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (pace, nearness) = (Pace::default(), Nearness::default());
        Self {
            tasks,
            left,
            n_open: left,
            done,
            open,
            leases,
            again,
            lost,
            pace,
            nearness,
            settled,
            began: None,
        }
    }

    /// Node `by` asks for work.
    pub fn claim(&mut self, now: Millis, by: PeerId) -> Answer {
        self.claim_but(now, by, &RangeSet::new())
    }

    /// The same, for a node that is not to have certain tasks.
    fn claim_but(&mut self, now: Millis, by: PeerId, but: &RangeSet<u64>) -> Answer {
        if self.is_complete() {
            return Answer::Over;
        }
        if now < self.settled {
            return Answer::Later;
        }
        let slice = self.take_again(now, by, but).or_else(|| self.take_open(now, by, but));
        let Some(slice) = slice else { return Answer::Later };
        self.began.get_or_insert(now);
        self.leases.insert(slice.start, Lease { end: slice.end, by, heard: now });
        Answer::Slice(slice)
    }

    /// How long a slice that is handed out now is to take, and what has ended may wait to be written down.
    pub fn span(&self, now: Millis) -> Millis {
        pace::span(self.began.map_or(0, |began| now.saturating_sub(began)))
    }

    /// A node is at work on these tasks, which another keeper gave it. Says whether it may go on: not if somebody else
    /// has some of them.
    pub fn adopt(&mut self, now: Millis, range: &Range<u64>, by: PeerId) -> bool {
        let is_ours = !range.is_empty() && range.end <= self.tasks;
        let is_free = is_ours && self.done.gaps(range).all(|rest| self.open.gaps(&rest).next().is_none());
        if is_free {
            self.close(range);
            self.leases.insert(range.start, Lease { end: range.end, by, heard: now });
        }
        is_free
    }

    /// A node has the files of these tasks at hand, so it is given them before others.
    pub fn note_near(&mut self, by: PeerId, tasks: RangeSet<u64>) {
        self.nearness.note(by, tasks);
    }

    /// The keeper takes back what is behind `end` of a slice just given: it is more than fits into one answer.
    pub fn shorten(&mut self, start: u64, end: u64) {
        let Some(lease) = self.leases.get_mut(&start) else { return };
        let rest = end..lease.end;
        lease.end = lease.end.min(end);
        self.reopen(rest);
    }

    /// A receipt tells that these tasks have ended, and how long they took.
    pub fn ended(&mut self, range: &Range<u64>, elapsed_us: u64) {
        let range = range.start.min(self.tasks)..range.end.min(self.tasks);
        if range.is_empty() {
            return;
        }
        // What is only known to have ended says nothing of how long it took.
        if elapsed_us > 0 {
            self.pace.learn(range.end - range.start, elapsed_us);
        }
        self.close(&range);
        for task in self.again.range(range.clone()).map(|(task, _)| *task).collect::<Vec<_>>() {
            self.again.remove(&task);
        }
        self.left -= self.done.gaps(&range).map(|gap| length(&gap)).sum::<u64>();
        self.done.insert(range);
    }

    /// The node at work on the slice from `start` on is alive. Says whether it should go on.
    pub fn beat(&mut self, now: Millis, start: u64, by: PeerId) -> bool {
        match self.leases.get_mut(&start) {
            Some(lease) if lease.by == by => {
                lease.heard = now;
                true
            }
            _ => false,
        }
    }

    /// A node is through with its slice, or gives it back: what of it has not ended is open again.
    pub fn give_back(&mut self, start: u64, by: PeerId) {
        if self.leases.get(&start).is_some_and(|lease| lease.by == by)
            && let Some(lease) = self.leases.remove(&start)
        {
            self.reopen(start..lease.end);
        }
    }

    /// A task took its worker process with it. It is to be run again by itself; if that has happened too often, the
    /// reason why it is not is returned, and the task counts as ended.
    pub fn lost(&mut self, now: Millis, task: u64, by: PeerId, why: &str) -> Option<String> {
        if task >= self.tasks || self.done.contains(&task) {
            return None;
        }
        let lost = self.lost.entry(task).or_default();
        lost.push((by, why.to_owned()));
        if lost.len() < MAX_LOST {
            self.close(&(task..task + 1));
            self.again.insert(task, Again { avoid: by, until: now + AVOID_FOR });
            return None;
        }
        let words: Vec<_> = lost.iter().map(|(by, why)| format!("{by}: {why}")).collect();
        let reason = format!("lost {} times ({})", lost.len(), words.join("; "));
        self.ended(&(task..task + 1), 0);
        Some(reason)
    }

    /// A node is gone; so are its slices.
    pub fn gone(&mut self, peer: PeerId) {
        self.nearness.forget(&peer);
        self.lose(|lease| lease.by == peer);
    }

    /// Time passes: slices of nodes that have fallen silent are lost.
    pub fn tick(&mut self, now: Millis) {
        self.lose(|lease| lease.heard + LOST_AFTER <= now);
    }

    /// Whether every task has ended.
    pub fn is_complete(&self) -> bool {
        self.left == 0
    }

    /// The nodes at work.
    pub fn workers(&self) -> BTreeSet<PeerId> {
        self.leases.values().map(|lease| lease.by).collect()
    }

    /// Tries that were lost with a worker process: of which task, by whom, and why.
    pub fn losses(&self) -> impl Iterator<Item = (u64, PeerId, &str)> {
        self.lost.iter().flat_map(|(task, tries)| tries.iter().map(|(by, why)| (*task, *by, why.as_str())))
    }

    fn take_again(&mut self, now: Millis, by: PeerId, but: &RangeSet<u64>) -> Option<Range<u64>> {
        let may_have = |again: &Again| again.avoid != by || again.until <= now;
        let (&task, _) = self.again.iter().find(|(task, again)| !but.contains(task) && may_have(again))?;
        self.again.remove(&task);
        Some(task..task + 1)
    }

    fn take_open(&mut self, now: Millis, by: PeerId, but: &RangeSet<u64>) -> Option<Range<u64>> {
        let (run, end) = if but.is_empty() {
            self.nearness.choose(now, by, &self.open)?
        } else {
            (self.open.iter().find_map(|open| but.gaps(open).next())?, End::Front)
        };
        let size = self.pace.slice(self.span(now), self.n_open, self.leases.len());
        let slice = match end {
            End::Front => run.start..run.end.min(run.start + size),
            End::Back => run.start.max(run.end.saturating_sub(size))..run.end,
        };
        self.close(&slice);
        Some(slice)
    }

    /// The first task that nobody has, but for some.
    fn first_open_but(&self, but: &RangeSet<u64>) -> Option<u64> {
        self.open.iter().find_map(|open| but.gaps(open).next()).map(|run| run.start)
    }

    /// The tasks that nobody has.
    fn open(&self) -> RangeSet<u64> {
        self.open.clone()
    }

    /// Who is at work on what.
    fn leases(&self) -> impl Iterator<Item = (Range<u64>, PeerId)> {
        self.leases.iter().map(|(start, lease)| (*start..lease.end, lease.by))
    }

    /// What a node is at work on.
    fn leases_of(&self, by: PeerId) -> impl Iterator<Item = Range<u64>> {
        let leases = self.leases.iter().filter(move |(_, lease)| lease.by == by);
        leases.map(|(start, lease)| *start..lease.end)
    }

    /// Those of some tasks that have not ended.
    fn missing(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        self.done.gaps(range).collect()
    }

    fn lose(&mut self, is_lost: impl Fn(&Lease) -> bool) {
        let lost: Vec<_> = self.leases.extract_if(.., |_, lease| is_lost(lease)).collect();
        for (start, lease) in lost {
            self.nearness.forget(&lease.by);
            self.reopen(start..lease.end);
        }
    }

    fn reopen(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        for rest in self.done.gaps(&range).collect::<Vec<_>>() {
            self.n_open += self.open.gaps(&rest).map(|gap| length(&gap)).sum::<u64>();
            self.open.insert(rest);
        }
        for task in self.again.range(range).map(|(task, _)| *task).collect::<Vec<_>>() {
            self.close(&(task..task + 1));
        }
    }

    /// These tasks are not open any more, if they were.
    fn close(&mut self, range: &Range<u64>) {
        if range.is_empty() {
            return;
        }
        let closed =
            self.open.overlapping(range).map(|open| open.end.min(range.end) - open.start.max(range.start));
        self.n_open -= closed.sum::<u64>();
        self.open.remove(range.clone());
    }
}

fn length(range: &Range<u64>) -> u64 {
    range.end - range.start
}

mod nearness;
mod seats;
#[cfg(test)]
mod simulation;

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(desk: &mut Desk, now: Millis, by: PeerId) -> Range<u64> {
        match desk.claim(now, by) {
            Answer::Slice(slice) => slice,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_task_is_handed_out_once_and_then_the_batch_is_over() {
        let (mut desk, workers) = (Desk::new(1000, RangeSet::new(), 0), [(); 3].map(|()| PeerId::random()));
        let mut handed = RangeSet::new();
        for turn in 0.. {
            let by = workers[turn % 3];
            if desk.is_complete() {
                break;
            }
            let slice = slice(&mut desk, 0, by);
            assert!(!handed.overlaps(&slice), "{slice:?} is handed out twice");
            handed.insert(slice.clone());
            desk.ended(&slice, 1000);
            desk.give_back(slice.start, by);
        }
        assert!(handed.gaps(&(0..1000)).next().is_none());
        assert_eq!(desk.claim(0, workers[0]), Answer::Over);
    }

    #[test]
    fn what_a_lost_node_had_not_ended_is_handed_out_again() {
        let mut desk = Desk::new(100, RangeSet::new(), 0);
        let (lost, silent, other) = (PeerId::random(), PeerId::random(), PeerId::random());
        desk.ended(&(0..1), 1000);
        let first = slice(&mut desk, 0, lost);
        let second = slice(&mut desk, 0, silent);
        desk.ended(&(first.start..first.start + 2), 0);
        desk.gone(lost);
        desk.tick(LOST_AFTER);
        assert!(!desk.beat(LOST_AFTER, second.start, silent), "who was given up does not go on");
        let mut again = RangeSet::new();
        while let Answer::Slice(slice) = desk.claim(LOST_AFTER, other) {
            again.insert(slice);
        }
        assert_eq!(again.first(), Some(&(first.start + 2..100)));
        assert_eq!(again.len(), 1);
    }

    #[test]
    fn a_new_keeper_waits_for_receipts_before_it_hands_out_slices() {
        let mut desk = Desk::new(2, RangeSet::new(), SETTLE_FOR);
        assert_eq!(desk.claim(0, PeerId::random()), Answer::Later);
        desk.ended(&(0..1), 0);
        assert_eq!(slice(&mut desk, SETTLE_FOR, PeerId::random()), 1..2);
    }

    #[test]
    fn a_new_keeper_leaves_slices_to_those_who_are_at_work_on_them() {
        let (one, other) = (PeerId::random(), PeerId::random());
        let mut desk = Desk::new(10, RangeSet::new(), SETTLE_FOR);
        assert!(desk.adopt(0, &(0..9), one));
        assert!(!desk.adopt(0, &(8..10), other), "somebody else has some of it");
        assert!(!desk.adopt(0, &(9..11), other));
        assert_eq!(slice(&mut desk, SETTLE_FOR, other), 9..10);
        assert_eq!(desk.claim(SETTLE_FOR, other), Answer::Later);
        assert!(desk.beat(SETTLE_FOR, 0, one));
    }

    #[test]
    fn a_task_that_takes_its_worker_with_it_is_tried_elsewhere_and_then_given_up() {
        let (mut desk, [one, other]) =
            (Desk::new(10, RangeSet::new(), 0), [(); 2].map(|()| PeerId::random()));
        desk.ended(&(0..4), 4);
        let given = slice(&mut desk, 0, one);
        assert_eq!(given, 4..5);
        assert_eq!(desk.lost(0, 4, one, "it died"), None);
        desk.give_back(4, one);
        let next = slice(&mut desk, 0, one);
        assert_ne!(next.start, 4, "another node has a try");
        desk.ended(&next, 1);
        assert_eq!(slice(&mut desk, 0, other), 4..5);
        assert_eq!(desk.lost(0, 4, other, "it died"), None);
        desk.give_back(4, other);
        assert_eq!(slice(&mut desk, 0, one), 4..5);
        let reason = desk.lost(0, 4, one, "it died again").unwrap();
        assert!(reason.contains("lost 3 times") && reason.contains(&other.to_string()), "{reason}");
        desk.give_back(4, one);
        assert_eq!(desk.losses().count(), 3);
        while let Answer::Slice(slice) = desk.claim(10_000, one) {
            assert_ne!(slice.start, 4);
            desk.ended(&slice, 1);
            desk.give_back(slice.start, one);
        }
        assert!(desk.is_complete());
    }

    #[test]
    fn a_slice_that_was_shortened_leaves_the_rest_to_others() {
        let mut desk = Desk::new(1000, RangeSet::new(), 0);
        desk.ended(&(0..1), 1);
        let (one, other) = (PeerId::random(), PeerId::random());
        let given = slice(&mut desk, 0, one);
        desk.shorten(given.start, given.start + 3);
        assert_eq!(slice(&mut desk, 0, other).start, given.start + 3);
    }
}
