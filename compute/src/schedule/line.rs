//! What a cron line is: its schedule, and what runs at each tick. Pure.
//!
//! WIRE: lines and firings are kept as postcard behind one byte of version.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use serde::{Deserialize, Serialize};
use starfish_dht::PeerId;

use crate::function::version::FunctionName;
use crate::task::JobId;

/// The longest schedule, as it is written.
const MAX_SCHEDULE_BYTES: usize = 256;
/// What goes in front of a line and its tick before they are hashed. WIRE.
const TICK_CONTEXT: &[u8] = b"starfish cron 1\0";

/// Moments in UTC: `minute hour day month weekday`, with the second in front if there are six fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    text: String,
    cron: Cron,
}

/// It is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSchedule {
    /// It is too long to be one.
    #[error("a schedule is at most {MAX_SCHEDULE_BYTES} bytes long")]
    TooLong,
    /// It makes no sense.
    #[error("{text:?} is no schedule: {why}")]
    Senseless {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is no such moment: the 30th of February.
    #[error("no moment ever fits {0:?}")]
    Never(String),
}

impl FromStr for Schedule {
    type Err = BadSchedule;

    fn from_str(text: &str) -> Result<Self, BadSchedule> {
        if text.len() > MAX_SCHEDULE_BYTES {
            return Err(BadSchedule::TooLong);
        }
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let senseless = |error: croner::errors::CronError| {
            let why = error.to_string().trim_end_matches('.').to_owned();
            BadSchedule::Senseless { text: text.to_owned(), why }
        };
        let schedule = Self { text: text.to_owned(), cron: parser.parse(text).map_err(senseless)? };
        match schedule.next(0) {
            Some(_) => Ok(schedule),
            None => Err(BadSchedule::Never(text.to_owned())),
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl Schedule {
    /// The first tick after a moment; all are in milliseconds since the Unix epoch, and ticks are whole seconds.
    pub fn next(&self, after_ms: u64) -> Option<u64> {
        let after = moment(after_ms)?;
        let next = self.cron.find_next_occurrence(&after, false).ok()?;
        u64::try_from(next.timestamp_millis()).ok()
    }

    /// The ticks after one moment up to another one, and that one too.
    pub fn between(&self, after_ms: u64, until_ms: u64) -> impl Iterator<Item = u64> {
        let next = move |tick: &u64| self.next(*tick).filter(|next| *next <= until_ms);
        std::iter::successors(next(&after_ms), next)
    }
}

/// `2026-11-22T05:00:00Z`
pub(crate) fn rfc3339(at_ms: u64) -> String {
    moment(at_ms).map_or_else(String::new, |moment| moment.to_rfc3339_opts(SecondsFormat::Secs, true))
}

fn moment(at_ms: u64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(i64::try_from(at_ms).ok()?)
}

/// A line of the swarm's timetable, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CronLine {
    /// When it fires; see [`Schedule`].
    pub schedule: String,
    /// What it calls.
    pub function: FunctionName,
    /// The arguments of each call.
    pub args: Vec<String>,
    /// Where it was added.
    pub by: PeerId,
    /// When, in milliseconds since the Unix epoch by that node's clock. Ticks up to then are not its own.
    pub since_ms: u64,
    /// Tells it from others of its name, earlier and later ones.
    pub tag: u64,
}

impl CronLine {
    /// The job that a tick becomes, the same whoever asks.
    pub(crate) fn job(&self, name: &FunctionName, tick_ms: u64) -> JobId {
        let mut hasher = blake3::Hasher::new();
        hasher.update(TICK_CONTEXT).update(name.as_str().as_bytes()).update(b"\0");
        hasher.update(&self.since_ms.to_be_bytes()).update(&self.tag.to_be_bytes());
        hasher.update(&tick_ms.to_be_bytes());
        JobId(crate::id::half(hasher.finalize()))
    }
}

/// One time that something was run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firing {
    /// When it was due, in milliseconds since the Unix epoch.
    pub due_ms: u64,
    /// When it was fired, by the clock of the node that did.
    pub at_ms: u64,
    /// That node.
    pub by: PeerId,
    /// The job that runs it, or why it could not be run.
    pub job: Result<JobId, String>,
    /// The path or key that has changed, for a trigger.
    pub about: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    #[test]
    fn a_schedule_names_minutes_or_seconds_in_utc() {
        let quarter: Schedule = "*/15 * * * *".parse().unwrap();
        assert_eq!(quarter.between(0, HOUR).collect::<Vec<_>>(), [1, 2, 3, 4].map(|n| n * HOUR / 4));
        let seconds: Schedule = "*/20 * * * * *".parse().unwrap();
        assert_eq!(seconds.between(20_000, 60_000).collect::<Vec<_>>(), [40_000, 60_000]);
        // The first of January 1970 was a Thursday.
        let sunday: Schedule = "0 12 * * SUN".parse().unwrap();
        assert_eq!(sunday.next(0), Some((3 * 24 + 12) * HOUR));
        assert_eq!(rfc3339(sunday.next(0).unwrap()), "1970-01-04T12:00:00Z");
        assert_eq!("@hourly".parse::<Schedule>().unwrap().next(1), Some(HOUR));
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in ["", "* * *", "61 * * * *", "* * * * * * 2027", "every day", "*/5 * * * * ; rm"] {
            assert!(matches!(text.parse::<Schedule>(), Err(BadSchedule::Senseless { .. })), "{text:?}");
        }
        assert_eq!("0 0 30 2 *".parse::<Schedule>(), Err(BadSchedule::Never("0 0 30 2 *".to_owned())));
        assert_eq!("*,".repeat(200).parse::<Schedule>(), Err(BadSchedule::TooLong));
    }

    #[test]
    fn a_tick_has_one_job_and_a_line_that_comes_anew_has_others() {
        let line = CronLine {
            schedule: "* * * * *".to_owned(),
            function: "f".parse().unwrap(),
            args: Vec::new(),
            by: PeerId::random(),
            since_ms: 1,
            tag: 2,
        };
        let name = "line".parse().unwrap();
        assert_eq!(line.job(&name, 60_000), line.clone().job(&name, 60_000));
        assert_ne!(line.job(&name, 60_000), line.job(&name, 120_000));
        assert_ne!(line.job(&name, 60_000), CronLine { tag: 3, ..line.clone() }.job(&name, 60_000));
        assert_ne!(line.job(&name, 60_000), line.job(&"other".parse().unwrap(), 60_000));
    }
}
