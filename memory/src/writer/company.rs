//! How long a group that is to be synced waits for those who are about to write again.
//!
//! Who writes one thing after the other has the next one ready a moment after the last was answered. A group that is closed
//! before that moment leaves half of them to the next sync, and so on for ever: each sync serves half of those who
//! write. So a group waits for as many as there were, for a fraction of what a sync takes, counted from the last answers: a lone
//! write does not wait.

use std::time::{Duration, Instant};

/// The share of a sync that a group may wait.
const SHARE: u32 = 4;
/// However long a sync takes.
const MAX_WAIT: Duration = Duration::from_millis(2);

/// Who may be about to write.
#[derive(Debug, Default)]
pub(super) struct Company {
    /// Jobs that were answered last, and that waited then.
    expected: usize,
    /// Until when they are waited for.
    until: Option<Instant>,
}

impl Company {
    /// Notes that `answered` jobs were answered at `now`, while `waiting` did, after a sync that took so long.
    pub(super) fn note(&mut self, answered: usize, waiting: usize, sync: Duration, now: Instant) {
        self.expected = answered + waiting;
        self.until = Some(now + (sync / SHARE).min(MAX_WAIT));
    }

    /// Whether a group with so many jobs waits for more.
    pub(super) fn is_awaited(&self, jobs: usize, now: Instant) -> bool {
        jobs < self.expected && self.until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNC: Duration = Duration::from_micros(800);

    #[test]
    fn those_who_were_there_are_waited_for_and_no_longer_than_a_part_of_a_sync() {
        let (mut company, now) = (Company::default(), Instant::now());
        assert!(!company.is_awaited(1, now), "nobody was there");
        company.note(40, 24, SYNC, now);
        assert!(company.is_awaited(63, now));
        assert!(!company.is_awaited(64, now), "all are there");
        assert!(company.is_awaited(63, now + SYNC / 5));
        assert!(!company.is_awaited(63, now + SYNC / 4), "some do not come again");
    }

    #[test]
    fn who_writes_alone_does_not_wait() {
        let (mut company, now) = (Company::default(), Instant::now());
        company.note(1, 0, SYNC, now);
        assert!(!company.is_awaited(1, now));
        company.note(64, 0, SYNC, now);
        assert!(!company.is_awaited(1, now + SYNC), "the others are gone");
    }
}
