//! What a function is: its name, its versions, which of them is current, and which paths are its own. Pure.
//!
//! A version is named by a number and by a tag out of what it is. Two halves of a swarm that both deploy a third version
//! so make two different ones, and both stay; which is current is one field, of which the later writer counts.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use starfish_dht::PeerId;
use starfish_fs::path::VfsPath;

use crate::reach::Reach;
use crate::task::{Digest, Grant, Limits};

/// Versions of one function that are kept; with a new one the oldest goes, but never the current one.
pub const MAX_VERSIONS: usize = 16;
/// The longest name.
const MAX_NAME: usize = 64;

/// Paths at a node's door that no function can have: what is there already.
const TAKEN: [&str; 8] = ["api", "fn", "fs", "dav", "s", "metrics", "healthz", "ui"];

/// How a function is called: up to 64 letters, digits, `-`, `_` and `.`, with a letter or digit in front, so that a name
/// is one segment of a URL and of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FunctionName(String);

/// It cannot be the name of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name is 1 to {MAX_NAME} letters, digits, '-', '_' and '.', the first a letter or digit")]
pub struct BadName;

impl FunctionName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FunctionName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for FunctionName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let is_name = (1..=MAX_NAME).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            && text.as_bytes()[0].is_ascii_alphanumeric();
        if is_name { Ok(Self(text.to_owned())) } else { Err(BadName) }
    }
}

impl TryFrom<String> for FunctionName {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

impl From<FunctionName> for String {
    fn from(name: FunctionName) -> Self {
        name.0
    }
}

/// Names a version of a function: `3-1f2e3d4c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VersionId {
    /// Counts up with each deployment that knew of the one before.
    pub number: u32,
    tag: [u8; 4],
}

/// It names no version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a version is a number, or a number and a tag such as 3-1f2e3d4c")]
pub struct BadVersion;

impl VersionId {
    pub(crate) fn new(number: u32, record: &[u8]) -> Self {
        let Digest(hash) = Digest::of(record);
        Self { number, tag: [hash[0], hash[1], hash[2], hash[3]] }
    }

    pub(crate) fn to_bytes(self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&self.number.to_be_bytes());
        bytes[4..].copy_from_slice(&self.tag);
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (number, tag) = bytes.split_first_chunk::<4>()?;
        Some(Self { number: u32::from_be_bytes(*number), tag: tag.try_into().ok()? })
    }
}

impl fmt::Display for VersionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.number, data_encoding::HEXLOWER.encode(&self.tag))
    }
}

impl FromStr for VersionId {
    type Err = BadVersion;

    fn from_str(text: &str) -> Result<Self, BadVersion> {
        let (number, tag) = text.split_once('-').ok_or(BadVersion)?;
        let tag = data_encoding::HEXLOWER_PERMISSIVE.decode(tag.as_bytes()).map_err(|_| BadVersion)?;
        let number = number.parse().map_err(|_| BadVersion)?;
        Ok(Self { number, tag: tag.try_into().map_err(|_| BadVersion)? })
    }
}

impl TryFrom<String> for VersionId {
    type Error = BadVersion;

    fn try_from(text: String) -> Result<Self, BadVersion> {
        text.parse()
    }
}

impl From<VersionId> for String {
    fn from(id: VersionId) -> Self {
        id.to_string()
    }
}

/// One version of a function: a program and what it may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// BLAKE3 of the program.
    pub module: Digest,
    /// How long the program is.
    pub bytes: u64,
    /// The environment of each call.
    pub env: Vec<(String, String)>,
    /// The parts of the tree that each call may use.
    pub grants: Vec<Grant>,
    /// What else each call may reach.
    pub reach: Vec<Reach>,
    /// What each call may consume.
    pub limits: Limits,
    /// The path on a node's HTTP port that is its own, beside `/fn/NAME`.
    pub http: Option<VfsPath>,
    /// How many nodes run its calls; as many as there are, if that is not said.
    pub replicas: Option<u16>,
    /// Where it was deployed.
    pub by: PeerId,
    /// When, in milliseconds since the Unix epoch by that node's clock.
    pub at_ms: u64,
}

