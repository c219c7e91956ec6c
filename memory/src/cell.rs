//! The cell: what the swarm's memory is made of, and the one rule by which replicas merge.
//!
//! A cell is named by (space, key, field) and holds a value or a tombstone. Of two versions of a cell the greater
//! [`Version`] wins, whoever compares them, wherever and in whatever order: so replicas that have seen the same
//! cells hold the same cells. The rule keeps no history, and this file does no I/O and reads no clock.

use std::{fmt, ops::Deref, str::FromStr, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use starfish_dht::PeerId;

use crate::value::{BlobName, Large, Value};

/// Longest name of a space. Short, because it stands in front of every key on disk.
pub const MAX_SPACE: usize = 64;
/// Longest key. An index entry repeats the key, so long ones cost twice.
pub const MAX_KEY: usize = 1024;
/// Longest field name: as long as a key, since a set keeps its members there.
pub const MAX_FIELD: usize = 1024;
/// Largest value kept in a cell, since every replica holds every cell. The bytes of longer ones lie elsewhere
/// ([`crate::Blobs`]), and the cell says where.
pub const MAX_VALUE: usize = 16 * 1024;

/// Fields that begin with this byte belong to this crate (counters are kept there).
pub(crate) const RESERVED_FIELD: u8 = 0;

/// The field of a key's plain value.
pub(crate) const REGISTER: Bytes = Bytes::new();

/// Why a name is not the name of a space.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a space: 1 to {MAX_SPACE} of the characters a-z 0-9 . _ / -")]
pub struct SpaceError {
    name: String,
}

/// The checked name of a space.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpaceName(Arc<str>);

impl SpaceName {
    /// Checks `name`.
    pub fn new(name: &str) -> Result<Self, SpaceError> {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'/' | b'-');
        if (1..=MAX_SPACE).contains(&name.len()) && name.bytes().all(allowed) {
            Ok(Self(name.into()))
        } else {
            Err(SpaceError { name: name.chars().take(MAX_SPACE).collect() })
        }
    }
}

impl Deref for SpaceName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SpaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who wrote a cell: the first 16 bytes of the BLAKE3 hash of the node's peer id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Author([u8; 16]);

impl Author {
    /// The author that `peer` writes as.
    pub fn of(peer: &PeerId) -> Self {
        let mut short = [0; 16];
        short.copy_from_slice(&blake3::hash(&peer.to_bytes()).as_bytes()[..16]);
        Self(short)
    }

    /// The bytes that stand for this author in names.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    pub(crate) const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// When, on the author's hybrid logical clock, and by whom a cell was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// Seconds since 1970 in the upper 32 bits, the fraction of a second in the lower ones (NTP64).
    pub time: u64,
    /// Breaks ties, so that two nodes never write the same stamp.
    pub author: Author,
}

impl Stamp {
    /// When, in milliseconds since the Unix epoch.
    pub fn unix_ms(&self) -> u64 {
        crate::clock::unix_ms(self.time)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.time, self.author)
    }
}

/// What a value began as: the write that gave it, and how often what that left had ended by the time it was counted on anew. That a
/// value is to last longer or shorter changes neither, so it takes nothing from what others write or count at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// Of the write; [`Origin::NOTHING`]'s if there was none.
    pub(crate) stamp: Stamp,
    /// Each time the value expires, what is counted from then on has the next one.
    pub(crate) generation: u32,
}

impl Origin {
    /// Of what is counted where nothing was ever written.
    pub(crate) const NOTHING: Self =
        Self { stamp: Stamp { time: 0, author: Author([0; 16]) }, generation: 0 };

    /// Of what begins when it has expired.
    pub(crate) fn next(self) -> Self {
        Self { generation: self.generation.saturating_add(1), ..self }
    }
}

/// Text is no stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no version: 16 hex digits, a hyphen and 32 hex digits")]
pub struct StampError;

impl FromStr for Stamp {
    type Err = StampError;

