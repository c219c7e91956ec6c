//! Why a request of the kernel failed, and the one number that it is told.

use std::io;

use fuser::Errno;

use crate::path::PathError;
use crate::vfs::VfsError;

/// What went wrong with one request.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The tree said no.
    #[error(transparent)]
    Tree(#[from] VfsError),
    /// The staged content of an open file could not be written or read.
    #[error("could not {what} staged content")]
    Stage {
        /// What was tried.
        what: &'static str,
        /// What the disk said.
        #[source]
        source: io::Error,
    },
    /// What the inode meant has gone from its place, here or on another node.
    #[error("inode {0} has no place in the tree any more")]
    Stale(u64),
    /// Its content was not at hand when the file was removed.
    #[error("the content of removed inode {0} is lost")]
    Lost(u64),
    /// Names of the tree are UTF-8.
    #[error("a name is not UTF-8")]
    NotUtf8,
    /// There is something already.
    #[error("already exists")]
    Exists,
    /// There are files in it, if only ones that are still being written.
    #[error("directory not empty")]
    NotEmpty,
    /// It is a directory.
    #[error("is a directory")]
    IsADirectory,
    /// It is no directory.
    #[error("not a directory")]
    NotADirectory,
    /// It is a link.
    #[error("is a symbolic link")]
    IsALink,
    /// The tree has files, directories and links, and nothing else.
    #[error("the tree has no such kind of file")]
    NotPermitted,
    /// The flags ask for what the tree cannot do.
    #[error("not supported")]
    Unsupported,
}

impl Fault {
    /// What the calling program gets to see.
    pub(super) fn errno(&self) -> Errno {
        match self {
            Self::Tree(error) => of_tree(error),
            Self::Stage { source, .. } => of_io(source),
            Self::Stale(_) => Errno::ESTALE,
            Self::Lost(_) => Errno::EIO,
            Self::NotUtf8 => Errno::EILSEQ,
            Self::Exists => Errno::EEXIST,
            Self::NotEmpty => Errno::ENOTEMPTY,
            Self::IsADirectory => Errno::EISDIR,
            Self::NotADirectory => Errno::ENOTDIR,
            Self::IsALink => Errno::ELOOP,
            Self::NotPermitted => Errno::EPERM,
            Self::Unsupported => Errno::EINVAL,
        }
    }

    /// Whether there is nothing at a path (any more).
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Tree(VfsError::NotFound { .. } | VfsError::NotADirectory { .. }))
    }

    /// An error of the stage: `.map_err(Fault::stage("write"))`.
    pub(super) fn stage(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Stage { what, source }
    }
}

impl From<PathError> for Fault {
    fn from(error: PathError) -> Self {
        Self::Tree(error.into())
    }
}

fn of_tree(error: &VfsError) -> Errno {
    match error {
        VfsError::Path(PathError::TooLong(_) | PathError::NameTooLong(_)) => Errno::ENAMETOOLONG,
        VfsError::Path(PathError::NotAbsolute(_) | PathError::BadName(_)) => Errno::EINVAL,
        VfsError::Path(PathError::Empty) | VfsError::NotFound { .. } => Errno::ENOENT,
        VfsError::Exists { .. } => Errno::EEXIST,
        VfsError::NotADirectory { .. } => Errno::ENOTDIR,
        VfsError::IsADirectory { .. } => Errno::EISDIR,
        VfsError::NotEmpty { .. } => Errno::ENOTEMPTY,
        VfsError::Invalid { .. } => Errno::EINVAL,
        VfsError::LinkLoop { .. } => Errno::ELOOP,
        VfsError::Unavailable { .. } => Errno::EIO,
        VfsError::NoSpace { .. } => Errno::ENOSPC,
        VfsError::Io { source, .. } => of_io(source),
    }
}

/// Only a full disk means something to who asked; the numbers of sockets and files behind the tree do not.
fn of_io(error: &io::Error) -> Errno {
    match error.kind() {
        io::ErrorKind::StorageFull => Errno::ENOSPC,
        io::ErrorKind::QuotaExceeded => Errno::EDQUOT,
        io::ErrorKind::FileTooLarge => Errno::EFBIG,
        _ => Errno::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::VfsPath;

    #[test]
    fn errors_of_the_tree_have_their_posix_numbers() {
        let path = VfsPath::root();
        let number = |error: VfsError| Fault::from(error).errno().code();
        assert_eq!(number(VfsError::NotFound { path: path.clone() }), Errno::ENOENT.code());
        assert_eq!(number(VfsError::NotEmpty { path: path.clone() }), Errno::ENOTEMPTY.code());
        assert_eq!(number(VfsError::NoSpace { what: "it".to_owned() }), Errno::ENOSPC.code());
        assert_eq!(number(PathError::NameTooLong(300).into()), Errno::ENAMETOOLONG.code());
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(number(VfsError::Io { what: "ask".to_owned(), source: refused }), Errno::EIO.code());
    }
}