/// A function as a node knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// How it is called.
    pub name: FunctionName,
    /// The version that calls get.
    pub current: VersionId,
    /// All that are kept.
    pub versions: BTreeMap<VersionId, Version>,
}

/// Why no version was chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RollbackError {
    /// It is not kept, or never was.
    #[error("function {0} has no version {1}")]
    NoSuchVersion(FunctionName, String),
    /// Two halves of the swarm have both made one of that number.
    #[error("function {0} has several versions {1}: name one with its tag")]
    Ambiguous(FunctionName, String),
    /// There is nothing to go back to.
    #[error("function {0} has no version before {1}")]
    NothingBefore(FunctionName, VersionId),
}

impl Function {
    /// A function out of what is known of it, if that is enough. The news of the current version may be late: then the one
    /// before it still counts.
    pub(crate) fn merge(
        name: FunctionName,
        current: Option<VersionId>,
        versions: BTreeMap<VersionId, Version>,
    ) -> Option<Self> {
        let wanted = current?;
        let known = versions.range(..=wanted).next_back().or_else(|| versions.first_key_value());
        let current = *known?.0;
        Some(Self { name, current, versions })
    }

    /// The version that calls get.
    pub fn current(&self) -> Option<&Version> {
        self.versions.get(&self.current)
    }

    /// The number of the next version.
    pub(crate) fn next_number(&self) -> u32 {
        self.versions.last_key_value().map_or(1, |(last, _)| last.number.saturating_add(1))
    }

    /// What goes when one more version comes.
    pub(crate) fn superfluous(&self) -> Vec<VersionId> {
        let excess = (self.versions.len() + 1).saturating_sub(MAX_VERSIONS);
        self.versions.keys().filter(|id| **id != self.current).take(excess).copied().collect()
    }

    /// The version to go back to: the one that is named, or the one before the current one.
    pub(crate) fn rollback(&self, wanted: Option<&str>) -> Result<VersionId, RollbackError> {
        let Some(wanted) = wanted else {
            let before = self.versions.range(..self.current).next_back();
            return before
                .map(|(id, _)| *id)
                .ok_or_else(|| RollbackError::NothingBefore(self.name.clone(), self.current));
        };
        let is_it = |id: &VersionId| id.number.to_string() == wanted || id.to_string() == wanted;
        let mut found = self.versions.keys().filter(|id| is_it(id));
        match (found.next(), found.next()) {
            (Some(id), None) => Ok(*id),
            (Some(_), Some(_)) => Err(RollbackError::Ambiguous(self.name.clone(), wanted.to_owned())),
            (None, _) => Err(RollbackError::NoSuchVersion(self.name.clone(), wanted.to_owned())),
        }
    }
}

/// Whether a function can have this path on the HTTP port.
pub(crate) fn may_have(path: &VfsPath) -> bool {
    path.names().next().is_some_and(|first| !TAKEN.contains(&first))
        && path.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte))
}

