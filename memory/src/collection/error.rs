//! Why something cannot be done with a document.

use std::sync::Arc;

use super::{
    MAX_ID,
    write::{MAX_DOCUMENT, MAX_HISTORY},
};
use crate::{EditError, document::value::MAX_DEPTH, store::ReadError, writer::WriteError};

/// Why a document cannot be read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DocumentError {
    /// The id is empty or too long.
    #[error("the id has {len} bytes, 1 to {MAX_ID} are allowed")]
    Id {
        /// Its length.
        len: usize,
    },
    /// There is no such document.
    #[error("there is no document `{id}`")]
    NotFound {
        /// Its id.
        id: String,
    },
    /// A document is a JSON object.
    #[error("a document, and a merge patch of one, must be a JSON object")]
    NotAnObject,
    /// It would be too large.
    #[error("the document would have {bytes} bytes, {MAX_DOCUMENT} are allowed")]
    TooLarge {
        /// Its size as JSON.
        bytes: usize,
    },
    /// It was changed so often, while some node was away, that its history has no room for more.
    #[error(
        "the history of the document takes {bytes} bytes, {MAX_HISTORY} are allowed: it is let go of when the nodes that are \
         away come back; until then go on with a copy of it"
    )]
    HistoryFull {
        /// The size of its changes.
        bytes: usize,
    },
    /// It is nested too deeply.
    #[error("the document is nested more than {MAX_DEPTH} levels deep")]
    TooDeep,
    /// Too many edits at once.
    #[error("there are {count} edits, {max} are allowed at once", max = crate::MAX_EDITS)]
    TooManyEdits {
        /// How many there are.
        count: usize,
    },
    /// An edit does not go with the document.
    #[error("the document cannot be edited so")]
    Edit(#[from] EditError),
    /// Automerge refused.
    #[error("the document does not take the change")]
    Refused(#[source] Arc<automerge::AutomergeError>),
    /// The disk cannot be read.
    #[error("the document cannot be read")]
    Read(#[from] ReadError),
    /// The disk cannot be written.
    #[error("the document cannot be written")]
    Write(#[source] Arc<WriteError>),
    /// The thread that worked on it ended early: the node is stopping, or the document holds what nobody honest writes.
    #[error("the work on the document was interrupted")]
    Interrupted,
}

impl From<WriteError> for DocumentError {
    fn from(error: WriteError) -> Self {
        Self::Write(Arc::new(error))
    }
}

impl From<automerge::AutomergeError> for DocumentError {
    fn from(error: automerge::AutomergeError) -> Self {
        Self::Refused(Arc::new(error))
    }
}
