//! Documents and collections as JSON. What the memory has a type for travels as that type.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use starfish_memory::{Explain, Found, Pointer};

/// What a write of a document came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentWritten {
    /// The document's id.
    pub id: String,
    /// Its size as JSON.
    pub bytes: usize,
    /// Whether it was not there before.
    pub created: bool,
    /// What the writer should know: the document is so large, or was changed so often, that it is slow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// What a document costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentCost {
    /// Its size as JSON.
    pub bytes: usize,
    /// The changes that it is made of.
    pub changes: u64,
    /// Their size.
    pub history_bytes: usize,
    /// Cells and changes that make no sense and were passed over.
    pub damaged: u64,
}

/// `POST /api/v1/docs/{collection}/find`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FindRequest {
    /// Which documents; all if missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<Value>,
    /// In which order: `-age,name`; by id if missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sort: Option<String>,
    /// Which fields are told: `name,at.city`, or left out: `-body`; all are told if missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<String>,
    /// At most so many; 1000 at most, 100 if missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Only what is behind this: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// The documents that were found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FindAnswer {
    /// The documents, in order.
    pub documents: Vec<Found>,
    /// Where the next page begins; missing behind the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// How they were found.
    pub explain: Explain,
}

/// `POST /api/v1/docs/{collection}/delete`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteRequest {
    /// Which documents. `{}` is all of them; it must be said.
    pub query: Value,
}

/// How many documents something was done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentCount {
    /// How many.
    pub documents: u64,
}

/// `PUT /api/v1/docs/{collection}/indexes/{name}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexRequest {
    /// The place that the index is over, as a JSON pointer.
    pub path: Pointer,
}

/// One line of an export, and of an import, where the id may be missing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentLine {
    /// Its id; a new one is made if it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What it says.
    pub document: Value,
}
