//! What was measured, beside what it is measured against.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::output::human;
use crate::output::table::Table;

/// One line of the result.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    what: String,
    value: Value,
    limit: Option<Limit>,
}

/// What the machine does at the same work without Starfish, measured in the same run.
#[derive(Clone, Debug)]
struct Limit {
    what: &'static str,
    value: Value,
}

/// A measured value with its unit.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    /// How long something takes; less is better.
    Time(Duration),
    /// How much it takes up; less is better.
    Bytes(u64),
    /// How many bytes pass in a second; more is better.
    BytesPerSecond(f64),
    /// How many times it is done in a second; more is better.
    PerSecond(f64),
}

impl Figure {
    pub(super) fn new(what: impl Into<String>, value: Value) -> Self {
        Self { what: what.into(), value, limit: None }
    }

    /// The same work by another way, as the measure of this one.
    #[must_use]
    pub(super) fn against(mut self, what: &'static str, value: Value) -> Self {
        self.limit = Some(Limit { what, value });
        self
    }

    /// The figure as a share of its limit: at 1 Starfish costs nothing.
    fn ratio(&self) -> Option<f64> {
        let limit = self.limit.as_ref()?.value.number();
        (limit > 0.0).then(|| self.value.number() / limit)
    }
}

impl Value {
    pub(super) fn bytes_per_second(bytes: u64, elapsed: Duration) -> Self {
        Self::BytesPerSecond(bytes as f64 / elapsed.as_secs_f64())
    }

    pub(super) fn per_second(count: usize, elapsed: Duration) -> Self {
        Self::PerSecond(count as f64 / elapsed.as_secs_f64())
    }

    /// The same where twice the work was done: a rate counts half.
    pub(super) fn halved(self) -> Self {
        match self {
            Self::BytesPerSecond(rate) => Self::BytesPerSecond(rate / 2.0),
            Self::PerSecond(rate) => Self::PerSecond(rate / 2.0),
            other => other,
        }
    }

    fn number(self) -> f64 {
        match self {
            Self::Time(time) => time.as_secs_f64(),
            Self::Bytes(bytes) => bytes as f64,
            Self::BytesPerSecond(rate) | Self::PerSecond(rate) => rate,
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::Time(_) => "s",
            Self::Bytes(_) => "B",
            Self::BytesPerSecond(_) => "B/s",
            Self::PerSecond(_) => "1/s",
        }
    }

    fn for_people(self) -> String {
        match self {
            Self::Time(time) if time < Duration::from_millis(10) => {
                format!("{:.2} ms", time.as_secs_f64() * 1000.0)
            }
            Self::Time(time) if time < Duration::from_secs(10) => format!("{} ms", time.as_millis()),
            Self::Time(time) => format!("{:.1} s", time.as_secs_f64()),
            Self::Bytes(bytes) => human::bytes(bytes),
            Self::BytesPerSecond(rate) => format!("{}/s", human::bytes(whole(rate))),
            Self::PerSecond(rate) => format!("{}/s", whole(rate)),
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive rate, shown rounded")]
fn whole(rate: f64) -> u64 {
    rate.round() as u64
}

/// The table that people read.
pub(super) fn table(figures: &[Figure]) -> Table {
    let mut table = Table::new(["MEASURED", "FIGURE", "RATIO", "LIMIT", ""]).right_aligned(&[1, 2, 3]);
    for figure in figures {
        let ratio = figure.ratio().map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        let (limit, what) = match &figure.limit {
            Some(limit) => (limit.value.for_people(), limit.what),
            None => (String::new(), ""),
        };
        table.row([figure.what.clone(), figure.value.for_people(), ratio, limit, what.to_owned()]);
    }
    table
}

impl Serialize for Figure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let limit = self.limit.as_ref();
        serde_json::json!({
            "what": self.what,
            "value": self.value.number(),
            "unit": self.value.unit(),
            "limit": limit.map(|limit| limit.value.number()),
            "limit_is": limit.map(|limit| limit.what),
            "ratio": self.ratio(),
        })
        .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_shown_as_a_share_of_its_limit() {
        let half = Figure::new("put", Value::bytes_per_second(1 << 20, Duration::from_secs(1)))
            .against("copy", Value::bytes_per_second(2 << 20, Duration::from_secs(1)));
        let ready = Figure::new("ready", Value::Time(Duration::from_millis(40)));
        let text = table(&[half.clone(), ready]).to_string();
        assert_eq!(
            text,
            "MEASURED     FIGURE  RATIO      LIMIT\n\
             put       1.0 MiB/s   0.50  2.0 MiB/s  copy\n\
             ready         40 ms\n"
        );
        let json = serde_json::to_value(half).unwrap();
        assert_eq!((&json["unit"], &json["ratio"]), (&"B/s".into(), &0.5.into()));
    }
}
