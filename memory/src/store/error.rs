//! Why the store fails: at its opening, and at a read.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{blobs::BlobError, codec::MalformedCell, engine::EngineError, salvage};

/// Why the store of a node cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("the memory in {} is in use by another process", path.display())]
    InUse {
        /// The store's folder.
        path: PathBuf,
    },
    /// The folder or a file in it cannot be used.
    #[error("the memory in {} cannot be opened", path.display())]
    Io {
        /// The store's folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What is on disk is not what was written.
    #[error(
        "the memory in {} is damaged; move that folder away and start again to fetch it from the other nodes",
        path.display()
    )]
    Damaged {
        /// The store's folder.
        path: PathBuf,
        /// What does not fit.
        source: ReadError,
    },
    /// The writer's thread cannot be started.
    #[error("the thread that writes the memory cannot be started")]
    Thread(#[source] std::io::Error),
}

/// Why a cell cannot be read from this node's disk.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The storage engine failed.
    #[error("reading the store failed")]
    Engine(#[source] Arc<fjall::Error>),
    /// A cell or an index entry does not decode.
    #[error("a stored cell is damaged")]
    Cell(#[from] MalformedCell),
    /// The store is closed, after a write that failed.
    #[error("the store cannot be read now")]
    Closed,
    /// The storage engine stumbled over its own files.
    #[error("the storage engine cannot make sense of its files")]
    Senseless,
    /// The cell was damaged on this node's disk, and has not come back from another member yet.
    #[error("this was damaged on the node's disk, and has not come back from another member yet")]
    Lost,
    /// The bytes of a large value cannot be had.
    #[error("the value cannot be fetched")]
    Blob(#[from] BlobError),
}

impl ReadError {
    /// Whether what is on the disk is not what was written.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Engine(error) => salvage::is_damage(error),
            Self::Cell(_) => true,
            Self::Lost | Self::Closed | Self::Senseless | Self::Blob(_) => false,
        }
    }

    /// Whether another look in a while may find what is not there now.
    pub fn may_pass(&self) -> bool {
        self.is_damage() || matches!(self, Self::Lost | Self::Closed)
    }
}

impl From<fjall::Error> for ReadError {
    fn from(error: fjall::Error) -> Self {
        Self::Engine(Arc::new(error))
    }
}

impl From<EngineError> for ReadError {
    fn from(_: EngineError) -> Self {
        Self::Closed
    }
}

/// What an error that a read met says of the opening of the store in `path`.
pub(super) fn classify(path: &Path, error: ReadError) -> StoreError {
    let path = path.to_owned();
    match error {
        ReadError::Engine(error) if matches!(*error, fjall::Error::Locked) => StoreError::InUse { path },
        ReadError::Engine(error) => match Arc::try_unwrap(error) {
            Ok(fjall::Error::Io(source)) if environmental(&source) => StoreError::Io { path, source },
            Ok(other) => StoreError::Damaged { path, source: other.into() },
            Err(shared) => StoreError::Damaged { path, source: ReadError::Engine(shared) },
        },
        source => StoreError::Damaged { path, source },
    }
}

/// Whether an error speaks of the machine rather than of what the files contain.
fn environmental(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Kind;
    matches!(error.kind(), Kind::PermissionDenied | Kind::StorageFull | Kind::ReadOnlyFilesystem)
}
