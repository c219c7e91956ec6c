//! The `Range` header: which bytes of a file are wanted (RFC 9110, section 14).
//!
//! Only a single range is cut out. Several at once may be answered with the whole, and are.

use std::ops::Range;

/// What the header comes to for a file of a known size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// No range, or nothing that is understood as one.
    Whole,
    /// These bytes, which are there.
    Part(Range<u64>),
    /// Bytes that are not there.
    Nothing,
}

/// Reads the header.
pub(super) fn wanted(header: Option<&str>, size: u64) -> Wanted {
    let Some((first, last)) = header.and_then(byte_range) else { return Wanted::Whole };
    let range = match (first, last) {
        (Some(first), last) => first..last.map_or(size, |last| last.saturating_add(1).min(size)),
        (None, count) => size.saturating_sub(count.unwrap_or(0))..size,
    };
    if range.is_empty() { Wanted::Nothing } else { Wanted::Part(range) }
}

/// `bytes=FIRST-[LAST]` or `bytes=-COUNT`.
fn byte_range(text: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (unit, range) = text.split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    match (number(first)?, number(last)?) {
        _ if !unit.eq_ignore_ascii_case("bytes") => None,
        (None, None) => None,
        (Some(first), Some(last)) if last < first => None,
        range => Some(range),
    }
}

/// A number, or none; `None` for what is neither.
fn number(text: &str) -> Option<Option<u64>> {
    if text.is_empty() {
        return Some(None);
    }
    // `parse` alone would take a plus sign too.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok().map(Some)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_cut_to_what_is_there() {
        for (header, range) in [
            ("bytes=0-0", 0..1),
            ("bytes=2-3", 2..4),
            ("BYTES=2-3", 2..4),
            ("bytes=4-", 4..10),
            ("bytes=4-99", 4..10),
            ("bytes=9-18446744073709551615", 9..10),
            ("bytes=-3", 7..10),
            ("bytes=-99", 0..10),
        ] {
            assert_eq!(wanted(Some(header), 10), Wanted::Part(range), "{header}");
        }
    }

    #[test]
    fn bytes_past_the_end_are_none() {
        for header in ["bytes=10-", "bytes=10-20", "bytes=-0"] {
            assert_eq!(wanted(Some(header), 10), Wanted::Nothing, "{header}");
        }
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::Nothing);
        assert_eq!(wanted(Some("bytes=-1"), 0), Wanted::Nothing);
    }

    #[test]
    fn what_is_not_understood_is_answered_whole() {
        assert_eq!(wanted(None, 10), Wanted::Whole);
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=3-2",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=--1",
            "bytes=0-1,4-5",
            "lines=0-1",
            "bytes=0-99999999999999999999",
        ] {
            assert_eq!(wanted(Some(header), 10), Wanted::Whole, "{header}");
        }
    }
}
