//! When what Redis clients write is acknowledged, in the words of Redis' own `appendfsync`.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use starfish_memory::Durability;

/// When a write of a Redis client is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RedisSync {
    /// Once it is on the disk.
    #[default]
    Always,
    /// About a second before it is: a power failure takes what was written within that.
    EverySec,
}

/// Neither `always` nor `everysec`.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is neither \"always\" nor \"everysec\"")]
pub struct UnknownRedisSync(String);

impl FromStr for RedisSync {
    type Err = UnknownRedisSync;

    fn from_str(text: &str) -> Result<Self, UnknownRedisSync> {
        match text {
            "always" => Ok(Self::Always),
            "everysec" => Ok(Self::EverySec),
            other => Err(UnknownRedisSync(other.to_owned())),
        }
    }
}

impl From<RedisSync> for Durability {
    fn from(sync: RedisSync) -> Self {
        match sync {
            RedisSync::Always => Self::OnDisk,
            RedisSync::EverySec => Self::EverySecond,
        }
    }
}
