//! Moments at which what the engine shows is whole.
//!
//! While a commit is under way, a look without a snapshot sees some of it. A snapshot sees all that was written before its number,
//! and a commit's number is passed only when it is over; but the engine (`lsm-tree` 3.1) takes a number for every table that it has
//! written as well, and when it is done with one in the middle of a commit, snapshots from then on see what is there of that commit. So
//! it is noted what number a commit has at the least, and a snapshot that sees beyond it is taken anew when the commit is over.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// How soon a snapshot is tried again. A commit takes some tens of microseconds, or a sync.
const TRY_AGAIN: Duration = Duration::from_micros(50);

/// When commits are under way. One is at a time.
#[derive(Debug, Default)]
pub(crate) struct Moments {
    /// Begins and ends of commits: odd while one is under way.
    commits: AtomicU64,
    /// The least number that the one that is under way can have.
    number: AtomicU64,
}

impl Moments {
    /// Notes that a commit is under way while `commit` runs, whose number is `number` or a later one.
    pub(crate) fn commit<T>(&self, number: u64, commit: impl FnOnce() -> T) -> T {
        self.number.store(number, Ordering::SeqCst);
        self.commits.fetch_add(1, Ordering::SeqCst);
        let outcome = commit();
        self.commits.fetch_add(1, Ordering::SeqCst);
        outcome
    }

    /// Whether no commit is under way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.commits.load(Ordering::SeqCst).is_multiple_of(2)
    }

    /// What a look comes to, if no commit was under way meanwhile that it may have seen a part of.
    pub(crate) fn undisturbed<T>(&self, look: impl FnOnce() -> T) -> Option<T> {
        let before = self.commits.load(Ordering::SeqCst);
        let found = before.is_multiple_of(2).then(look)?;
        (self.commits.load(Ordering::SeqCst) == before).then_some(found)
    }

    /// A snapshot that shows no part of a commit that is under way. It sees what was written before its number.
    pub(crate) fn snapshot<T>(&self, take: impl Fn() -> T, number_of: impl Fn(&T) -> u64) -> T {
        loop {
            let before = self.commits.load(Ordering::SeqCst);
            let snapshot = take();
            let is_whole =
                before.is_multiple_of(2) || number_of(&snapshot) <= self.number.load(Ordering::SeqCst);
            if is_whole && self.commits.load(Ordering::SeqCst) == before {
                return snapshot;
            }
            if !is_whole {
                std::thread::sleep(TRY_AGAIN);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_disturbed_by_a_commit() {
        let moments = Moments::default();
        assert!(moments.is_quiet());
        assert_eq!(moments.undisturbed(|| 1), Some(1));
        assert_eq!(moments.undisturbed(|| moments.commit(1, || 1)), None);
        assert_eq!(moments.commit(1, || moments.undisturbed(|| 1)), None);
        assert!(moments.commit(1, || !moments.is_quiet()));
    }

    #[test]
    fn a_snapshot_that_may_show_a_part_of_a_commit_is_taken_anew_when_that_is_over() {
        let (moments, visible) = (Moments::default(), AtomicU64::new(7));
        let take = || moments.snapshot(|| visible.load(Ordering::SeqCst), |number| *number);
        assert_eq!(take(), 7, "nothing is under way");
        assert_eq!(moments.commit(7, take), 7, "what is under way is behind it");
        std::thread::scope(|scope| {
            let waiting = moments.commit(7, || {
                // The engine was done with a table.
                visible.store(9, Ordering::SeqCst);
                let waiting = scope.spawn(take);
                std::thread::sleep(20 * TRY_AGAIN);
                assert!(!waiting.is_finished());
                waiting
            });
            assert_eq!(waiting.join().unwrap(), 9);
        });
    }
}
