//! How many tasks go into a slice.
//!
//! A slice is to take about half a second, so that asking for it costs nothing beside it and little is lost with a
//! node; and it is a small part of what is left, so that all nodes end at about the same time (guided
//! self-scheduling, Polychronopoulos and Kuck 1987).

/// What a slice is to take, in microseconds.
const SLICE_US: f64 = 500_000.0;
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

    /// Tasks for the next slice, of `open` tasks that nobody has, with `slices` at work.
    pub(crate) fn slice(&self, open: u64, slices: usize) -> u64 {
        let share = open / (SHARES * (slices as u64 + 1));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates, and is positive"
        )]
        let in_time = self.task_us.map_or(1, |each| (SLICE_US / each.max(1.0)) as u64);
        in_time.min(share).clamp(1, MAX_SLICE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_follow_the_time_that_tasks_take_and_shrink_towards_the_end() {
        let mut pace = Pace::default();
        assert_eq!(pace.slice(1_000_000, 8), 1, "nothing is known yet");
        pace.learn(1, 10_000);
        assert_eq!(pace.slice(1_000_000, 8), 50);
        assert_eq!(pace.slice(720, 8), 20);
        assert_eq!(pace.slice(3, 8), 1);
        for _ in 0..100 {
            pace.learn(1000, 0);
        }
        assert_eq!(pace.slice(10_000_000, 8), MAX_SLICE);
        pace.learn(1, u64::MAX);
        assert_eq!(pace.slice(10_000_000, 8), 1);
    }
}
