//! How many tasks go into a slice.
//!
//! A slice is to take about half a second, so that asking for it costs nothing beside it and little is lost with a
//! node; and it is a small part of what is left, so that all nodes end at about the same time (guided
//! self-scheduling, Polychronopoulos and Kuck 1987). A batch that has gone on for long can lose more with a node, and
//! should not write down each of its tasks by itself: so slices grow with it ([`span`]).

use crate::board::Millis;

/// What a slice is to take at first.
const SPAN: Millis = 500;
/// The longest that one is to take, and that what has ended waits to be written down.
pub(crate) const MAX_SPAN: Millis = 30_000;
/// A slice is to take no longer than this part of what the batch has taken already.
const SPANS: Millis = 50;
/// The most tasks of a slice.
pub(crate) const MAX_SLICE: u64 = 16_384;
/// What is left is split into this many slices for each node at work.
const SHARES: u64 = 4;
/// The weight of the newest slice in the mean.
const NEWEST: f64 = 0.3;

/// How long the tasks of a batch take.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    task_us: Option<f64>,
}

/// What a slice is to take, of a batch that has taken so long already.
pub(crate) fn span(age: Millis) -> Millis {
    (age / SPANS).clamp(SPAN, MAX_SPAN)
}

impl Pace {
    /// So many tasks took so long together.
    pub(crate) fn learn(&mut self, tasks: u64, elapsed_us: u64) {
        if tasks == 0 {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a mean")]
        let each = elapsed_us as f64 / tasks as f64;
        self.task_us = Some(self.task_us.map_or(each, |mean| mean * (1.0 - NEWEST) + each * NEWEST));
    }

    /// Tasks for the next slice, which is to take `span`, of `open` tasks that nobody has, with `slices` at work.
    pub(crate) fn slice(&self, span: Millis, open: u64, slices: usize) -> u64 {
        let share = open / (SHARES * (slices as u64 + 1));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "saturates, is positive, and is small"
        )]
        let in_time = self.task_us.map_or(1, |each| (span as f64 * 1000.0 / each.max(1.0)) as u64);
        in_time.min(share).clamp(1, MAX_SLICE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_goes_on_for_long_has_longer_slices() {
        assert_eq!([0, 25_000, 50_000, 100_000, 3_600_000].map(span), [500, 500, 1000, 2000, 30_000]);
    }

    #[test]
    fn slices_follow_the_time_that_tasks_take_and_shrink_towards_the_end() {
        let mut pace = Pace::default();
        assert_eq!(pace.slice(SPAN, 1_000_000, 8), 1, "nothing is known yet");
        pace.learn(1, 10_000);
        assert_eq!(pace.slice(SPAN, 1_000_000, 8), 50);
        assert_eq!(pace.slice(SPAN, 720, 8), 20);
        assert_eq!(pace.slice(SPAN, 3, 8), 1);
        for _ in 0..100 {
            pace.learn(1000, 0);
        }
        assert_eq!(pace.slice(SPAN, 10_000_000, 8), MAX_SLICE);
        pace.learn(1, u64::MAX);
        assert_eq!(pace.slice(SPAN, 10_000_000, 8), 1);
    }
}
