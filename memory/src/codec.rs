//! Cells as bytes: one form for the disk and the wire.
//!
//! A cell becomes an *address* and a *record*. Addresses sort as (space, key, field) do, so a range of addresses is a
//! scan: `space 00 escaped-key 00 01 field`, where a zero byte of the key is written `00 FF`. The record is the rest,
//! in postcard, behind a version. A cell's *digest* is a hash of its address, its *spot*, and behind it a hash of both: so
//! all versions of a cell have one spot, and digests sort by it.
//!
//! What arrives is never stored as it came: it is decoded, checked and encoded again, so equal cells are equal bytes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    cell::{Author, Cell, Content, Kept, MAX_FIELD, MAX_KEY, MAX_SPACE, MAX_VALUE, Origin, SpaceName, Stamp},
    hot::{Found, Plain},
    value::{BlobName, Large},
};

const ESCAPE: u8 = 0x00;
const ESCAPED_ZERO: u8 = 0xFF;
const END_OF_KEY: u8 = 0x01;

/// No address is longer: every byte of the key may need its escape.
const MAX_ADDRESS: usize = MAX_SPACE + 1 + 2 * MAX_KEY + 2 + MAX_FIELD;
/// No record is longer: the value, and generous room for version, stamps, expiry and lengths.
const MAX_RECORD: usize = MAX_VALUE + 128;

/// Why bytes are not a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedCell {
    /// The space, key, field or value is longer than it may be.
    #[error("a part of the cell is too large")]
    TooLarge,
    /// The address does not name a cell.
    #[error("the cell's address is malformed")]
    Address,
    /// The record has another version or does not parse.
    #[error("the cell's record is malformed")]
    Record,
}

/// The identity of one version of one cell: its spot, and its mark.
pub(crate) type Digest = [u8; 32];

/// The identity of a cell, whatever its version. The first byte is the shard that it is in.
pub(crate) type Spot = [u8; 16];

/// Tells the versions of one cell apart.
pub(crate) type Mark = [u8; 16];

// WIRE: the enum's position is the version of the format, on disk and between nodes.
#[derive(Serialize, Deserialize)]
enum Record<'a> {
    V1 {
        time: u64,
        author: [u8; 16],
        expires_ms: Option<u64>,
        #[serde(borrow, with = "serde_bytes")]
        value: Option<&'a [u8]>,
    },
    /// A value that lies elsewhere.
    Large {
        time: u64,
        author: [u8; 16],
        expires_ms: Option<u64>,
        name: [u8; BlobName::LEN],
        len: u64,
        hash: [u8; 32],
    },
    /// An old version of a field: its name and its parent as (time, author).
    Kept {
        time: u64,
        author: [u8; 16],
        stamp: Option<(u64, [u8; 16])>,
        parent: Option<(u64, [u8; 16])>,
        #[serde(borrow)]
        content: Version<'a>,
    },
    /// A plain value that was there before, with another time at which it ends; what it began as is (time, author, generation).
    Renewed {
        time: u64,
        author: [u8; 16],
        expires_ms: Option<u64>,
        origin: (u64, [u8; 16], u32),
        #[serde(borrow, with = "serde_bytes")]
        value: &'a [u8],
    },
}

// WIRE: the order of the variants.
#[derive(Serialize, Deserialize)]
enum Version<'a> {
    Deleted,
    Value(#[serde(borrow, with = "serde_bytes")] &'a [u8]),
    Large { name: [u8; BlobName::LEN], len: u64, hash: [u8; 32] },
}

impl<'a> Version<'a> {
    fn of(content: &'a Content) -> Result<Self, MalformedCell> {
        match content {
            Content::Tombstone => Ok(Self::Deleted),
            Content::Value(value) => Ok(Self::Value(value)),
            Content::Large(Large { name, len, hash }) => {
                Ok(Self::Large { name: *name.as_bytes(), len: *len, hash: *hash })
            }
            Content::Kept(_) => Err(MalformedCell::Record),
        }
    }

    fn read(self) -> Result<Content, MalformedCell> {
        match self {
            Self::Deleted => Ok(Content::Tombstone),
            Self::Value(value) if value.len() > MAX_VALUE => Err(MalformedCell::TooLarge),
            Self::Value(value) => Ok(Content::Value(Bytes::copy_from_slice(value))),
            Self::Large { name, len, hash } => {
                let large = Large { name: BlobName::from_bytes(name), len, hash };
                if large.is_sound() { Ok(Content::Large(large)) } else { Err(MalformedCell::TooLarge) }
            }
        }
    }
}

/// A cell in its two encoded parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Encoded {
    pub(crate) address: Vec<u8>,
    pub(crate) record: Vec<u8>,
}

impl Encoded {
    pub(crate) fn digest(&self) -> Digest {
        digest(&self.address, &self.record)
    }
}

