//! `starfish doc edit`: single places of a document.

use serde_json::Value;
use starfish_node::memory::{Edit, Pointer};
use starfish_node::unambiguous;

use super::input;
use crate::commands::Context;

/// One edit, or a list of them. Places are JSON pointers, such as /langs/0.
#[derive(Clone, Debug, clap::Subcommand)]
pub(super) enum PlaceEdit {
    /// Give a member or an element a value.
    Set {
        /// The place.
        path: Pointer,
        /// JSON; what is no JSON is a string.
        #[arg(allow_hyphen_values = true)]
        value: String,
    },
    /// Remove a member or an element.
    Remove {
        /// The place.
        path: Pointer,
    },
    /// Add to a number; what others add at the same time adds up.
    Increment {
        /// The place.
        path: Pointer,
        /// How much; may be negative.
        #[arg(default_value_t = 1, allow_negative_numbers = true)]
        by: i64,
    },
    /// Put a new element into a list, before the one at the place.
    Insert {
        /// The place, such as /langs/0.
        path: Pointer,
        /// JSON; what is no JSON is a string.
        #[arg(allow_hyphen_values = true)]
        value: String,
    },
    /// Put a new element at the end of a list.
    Push {
        /// The list.
        path: Pointer,
        /// JSON; what is no JSON is a string.
        #[arg(allow_hyphen_values = true)]
        value: String,
    },
    /// Delete and insert characters of a string; what others do elsewhere in it at the same time stays.
    SpliceText {
        /// The string.
        path: Pointer,
        /// Characters in front of the place.
        at: usize,
        /// How many characters to delete.
        #[arg(long, default_value_t = 0)]
        delete: usize,
        /// What to insert.
        #[arg(long, default_value = "", allow_hyphen_values = true)]
        insert: String,
    },
    /// Do all edits of a list, or none: [{"op": "set", "path": "/a", "value": 1}, ...].
    Apply {
        /// The list; standard input if it is missing or `-`.
        json: Option<String>,
    },
}

impl PlaceEdit {
    pub(super) async fn edits(self, context: &mut Context) -> anyhow::Result<Vec<Edit>> {
        Ok(match self {
            Self::Set { path, value } => vec![Edit::Set { path, value: lenient(value) }],
            Self::Remove { path } => vec![Edit::Remove { path }],
            Self::Increment { path, by } => vec![Edit::Increment { path, by }],
            Self::Insert { path, value } => vec![Edit::Insert { path, value: lenient(value) }],
            Self::Push { path, value } => vec![Edit::Push { path, value: lenient(value) }],
            Self::SpliceText { path, at, delete, insert } => {
                vec![Edit::SpliceText { path, at, delete, insert }]
            }
            Self::Apply { json } => {
                let text = input(context, json).await?;
                unambiguous::parse(&text)
                    .map_err(|error| anyhow::anyhow!("this is no list of edits: {error}"))?
            }
        })
    }
}

fn lenient(text: String) -> Value {
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}
