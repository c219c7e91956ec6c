//! What a call is, what it says, and how both go over a stream to another node.
//!
//! WIRE. The caller opens the stream and says what it wants; the callee answers that it is busy, that it cannot, or that
//! the call begins. Then input goes one way and output the other, until the end. Dropping the stream, on either side,
//! gives the call up.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::version::{FunctionName, VersionId};
use crate::order::{RequestHead, ResponseHead};
use crate::task::Outcome;
use crate::wire::Chunk;

/// The stream of one call.
pub(crate) const CALL_PROTOCOL: &str = "/starfish/compute-call/2";

/// What is asked of a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallSpec {
    /// Which function.
    pub name: FunctionName,
    /// The arguments after `argv[0]`.
    pub args: Vec<String>,
    /// What to call of its program; where that exports no such function, it is run as a command.
    pub handler: Option<FunctionName>,
    /// The HTTP request that it is to answer, whose body is the input of the call. A program that answers no requests is
    /// run as a command.
    pub request: Option<RequestHead>,
}

/// What a call says, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// The head of the answer to an HTTP request; its body comes as standard output.
    Head(ResponseHead),
    /// Bytes of standard output.
    Stdout(Bytes),
    /// Bytes of standard error.
    Stderr(Bytes),
    /// The end; nothing comes after it.
    Ended(Outcome),
    /// Its node was lost in the middle of its answer, so it may have had effects, and is not tried again.
    Lost(String),
}

/// From the node that was asked for a call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum FromCaller {
    Call {
        spec: Box<CallSpec>,
        /// The version that the caller knows as the current one.
        version: VersionId,
        /// How long it may wait for a slot.
        patience_ms: u64,
    },
    Stdin(Chunk),
    StdinEnd,
}

/// From the node that runs it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum FromCallee {
    /// No slot was free in time.
    Busy,
    /// It cannot be run there.
    Refused(String),
    /// I am still at it.
    Beat,
    /// A slot is its own: send its input.
    Begins,
    Head(Box<ResponseHead>),
    Stdout(Chunk),
    Stderr(Chunk),
    Ended(Outcome),
    /// Its worker process died.
    Lost(String),
}