/// The digest of an encoded cell.
pub(crate) fn digest(address: &[u8], record: &[u8]) -> Digest {
    let spot = spot(address);
    let mut hasher = blake3::Hasher::new();
    // WIRE: the spot has a fixed length, so nothing of it can be taken for a part of the record.
    hasher.update(&spot).update(record);
    join_digest(&spot, &first_half(hasher.finalize().as_bytes()))
}

/// The spot of an address.
pub(crate) fn spot(address: &[u8]) -> Spot {
    first_half(blake3::hash(address).as_bytes())
}

/// The digest that has these halves.
pub(crate) fn join_digest(spot: &Spot, mark: &Mark) -> Digest {
    let mut digest = [0; 32];
    digest[..16].copy_from_slice(spot);
    digest[16..].copy_from_slice(mark);
    digest
}

/// The halves of a digest.
pub(crate) fn split_digest(digest: &Digest) -> (Spot, Mark) {
    let mut mark = [0; 16];
    mark.copy_from_slice(&digest[16..]);
    (first_half(digest), mark)
}

fn first_half(hash: &[u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&hash[..16]);
    half
}

/// Encodes a cell whose sizes have been checked.
pub(crate) fn encode(cell: &Cell) -> Result<Encoded, MalformedCell> {
    let Cell { space, key, field, stamp, content, expires_ms, renews } = cell;
    let (time, author, expires_ms) = (stamp.time, *stamp.author.as_bytes(), *expires_ms);
    let record = match content {
        Content::Value(value) if let Some(Origin { stamp, generation }) = renews.as_deref() => {
            let origin = (stamp.time, *stamp.author.as_bytes(), *generation);
            Record::Renewed { time, author, expires_ms, origin, value }
        }
        Content::Value(value) => Record::V1 { time, author, expires_ms, value: Some(value) },
        Content::Tombstone => Record::V1 { time, author, expires_ms, value: None },
        Content::Large(Large { name, len, hash }) => {
            Record::Large { time, author, expires_ms, name: *name.as_bytes(), len: *len, hash: *hash }
        }
        Content::Kept(Kept { stamp, parent, content }) => {
            let pair = |stamp: &Stamp| (stamp.time, *stamp.author.as_bytes());
            let (stamp, parent) = (stamp.as_ref().map(pair), parent.as_ref().map(pair));
            Record::Kept { time, author, stamp, parent, content: Version::of(content)? }
        }
    };
    let room = match content {
        Content::Value(value) => value.len() + 64,
        Content::Tombstone | Content::Large(_) | Content::Kept(_) => 128,
    };
    let record = postcard::to_extend(&record, Vec::with_capacity(room)).map_err(|_| MalformedCell::Record)?;
    Ok(Encoded { address: address(space, key, field), record })
}

/// Decodes a cell, checking sizes before anything is copied, then names, then the record.
pub(crate) fn decode(address: &[u8], record: &[u8]) -> Result<Cell, MalformedCell> {
    if address.len() > MAX_ADDRESS || record.len() > MAX_RECORD {
        return Err(MalformedCell::TooLarge);
    }
    let (space, key, field) = split_address(address)?;
    let (record, rest) =
        postcard::take_from_bytes::<Record<'_>>(record).map_err(|_| MalformedCell::Record)?;
    if !rest.is_empty() {
        return Err(MalformedCell::Record);
    }
    let mut renews = None;
    let (time, author, expires_ms, content) = match record {
        Record::V1 { value: Some(value), .. } | Record::Renewed { value, .. } if value.len() > MAX_VALUE => {
            return Err(MalformedCell::TooLarge);
        }
        Record::Renewed { time, author, expires_ms, origin: (began, by, generation), value } => {
            let origin = Origin { stamp: Stamp { time: began, author: Author::from_bytes(by) }, generation };
            // What has not begun yet would win over all that comes.
            if origin.stamp >= (Stamp { time, author: Author::from_bytes(author) }) {
                return Err(MalformedCell::Record);
            }
            renews = Some(Box::new(origin));
            (time, author, expires_ms, Content::Value(Bytes::copy_from_slice(value)))
        }
        Record::V1 { time, author, expires_ms, value } => {
            let value = value.map(|value| Content::Value(Bytes::copy_from_slice(value)));
            (time, author, expires_ms, value.unwrap_or(Content::Tombstone))
        }
        Record::Large { time, author, expires_ms, name, len, hash } => {
            let large = Large { name: BlobName::from_bytes(name), len, hash };
            if !large.is_sound() {
                return Err(MalformedCell::TooLarge);
            }
            (time, author, expires_ms, Content::Large(large))
        }
        Record::Kept { time, author, stamp, parent, content } => {
            let stamp_of = |(time, author)| Stamp { time, author: Author::from_bytes(author) };
            let (stamp, parent) = (stamp.map(stamp_of), parent.map(stamp_of));
            let kept = Kept { stamp, parent, content: Box::new(content.read()?) };
            (time, author, None, Content::Kept(kept))
        }
    };
    if key.len() > MAX_KEY || field.len() > MAX_FIELD {
        return Err(MalformedCell::TooLarge);
    }
    let stamp = Stamp { time, author: Author::from_bytes(author) };
    let field = Bytes::copy_from_slice(field);
    Ok(Cell { space, key: key.into(), field, stamp, content, expires_ms, renews })
}