    fn from_str(text: &str) -> Result<Self, StampError> {
        let (time, author) = text.split_once('-').ok_or(StampError)?;
        let is_hex =
            |digits: &str, len| digits.len() == len && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hex(time, 16) || !is_hex(author, 32) {
            return Err(StampError);
        }
        let time = u64::from_str_radix(time, 16).map_err(|_| StampError)?;
        let author = u128::from_str_radix(author, 16).map_err(|_| StampError)?;
        Ok(Self { time, author: Author(author.to_be_bytes()) })
    }
}

/// What a cell holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content {
    /// It was deleted. The tombstone stays, so that an older value cannot come back.
    Tombstone,
    /// It has this value.
    Value(Bytes),
    /// Its value is too large for a cell, and lies there.
    Large(Large),
    /// It is not the value of a field, but an old version of one.
    Kept(Kept),
}

impl Content {
    fn blob(&self) -> Option<BlobName> {
        match self {
            Self::Large(large) => Some(large.name),
            Self::Kept(kept) => kept.content.blob(),
            Self::Value(_) | Self::Tombstone => None,
        }
    }
}

/// A version of a value or field that is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kept {
    /// The version's name; that of the cell that holds it if missing.
    pub(crate) stamp: Option<Stamp>,
    /// The version that its author replaced.
    pub(crate) parent: Option<Stamp>,
    /// A value, a large value, or a tombstone.
    pub(crate) content: Box<Content>,
}

/// One version of one cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The space that the key is in.
    pub space: SpaceName,
    /// The key, at most [`MAX_KEY`] bytes.
    pub key: Bytes,
    /// The field within the key, at most [`MAX_FIELD`] bytes; the empty field is the key's plain value.
    pub field: Bytes,
    /// When and by whom this version was written.
    pub stamp: Stamp,
    /// The value or tombstone.
    pub content: Content,
    /// Unix time in milliseconds from which the value no longer counts.
    pub expires_ms: Option<u64>,
    /// Where this version only says how long a plain value lasts that was there: what that began as.
    pub renews: Option<Box<Origin>>,
}

/// What the merge rule compares. Honest nodes never write one stamp twice; that content and expiry follow in the
/// order makes replicas agree even on what a dishonest one wrote.
pub type Version<'a> = (Origin, Stamp, &'a Content, Option<u64>);

impl Cell {
    /// What the merge rule compares.
    pub fn version(&self) -> Version<'_> {
        (self.origin(), self.stamp, &self.content, self.expires_ms)
    }

    /// What its value began as.
    pub fn origin(&self) -> Origin {
        self.renews.as_deref().copied().unwrap_or(Origin { stamp: self.stamp, generation: 0 })
    }

    /// Whether this version wins over `other`, a version of the same cell.
    pub fn supersedes(&self, other: &Cell) -> bool {
        self.version() > other.version()
    }

    /// The value, unless it was deleted, has expired at `now_ms`, or is a large one.
    pub fn live(&self, now_ms: u64) -> Option<&Bytes> {
        match &self.content {
            Content::Value(value) if !self.expired(now_ms) => Some(value),
            Content::Value(_) | Content::Large(_) | Content::Kept(_) | Content::Tombstone => None,
        }
    }

    /// The value, also a large one, unless it was deleted or has expired at `now_ms`.
    pub fn live_value(&self, now_ms: u64) -> Option<Value> {
        match &self.content {
            _ if self.expired(now_ms) => None,
            Content::Value(value) => Some(Value::Inline(value.clone())),
            Content::Large(large) => Some(Value::Large(*large)),
            Content::Tombstone | Content::Kept(_) => None,
        }
    }

    /// Whether it has a value at `now_ms`.
    pub fn is_live(&self, now_ms: u64) -> bool {
        self.content != Content::Tombstone && !self.expired(now_ms)
    }

    /// The name of its value's bytes, if they lie elsewhere.
    pub(crate) fn blob(&self) -> Option<BlobName> {
        self.content.blob()
    }

    /// Whether the cell's time is over at `now_ms`.
    pub fn expired(&self, now_ms: u64) -> bool {
        self.expires_ms.is_some_and(|expires| expires <= now_ms)
    }
}

