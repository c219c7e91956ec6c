//! Which ticks of a line a node has to see to. Pure.

use std::time::Duration;

use super::line::Schedule;
use crate::millis;

/// A tick that nobody could fire for so long is left out. It is also as far back as ticks are looked at.
pub const MAX_LATE: Duration = Duration::from_secs(60);
/// A node that has just been started knows nobody, and not what others have fired: it waits for so long.
pub const SETTLE: Duration = Duration::from_secs(5);

/// The time, as a node knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Its clock, in milliseconds since the Unix epoch.
    pub unix_ms: u64,
    /// How long it has been up, on a clock that nobody sets.
    pub up_ms: u64,
}

/// The ticks of a line, made at `since_ms`, that are to be fired if nobody has yet: those of the last [`MAX_LATE`], as far as this node has
/// been up.
pub fn owed(schedule: &Schedule, since_ms: u64, now: Now) -> Vec<u64> {
    if now.up_ms < millis(SETTLE) {
        return Vec::new();
    }
    let back_to = now.unix_ms.saturating_sub(now.up_ms.min(millis(MAX_LATE)));
    schedule.between(back_to.max(since_ms), now.unix_ms).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const NONE: [u64; 0] = [];

    fn owed(text: &str, since_ms: u64, unix_ms: u64, up_ms: u64) -> Vec<u64> {
        super::owed(&text.parse().unwrap(), since_ms, Now { unix_ms, up_ms })
    }

    #[test]
    fn a_tick_is_owed_from_its_moment_for_a_minute() {
        let up = 10 * HOUR;
        assert_eq!(owed("0 * * * *", 0, HOUR - 1, up), NONE);
        for late in [0, 1, 59_999] {
            assert_eq!(owed("0 * * * *", 0, HOUR + late, up), [HOUR]);
        }
        assert_eq!(owed("0 * * * *", 0, HOUR + 60_000, up), NONE);
        assert_eq!(owed("* * * * * *", 0, HOUR, up).len(), 60);
    }

    #[test]
    fn ticks_before_the_line_or_before_the_node_are_not_its_own() {
        assert_eq!(owed("0 * * * *", HOUR, HOUR + 1, 10 * HOUR), NONE);
        assert_eq!(owed("0 * * * *", HOUR - 1, HOUR + 1, 10 * HOUR), [HOUR]);
        assert_eq!(owed("0 * * * *", 0, HOUR + 6000, 5999), NONE, "it was not up then");
        assert_eq!(owed("0 * * * *", 0, HOUR + 5999, 6000), [HOUR]);
        assert_eq!(owed("0 * * * *", 0, HOUR + 100, 4999), NONE, "it knows nobody yet");
    }

    #[test]
    fn a_clock_that_jumps_makes_up_for_nothing() {
        let up = 10 * HOUR;
        assert_eq!(
            owed("0 * * * *", 0, 1000 * HOUR + 5, up),
            [1000 * HOUR],
            "a year ahead: one tick, not thousands"
        );
        assert_eq!(owed("0 * * * *", 500 * HOUR, 400 * HOUR, up), NONE, "back to before the line");
    }
}