/// Which of some functions a path of the HTTP port belongs to, and what of the path is behind its own: the one with the
/// longest path of its own.
pub(crate) fn route<'a, 'path>(
    functions: impl Iterator<Item = &'a Function>,
    path: &'path str,
) -> Option<(&'a FunctionName, &'path str)> {
    let candidates = functions.filter_map(|function| {
        let own = function.current()?.http.as_ref()?.as_str();
        let rest = path.strip_prefix(own)?;
        (rest.is_empty() || rest.starts_with('/')).then_some((own.len(), &function.name, rest))
    });
    // Of two with the same path the first name has it, on every node.
    let best = candidates.max_by_key(|(length, name, _)| (*length, std::cmp::Reverse(*name)));
    best.map(|(_, name, rest)| (name, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(http: Option<&str>) -> Version {
        Version {
            module: Digest::of(b"program"),
            bytes: 7,
            env: Vec::new(),
            grants: Vec::new(),
            reach: Vec::new(),
            limits: Limits::default(),
            http: http.map(|path| VfsPath::parse(path).unwrap()),
            replicas: None,
            by: PeerId::random(),
            at_ms: 0,
        }
    }

    fn id(number: u32) -> VersionId {
        VersionId::new(number, b"")
    }

    fn function(name: &str, numbers: impl IntoIterator<Item = u32>, current: u32) -> Function {
        let versions = numbers.into_iter().map(|number| (id(number), version(None))).collect();
        Function::merge(name.parse().unwrap(), Some(id(current)), versions).unwrap()
    }

    #[test]
    fn names_are_one_segment_and_nothing_odd() {
        for name in ["a", "resize-2", "v1.2_x", "A"] {
            assert_eq!(name.parse::<FunctionName>().unwrap().as_str(), name);
        }
        for name in ["", ".", "..", "-x", "a/b", "a b", "é", &"x".repeat(65)] {
            assert_eq!(name.parse::<FunctionName>(), Err(BadName), "{name}");
        }
    }

    #[test]
    fn versions_read_back_as_they_are_written() {
        let one = VersionId::new(3, b"record");
        assert_eq!(one.to_string().parse(), Ok(one));
        assert_eq!(VersionId::from_bytes(&one.to_bytes()), Some(one));
        assert_ne!(one, VersionId::new(3, b"other"));
        for text in ["3", "3-", "x-1f2e3d4c", "3-1f2e3d4c5b"] {
            assert_eq!(text.parse::<VersionId>(), Err(BadVersion), "{text}");
        }
    }

    #[test]
    fn without_the_news_of_its_newest_version_the_one_before_counts() {
        assert_eq!(function("f", [1, 2], 3).current, id(2));
        assert_eq!(function("f", [4], 3).current, id(4));
        let name: FunctionName = "f".parse().unwrap();
        assert_eq!(Function::merge(name.clone(), None, BTreeMap::from([(id(1), version(None))])), None);
        assert_eq!(Function::merge(name, Some(id(1)), BTreeMap::new()), None);
    }

    #[test]
    fn a_rollback_goes_one_back_or_where_it_is_told() {
        let all = function("f", [1, 2, 4], 4);
        assert_eq!(all.rollback(None), Ok(id(2)));
        assert_eq!(all.rollback(Some("1")), Ok(id(1)));
        assert_eq!(all.rollback(Some(&id(4).to_string())), Ok(id(4)));
        assert!(matches!(all.rollback(Some("3")), Err(RollbackError::NoSuchVersion(..))));
        assert!(matches!(function("f", [1, 2], 1).rollback(None), Err(RollbackError::NothingBefore(..))));
        let mut twice = all.clone();
        twice.versions.insert(VersionId::new(4, b"elsewhere"), version(None));
        assert!(matches!(twice.rollback(Some("4")), Err(RollbackError::Ambiguous(..))));
        assert_eq!(function("f", [1, 2, 4], 1).next_number(), 5, "also after a rollback");
    }

    #[test]
    fn the_oldest_versions_go_but_never_the_current_one() {
        let kept = u32::try_from(MAX_VERSIONS).unwrap();
        assert_eq!(function("f", 1..kept, 1).superfluous(), []);
        assert_eq!(function("f", 1..=kept, 1).superfluous(), [id(2)]);
        assert_eq!(function("f", 1..=kept + 1, kept).superfluous(), [id(1), id(2)]);
    }

    #[test]
    fn the_longest_path_of_its_own_decides() {
        let with = |name: &str, path: &str| {
            let versions = BTreeMap::from([(id(1), version(Some(path)))]);
            Function::merge(name.parse().unwrap(), Some(id(1)), versions).unwrap()
        };
        let all = [with("shop", "/shop"), with("cart", "/shop/cart"), with("also", "/shop")];
        let of = |path| route(all.iter(), path).map(|(name, rest)| (name.as_str(), rest));
        assert_eq!(of("/shop"), Some(("also", "")));
        assert_eq!(of("/shop/cart/1"), Some(("cart", "/1")));
        assert_eq!(of("/shop/carts"), Some(("also", "/carts")));
        assert_eq!(of("/shopping"), None);
        for path in ["/", "/api", "/fn/x", "/s/y", "/a b", "/%41"] {
            assert!(!may_have(&VfsPath::parse(path).unwrap()), "{path}");
        }
        assert!(may_have(&VfsPath::parse("/shop/v1").unwrap()));
    }
}
