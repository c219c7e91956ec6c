//! Which tasks of a batch have ended, and which of them well: what its receipts add up to, in whatever order they come.

use std::ops::Range;

use rangemap::RangeSet;

use super::definition::{MAX_GENERATIONS, Progress};
use super::receipt::TaskResult;

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage {
    /// Those that ended well, whenever.
    well: RangeSet<u64>,
    /// For each time the batch was begun, those that have ended since.
    ended: Vec<RangeSet<u64>>,
}

impl Coverage {
    /// A receipt: these tasks ended like that.
    pub(crate) fn add(&mut self, generation: u32, range: &Range<u64>, results: &[TaskResult]) {
        if range.is_empty() || generation > MAX_GENERATIONS {
            return;
        }
        let number = generation as usize;
        if self.ended.len() <= number {
            self.ended.resize(number + 1, RangeSet::new());
        }
        self.ended[number].insert(range.clone());
        let mut tasks = range.clone().zip(results).peekable();
        while let Some((task, result)) = tasks.next() {
            if !result.outcome.is_success() {
                continue;
            }
            let mut end = task + 1;
            while tasks.next_if(|(_, result)| result.outcome.is_success()).is_some() {
                end += 1;
            }
            self.well.insert(task..end);
        }
    }

    /// The tasks that need not be run, in the given generation: they ended since it began, or well before.
    pub(crate) fn done(&self, generation: u32) -> RangeSet<u64> {
        let mut done = self.well.clone();
        done.extend(self.ended(generation).cloned());
        done
    }

    /// Whether a task need not be run.
    pub(crate) fn is_done(&self, generation: u32, task: u64) -> bool {
        let ended = self.ended.get(generation as usize);
        self.well.contains(&task) || ended.is_some_and(|ended| ended.contains(&task))
    }

    /// How far a batch of so many tasks is.
    pub(crate) fn progress(&self, generation: u32, tasks: u64) -> Progress {
        let done = length(self.done(generation).iter());
        Progress { tasks, done, failed: done.saturating_sub(length(self.well.iter())) }
    }

    /// Whether nothing has ended yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.ended.is_empty()
    }

    fn ended(&self, generation: u32) -> impl Iterator<Item = &Range<u64>> {
        self.ended.get(generation as usize).into_iter().flat_map(RangeSet::iter)
    }
}

fn length<'a>(ranges: impl Iterator<Item = &'a Range<u64>>) -> u64 {
    ranges.map(|range| range.end - range.start).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(codes: &[i32]) -> Vec<TaskResult> {
        codes.iter().map(|code| TaskResult::exited(*code)).collect()
    }

    #[test]
    fn tasks_that_failed_are_run_again_and_only_those() {
        let mut coverage = Coverage::default();
        coverage.add(0, &(0..5), &results(&[0, 1, 0, 2, 0]));
        assert_eq!(coverage.progress(0, 6), Progress { tasks: 6, done: 5, failed: 2 });
        assert_eq!(coverage.progress(1, 6), Progress { tasks: 6, done: 3, failed: 0 });
        assert_eq!(coverage.done(1).gaps(&(0..6)).collect::<Vec<_>>(), [1..2, 3..4, 5..6]);
        coverage.add(1, &(1..2), &results(&[0]));
        coverage.add(1, &(3..4), &results(&[7]));
        coverage.add(1, &(5..6), &results(&[0]));
        assert_eq!(coverage.progress(1, 6), Progress { tasks: 6, done: 6, failed: 1 });
    }

    #[test]
    fn of_two_that_ran_the_same_task_the_one_where_it_ended_well_counts_in_either_order() {
        let (mut one, mut other) = (Coverage::default(), Coverage::default());
        let receipts = [(0..3, [0, 1, 1]), (1..4, [1, 0, 0])];
        for (range, codes) in &receipts {
            one.add(0, range, &results(codes));
        }
        for (range, codes) in receipts.iter().rev() {
            other.add(0, range, &results(codes));
        }
        for coverage in [one, other] {
            assert_eq!(coverage.progress(0, 4), Progress { tasks: 4, done: 4, failed: 1 });
        }
    }

    #[test]
    fn a_generation_out_of_bounds_is_ignored() {
        let mut coverage = Coverage::default();
        coverage.add(u32::MAX, &(0..1), &results(&[0]));
        coverage.add(0, &(1..1), &[]);
        assert!(coverage.is_empty());
    }
}
