//! Lengths of time and numbers of bytes, as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time: `500ms`, `30s`, `10m`, `12h`, `7d`; a plain number is seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

/// A number of bytes: `64M`, `1G`, `512K`, `100`; K, M, G and T are powers of 1,024, and `MiB` and the like are
/// understood; `max` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// Words that are no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each says what it is")]
pub enum QuantityError {
    #[error("{0:?} does not begin with a number")]
    NoNumber(String),
    #[error("unknown unit {unit:?}; units are {known}")]
    Unit { unit: String, known: &'static str },
    #[error("{0:?} is too much")]
    TooMuch(String),
}

impl FromStr for Span {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (number, unit) = split(text)?;
        let millis = match unit {
            "ms" => 1,
            "" | "s" => 1000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(QuantityError::Unit { unit: unit.to_owned(), known: "ms, s, m, h and d" }),
        };
        let millis = number.checked_mul(millis).ok_or_else(|| QuantityError::TooMuch(text.to_owned()))?;
        Ok(Self(Duration::from_millis(millis)))
    }
}

impl FromStr for Size {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        if text == "max" {
            return Ok(Self(u64::MAX));
        }
        let (number, unit) = split(text)?;
        let shift = match unit.trim_end_matches("iB").trim_end_matches('B').to_ascii_uppercase().as_str() {
            "" => 0,
            "K" => 10,
            "M" => 20,
            "G" => 30,
            "T" => 40,
            _ => return Err(QuantityError::Unit { unit: unit.to_owned(), known: "K, M, G and T" }),
        };
        number.checked_mul(1 << shift).map(Self).ok_or_else(|| QuantityError::TooMuch(text.to_owned()))
    }
}

fn split(text: &str) -> Result<(u64, &str), QuantityError> {
    let text = text.trim();
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    match number.parse() {
        Ok(number) => Ok((number, unit)),
        Err(_) if number.is_empty() => Err(QuantityError::NoNumber(text.to_owned())),
        Err(_) => Err(QuantityError::TooMuch(text.to_owned())),
    }
}

impl fmt::Display for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}ms", self.0.as_millis())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

macro_rules! as_text {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

as_text!(Span, Size);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_read_as_people_write_them() {
        let span = |text: &str| text.parse().map(|Span(span)| span);
        assert_eq!(span("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(span("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(span("7"), Ok(Duration::from_secs(7)));
        assert!(span("soon").is_err());
        assert!(span("99999999999999999999s").is_err());
        let size = |text: &str| text.parse().map(|Size(size)| size);
        assert_eq!(size("64M"), Ok(64 << 20));
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(size("100"), Ok(100));
        assert_eq!(size("max"), Ok(u64::MAX));
        assert!(size("1X").is_err());
    }
}
