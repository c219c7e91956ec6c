//! Many tasks for a worker at once: the same program for one item after the other.
//!
//! The smallest tasks take some ten microseconds, which is less than it takes to tell a process of one. So a worker is
//! given a series of them, and answers with what came of many in one message. Only tasks that have no input and leave
//! nothing but a few words are run like that.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::batch::Retries;
use crate::guest_io::OutputKind;
use crate::order::Order;
use crate::task::Outcome;
use crate::wire::Chunk;

/// What has ended is told at least this often.
pub(crate) const TELL_EVERY: Duration = Duration::from_millis(100);
/// What has ended is told when it takes so much of a message.
const TELL_BYTES: usize = 32 << 10;
/// What a result takes beside its outputs.
const BRIEF_BYTES: usize = 16;

/// The tasks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Series {
    /// What all have in common: their arguments all but the last, and their limits.
    pub(crate) order: Order,
    pub(crate) items: Items,
    pub(crate) retries: Retries,
    /// Of each task, how much it may say on each of its streams. One that says more is not run in a series.
    pub(crate) said_bytes: u64,
}

/// The last argument of each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Items {
    Numbers(std::ops::Range<u64>),
    Texts(Vec<String>),
}

impl Items {
    pub(crate) fn get(&self, at: u64) -> Option<String> {
        match self {
            Self::Numbers(range) => {
                range.start.checked_add(at).filter(|number| *number < range.end).map(|it| it.to_string())
            }
            Self::Texts(texts) => usize::try_from(at).ok().and_then(|at| texts.get(at)).cloned(),
        }
    }
}

/// What came of one task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Brief {
    Ended {
        outcome: Outcome,
        tries: u32,
        elapsed_us: u64,
        stdout: Chunk,
        stderr: Chunk,
    },
    /// It says more than fits in here: it is to be run by itself. The series ends with it.
    TooLong,
}

/// Results until they are told.
#[derive(Debug)]
pub(crate) struct Untold {
    briefs: Vec<Brief>,
    bytes: usize,
    told: Instant,
}

impl Untold {
    pub(crate) fn new() -> Self {
        Self { briefs: Vec::new(), bytes: 0, told: Instant::now() }
    }

    /// One more; returns what is to be told now.
    pub(crate) fn push(&mut self, brief: Brief) -> Option<Vec<Brief>> {
        if let Brief::Ended { stdout, stderr, .. } = &brief {
            self.bytes += BRIEF_BYTES + stdout.0.len() + stderr.0.len();
        }
        self.briefs.push(brief);
        (self.bytes >= TELL_BYTES || self.told.elapsed() >= TELL_EVERY).then(|| self.take())
    }

    /// All that is there.
    pub(crate) fn take(&mut self) -> Vec<Brief> {
        (self.bytes, self.told) = (0, Instant::now());
        std::mem::take(&mut self.briefs)
    }
}

/// The words of one task, in memory.
#[derive(Clone, Debug)]
pub(crate) struct Words(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    stdout: BytesMut,
    stderr: BytesMut,
    limit: usize,
    is_too_much: bool,
}

impl Words {
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Mutex::new(Held { limit, ..Held::default() })))
    }

    /// Adds to one stream; says whether there was room.
    pub(crate) fn add(&self, kind: OutputKind, bytes: &[u8]) -> bool {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = held.limit;
        let said = match kind {
            OutputKind::Stdout => &mut held.stdout,
            OutputKind::Stderr => &mut held.stderr,
        };
        let fits = said.len() + bytes.len() <= limit;
        if fits {
            said.extend_from_slice(bytes);
        }
        held.is_too_much |= !fits;
        fits
    }

    /// What was said, if it was not too much; begins anew.
    pub(crate) fn take(&self) -> Option<[Bytes; 2]> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = held.limit;
        let Held { stdout, stderr, is_too_much, .. } =
            std::mem::replace(&mut *held, Held { limit, ..Held::default() });
        (!is_too_much).then(|| [stdout.freeze(), stderr.freeze()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_kept_up_to_their_limit() {
        let words = Words::new(3);
        assert!(words.add(OutputKind::Stdout, b"ab") && words.add(OutputKind::Stderr, b"xyz"));
        assert!(words.add(OutputKind::Stdout, b"c"));
        assert_eq!(words.take(), Some([Bytes::from_static(b"abc"), Bytes::from_static(b"xyz")]));
        assert!(!words.add(OutputKind::Stdout, b"abcd"));
        assert_eq!(words.take(), None);
        assert_eq!(words.take(), Some([Bytes::new(), Bytes::new()]));
    }

    #[test]
    fn items_are_the_last_arguments() {
        assert_eq!(Items::Numbers(5..7).get(1).as_deref(), Some("6"));
        assert_eq!(Items::Numbers(5..7).get(2), None);
        assert_eq!(Items::Numbers(u64::MAX - 1..u64::MAX).get(5), None);
        assert_eq!(Items::Texts(vec!["a".into()]).get(0).as_deref(), Some("a"));
    }
}