/// What an author wants to write, before the commit stamps it.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) space: SpaceName,
    pub(crate) key: Bytes,
    pub(crate) field: Bytes,
    pub(crate) content: Content,
    pub(crate) expires_ms: Option<u64>,
    pub(crate) renews: Option<Box<Origin>>,
}

impl Draft {
    pub(crate) fn stamped(self, stamp: Stamp) -> Cell {
        let Draft { space, key, field, content, expires_ms, renews } = self;
        Cell { space, key, field, stamp, content, expires_ms, renews }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    pub(crate) fn any_content() -> impl Strategy<Value = Content> {
        prop_oneof![
            Just(Content::Tombstone),
            vec(any::<u8>(), 0..40).prop_map(|bytes| Content::Value(bytes.into())),
        ]
    }

    /// Versions of few cells with few stamps, so that collisions of all kinds are common.
    pub(crate) fn any_cell() -> impl Strategy<Value = Cell> {
        let address = ("[ab]", vec(0u8..3, 0..3), vec(0u8..3, 0..2));
        let origin = (0u64..3, 0u8..3, 0u32..2).prop_map(|(time, author, generation)| Origin {
            stamp: Stamp { time, author: Author([author; 16]) },
            generation,
        });
        (address, 1u64..4, 0u8..3, any_content(), option::of(0u64..3), option::of(origin)).prop_map(
            |((space, key, field), time, author, content, expires_ms, origin)| {
                let stamp = Stamp { time, author: Author([author; 16]) };
                let renews =
                    origin.filter(|origin| matches!(content, Content::Value(_)) && origin.stamp < stamp);
                let renews = renews.map(Box::new);
                Cell {
                    space: SpaceName::new(&space).unwrap(),
                    key: key.into(),
                    field: field.into(),
                    stamp,
                    content,
                    expires_ms,
                    renews,
                }
            },
        )
    }

    fn merge(a: Cell, b: Cell) -> Cell {
        if b.supersedes(&a) { b } else { a }
    }

    fn versions() -> impl Strategy<Value = (Cell, Cell, Cell)> {
        let at_one_address = |(a, mut b, mut c): (Cell, Cell, Cell)| {
            for other in [&mut b, &mut c] {
                (other.space, other.key, other.field) = (a.space.clone(), a.key.clone(), a.field.clone());
            }
            (a, b, c)
        };
        (any_cell(), any_cell(), any_cell()).prop_map(at_one_address)
    }

    proptest! {
        #[test]
        fn merging_is_commutative_associative_and_idempotent((a, b, c) in versions()) {
            prop_assert_eq!(merge(a.clone(), b.clone()), merge(b.clone(), a.clone()));
            prop_assert_eq!(
                merge(merge(a.clone(), b.clone()), c.clone()),
                merge(a.clone(), merge(b, c))
            );
            prop_assert_eq!(merge(a.clone(), a.clone()), a);
        }
    }

    #[test]
    fn stamps_are_read_as_they_are_printed() {
        let stamp = Stamp { time: 0xabc, author: Author([7; 16]) };
        assert_eq!(stamp.to_string().parse(), Ok(stamp));
        for text in ["", "-", "1-2", "+000000000000abc-07070707070707070707070707070707", "x"] {
            assert_eq!(text.parse::<Stamp>(), Err(StampError), "{text}");
        }
    }

    #[test]
    fn names_of_spaces_are_checked() {
        for good in ["a", "app/users", "sys", "x-1_y.z", &"a".repeat(64)] {
            assert!(SpaceName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "a b", "ä", "a\0", &"a".repeat(65)] {
            assert!(SpaceName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_expired_value_is_no_longer_live() {
        let cell = Cell {
            space: SpaceName::new("a").unwrap(),
            key: Bytes::from_static(b"k"),
            field: REGISTER,
            stamp: Stamp { time: 1, author: Author([0; 16]) },
            content: Content::Value(Bytes::from_static(b"v")),
            expires_ms: Some(10),
            renews: None,
        };
        assert!(cell.live(9).is_some());
        assert!(cell.live(10).is_none());
    }
}
