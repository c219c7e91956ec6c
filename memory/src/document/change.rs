//! Changes of a document as cells, and back.
//!
//! A change is a cell whose field is `c`, the epoch, the change's hash and the number of a part; its value is the number
//! of parts and the part's bytes. Most changes are one part. The field names the content, so a change never has two
//! versions that differ, and whoever damages it is found out by the hash. Packs of changes are kept likewise, under `p`,
//! or `z` if they close their epoch. Beside them lie deletions: a field `x` and an author, whose value is the heads that
//! this author saw when it deleted the document.
//!
//! A cell may come from anybody. Sizes are looked at first; a change is taken only as it was made, uncompressed, so
//! that a small cell cannot become a large change.

use std::collections::BTreeMap;

use automerge::{Change, ChangeHash};
use bytes::Bytes;

use super::{
    epoch::{EPOCH_BYTES, Epoch},
    pack::Purpose,
};
use crate::cell::{Author, Cell, Content, MAX_VALUE};

/// In front of a change's field.
const CHANGE: u8 = b'c';
/// In front of a pack's field.
const FOLD: u8 = b'p';
/// In front of the field of a pack that closes its epoch.
const CLOSE: u8 = b'z';
/// In front of a deletion's field.
const DELETED: u8 = b'x';

/// Bytes in front of a part: how many parts there are.
const PART_HEADER: usize = 2;

/// The largest change: a document at its limit, written as one. (An operation takes some bytes beside its value.)
pub(crate) const MAX_CHANGE: usize = 16 * 1024 * 1024;

/// The largest pack: a history at its limit, and room for what its columns take.
pub(crate) const MAX_PACK: usize = 64 * 1024 * 1024;

/// Bytes of a change in one cell.
const PART: usize = MAX_VALUE - PART_HEADER;

/// A deletion names at most so many heads.
pub(crate) const MAX_HEADS: usize = MAX_VALUE / 32;

/// Where in automerge's form of a change the kind of chunk is told, and what it is for a change as it was made.
const CHUNK_KIND: (usize, u8) = (8, 1);

/// What the parts of a cell make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Change,
    Pack(Purpose),
}

impl Kind {
    fn letter(self) -> u8 {
        match self {
            Self::Change => CHANGE,
            Self::Pack(Purpose::Fold) => FOLD,
            Self::Pack(Purpose::Close) => CLOSE,
        }
    }

    fn max_bytes(self) -> usize {
        match self {
            Self::Change => MAX_CHANGE,
            Self::Pack(_) => MAX_PACK,
        }
    }
}

/// What parts are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name {
    pub(crate) kind: Kind,
    pub(crate) epoch: Epoch,
    pub(crate) hash: ChangeHash,
}

/// What a cell of a document says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// A part of a change or of a pack.
    Part { name: Name, number: u16, of: u16, bytes: Bytes },
    /// This author deleted the document when these were its heads.
    Deleted { author: Author, heads: Vec<ChangeHash> },
}

/// The fields and values of a change's cells; `None` if it is too large.
pub(crate) fn cells_of(epoch: Epoch, change: &Change) -> Option<Vec<(Bytes, Bytes)>> {
    parts_of(Name { kind: Kind::Change, epoch, hash: change.hash() }, change.raw_bytes())
}

/// The fields and values of what has this name; `None` if it is too large.
pub(crate) fn parts_of(name: Name, bytes: &[u8]) -> Option<Vec<(Bytes, Bytes)>> {
    let of =
        u16::try_from(bytes.len().div_ceil(PART)).ok().filter(|_| bytes.len() <= name.kind.max_bytes())?;
    let Name { kind, epoch, hash } = name;
    let parts = bytes.chunks(PART).zip(0u16..);
    Some(
        parts
            .map(|(part, number)| {
                let prefix = [kind.letter()];
                let field =
                    [prefix.as_slice(), &epoch.to_bytes(), &hash.0, number.to_be_bytes().as_slice()].concat();
                (field.into(), [of.to_be_bytes().as_slice(), part].concat().into())
            })
            .collect(),
    )
}