/// The value in a record.
pub(crate) fn plain(record: &[u8]) -> Result<Found, MalformedCell> {
    match postcard::take_from_bytes::<Record<'_>>(record) {
        Ok((Record::V1 { value: Some(value), .. } | Record::Renewed { value, .. }, _))
            if value.len() > MAX_VALUE =>
        {
            Err(MalformedCell::TooLarge)
        }
        Ok((
            Record::V1 { expires_ms, value: Some(value), .. } | Record::Renewed { expires_ms, value, .. },
            [],
        )) => Ok(Found::Plain(Plain { value: Bytes::copy_from_slice(value), expires_ms })),
        Ok((Record::V1 { value: None, .. }, [])) => Ok(Found::Nothing),
        Ok((Record::Large { .. } | Record::Kept { .. }, [])) => Ok(Found::Elsewhere),
        Ok(_) | Err(_) => Err(MalformedCell::Record),
    }
}

/// The stamp of a cell that was encoded here.
pub(crate) fn stamp(record: &[u8]) -> Result<Stamp, MalformedCell> {
    let (record, _) = postcard::take_from_bytes::<Record<'_>>(record).map_err(|_| MalformedCell::Record)?;
    let (Record::V1 { time, author, .. }
    | Record::Large { time, author, .. }
    | Record::Renewed { time, author, .. }
    | Record::Kept { time, author, .. }) = record;
    Ok(Stamp { time, author: Author::from_bytes(author) })
}

/// What the index needs to know of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) time: u64,
    pub(crate) expires_ms: Option<u64>,
    pub(crate) is_tombstone: bool,
    /// It speaks of a blob, or is the renewal of a value: who writes over it must know it.
    pub(crate) must_be_read: bool,
}

/// Sums up a record, without copying anything.
pub(crate) fn summary(record: &[u8]) -> Result<Summary, MalformedCell> {
    match postcard::take_from_bytes::<Record<'_>>(record) {
        Ok((Record::V1 { time, expires_ms, value, .. }, [])) => {
            Ok(Summary { time, expires_ms, is_tombstone: value.is_none(), must_be_read: false })
        }
        Ok((Record::Large { time, expires_ms, .. } | Record::Renewed { time, expires_ms, .. }, [])) => {
            Ok(Summary { time, expires_ms, is_tombstone: false, must_be_read: true })
        }
        Ok((Record::Kept { time, content, .. }, [])) => {
            let must_be_read = matches!(content, Version::Large { .. });
            Ok(Summary { time, expires_ms: None, is_tombstone: false, must_be_read })
        }
        _ => Err(MalformedCell::Record),
    }
}

/// The address of one cell.
pub(crate) fn address(space: &SpaceName, key: &[u8], field: &[u8]) -> Vec<u8> {
    let mut address = key_prefix(space, key);
    address.reserve_exact(field.len());
    address.extend_from_slice(field);
    address
}

/// What the addresses of all fields of `key`, and no others, begin with.
pub(crate) fn key_prefix(space: &SpaceName, key: &[u8]) -> Vec<u8> {
    let mut prefix = scan_prefix(space, key);
    prefix.extend_from_slice(&[ESCAPE, END_OF_KEY]);
    prefix
}

/// What the addresses of a key begin with, if this is one of its addresses and not that of its value.
pub(crate) fn beside(address: &[u8]) -> Option<&[u8]> {
    let mut at = address.iter().position(|&byte| byte == ESCAPE)? + 1;
    loop {
        at += address.get(at..)?.iter().position(|&byte| byte == ESCAPE)? + 2;
        if *address.get(at - 1)? != ESCAPED_ZERO {
            let (prefix, field) = address.split_at(at);
            return (!field.is_empty()).then_some(prefix);
        }
    }
}

/// What the addresses of all keys that begin with `prefix`, and no others, begin with.
pub(crate) fn scan_prefix(space: &SpaceName, prefix: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(space.len() + prefix.len() + 8);
    out.extend_from_slice(space.as_bytes());
    out.push(ESCAPE);
    for (number, part) in prefix.split(|&byte| byte == ESCAPE).enumerate() {
        if number > 0 {
            out.extend_from_slice(&[ESCAPE, ESCAPED_ZERO]);
        }
        out.extend_from_slice(part);
    }
    out
}

