//! Why what the swarm's memory keeps of something cannot be used.

use starfish_memory::{ReadError, WriteError};

/// Why a record cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Memory cannot be read.
    #[error("the swarm's memory cannot be read")]
    Read(#[from] ReadError),
    /// Memory does not take it.
    #[error("the swarm's memory does not take it")]
    Write(#[from] WriteError),
    /// It cannot be put into words.
    #[error("it cannot be encoded")]
    Encode(#[from] postcard::Error),
}
