//! [`VfsError`] as JSON, so that a client's error is the very variant that the node met.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use starfish_fs::path::{PathError, VfsPath};
use starfish_fs::vfs::VfsError;

/// The same as [`VfsError`], and bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "vfs", rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the variants and fields are those of `VfsError`")]
pub enum WireVfsError {
    Path { error: WirePathError },
    NotFound { path: VfsPath },
    Exists { path: VfsPath },
    NotADirectory { path: VfsPath },
    IsADirectory { path: VfsPath },
    NotEmpty { path: VfsPath },
    Invalid { path: VfsPath, reason: String },
    LinkLoop { path: VfsPath },
    Unavailable { path: VfsPath, hash: String, asked: usize },
    NoSpace { what: String },
    Io { what: String, kind: IoKind, message: String },
}

/// The same as [`PathError`], and bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "path", content = "given", rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the variants are those of `PathError`")]
pub enum WirePathError {
    Empty,
    NotAbsolute(String),
    TooLong(usize),
    NameTooLong(usize),
    BadName(String),
}

impl From<&VfsError> for WireVfsError {
    fn from(error: &VfsError) -> Self {
        match error {
            VfsError::Path(error) => Self::Path { error: error.into() },
            VfsError::NotFound { path } => Self::NotFound { path: path.clone() },
            VfsError::Exists { path } => Self::Exists { path: path.clone() },
            VfsError::NotADirectory { path } => Self::NotADirectory { path: path.clone() },
            VfsError::IsADirectory { path } => Self::IsADirectory { path: path.clone() },
            VfsError::NotEmpty { path } => Self::NotEmpty { path: path.clone() },
            VfsError::Invalid { path, reason } => {
                Self::Invalid { path: path.clone(), reason: (*reason).to_owned() }
            }
            VfsError::LinkLoop { path } => Self::LinkLoop { path: path.clone() },
            VfsError::Unavailable { path, hash, asked } => {
                Self::Unavailable { path: path.clone(), hash: hash.clone(), asked: *asked }
            }
            VfsError::NoSpace { what } => Self::NoSpace { what: what.clone() },
            VfsError::Io { what, source } => {
                Self::Io { what: what.clone(), kind: source.kind().into(), message: source.to_string() }
            }
        }
    }
}

impl From<WireVfsError> for VfsError {
    fn from(error: WireVfsError) -> Self {
        match error {
            WireVfsError::Path { error } => Self::Path(error.into()),
            WireVfsError::NotFound { path } => Self::NotFound { path },
            WireVfsError::Exists { path } => Self::Exists { path },
            WireVfsError::NotADirectory { path } => Self::NotADirectory { path },
            WireVfsError::IsADirectory { path } => Self::IsADirectory { path },
            WireVfsError::NotEmpty { path } => Self::NotEmpty { path },
            WireVfsError::Invalid { path, reason } => Self::Invalid { path, reason: REASONS.intern(reason) },
            WireVfsError::LinkLoop { path } => Self::LinkLoop { path },
            WireVfsError::Unavailable { path, hash, asked } => Self::Unavailable { path, hash, asked },
            WireVfsError::NoSpace { what } => Self::NoSpace { what },
            WireVfsError::Io { what, kind, message } => {
                Self::Io { what, source: io::Error::new(kind.into(), message) }
            }
        }
    }
}

impl From<&PathError> for WirePathError {
    fn from(error: &PathError) -> Self {
        match error {
            PathError::Empty => Self::Empty,
            PathError::NotAbsolute(text) => Self::NotAbsolute(text.clone()),
            PathError::TooLong(length) => Self::TooLong(*length),
            PathError::NameTooLong(length) => Self::NameTooLong(*length),
            PathError::BadName(name) => Self::BadName(name.clone()),
        }
    }
}

impl From<WirePathError> for PathError {
    fn from(error: WirePathError) -> Self {
        match error {
            WirePathError::Empty => Self::Empty,
            WirePathError::NotAbsolute(text) => Self::NotAbsolute(text),
            WirePathError::TooLong(length) => Self::TooLong(length),
            WirePathError::NameTooLong(length) => Self::NameTooLong(length),
            WirePathError::BadName(name) => Self::BadName(name),
        }
    }
}

