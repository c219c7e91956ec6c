//! Which keys have changed lately, in order and numbered: pure.
//!
//! The log is this node's alone and lives in memory, so a cursor is good on the node that gave it and until that node
//! stops; who comes with another begins with a snapshot.

use std::{collections::VecDeque, fmt, str::FromStr};

use bytes::Bytes;

use crate::cell::SpaceName;

/// Changes that are remembered, and the bytes of their keys and fields.
const MAX_CHANGES: usize = 65_536;
const MAX_BYTES: usize = 4 << 20;

/// A place in the log of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Which log: a random number, drawn when the node started.
    log: u64,
    /// The number of the last change before it.
    pub(crate) number: u64,
}

/// Text is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no cursor of a watch")]
pub struct CursorError;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:x}", self.log, self.number)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (log, number) = text.split_once('-').ok_or(CursorError)?;
        let parse = |digits: &str| u64::from_str_radix(digits, 16).map_err(|_| CursorError);
        Ok(Self { log: parse(log)?, number: parse(number)? })
    }
}

/// What has changed: a key's worth if the field is empty, and otherwise that field or member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) key: Bytes,
    pub(crate) field: Bytes,
}

impl Place {
    fn len(&self) -> usize {
        self.key.len() + self.field.len()
    }
}

/// The log.
#[derive(Debug)]
pub(crate) struct Changed {
    log: u64,
    /// The number of the latest change.
    last: u64,
    changes: VecDeque<(SpaceName, Place)>,
    bytes: usize,
}

impl Default for Changed {
    fn default() -> Self {
        Self { log: rand::random(), last: 0, changes: VecDeque::new(), bytes: 0 }
    }
}

impl Changed {
    /// The place behind all changes so far.
    pub(crate) fn now(&self) -> Cursor {
        Cursor { log: self.log, number: self.last }
    }

    /// Notes a change, and returns its number.
    pub(crate) fn note(&mut self, space: &SpaceName, place: &Place) -> u64 {
        self.last += 1;
        self.bytes += place.len();
        self.changes.push_back((space.clone(), place.clone()));
        while self.changes.len() > MAX_CHANGES || self.bytes > MAX_BYTES {
            let Some((_, oldest)) = self.changes.pop_front() else { break };
            self.bytes -= oldest.len();
        }
        self.last
    }

    /// The changes behind `cursor` to keys of `space` with this prefix, each place once, with the number of its last
    /// change; `None` if the log does not reach that far back, or is another one.
    pub(crate) fn since(
        &self,
        space: &SpaceName,
        prefix: &[u8],
        cursor: Cursor,
    ) -> Option<VecDeque<(u64, Place)>> {
        let first = self.last - self.changes.len() as u64 + 1;
        if cursor.log != self.log || cursor.number > self.last || cursor.number + 1 < first {
            return None;
        }
        let numbered = (first..).zip(&self.changes).filter(|(number, _)| *number > cursor.number);
        let concerning = numbered.filter(|(_, (at, place))| at == space && place.key.starts_with(prefix));
        let mut last = std::collections::HashMap::new();
        let found: Vec<(u64, &Place)> = concerning.map(|(number, (_, place))| (number, place)).collect();
        found.iter().for_each(|(number, place)| {
            last.insert(*place, *number);
        });
        Some(
            found
                .into_iter()
                .filter(|(number, place)| last.get(place) == Some(number))
                .map(|(number, place)| (number, place.clone()))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(name: &str) -> SpaceName {
        SpaceName::new(name).unwrap()
    }

    fn place(key: &'static str, field: &'static str) -> Place {
        Place { key: key.into(), field: field.into() }
    }

    fn noted(log: &mut Changed, key: &'static str) -> u64 {
        log.note(&space("s"), &place(key, ""))
    }

    #[test]
    fn what_has_changed_since_a_place_is_told_once() {
        let mut log = Changed::default();
        noted(&mut log, "a");
        let start = log.now();
        noted(&mut log, "b");
        noted(&mut log, "a");
        noted(&mut log, "b");
        log.note(&space("s"), &place("a", "f"));
        log.note(&space("other"), &place("a", ""));
        let told = log.since(&space("s"), b"", start).unwrap();
        assert_eq!(told, [(3, place("a", "")), (4, place("b", "")), (5, place("a", "f"))]);
        assert_eq!(log.since(&space("s"), b"a", start).unwrap().len(), 2);
        assert!(log.since(&space("s"), b"", log.now()).unwrap().is_empty());
    }

    #[test]
    fn a_place_of_another_log_or_too_far_back_is_none() {
        let mut log = Changed::default();
        let place = log.now();
        assert_eq!(Changed::default().since(&space("s"), b"", place), None);
        for _ in 0..=MAX_CHANGES {
            noted(&mut log, "k");
        }
        assert_eq!(log.since(&space("s"), b"", place), None);
        assert!(log.since(&space("s"), b"", Cursor { number: 1, ..place }).is_some());
        assert_eq!(log.since(&space("s"), b"", Cursor { number: u64::MAX - 1, ..place }), None);
    }

    #[test]
    fn cursors_are_read_as_they_are_printed() {
        let cursor = Cursor { log: 7, number: 0xabc };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for text in ["", "-", "1", "x-1", "1-", "1-1-1"] {
            assert_eq!(text.parse::<Cursor>(), Err(CursorError), "{text}");
        }
    }
}
