//! What went wrong, as the API says it: `{code, message, hint, request_id}` under a fitting status.

use serde::{Deserialize, Serialize};

/// The body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProblemBody {
    /// A stable word for programs, such as `not-found`.
    pub code: String,
    /// For people.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Finds this request in the node's log.
    #[serde(default)]
    pub request_id: String,
    /// The error's own fields, for clients that know the type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<serde_json::Value>,
}

/// A refusal, as the client holds it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}", body.message)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// What the node said.
    pub body: ProblemBody,
}

impl Problem {
    /// There is no such thing.
    pub fn is_not_found(&self) -> bool {
        self.status == 404
    }

    /// Trying again later may help.
    pub fn is_temporary(&self) -> bool {
        matches!(self.status, 429 | 503)
    }

    /// Somebody with more rights must do this.
    pub fn is_forbidden(&self) -> bool {
        matches!(self.status, 401 | 403)
    }
}
