//! The node's hybrid logical clock: wall time that never goes back and is always ahead of what it has seen.
//!
//! Stamps from the future are refused, or one node with a wrong clock would win every write for as long as it is
//! wrong. Only what the physical clock vouches for may move this clock on: if the bound followed the logical clock,
//! a peer could push it ahead a minute at a time.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use uhlc::{HLC, HLCBuilder, NTP64, Timestamp};

/// How far ahead of this node's clock a stamp may be. NTP keeps clocks within milliseconds; a minute also forgives
/// machines without it, and is short enough that a refused cell is accepted by itself soon after.
pub(crate) const MAX_AHEAD: Duration = Duration::from_secs(60);

/// NTP64 counts 2^32 parts to the second.
const PARTS_PER_SECOND: u64 = 1 << 32;

/// A stamp that is too far in the future, by how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ahead(pub(crate) Duration);

/// Where stamps come from. Shared; every method may be called from any thread.
#[derive(Debug)]
pub(crate) struct Clock {
    hybrid: Hybrid,
    physical: fn() -> NTP64,
    /// The greatest time issued or accepted.
    latest: AtomicU64,
}

struct Hybrid(HLC);

impl std::fmt::Debug for Hybrid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HLC")
    }
}

impl Clock {
    /// A clock that issues only times greater than `newest`, the greatest one on disk.
    pub(crate) fn resume(newest: u64) -> Self {
        Self::with_physical(wall_clock, newest)
    }

    fn with_physical(physical: fn() -> NTP64, newest: u64) -> Self {
        // The bound is kept here and not in the HLC, which would not resume above stamps of a clock since set back.
        let unbounded = Duration::from_secs(u64::from(u32::MAX));
        let hybrid = HLCBuilder::new().with_clock(physical).with_max_delta(unbounded).build();
        let clock = Self { hybrid: Hybrid(hybrid), physical, latest: AtomicU64::new(newest) };
        clock.advance(newest);
        clock
    }

    /// A time greater than every time issued or accepted before.
    pub(crate) fn tick(&self) -> u64 {
        let time = self.hybrid.0.new_timestamp().get_time().as_u64();
        self.latest.fetch_max(time, Ordering::Relaxed);
        time
    }

    /// Takes note of a time from elsewhere, unless it is too far in the future.
    pub(crate) fn accept(&self, time: u64) -> Result<(), Ahead> {
        if time <= self.latest.load(Ordering::Relaxed) {
            return Ok(());
        }
        let ahead = time.saturating_sub((self.physical)().as_u64());
        if ahead > MAX_AHEAD.as_secs() * PARTS_PER_SECOND {
            return Err(Ahead(NTP64(ahead).to_duration()));
        }
        self.latest.fetch_max(time, Ordering::Relaxed);
        self.advance(time);
        Ok(())
    }

    fn advance(&self, time: u64) {
        // The HLC adds one; a time at the very end of its range (a damaged stamp) must not overflow it.
        let time = NTP64(time.min(u64::MAX - PARTS_PER_SECOND));
        let seen = Timestamp::new(time, *self.hybrid.0.get_id());
        if let Err(error) = self.hybrid.0.update_with_timestamp(&seen) {
            tracing::error!(%error, "the clock did not follow a stamp");
        }
    }
}

/// The Unix milliseconds of a stamp's time.
pub(crate) fn unix_ms(time: u64) -> u64 {
    let seconds = time / PARTS_PER_SECOND;
    let parts = time % PARTS_PER_SECOND;
    seconds * 1000 + parts * 1000 / PARTS_PER_SECOND
}

/// The stamp's time at some Unix milliseconds.
pub(crate) fn stamp_time(unix_ms: u64) -> u64 {
    let seconds = (unix_ms / 1000).min(u64::from(u32::MAX));
    seconds * PARTS_PER_SECOND + unix_ms % 1000 * PARTS_PER_SECOND / 1000
}

/// Milliseconds since 1970, by which expiry is judged.
pub(crate) fn now_ms() -> u64 {
    u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX)
}

fn since_epoch() -> Duration {
    // A machine that believes to be before 1970 writes stamps that lose against all others; it must not crash.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn wall_clock() -> NTP64 {
    NTP64::from(since_epoch().min(Duration::from_secs(u64::from(u32::MAX))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 1_000_000 * PARTS_PER_SECOND;

    fn noon() -> NTP64 {
        NTP64(NOON)
    }

    #[test]
    fn ticks_only_go_up_even_when_wall_time_stands_still() {
        let clock = Clock::with_physical(noon, 0);
        let ticks: Vec<u64> = (0..100).map(|_| clock.tick()).collect();
        assert!(ticks.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn a_restart_resumes_above_what_was_written_though_the_clock_was_set_back() {
        let written = NOON + 3600 * PARTS_PER_SECOND;
        assert!(Clock::with_physical(noon, written).tick() > written);
    }

    #[test]
    fn ticks_follow_what_was_accepted() {
        let clock = Clock::with_physical(noon, 0);
        let seen = NOON + 30 * PARTS_PER_SECOND;
        clock.accept(seen).unwrap();
        assert!(clock.tick() > seen);
    }

    #[test]
    fn the_future_is_refused_and_cannot_be_reached_in_steps() {
        let clock = Clock::with_physical(noon, 0);
        assert_eq!(clock.accept(NOON + 3600 * PARTS_PER_SECOND), Err(Ahead(Duration::from_secs(3600))));
        clock.accept(NOON + 59 * PARTS_PER_SECOND).unwrap();
        assert!(clock.accept(NOON + 118 * PARTS_PER_SECOND).is_err());
        assert!(clock.accept(u64::MAX).is_err());
    }
}