/// Whether a field is that of a pack, and whether of one that closes an epoch.
pub(crate) fn pack_field(field: &[u8]) -> Option<Purpose> {
    match *field.first()? {
        FOLD => Some(Purpose::Fold),
        CLOSE => Some(Purpose::Close),
        _ => None,
    }
}

/// Where the fields of packs begin. (Behind them come deletions, and nothing else.)
pub(crate) const PACKS: [u8; 1] = [FOLD];

/// What the field of a part names.
pub(crate) fn name_in(field: &[u8]) -> Option<(Name, u16)> {
    let (letter, rest) = field.split_first()?;
    let kind = match *letter {
        CHANGE => Kind::Change,
        FOLD => Kind::Pack(Purpose::Fold),
        CLOSE => Kind::Pack(Purpose::Close),
        _ => return None,
    };
    let (epoch, rest) = rest.split_first_chunk::<EPOCH_BYTES>()?;
    let (hash, number) = rest.split_first_chunk::<32>()?;
    let name = Name { kind, epoch: Epoch::from_bytes(*epoch), hash: ChangeHash(*hash) };
    Some((name, u16::from_be_bytes(number.try_into().ok()?)))
}

/// The field and value of a deletion.
pub(crate) fn deletion(author: Author, heads: &[ChangeHash]) -> (Bytes, Bytes) {
    let field = [[DELETED].as_slice(), author.as_bytes()].concat();
    let value: Vec<u8> = heads.iter().take(MAX_HEADS).flat_map(|head| head.0).collect();
    (field.into(), value.into())
}

/// What `cell`, which belongs to a document, says; `None` if it says nothing that makes sense.
pub(crate) fn parse(cell: &Cell) -> Option<Record> {
    let Content::Value(value) = &cell.content else { return None };
    let (kind, rest) = cell.field.split_first()?;
    match *kind {
        CHANGE | FOLD | CLOSE => {
            let (name, number) = name_in(&cell.field)?;
            let of = u16::from_be_bytes(*value.first_chunk()?);
            let fits = number < of
                && (usize::from(of) - 1) * PART < name.kind.max_bytes()
                && value.len() > PART_HEADER;
            let bytes = value.slice(PART_HEADER..);
            fits.then_some(Record::Part { name, number, of, bytes })
        }
        DELETED => {
            let author = Author::from_bytes(rest.try_into().ok()?);
            let (heads, odd) = value.as_chunks::<32>();
            odd.is_empty()
                .then(|| Record::Deleted { author, heads: heads.iter().copied().map(ChangeHash).collect() })
        }
        _ => None,
    }
}

/// Changes and packs that are being put together from their parts.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    waiting: BTreeMap<Name, Parts>,
}

#[derive(Debug)]
struct Parts {
    of: u16,
    bytes: BTreeMap<u16, Bytes>,
}

/// What adding a part came to.
#[derive(Debug)]
pub(crate) enum Assembled {
    /// The change is whole.
    Change(Box<Change>),
    /// The bytes of a pack are all there. What they are worth is still to be seen.
    Pack(Vec<u8>),
    /// Other parts are missing.
    Incomplete,
    /// The parts make no change, or not the one that the field names.
    Damaged,
}

impl Assembly {
    /// Adds a part.
    pub(crate) fn add(&mut self, name: Name, number: u16, of: u16, bytes: Bytes) -> Assembled {
        if of == 1 {
            return whole(name, bytes.into());
        }
        let parts = self.waiting.entry(name).or_insert_with(|| Parts { of, bytes: BTreeMap::new() });
        if parts.of != of {
            return Assembled::Damaged;
        }
        parts.bytes.insert(number, bytes);
        if parts.bytes.len() < usize::from(of) {
            return Assembled::Incomplete;
        }
        let Some(parts) = self.waiting.remove(&name) else { return Assembled::Incomplete };
        whole(name, parts.bytes.into_values().flatten().collect())
    }
}