/// The least address of any key greater than `key`.
pub(crate) fn after_key(space: &SpaceName, key: &[u8]) -> Vec<u8> {
    let mut bound = scan_prefix(space, key);
    bound.extend_from_slice(&[ESCAPE, END_OF_KEY + 1]);
    bound
}

pub(crate) fn split_address(address: &[u8]) -> Result<(SpaceName, Vec<u8>, &[u8]), MalformedCell> {
    let end = address.iter().position(|&byte| byte == ESCAPE).ok_or(MalformedCell::Address)?;
    let space = std::str::from_utf8(&address[..end]).map_err(|_| MalformedCell::Address)?;
    let space = SpaceName::new(space).map_err(|_| MalformedCell::Address)?;

    let (mut key, mut rest) = (Vec::new(), &address[end + 1..]);
    while let Some(zero) = rest.iter().position(|&byte| byte == ESCAPE) {
        let (part, escape) = rest.split_at(zero);
        key.reserve_exact(part.len());
        key.extend_from_slice(part);
        match *escape {
            [ESCAPE, ESCAPED_ZERO, ref behind @ ..] => {
                key.push(ESCAPE);
                rest = behind;
            }
            [ESCAPE, END_OF_KEY, ref field @ ..] => return Ok((space, key, field)),
            _ => break,
        }
    }
    Err(MalformedCell::Address)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::cell::tests::any_cell;

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same_cell(cell in any_cell()) {
            let encoded = encode(&cell).unwrap();
            prop_assert_eq!(decode(&encoded.address, &encoded.record), Ok(cell));
        }

        #[test]
        fn addresses_sort_as_space_key_and_field(a in any_cell(), b in any_cell()) {
            let name = |cell: &Cell| (cell.space.clone(), cell.key.clone(), cell.field.clone());
            let address = |cell: &Cell| address(&cell.space, &cell.key, &cell.field);
            prop_assert_eq!(address(&a).cmp(&address(&b)), name(&a).cmp(&name(&b)));
        }

        #[test]
        fn a_scan_prefix_covers_exactly_the_keys_with_that_prefix(cell in any_cell(), prefix in vec(0u8..3, 0..3)) {
            let covered = address(&cell.space, &cell.key, &cell.field).starts_with(&scan_prefix(&cell.space, &prefix));
            prop_assert_eq!(covered, cell.key.starts_with(&prefix));
        }

        #[test]
        fn after_a_key_come_exactly_the_greater_keys(cell in any_cell(), key in vec(0u8..3, 0..3)) {
            let after = address(&cell.space, &cell.key, &cell.field) >= after_key(&cell.space, &key);
            prop_assert_eq!(after, cell.key > key);
        }

        #[test]
        fn a_summary_says_what_the_cell_says(cell in any_cell()) {
            let summary = summary(&encode(&cell).unwrap().record).unwrap();
            prop_assert_eq!(summary.time, cell.stamp.time);
            prop_assert_eq!(summary.expires_ms, cell.expires_ms);
            prop_assert_eq!(summary.is_tombstone, cell.content == Content::Tombstone);
            prop_assert_eq!(summary.must_be_read, cell.blob().is_some() || cell.renews.is_some());
        }

        #[test]
        fn digests_differ_where_cells_differ(a in any_cell(), b in any_cell()) {
            let digest = |cell: &Cell| encode(cell).unwrap().digest();
            prop_assert_eq!(digest(&a) == digest(&b), a == b);
        }

        #[test]
        fn random_bytes_are_refused_or_decode_to_a_cell_that_encodes(
            address in vec(any::<u8>(), 0..64), record in vec(any::<u8>(), 0..64),
        ) {
            if let Ok(cell) = decode(&address, &record) {
                let encoded = encode(&cell).unwrap();
                prop_assert_eq!(decode(&encoded.address, &encoded.record), Ok(cell));
            }
        }
    }

    #[test]
    fn oversized_parts_are_refused() {
        let space = SpaceName::new("a").unwrap();
        let record = |len: usize| {
            let value = vec![0; len];
            let record = Record::V1 { time: 1, author: [0; 16], expires_ms: None, value: Some(&value) };
            postcard::to_stdvec(&record).unwrap()
        };
        assert!(decode(&address(&space, &[1; MAX_KEY], &[1; MAX_FIELD]), &record(MAX_VALUE)).is_ok());
        for (address, record) in [
            (address(&space, &[1; MAX_KEY + 1], b""), record(1)),
            (address(&space, b"k", &[1; MAX_FIELD + 1]), record(1)),
            (address(&space, b"k", b""), record(MAX_VALUE + 1)),
            (vec![b'a'; 1 << 20], record(1)),
        ] {
            assert_eq!(decode(&address, &record), Err(MalformedCell::TooLarge));
        }
    }
}
