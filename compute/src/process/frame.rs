//! What a handler reads and writes: the contract with guests, in any language. Pure.
//!
//! A handler is an export of a function's program, called once for each event; a program without an export of that name is run as a
//! command, with the handler's name as its only argument. It reads, as standard input,
//!
//! ```text
//! process NAME
//! event ID TIME FROM
//! state LENGTH
//! (so many bytes, and a newline)
//! data LENGTH
//! (so many bytes, and a newline)
//! ```
//!
//! where TIME is when the event was sent, in milliseconds since the Unix epoch, and FROM the process that sent it, or `-`. It writes, as standard
//! output, any of these, in any order:
//!
//! ```text
//! state LENGTH
//! (the new state; without this, it stays what it is)
//! reply LENGTH
//! (what whoever sent the event is told)
//! send PROCESS HANDLER LENGTH
//! (the data of an event for that process)
//! ```
//!
//! and returns, or exits with 0. With any other end, or output that makes no sense, nothing has happened, and the event has failed. What a handler does
//! should depend on what it reads and nothing else, since it may be run again for the same event.

use super::record::{MAX_DATA, MAX_STATE, ProcessName};
use crate::id::EventId;

/// Events that one event may send to other processes.
pub const MAX_SENDS: usize = 64;
/// All that a handler may write.
pub const MAX_OUTPUT: usize = MAX_STATE + 2 * MAX_DATA + MAX_SENDS * 4096;

/// What a handler did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reaction {
    /// The new state, if it is another one.
    pub state: Option<Vec<u8>>,
    /// What whoever sent the event is told.
    pub reply: Vec<u8>,
    /// Events for other processes.
    pub sends: Vec<Outgoing>,
}

/// An event for another process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Which process.
    pub to: ProcessName,
    /// Which of its handlers.
    pub handler: ProcessName,
    /// What it is told.
    pub data: Vec<u8>,
}

/// What a handler wrote makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReaction {
    /// It is neither `state`, `reply` nor `send`.
    #[error("the handler wrote a line that makes no sense: {0:?}")]
    Line(String),
    /// There are fewer bytes than it said.
    #[error("the handler wrote less than it said: {0:?}")]
    Short(String),
    /// The state would be too long.
    #[error("the state would be longer than {} KiB", MAX_STATE >> 10)]
    State,
    /// A reply or event would be too long, or there are too many.
    #[error("a reply or event has at most {} KiB, and there are at most {MAX_SENDS} events", MAX_DATA >> 10)]
    TooMuch,
}

/// The standard input of a handler.
pub fn question(
    process: &ProcessName,
    (event, at_ms, from): (EventId, u64, Option<&ProcessName>),
    state: &[u8],
    data: &[u8],
) -> Vec<u8> {
    let from = from.map_or("-", ProcessName::as_str);
    let head = format!("process {process}\nevent {event} {at_ms} {from}\nstate {}\n", state.len());
    [head.as_bytes(), state, format!("\ndata {}\n", data.len()).as_bytes(), data, b"\n"].concat()
}

/// What a handler means by its standard output.
pub fn reaction(mut output: &[u8]) -> Result<Reaction, BadReaction> {
    let mut reaction = Reaction::default();
    while !output.is_empty() {
        let end = output.iter().position(|byte| *byte == b'\n').unwrap_or(output.len());
        let line = String::from_utf8_lossy(&output[..end.min(256)]).into_owned();
        output = output.get(end + 1..).unwrap_or_default();
        let words: Vec<&str> = line.split(' ').collect();
        let length = words.last().and_then(|word| word.parse::<usize>().ok());
        let Some(length) = length else { return Err(BadReaction::Line(line)) };
        let Some((bytes, rest)) = output.split_at_checked(length) else {
            return Err(BadReaction::Short(line));
        };
        output = rest.strip_prefix(b"\n").unwrap_or(rest);
        match words[..] {
            ["state", _] if length > MAX_STATE => return Err(BadReaction::State),
            _ if length > MAX_DATA => return Err(BadReaction::TooMuch),
            ["state", _] => reaction.state = Some(bytes.to_vec()),
            ["reply", _] => reaction.reply = bytes.to_vec(),
            ["send", to, handler, _] => {
                let (Ok(to), Ok(handler)) = (to.parse(), handler.parse()) else {
                    return Err(BadReaction::Line(line));
                };
                if reaction.sends.len() >= MAX_SENDS {
                    return Err(BadReaction::TooMuch);
                }
                reaction.sends.push(Outgoing { to, handler, data: bytes.to_vec() });
            }
            _ => return Err(BadReaction::Line(line)),
        }
    }
    Ok(reaction)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_handler_reads_state_and_event() {
        let name = "shop".parse().unwrap();
        let asked = question(&name, (EventId([0x11; 16]), 7, None), b"old\nstate", b"");
        let expected =
            format!("process shop\nevent {} 7 -\nstate 9\nold\nstate\ndata 0\n\n", "11".repeat(16));
        assert_eq!(String::from_utf8(asked).unwrap(), expected);
    }

    #[test]
    fn a_handler_writes_state_replies_and_events() {
        assert_eq!(reaction(b""), Ok(Reaction::default()));
        let written = b"reply 2\nok\nsend bank pay 5\n1\n2 3\nstate 0\n";
        let expected = Reaction {
            state: Some(Vec::new()),
            reply: b"ok".to_vec(),
            sends: vec![Outgoing {
                to: "bank".parse().unwrap(),
                handler: "pay".parse().unwrap(),
                data: b"1\n2 3".to_vec(),
            }],
        };
        assert_eq!(reaction(written), Ok(expected));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(matches!(reaction(b"hello\n"), Err(BadReaction::Line(_))));
        assert!(matches!(reaction(b"state -1\n"), Err(BadReaction::Line(_))));
        assert!(matches!(reaction(b"send ../x y 0\n"), Err(BadReaction::Line(_))));
        assert!(matches!(reaction(b"state 5\nabc"), Err(BadReaction::Short(_))));
        let long = [format!("state {}\n", MAX_STATE + 1).as_bytes(), &vec![b'x'; MAX_STATE + 1]].concat();
        assert_eq!(reaction(&long), Err(BadReaction::State));
        assert_eq!(reaction(&b"send a b 0\n\n".repeat(MAX_SENDS + 1)), Err(BadReaction::TooMuch));
    }

    proptest! {
        #[test]
        fn no_output_of_a_hostile_handler_does_harm(output in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = reaction(&output);
        }
    }
}