fn whole(name: Name, bytes: Vec<u8>) -> Assembled {
    match name.kind {
        Kind::Change => whole_change(name.hash, &bytes),
        Kind::Pack(_) if bytes.len() > MAX_PACK => Assembled::Damaged,
        Kind::Pack(_) => Assembled::Pack(bytes),
    }
}

fn whole_change(hash: ChangeHash, bytes: &[u8]) -> Assembled {
    let (at, plain) = CHUNK_KIND;
    if bytes.len() > MAX_CHANGE || bytes.get(at) != Some(&plain) {
        return Assembled::Damaged;
    }
    match Change::try_from(bytes) {
        Ok(change) if change.hash() == hash => Assembled::Change(Box::new(change)),
        _ => Assembled::Damaged,
    }
}

#[cfg(test)]
mod tests {
    use automerge::{AutoCommit, ROOT, transaction::Transactable};
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::cell::{SpaceName, Stamp};

    fn cell(field: Bytes, value: Bytes) -> Cell {
        Cell {
            space: SpaceName::new("s").unwrap(),
            key: "k".into(),
            field,
            stamp: Stamp { time: 1, author: Author::from_bytes([1; 16]) },
            content: Content::Value(value),
            expires_ms: None,
            renews: None,
        }
    }

    /// A change that writes a string of this length.
    fn change(length: usize) -> Change {
        let mut document = AutoCommit::new();
        document.put(ROOT, "a", "x".repeat(length)).unwrap();
        document.commit();
        document.get_last_local_change().unwrap()
    }

    fn assemble(cells: impl IntoIterator<Item = (Bytes, Bytes)>) -> Vec<Assembled> {
        let mut assembly = Assembly::default();
        let mut assembled = Vec::new();
        for (field, value) in cells {
            match parse(&cell(field, value)) {
                Some(Record::Part { name, number, of, bytes }) => {
                    assembled.push(assembly.add(name, number, of, bytes));
                }
                other => panic!("{other:?}"),
            }
        }
        assembled
    }

    #[test]
    fn a_change_of_any_size_comes_back_from_its_cells_in_any_order() {
        for length in [1, PART, 3 * PART] {
            let change = change(length);
            let mut cells = cells_of(Epoch::FIRST, &change).unwrap();
            assert!(cells.iter().all(|(_, value)| value.len() <= MAX_VALUE));
            cells.reverse();
            match assemble(cells).pop().unwrap() {
                Assembled::Change(whole) => assert_eq!(whole.hash(), change.hash()),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn damage_is_found_out() {
        for length in [10, 2 * PART] {
            let mut cells = cells_of(Epoch::FIRST, &change(length)).unwrap();
            let value = &mut cells[0].1;
            let mut bytes = value.to_vec();
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            *value = bytes.into();
            assert!(matches!(assemble(cells).pop().unwrap(), Assembled::Damaged));
        }
    }

    #[test]
    fn a_compressed_change_is_not_taken() {
        let mut change = change(10_000);
        let compressed = change.bytes().into_owned();
        assert!(compressed.len() < 1000);
        let mut cells = cells_of(Epoch::FIRST, &change).unwrap();
        cells[0].1 = [[0, 1].as_slice(), &compressed].concat().into();
        assert!(matches!(assemble(cells).pop().unwrap(), Assembled::Damaged));
    }

    #[test]
    fn a_deletion_comes_back() {
        let author = Author::from_bytes([7; 16]);
        let heads = vec![ChangeHash([1; 32]), ChangeHash([2; 32])];
        let (field, value) = deletion(author, &heads);
        assert_eq!(parse(&cell(field, value)), Some(Record::Deleted { author, heads }));
    }

    proptest! {
        #[test]
        fn random_cells_end_without_a_change(field in vec(any::<u8>(), 0..60), value in vec(any::<u8>(), 0..60)) {
            let field = [[CHANGE].as_slice(), &Epoch::FIRST.to_bytes(), &field].concat();
            if let Some(Record::Part { name, number, of, bytes }) = parse(&cell(field.into(), value.into())) {
                let assembled = Assembly::default().add(name, number, of, bytes);
                prop_assert!(!matches!(assembled, Assembled::Change(_)));
            }
        }
    }
}
