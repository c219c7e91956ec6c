//! Sizes, ages and times as people read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use starfish_node::dht::PeerId;

/// `532 B`, `1.5 KiB`, `12 MiB`: two digits where they say something.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut tenths = u128::from(count) * 10;
    let mut unit = "B";
    for next in UNITS {
        // Rounding may lift a value to the next unit: 1023.96 KiB is 1.0 MiB, not 1024 KiB.
        if (tenths + 5) / 10 < 1024 {
            break;
        }
        tenths = (tenths + 512) / 1024;
        unit = next;
    }
    if tenths < 100 {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    } else {
        format!("{} {unit}", (tenths + 5) / 10)
    }
}

/// The last eight characters of a node's id: all ids begin alike, so these are what tells them apart.
pub fn peer(peer: &PeerId) -> String {
    let id = peer.to_base58();
    id[id.len().saturating_sub(8)..].to_owned()
}

/// `12s`, `5m`, `3h`, `2d`: the largest whole unit.
pub fn duration(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{}ms", duration.as_millis()),
        seconds @ 1..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds @ 3600..86400 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86400),
    }
}

/// `3m ago`, from milliseconds since the Unix epoch; a clock ahead of ours is `now`.
pub fn age(since_ms: u64) -> String {
    let elapsed = Duration::from_millis(now_ms().saturating_sub(since_ms));
    if elapsed < Duration::from_secs(1) { "now".to_owned() } else { format!("{} ago", duration(elapsed)) }
}

/// `2026-11-21 15:52` in UTC, from milliseconds since the Unix epoch.
pub fn time(at_ms: u64) -> String {
    let minutes = at_ms / 60_000;
    let (year, month, day) = date(minutes / (24 * 60));
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", minutes / 60 % 24, minutes % 60)
}

/// `2026-11-21 15:52:07` in UTC, likewise.
pub fn time_to_the_second(at_ms: u64) -> String {
    format!("{}:{:02}", time(at_ms), at_ms / 1000 % 60)
}

/// This moment in milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The Gregorian date of a day since 1970-01-01. Years are counted from March, so that the leap day comes last.
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_IN_400_YEARS: u64 = 146_097;
    let since_march_0000 = days + 719_468;
    let era = since_march_0000 / DAYS_IN_400_YEARS;
    let day_of_era = since_march_0000 % DAYS_IN_400_YEARS;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_keep_two_digits() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (10 * 1024, "10 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (1 << 30, "1.0 GiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn dates_follow_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00"),
            (951_782_400, "2000-02-29 00:00"),
            (1_709_164_800, "2024-02-29 00:00"),
            (1_735_689_599, "2024-12-31 23:59"),
            (4_107_542_400, "2100-03-01 00:00"),
        ] {
            assert_eq!(time(seconds * 1000), text);
        }
    }

    #[test]
    fn a_clock_ahead_is_no_error() {
        assert_eq!(age(u64::MAX), "now");
    }
}
