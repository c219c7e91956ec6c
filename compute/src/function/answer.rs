//! What a call says, as the answer to an HTTP request.
//!
//! A component that answers requests gives a head and streams its body. Of a command, what it prints is the body. Whether
//! it ends well decides the status, so the beginning of what it prints is held back until that is known, or until it is
//! too much to hold.

use std::io;

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::protocol::Said;
use super::version::FunctionName;
use crate::order::ResponseHead;
use crate::task::Outcome;

/// What a command prints is held back up to here.
const MAX_HELD: usize = 256 << 10;
/// How much of what a command complains about is told.
const MAX_COMPLAINT: usize = 4 << 10;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// Its node is gone.
    #[error("the node that ran {name} was lost: {why}")]
    Lost {
        /// Of which function.
        name: FunctionName,
        /// What is known of it.
        why: String,
    },
    /// This node is about to stop.
    #[error("this node stops")]
    Stopping,
}

/// An answer of which the head is known.
#[must_use]
pub struct Answer {
    head: ResponseHead,
    first: Bytes,
    rest: Option<Heard>,
}

/// A call that has begun to answer.
struct Heard {
    name: FunctionName,
    said: mpsc::Receiver<Said>,
    /// It is given its input for as long as somebody takes what it says.
    _feeding: Option<AbortOnDropHandle<()>>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Answer").field("head", &self.head).finish_non_exhaustive()
    }
}

impl Answer {
    /// Waits for the head of what a call of `name` answers. `feeding` gives it its input, and ends with it.
    pub async fn hear(
        name: FunctionName,
        mut said: mpsc::Receiver<Said>,
        feeding: Option<AbortOnDropHandle<()>>,
    ) -> Result<Self, AnswerError> {
        let (mut held, mut complaint) = (BytesMut::new(), BytesMut::new());
        let ok = ResponseHead { status: 200, headers: Vec::new() };
        loop {
            match said.recv().await {
                Some(Said::Head(head)) => {
                    return Ok(Self {
                        head,
                        first: Bytes::new(),
                        rest: Some(Heard { name, said, _feeding: feeding }),
                    });
                }
                Some(Said::Stdout(bytes)) => {
                    held.extend_from_slice(&bytes);
                    if held.len() > MAX_HELD {
                        return Ok(Self {
                            head: ok,
                            first: held.freeze(),
                            rest: Some(Heard { name, said, _feeding: feeding }),
                        });
                    }
                }
                Some(Said::Stderr(bytes)) => {
                    let room = MAX_COMPLAINT - complaint.len();
                    complaint.extend_from_slice(&bytes[..bytes.len().min(room)]);
                }
                Some(Said::Ended(Outcome::Exited(0))) => {
                    return Ok(Self::whole(ok, held.freeze()));
                }
                Some(Said::Ended(outcome)) => return Ok(failed(&name, &outcome, complaint.freeze())),
                Some(Said::Lost(why)) => return Err(AnswerError::Lost { name, why }),
                None => return Err(AnswerError::Stopping),
            }
        }
    }

    /// One of which all is known, its length too.
    fn whole(mut head: ResponseHead, body: Bytes) -> Self {
        head.headers.push(("content-length".to_owned(), body.len().to_string().into_bytes()));
        Self { head, first: body, rest: None }
    }

    /// The head, and the body. If the call ends badly, the body breaks off.
    pub fn into_parts(self) -> (ResponseHead, BoxStream<'static, io::Result<Bytes>>) {
        let Self { head, first, rest } = self;
        let first = stream::iter((!first.is_empty()).then_some(Ok(first)));
        let rest = stream::unfold(rest, async |state| {
            let mut heard: Heard = state?;
            let broken = |name: &FunctionName, why: String| {
                Some((Err(io::Error::other(format!("{name}: {why}"))), None))
            };
            loop {
                match heard.said.recv().await {
                    Some(Said::Stdout(bytes)) => return Some((Ok(bytes), Some(heard))),
                    Some(Said::Head(_) | Said::Stderr(_)) => {}
                    Some(Said::Ended(Outcome::Exited(0))) => return None,
                    Some(Said::Ended(outcome)) => return broken(&heard.name, outcome.to_string()),
                    Some(Said::Lost(why)) => return broken(&heard.name, why),
                    None => return broken(&heard.name, "its node stops".to_owned()),
                }
            }
        });
        (head, first.chain(rest).boxed())
    }
}

/// A command that did not end well: what it complained about, or how it ended.
fn failed(name: &FunctionName, outcome: &Outcome, complaint: Bytes) -> Answer {
    let first = match outcome {
        Outcome::Exited(_) if !complaint.is_empty() => complaint,
        _ => Bytes::from(format!("function {name} {outcome}\n")),
    };
    let kind = ("content-type".to_owned(), b"text/plain; charset=utf-8".to_vec());
    Answer::whole(ResponseHead { status: 500, headers: vec![kind] }, first)
}
