//! Log lines, on stderr: what the node does at `info`, the network's library only when it warns.

use std::io::IsTerminal;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

/// What is logged when `RUST_LOG` says nothing.
///
/// libp2p's crates tell of every failed dial at `info` or `debug`, which is the daily life of a swarm.
pub const DEFAULT_FILTER: &str = "info,libp2p=warn,libp2p_kad=error,libp2p_mdns=error,libp2p_gossipsub=error,\
                                  multistream_select=warn,fjall=warn,lsm_tree=warn,hyper=warn";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = UnknownLogFormat;

    fn from_str(text: &str) -> Result<Self, UnknownLogFormat> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(UnknownLogFormat(other.to_owned())),
        }
    }
}

/// A log format that does not exist.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is neither \"text\" nor \"json\"")]
pub struct UnknownLogFormat(String);

/// The logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// The filter is malformed.
    #[error("RUST_LOG cannot be understood")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// Somebody else set up logging in this process.
    #[error("logs are set up already")]
    Twice(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Sets up logging for this process. `filter` (usually `RUST_LOG`) replaces [`DEFAULT_FILTER`].
pub fn init(format: LogFormat, filter: Option<&str>) -> Result<(), LogsError> {
    let filter = EnvFilter::try_new(filter.filter(|text| !text.is_empty()).unwrap_or(DEFAULT_FILTER))
        .map_err(LogsError::Filter)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(LogsError::Twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_filter_is_well_formed() {
        EnvFilter::try_new(DEFAULT_FILTER).unwrap();
    }
}
