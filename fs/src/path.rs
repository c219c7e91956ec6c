//! Paths in the swarm's tree: absolute, normalised, bounded.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name of an entry, in bytes, as on ext4 and most others.
pub const MAX_NAME_BYTES: usize = 255;
/// The longest path, in bytes (`PATH_MAX` on Linux).
pub const MAX_PATH_BYTES: usize = 4096;

/// An absolute path such as `/a/b`, without `.`, `..`, empty names or a trailing slash; the root is `/`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VfsPath(String);

/// Why a string is not a path of the tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It is empty. That names nothing, and least of all the directory in which somebody stands.
    #[error("'': no such file or directory")]
    Empty,
    /// It does not begin with `/`.
    #[error("{0:?} is not an absolute path")]
    NotAbsolute(String),
    /// It is longer than [`MAX_PATH_BYTES`].
    #[error("path of {0} bytes is longer than {MAX_PATH_BYTES}")]
    TooLong(usize),
    /// A name is longer than [`MAX_NAME_BYTES`].
    #[error("name of {0} bytes is longer than {MAX_NAME_BYTES}")]
    NameTooLong(usize),
    /// A name holds a NUL byte or a slash, or is `.`, `..` or empty.
    #[error("{0:?} cannot be a name")]
    BadName(String),
}

impl VfsPath {
    /// The root of the tree.
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// Parses and normalises: `/a//b/../c/` is `/a/c`; `..` at the root stays at the root.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if !text.starts_with('/') {
            return Err(PathError::NotAbsolute(text.to_owned()));
        }
        Self::root().resolve(text)
    }

    /// What `text` means to a shell that stands in `self`: absolute, or relative to it. An empty text means nothing, as
    /// to every program of a Unix: it is what a variable that was never set leaves behind.
    pub fn resolve(&self, text: &str) -> Result<Self, PathError> {
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        if text.len() > MAX_PATH_BYTES {
            return Err(PathError::TooLong(text.len()));
        }
        let mut names: Vec<&str> = if text.starts_with('/') { Vec::new() } else { self.names().collect() };
        for name in text.split('/') {
            match name {
                "" | "." => {}
                ".." => {
                    names.pop();
                }
                name => {
                    check_name(name)?;
                    names.push(name);
                }
            }
        }
        let path = format!("/{}", names.join("/"));
        if path.len() > MAX_PATH_BYTES {
            return Err(PathError::TooLong(path.len()));
        }
        Ok(Self(path))
    }

    /// The entry `name` of this directory.
    pub fn join(&self, name: &str) -> Result<Self, PathError> {
        check_name(name)?;
        let separator = if self.is_root() { "" } else { "/" };
        let path = format!("{}{separator}{name}", self.0);
        if path.len() > MAX_PATH_BYTES {
            return Err(PathError::TooLong(path.len()));
        }
        Ok(Self(path))
    }

    /// The directory that holds this entry; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        let (parent, _) = self.split()?;
        Some(parent)
    }

    /// The last name; `None` for the root.
    pub fn name(&self) -> Option<&str> {
        if self.is_root() { None } else { self.0.rsplit('/').next() }
    }

    /// Parent and name; `None` for the root.
    pub fn split(&self) -> Option<(Self, &str)> {
        if self.is_root() {
            return None;
        }
        let (parent, name) = self.0.rsplit_once('/')?;
        let parent = if parent.is_empty() { Self::root() } else { Self(parent.to_owned()) };
        Some((parent, name))
    }

    /// The names from the root down.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/').filter(|name| !name.is_empty())
    }

    /// Whether this is `/`.
    pub fn is_root(&self) -> bool {
        self.0 == "/"
    }

    /// Whether this is `ancestor` or lies below it.
    pub fn starts_with(&self, ancestor: &Self) -> bool {
        ancestor.is_root()
            || self.0 == ancestor.0
            || self.0.strip_prefix(&ancestor.0).is_some_and(|rest| rest.starts_with('/'))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Checks one name of an entry.
pub fn check_name(name: &str) -> Result<(), PathError> {
    if name.len() > MAX_NAME_BYTES {
        return Err(PathError::NameTooLong(name.len()));
    }
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(PathError::BadName(name.to_owned()));
    }
    Ok(())
}

impl FromStr for VfsPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for VfsPath {
    type Error = PathError;

    fn try_from(text: String) -> Result<Self, PathError> {
        Self::parse(&text)
    }
}

impl From<VfsPath> for String {
    fn from(path: VfsPath) -> Self {
        path.0
    }
}

impl fmt::Display for VfsPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for VfsPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_normalised() {
        for (given, normal) in [
            ("/", "/"),
            ("//", "/"),
            ("/a/b/", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../../b", "/b"),
            ("/ä/漢字", "/ä/漢字"),
        ] {
            assert_eq!(VfsPath::parse(given).unwrap().as_str(), normal, "{given}");
        }
    }

    #[test]
    fn bad_paths_are_refused() {
        assert_eq!(VfsPath::parse("a"), Err(PathError::NotAbsolute("a".into())));
        assert_eq!(VfsPath::parse("/a\0b"), Err(PathError::BadName("a\0b".into())));
        assert_eq!(VfsPath::parse(&format!("/{}", "x".repeat(256))), Err(PathError::NameTooLong(256)));
        assert_eq!(VfsPath::parse(&"/x".repeat(2049)), Err(PathError::TooLong(4098)));
    }

    #[test]
    fn relative_paths_start_where_the_shell_stands() {
        let here = VfsPath::parse("/home/ada").unwrap();
        assert_eq!(here.resolve("notes").unwrap().as_str(), "/home/ada/notes");
        assert_eq!(here.resolve("../bob").unwrap().as_str(), "/home/bob");
        assert_eq!(here.resolve("/etc").unwrap().as_str(), "/etc");
        assert_eq!(here.resolve(""), Err(PathError::Empty));
    }

    #[test]
    fn a_prefix_counts_whole_names_only() {
        let parent = VfsPath::parse("/a").unwrap();
        assert!(VfsPath::parse("/a/b").unwrap().starts_with(&parent));
        assert!(!VfsPath::parse("/ab").unwrap().starts_with(&parent));
    }

    proptest! {
        #[test]
        fn parsing_is_idempotent(text in "/[a-c./]{0,40}") {
            let once = VfsPath::parse(&text).unwrap();
            prop_assert_eq!(VfsPath::parse(once.as_str()).unwrap(), once);
        }
    }
}
