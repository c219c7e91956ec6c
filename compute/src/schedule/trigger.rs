//! What a trigger is: what it listens to, and what it calls. Pure.
//!
//! WIRE: triggers are kept as postcard behind one byte of version.

use std::fmt;

use globset::{GlobBuilder, GlobMatcher};
use serde::{Deserialize, Serialize};
use starfish_dht::PeerId;
use starfish_fs::path::VfsPath;

use crate::batch::base_of;
use crate::function::version::{FunctionName, Version};
use crate::reach::Reach;
use crate::task::{Access, JobId};

/// The longest pattern.
const MAX_PATTERN_BYTES: usize = 1024;
/// What goes in front of a change before it is hashed. WIRE.
const CHANGE_CONTEXT: &[u8] = b"starfish on 1\0";

/// What a trigger listens to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The files of the tree that match a pattern such as `/inbox/**`.
    Files(String),
    /// A key of a space of memory, or with a `*` at the end all that begin so.
    Keys {
        /// The space.
        space: String,
        /// The key, or the beginning of keys and a `*`.
        pattern: String,
    },
}

/// Nothing can be listened to like that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSource {
    /// It is too long, or empty.
    #[error("a pattern has 1 to {MAX_PATTERN_BYTES} bytes")]
    Length,
    /// It is no pattern of absolute paths.
    #[error("{0:?} is not a pattern of absolute paths")]
    Files(String),
    /// What is there is the system's own.
    #[error("{0:?} belongs to the system")]
    System(String),
    /// A `*` elsewhere would mean nothing.
    #[error("{0:?} has a '*' that is not at its end")]
    Keys(String),
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files(pattern) => formatter.write_str(pattern),
            Self::Keys { space, pattern } if space == "default" => write!(formatter, "key {pattern}"),
            Self::Keys { space, pattern } => write!(formatter, "key {pattern} of {space}"),
        }
    }
}

impl Source {
    /// Whether it can be listened to.
    pub(crate) fn check(&self) -> Result<(), BadSource> {
        let (Self::Files(pattern) | Self::Keys { pattern, .. }) = self;
        if pattern.is_empty() || pattern.len() > MAX_PATTERN_BYTES {
            return Err(BadSource::Length);
        }
        match self {
            Self::Files(pattern) => {
                if self.matcher().is_none() || self.folder().is_none() {
                    return Err(BadSource::Files(pattern.clone()));
                }
                if ["/.jobs", "/.functions"].iter().any(|own| pattern.starts_with(own)) {
                    return Err(BadSource::System(pattern.clone()));
                }
            }
            Self::Keys { pattern, .. } => {
                if pattern.trim_end_matches('*').contains('*') || pattern.ends_with("**") {
                    return Err(BadSource::Keys(pattern.clone()));
                }
            }
        }
        Ok(())
    }

    /// What says which files it means.
    pub(crate) fn matcher(&self) -> Option<GlobMatcher> {
        let Self::Files(pattern) = self else { return None };
        let glob = GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).build();
        glob.ok().map(|glob| glob.compile_matcher())
    }

    /// The folder that all files are in that it means.
    fn folder(&self) -> Option<VfsPath> {
        let Self::Files(pattern) = self else { return None };
        base_of(pattern).ok()
    }

    /// The first of what a version of a function may write to where this listens.
    pub(crate) fn heard_from(&self, version: &Version) -> Option<String> {
        match self {
            Self::Files(_) => {
                let base = self.folder()?;
                let writable = version.grants.iter().filter(|grant| grant.access == Access::ReadWrite);
                let mut paths = writable.map(|grant| &grant.path);
                paths.find(|path| path.starts_with(&base) || base.starts_with(path)).map(ToString::to_string)
            }
            Self::Keys { space: listened, .. } => version.reach.iter().find_map(|reach| match reach {
                Reach::Memory { space, access: Access::ReadWrite } if **space == **listened => {
                    Some(reach.to_string())
                }
                _ => None,
            }),
        }
    }
}

/// A trigger, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    /// What it listens to.
    pub source: Source,
    /// What it calls.
    pub function: FunctionName,
    /// The arguments of each call, before the path or key.
    pub args: Vec<String>,
    /// Whether the function may be one that can write to where it listens.
    pub allow_loop: bool,
    /// Where it was added.
    pub by: PeerId,
    /// When, in milliseconds since the Unix epoch by that node's clock.
    pub since_ms: u64,
    /// Tells it from others of its name, earlier and later ones.
    pub tag: u64,
}

impl Trigger {
    /// Whose turn it is to see to a path or key, whatever happens to it.
    pub(crate) fn turn(&self, name: &FunctionName, subject: &str) -> JobId {
        self.job(name, subject, "")
    }

    /// The job that a change becomes, the same whoever asks.
    pub(crate) fn job(&self, name: &FunctionName, subject: &str, version: &str) -> JobId {
        let mut hasher = blake3::Hasher::new();
        hasher.update(CHANGE_CONTEXT).update(name.as_str().as_bytes()).update(b"\0");
        hasher.update(&self.since_ms.to_be_bytes()).update(&self.tag.to_be_bytes());
        hasher.update(subject.as_bytes()).update(b"\0").update(version.as_bytes());
        JobId(crate::id::half(hasher.finalize()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(pattern: &str) -> Source {
        Source::Files(pattern.to_owned())
    }

    fn keys(pattern: &str) -> Source {
        Source::Keys { space: "default".to_owned(), pattern: pattern.to_owned() }
    }

    #[test]
    fn patterns_of_files_and_beginnings_of_keys_can_be_listened_to() {
        for source in [
            files("/inbox/**"),
            files("/a/b.txt"),
            files("/*.{a,b}"),
            keys("k"),
            keys("sensors/*"),
            keys("*"),
        ] {
            assert_eq!(source.check(), Ok(()), "{source}");
        }
        assert_eq!(files("inbox/*").check(), Err(BadSource::Files("inbox/*".to_owned())));
        assert_eq!(files("/[").check(), Err(BadSource::Files("/[".to_owned())));
        assert_eq!(files("/.jobs/**").check(), Err(BadSource::System("/.jobs/**".to_owned())));
        assert_eq!(keys("a*b").check(), Err(BadSource::Keys("a*b".to_owned())));
        assert_eq!(keys("a**").check(), Err(BadSource::Keys("a**".to_owned())));
        assert_eq!(keys("").check(), Err(BadSource::Length));
        assert_eq!(files("/inbox/**/*.csv").folder(), VfsPath::parse("/inbox").ok());
    }
}
