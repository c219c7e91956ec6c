//! What cannot be done with documents, in the words of the API. What is wrong with a query, an edit or an index is told
//! with its place.

use http::StatusCode;
use serde_json::json;
use starfish_memory::{DocumentError, FindError, IndexError, QueryError, ShapeError, WriteError};

use crate::api::error::{ApiError, chain};

pub(super) fn no_such_document(id: &str) -> ApiError {
    ApiError::not_found("no-such-document", format!("there is no document {id:?}"))
}

impl From<DocumentError> for ApiError {
    fn from(error: DocumentError) -> Self {
        let message = chain(&error);
        match &error {
            DocumentError::Id { .. } => Self::bad_request("bad-id", message),
            DocumentError::NotFound { id } => no_such_document(id),
            DocumentError::NotAnObject | DocumentError::TooDeep => Self::bad_request("bad-document", message),
            DocumentError::TooLarge { .. } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message)
                .with_hint("put large parts into files"),
            DocumentError::HistoryFull { .. } => {
                let refusal = Self::new(StatusCode::CONFLICT, "history-full", message);
                refusal.with_hint(
                    "copy it: starfish doc get COLLECTION ID | starfish doc put COLLECTION NEW-ID -",
                )
            }
            DocumentError::TooManyEdits { .. } => Self::bad_request("bad-edit", message),
            DocumentError::Edit(edit) => {
                let mut refusal = Self::bad_request("bad-edit", message);
                refusal.body.detail = Some(json!({"edit": edit.number, "path": edit.path}));
                refusal
            }
            DocumentError::Write(error) if matches!(**error, WriteError::Stopped) => {
                Self::unavailable("stopped", message)
            }
            DocumentError::Interrupted => Self::unavailable("interrupted", message),
            DocumentError::Refused(_) | DocumentError::Read(_) | DocumentError::Write(_) => {
                Self::internal(&error)
            }
        }
    }
}

impl From<FindError> for ApiError {
    fn from(error: FindError) -> Self {
        match error {
            FindError::Query(error) => error.into(),
            FindError::Shape(error) => error.into(),
            FindError::Document(error) => error.into(),
        }
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        let mut refusal = Self::bad_request("bad-query", error.to_string());
        refusal.body.detail = Some(json!({"at": error.at}));
        refusal
    }
}

impl From<ShapeError> for ApiError {
    fn from(error: ShapeError) -> Self {
        Self::bad_request("bad-query", error.to_string())
    }
}

impl From<IndexError> for ApiError {
    fn from(error: IndexError) -> Self {
        let message = error.to_string();
        match error {
            IndexError::Name { .. } | IndexError::Whole => Self::bad_request("bad-index", message),
            IndexError::Exists { .. } => Self::new(StatusCode::CONFLICT, "index-exists", message),
            IndexError::TooMany => Self::new(StatusCode::CONFLICT, "too-many-indexes", message),
            IndexError::NotFound { .. } => Self::not_found("no-such-index", message),
            IndexError::Document(error) => error.into(),
        }
    }
}
