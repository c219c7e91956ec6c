//! What a guest asks of its node beside files: the wire between a worker process and the node's [`Attendant`].
//!
//! WIRE. Each question has a number of the worker's choice, and is answered by one answer with that number, in any
//! order. All of them are bounded by the length of a message, and bodies of HTTP messages go piece by piece, each asked
//! for, so neither side has to keep what the other does not take.
//!
//! [`Attendant`]: crate::attendant::Attendant

use serde::{Deserialize, Serialize};

use crate::order::{RequestHead, ResponseHead};
use crate::wire::{Chunk, MAX_MESSAGE};

/// Questions of one guest that wait for their answer. A request has three at a time at most.
pub(crate) const MAX_ASKED: usize = 64;
/// HTTP requests of one guest at a time.
pub(crate) const MAX_EXCHANGES: usize = 16;
/// The longest value that a guest is given or gives: a message, less what stands around it.
pub(crate) const MAX_ASKED_VALUE: usize = MAX_MESSAGE / 2;
/// Keys of one page.
pub(crate) const KEYS_PER_PAGE: usize = 256;

/// Names a question.
pub(crate) type AskId = u32;
/// Names an HTTP request of a guest.
pub(crate) type ExchangeId = u32;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// About a bucket.
    Bucket { name: String, about: Bucket },
    /// Send an HTTP request; its body comes in parts. The answer is the head of the response.
    Send { exchange: ExchangeId, head: Box<RequestHead> },
    /// A part of its body; an empty one is its end.
    Part { exchange: ExchangeId, part: Chunk },
    /// The next part of the response's body.
    Read { exchange: ExchangeId },
    /// Nobody is interested in the rest of it.
    Close { exchange: ExchangeId },
}

/// What is asked of a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Bucket {
    /// Is it there for me?
    Open,
    Get {
        key: String,
    },
    Set {
        key: String,
        value: Chunk,
    },
    Delete {
        key: String,
    },
    Exists {
        key: String,
    },
    Keys {
        after: Option<String>,
    },
    Increment {
        key: String,
        by: i64,
    },
    /// A value, and what names it in [`Bucket::Swap`].
    Versioned {
        key: String,
    },
    /// Set it if it is still that version; without one, if there is none.
    Swap {
        key: String,
        version: Option<String>,
        value: Chunk,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Told {
    Done,
    Value(Option<Chunk>),
    Yes(bool),
    Number(i64),
    Keys {
        keys: Vec<String>,
        more: bool,
    },
    Versioned(Option<(String, Chunk)>),
    Response(Box<ResponseHead>),
    /// The next part of a body; `None` is its end.
    Part(Option<Chunk>),
    /// It was not granted.
    Denied,
    /// It could not be done, and why.
    Failed(String),
}