/// The kinds of [`io::ErrorKind`] that callers tell apart; all else is `Other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the variants are those of `io::ErrorKind`")]
pub enum IoKind {
    NotFound,
    PermissionDenied,
    ConnectionReset,
    BrokenPipe,
    InvalidInput,
    InvalidData,
    TimedOut,
    StorageFull,
    Interrupted,
    UnexpectedEof,
    Other,
}

/// Kinds on both sides of the wire, once.
const IO_KINDS: [(io::ErrorKind, IoKind); 10] = [
    (io::ErrorKind::NotFound, IoKind::NotFound),
    (io::ErrorKind::PermissionDenied, IoKind::PermissionDenied),
    (io::ErrorKind::ConnectionReset, IoKind::ConnectionReset),
    (io::ErrorKind::BrokenPipe, IoKind::BrokenPipe),
    (io::ErrorKind::InvalidInput, IoKind::InvalidInput),
    (io::ErrorKind::InvalidData, IoKind::InvalidData),
    (io::ErrorKind::TimedOut, IoKind::TimedOut),
    (io::ErrorKind::StorageFull, IoKind::StorageFull),
    (io::ErrorKind::Interrupted, IoKind::Interrupted),
    (io::ErrorKind::UnexpectedEof, IoKind::UnexpectedEof),
];

impl From<io::ErrorKind> for IoKind {
    fn from(kind: io::ErrorKind) -> Self {
        IO_KINDS.iter().find(|(known, _)| *known == kind).map_or(Self::Other, |(_, wire)| *wire)
    }
}

impl From<IoKind> for io::ErrorKind {
    fn from(kind: IoKind) -> Self {
        IO_KINDS.iter().find(|(_, wire)| *wire == kind).map_or(Self::Other, |(known, _)| *known)
    }
}

/// A node knows a handful of reasons; beyond this many, somebody else is speaking.
const MAX_REASONS: usize = 64;

/// Every reason that this process was told.
static REASONS: Reasons = Reasons(Mutex::new(BTreeSet::new()));

/// Texts with the lifetime that [`VfsError::Invalid`] asks for; each different one is kept once, for good.
struct Reasons(Mutex<BTreeSet<&'static str>>);

impl Reasons {
    fn intern(&self, reason: String) -> &'static str {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = known.get(reason.as_str()) {
            return same;
        }
        if known.len() >= MAX_REASONS {
            return "the operation makes no sense here";
        }
        let kept: &'static str = Box::leak(reason.into_boxed_str());
        known.insert(kept);
        kept
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One of each kind.
    pub(crate) fn every_error() -> Vec<VfsError> {
        let path = VfsPath::parse("/a/b").unwrap();
        let at = || path.clone();
        vec![
            VfsError::Path(PathError::Empty),
            VfsError::Path(PathError::NotAbsolute("a".into())),
            VfsError::Path(PathError::TooLong(5000)),
            VfsError::Path(PathError::NameTooLong(300)),
            VfsError::Path(PathError::BadName("..".into())),
            VfsError::NotFound { path: at() },
            VfsError::Exists { path: at() },
            VfsError::NotADirectory { path: at() },
            VfsError::IsADirectory { path: at() },
            VfsError::NotEmpty { path: at() },
            VfsError::Invalid { path: at(), reason: "a directory cannot go into itself" },
            VfsError::LinkLoop { path: at() },
            VfsError::Unavailable { path: at(), hash: "ab".into(), asked: 3 },
            VfsError::NoSpace { what: "a blob".into() },
            VfsError::Io { what: "reading".into(), source: io::Error::new(io::ErrorKind::TimedOut, "late") },
        ]
    }

    #[test]
    fn every_error_is_the_same_on_the_other_side() {
        for error in every_error() {
            let json = serde_json::to_string(&WireVfsError::from(&error)).unwrap();
            let back: VfsError = serde_json::from_str::<WireVfsError>(&json).unwrap().into();
            assert_eq!(format!("{back:?}"), format!("{error:?}"));
            assert_eq!(back.to_string(), error.to_string());
        }
    }

    #[test]
    fn reasons_are_kept_once_and_not_without_end() {
        let reasons = Reasons(Mutex::default());
        let intern = |text: &str| reasons.intern(text.to_owned());
        assert!(std::ptr::eq(intern("same"), intern("same")));
        for index in 0..MAX_REASONS {
            intern(&format!("reason {index}"));
        }
        assert_eq!(intern("one more"), intern("and another"));
    }
}
