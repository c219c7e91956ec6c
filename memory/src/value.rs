//! Values as they are read and as they are written: small ones themselves, large ones by where they lie.
//!
//! A cell holds up to [`MAX_VALUE`] bytes. A longer value is kept by [`Blobs`](crate::Blobs) under a name of its own, and the cell says
//! under which one. The name is drawn for one write and stands in no other: so when that version of the cell has lost,
//! it has lost on every replica, and nobody can need the bytes any more.

use std::{fmt, time::Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::cell::{Content, MAX_VALUE};

/// Largest value of all, in bytes. Larger things are files.
pub const MAX_LARGE: u64 = 64 << 20;

/// The name of a large value's bytes: random, and never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlobName([u8; 16]);

impl BlobName {
    pub(crate) const LEN: usize = 16;

    pub(crate) fn draw() -> Self {
        Self(rand::random())
    }

    pub(crate) fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    pub(crate) const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// Reads what [`Display`](fmt::Display) writes.
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex =
            text.len() == 2 * Self::LEN && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = u128::from_str_radix(text, 16).ok()?;
        is_hex.then(|| Self(number.to_be_bytes()))
    }
}

impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A value that does not fit a cell: where it lies, how long it is, and its BLAKE3 hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Large {
    pub(crate) name: BlobName,
    pub(crate) len: u64,
    pub(crate) hash: [u8; 32],
}

impl Large {
    /// Where its bytes lie.
    pub fn name(&self) -> BlobName {
        self.name
    }

    /// Its length in bytes: more than [`MAX_VALUE`], and [`MAX_LARGE`] at the most.
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The BLAKE3 hash of its bytes.
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// Whether these are sizes that a large value can have.
    pub(crate) fn is_sound(&self) -> bool {
        self.len > MAX_VALUE as u64 && self.len <= MAX_LARGE
    }
}

/// What a key or field is worth, without the bytes of a large value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// The value itself.
    Inline(Bytes),
    /// A large one. [`Memory::open_value`](crate::Memory::open_value) gives its bytes.
    Large(Large),
}

impl Value {
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Large(large) => large.len,
        }
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, unless it is a large one.
    pub fn inline(&self) -> Option<&Bytes> {
        match self {
            Self::Inline(bytes) => Some(bytes),
            Self::Large(_) => None,
        }
    }

    /// The same, for who has no use for it otherwise.
    pub fn into_inline(self) -> Option<Bytes> {
        match self {
            Self::Inline(bytes) => Some(bytes),
            Self::Large(_) => None,
        }
    }
}

impl From<Bytes> for Value {
    fn from(bytes: Bytes) -> Self {
        Self::Inline(bytes)
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Inline(text.into())
    }
}

/// A value that is to be written, once: it fits a cell, or [`Memory::stash`](crate::Memory::stash) has put its bytes away.
#[derive(Debug)]
pub struct Payload(pub(crate) Held);

#[derive(Debug)]
pub(crate) enum Held {
    Inline(Bytes),
    Large { large: Large, since: Instant },
}

impl Payload {
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        match &self.0 {
            Held::Inline(bytes) => bytes.len() as u64,
            Held::Large { large, .. } => large.len,
        }
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What a cell holds of it.
    pub(crate) fn into_content(self) -> Content {
        match self.0 {
            Held::Inline(bytes) => Content::Value(bytes),
            Held::Large { large, since: _ } => Content::Large(large),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_nothing_else_is() {
        let name = BlobName::draw();
        assert_eq!(BlobName::parse(&name.to_string()), Some(name));
        for other in ["", "0", "zz", "+0000000000000000000000000000000", &"A".repeat(32), &"0".repeat(33)] {
            assert_eq!(BlobName::parse(other), None, "{other}");
        }
    }
}
