//! Refusals: each has a status, a code for programs, words for people, and usually a hint.
//!
//! A handler returns an [`ApiError`]; [`crate::api::answer`] turns it into the body that clients see, since
//! only there the request's id is known. `500` always means a defect or a failing disk of this node.

use axum::extract::rejection::JsonRejection;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use starfish_fs::path::PathError;
use starfish_fs::vfs::VfsError;

use crate::wire::{ProblemBody, WireVfsError};

/// Why a request was not done.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) body: Box<ProblemBody>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        let body = ProblemBody {
            code: code.to_owned(),
            message: message.into(),
            hint: None,
            request_id: String::new(),
            detail: None,
        };
        Self { status, body: Box::new(body) }
    }

    pub(crate) fn bad_request(code: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(crate) fn not_found(code: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// A failure that nobody foresaw: the whole chain of causes goes into the message.
    pub(crate) fn internal(error: &dyn std::error::Error) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", chain(error))
    }

    /// The service is there but cannot do this now.
    pub(crate) fn unavailable(code: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }

    /// What is there is not what the client thinks.
    pub(crate) fn precondition_failed() -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "changed", "something else is there by now")
            .with_hint("read it again, and decide anew")
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.body.hint = Some(hint.into());
        self
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        // Transparent wrappers repeat their source.
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<VfsError> for ApiError {
    fn from(error: VfsError) -> Self {
        let (status, code) = match &error {
            VfsError::Path(_) => (StatusCode::BAD_REQUEST, "bad-path"),
            VfsError::NotFound { .. } => (StatusCode::NOT_FOUND, "not-found"),
            VfsError::Exists { .. } => (StatusCode::CONFLICT, "exists"),
            VfsError::NotADirectory { .. } => (StatusCode::CONFLICT, "not-a-directory"),
            VfsError::IsADirectory { .. } => (StatusCode::CONFLICT, "is-a-directory"),
            VfsError::NotEmpty { .. } => (StatusCode::CONFLICT, "not-empty"),
            VfsError::Invalid { .. } => (StatusCode::BAD_REQUEST, "invalid"),
            VfsError::LinkLoop { .. } => (StatusCode::BAD_REQUEST, "link-loop"),
            VfsError::Unavailable { .. } => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            VfsError::NoSpace { .. } => (StatusCode::INSUFFICIENT_STORAGE, "no-space"),
            VfsError::Io { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "io"),
        };
        let mut refusal = Self::new(status, code, chain(&error));
        refusal.body.detail = serde_json::to_value(WireVfsError::from(&error)).ok();
        refusal
    }
}

impl From<PathError> for ApiError {
    fn from(error: PathError) -> Self {
        VfsError::Path(error).into()
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        let code = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => "too-large",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "not-json",
            _ => "bad-json",
        };
        // Axum tells JSON of the wrong shape (422) from what is no JSON; to a client both are a bad request.
        let status = if code == "bad-json" { StatusCode::BAD_REQUEST } else { rejection.status() };
        let refusal = Self::new(status, code, rejection.body_text());
        match code {
            "not-json" => refusal.with_hint("send it with `Content-Type: application/json`"),
            _ => refusal,
        }
    }
}
