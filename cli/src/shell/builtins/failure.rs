//! Why a built-in ends before its time.

use std::io;

use crate::shell::fs::path::PathError;
use crate::shell::fs::vfs::VfsError;
use crate::shell::status;

/// What a built-in comes to: an exit status, or the failure that ended it.
pub type Outcome = Result<i32, Failure>;

/// Why a built-in ends before its time.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The tree refused.
    #[error(transparent)]
    Vfs(#[from] VfsError),
    /// A path makes no sense.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A stream failed.
    #[error(transparent)]
    Io(io::Error),
    /// Nobody reads the output any more: no failure, but a reason to stop.
    #[error("broken pipe")]
    BrokenPipe,
    /// The arguments contradict each other or the tree.
    #[error("{0}")]
    Usage(String),
    /// It cannot be done.
    #[error("{0}")]
    Refused(String),
}

impl Failure {
    /// Whether it failed since something is not there.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Path(PathError::Empty) | Self::Vfs(VfsError::NotFound { .. }))
    }

    /// What went wrong, and what caused that.
    pub(super) fn told(&self) -> String {
        let chain = std::iter::successors(Some(self as &dyn std::error::Error), |error| error.source());
        let mut told: Vec<String> = chain.map(ToString::to_string).collect();
        // Transparent wrappers repeat their source.
        told.dedup();
        told.join(": ")
    }

    /// The exit status that says so.
    pub fn status(&self) -> i32 {
        match self {
            Self::Vfs(error) => status::of(error),
            Self::BrokenPipe => status::BROKEN_PIPE,
            Self::Usage(_) => status::USAGE,
            Self::Path(PathError::Empty) => status::MISSING,
            Self::Path(_) | Self::Io(_) | Self::Refused(_) => status::FAILED,
        }
    }
}

impl From<io::Error> for Failure {
    /// Errors of the tree come back out of the streams that carried them.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::BrokenPipe;
        }
        match error.downcast::<VfsError>() {
            Ok(error) => Self::Vfs(error),
            Err(error) => Self::Io(error),
        }
    }
}
