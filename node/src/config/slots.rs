//! How many tasks run at once: a number, or what the machine suggests.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How many tasks a node runs at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Slots {
    /// One a core.
    #[default]
    Auto,
    /// So many; with 0 the node only submits.
    Exactly(u32),
}

/// Neither a number nor `auto`.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is neither a number nor \"auto\"")]
pub struct UnknownSlots(String);

impl Slots {
    /// The number on this machine.
    pub fn count(self) -> u32 {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        match self {
            Self::Auto => u32::try_from(cores()).unwrap_or(u32::MAX),
            Self::Exactly(count) => count,
        }
    }
}

impl FromStr for Slots {
    type Err = UnknownSlots;

    fn from_str(text: &str) -> Result<Self, UnknownSlots> {
        match text {
            "auto" => Ok(Self::Auto),
            text => text.parse().map(Self::Exactly).map_err(|_| UnknownSlots(text.to_owned())),
        }
    }
}

impl fmt::Display for Slots {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Exactly(count) => count.fmt(formatter),
        }
    }
}

impl Serialize for Slots {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Exactly(count) => serializer.serialize_u32(*count),
        }
    }
}

impl<'de> Deserialize<'de> for Slots {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Given {
            Count(u32),
            Word(String),
        }
        match Given::deserialize(deserializer)? {
            Given::Count(count) => Ok(Self::Exactly(count)),
            Given::Word(word) => word.parse().map_err(serde::de::Error::custom),
        }
    }
}
