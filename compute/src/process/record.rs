//! What is kept of a process. Pure.
//!
//! WIRE: the fields, and the records as postcard behind one byte of version.

use serde::{Deserialize, Serialize};
use starfish_dht::PeerId;

use crate::function::version::FunctionName;
use crate::id::EventId;

/// How a process is called, and how its handlers are: like functions.
pub type ProcessName = FunctionName;

/// The longest state. With the list of what went into it it is one value of memory, so that they cannot be torn apart.
pub const MAX_STATE: usize = 10 << 10;
/// The longest event, and the longest answer: each is a value of memory.
pub const MAX_DATA: usize = 12 << 10;

/// Field: what a process is.
pub(crate) const SPEC: &[u8] = b"spec";
/// Field: its state.
pub(crate) const STATE: &[u8] = b"state";
/// Fields of events that went into the state, many in one: behind it an id.
const SEALED: &[u8] = b"k";
/// Fields of events: behind it an id.
const EVENT: &[u8] = b"e";
/// Fields of what came of events: behind it an id.
const ANSWER: &[u8] = b"r";

/// What a cell of a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Field {
    Spec,
    State,
    Sealed(EventId),
    Event(EventId),
    Answer(EventId),
}

impl Field {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        match self {
            Self::Spec => SPEC.to_vec(),
            Self::State => STATE.to_vec(),
            Self::Sealed(id) => [SEALED, &id.0].concat(),
            Self::Event(id) => [EVENT, &id.0].concat(),
            Self::Answer(id) => [ANSWER, &id.0].concat(),
        }
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let id = |bytes: &[u8]| Some(EventId(bytes.try_into().ok()?));
        Some(match bytes {
            SPEC => Self::Spec,
            STATE => Self::State,
            [b'k', rest @ ..] => Self::Sealed(id(rest)?),
            [b'e', rest @ ..] => Self::Event(id(rest)?),
            [b'r', rest @ ..] => Self::Answer(id(rest)?),
            _ => return None,
        })
    }
}

/// What a process is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The function that handles its events: the version that is current when an event is handled.
    pub function: FunctionName,
    /// Where it was begun.
    pub by: PeerId,
    /// When, in milliseconds since the Unix epoch by that node's clock.
    pub since_ms: u64,
    /// Tells it from others of its name, earlier and later ones.
    pub tag: u64,
}

/// Something that happens to a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    /// The [`Spec::tag`] of the process that it is for.
    pub(crate) tag: u64,
    pub(crate) handler: ProcessName,
    pub(crate) data: Vec<u8>,
    /// When it was sent, in milliseconds since the Unix epoch by the clock of who journaled it.
    pub(crate) at_ms: u64,
    /// The process that sent it, if one did.
    pub(crate) from: Option<ProcessName>,
}

/// The state of a process, and all that went into it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The [`Spec::tag`] of the process.
    pub tag: u64,
    /// The state, as the handlers know it.
    pub state: Vec<u8>,
    /// Events that went into it, all in all.
    pub handled: u64,
    /// Those of them whose handler failed, and so did not change it.
    pub failed: u64,
    /// Who handled the last one.
    pub by: Option<PeerId>,
    /// When, in milliseconds since the Unix epoch by that node's clock.
    pub at_ms: u64,
    /// The last events that went into it.
    pub open: Vec<EventId>,
    /// Lists of those before, the oldest first, with the time of the last event in each.
    pub sealed: Vec<(EventId, u64)>,
}

/// What came of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// What the handler answered, or why it failed.
    pub outcome: Result<Vec<u8>, String>,
    /// Who handled it.
    pub by: PeerId,
    /// When, in milliseconds since the Unix epoch by that node's clock.
    pub at_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_state_is_a_value_of_memory() {
        use super::super::journal::{MAX_SEALED, SEAL_AT};
        let snapshot = Snapshot {
            tag: u64::MAX,
            state: vec![0xff; MAX_STATE],
            handled: u64::MAX,
            failed: u64::MAX,
            by: Some(PeerId::random()),
            at_ms: 1 << 42,
            open: vec![EventId([0xff; 16]); SEAL_AT - 1],
            sealed: vec![(EventId([0xff; 16]), 1 << 42); MAX_SEALED],
        };
        let bytes = crate::batch::definition::encode(&snapshot).unwrap();
        assert!(bytes.len() <= starfish_memory::MAX_VALUE, "{}", bytes.len());
        let event = Event {
            tag: u64::MAX,
            handler: "h".repeat(64).parse().unwrap(),
            data: vec![0xff; MAX_DATA],
            at_ms: u64::MAX,
            from: Some("p".repeat(64).parse().unwrap()),
        };
        assert!(crate::batch::definition::encode(&event).unwrap().len() <= starfish_memory::MAX_VALUE);
    }

    #[test]
    fn fields_read_back_as_they_are_written() {
        let id = EventId([7; 16]);
        for field in [Field::Spec, Field::State, Field::Sealed(id), Field::Event(id), Field::Answer(id)] {
            assert_eq!(Field::from_bytes(&field.to_bytes()), Some(field));
        }
        for bytes in [&b""[..], b"e", b"e123", b"x123456789abcdef0"] {
            assert_eq!(Field::from_bytes(bytes), None);
        }
    }
}
