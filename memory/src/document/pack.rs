//! Packs: all changes of an epoch that somebody knew, in automerge's columns, which take some bytes for each.
//!
//! A pack takes the place of the cells of its changes, and loses nothing: what it holds are those very changes. One
//! that closes an epoch opens the next, besides. It is named by its hash, and taken only as it was made, uncompressed,
//! so that small cells cannot become a large document.

use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::OnceLock,
};

use automerge::{AutoCommit, Change, ChangeHash, LoadOptions, SaveOptions, TextEncoding};

use super::{
    change::{Kind, MAX_PACK, Name},
    epoch::Epoch,
    state,
    transplant::Floor,
    tree::Tree,
};

/// In automerge's form: what begins a chunk, with its checksum; and what says that it is a document.
const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const DOCUMENT: u8 = 0;
/// The bit of a column's specification that says that it is compressed.
const COMPRESSED: u64 = 0b1000;

/// What a pack is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Purpose {
    /// It takes the place of change cells, and that is all.
    Fold,
    /// It closes its epoch, too.
    Close,
}

/// A pack that was taken.
#[derive(Debug)]
pub(crate) struct Pack {
    pub(crate) purpose: Purpose,
    pub(crate) epoch: Epoch,
    pub(crate) name: ChangeHash,
    /// Its changes, and the document that they make.
    pub(crate) floor: Floor,
    pub(crate) heads: Vec<ChangeHash>,
    beginning: OnceLock<Option<Beginning>>,
}

/// What the epoch that a pack opens begins with.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) change: Change,
    /// That change alone.
    pub(crate) floor: Floor,
}

/// The pack of these changes, with its name: the same for whoever has the same changes. `None` if they make none.
pub(crate) fn pack(changes: Vec<Change>) -> Option<(ChangeHash, Vec<u8>)> {
    let mut document = state::new_automerge();
    state::apply(&mut document, &state::in_order(changes)).ok()?;
    let options = SaveOptions { deflate: false, retain_orphans: false };
    let bytes = catch_unwind(AssertUnwindSafe(|| document.save_with_options(options))).ok()?;
    (bytes.len() <= MAX_PACK).then(|| (name_of(&bytes), bytes))
}

/// What a pack of these bytes is called.
pub(crate) fn name_of(bytes: &[u8]) -> ChangeHash {
    ChangeHash(*blake3::hash(bytes).as_bytes())
}

impl Pack {
    /// Takes the bytes of a pack; `None` if they are not what they should be.
    pub(crate) fn take(purpose: Purpose, epoch: Epoch, name: ChangeHash, bytes: &[u8]) -> Option<Self> {
        if name_of(bytes) != name || !is_plain(bytes) {
            return None;
        }
        // Automerge asserts some of what it reads.
        let taken = catch_unwind(AssertUnwindSafe(|| {
            let options = LoadOptions::new().text_encoding(TextEncoding::UnicodeCodePoint);
            let mut document = AutoCommit::load_with_options(bytes, options).ok()?;
            let hashes: HashSet<ChangeHash> =
                document.get_changes_meta(&[]).iter().map(|change| change.hash).collect();
            let heads = document.get_heads();
            let floor = Floor { document, hashes };
            Some(Self { purpose, epoch, name, floor, heads, beginning: OnceLock::new() })
        }));
        taken.ok().flatten().filter(|pack| !pack.hashes().is_empty())
    }

    /// Its changes.
    pub(crate) fn hashes(&self) -> &HashSet<ChangeHash> {
        &self.floor.hashes
    }

    /// What the epoch that it opens begins with; `None` if it opens none, or what it says cannot be written.
    pub(crate) fn beginning(&self) -> Option<&Beginning> {
        let begin = || {
            let (change, document) = self.opens()?.begin(&Tree::read(&self.floor.document)).ok()?;
            let hashes = HashSet::from([change.hash()]);
            Some(Beginning { change, floor: Floor { document, hashes } })
        };
        self.beginning.get_or_init(begin).as_ref()
    }

    /// What its cells are named by.
    pub(crate) fn full_name(&self) -> Name {
        Name { kind: Kind::Pack(self.purpose), epoch: self.epoch, hash: self.name }
    }

    /// The epoch that it opens.
    pub(crate) fn opens(&self) -> Option<Epoch> {
        (self.purpose == Purpose::Close).then(|| self.epoch.after(&self.heads))
    }

    /// Whether `other` makes it superfluous.
    pub(crate) fn is_within(&self, other: &Self) -> bool {
        let rank = |pack: &Self| (pack.hashes().len(), pack.purpose, pack.name);
        self.purpose == Purpose::Fold
            && self.epoch == other.epoch
            && rank(self) < rank(other)
            && self.hashes().is_subset(other.hashes())
    }
}

/// Whether the bytes are one document none of whose columns is compressed.
fn is_plain(bytes: &[u8]) -> bool {
    let mut reader = Reader(bytes);
    let mut is_plain = || {
        let header = reader.take(9)?;
        let length = reader.number()?;
        if !header.starts_with(&MAGIC) || header[8] != DOCUMENT || length != reader.0.len() as u64 {
            return None;
        }
        for _ in 0..reader.number()? {
            let length = reader.number()?;
            reader.take(length)?;
        }
        let heads = reader.number()?;
        reader.take(heads.checked_mul(32)?)?;
        // Those of the changes, and those of the operations.
        for _ in 0..2 {
            for _ in 0..reader.number()? {
                let (column, _length) = (reader.number()?, reader.number()?);
                if column & COMPRESSED != 0 {
                    return None;
                }
            }
        }
        Some(())
    };
    is_plain().is_some()
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(n).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    /// An unsigned LEB128 number.
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use automerge::{ROOT, transaction::Transactable};
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn document() -> AutoCommit {
        let mut document = state::new_automerge();
        for i in 0..500 {
            document.put(ROOT, "a", format!("value {i}")).unwrap();
            document.commit();
        }
        document
    }

    fn taken(bytes: &[u8]) -> Option<Pack> {
        Pack::take(Purpose::Fold, Epoch::FIRST, name_of(bytes), bytes)
    }

    #[test]
    fn a_pack_holds_the_very_changes_and_takes_less_room() {
        let mut changes = document().get_changes(&[]);
        let raw: usize = changes.iter().map(|change| change.raw_bytes().len()).sum();
        let (name, bytes) = pack(changes.clone()).unwrap();
        changes.reverse();
        assert_eq!(pack(changes.clone()).unwrap(), (name, bytes.clone()), "the order does not matter");
        assert!(bytes.len() * 2 < raw, "{} of {raw}", bytes.len());
        let pack = taken(&bytes).unwrap();
        assert_eq!(*pack.hashes(), changes.iter().map(Change::hash).collect());
    }

    #[test]
    fn what_is_compressed_damaged_or_longer_than_it_should_be_is_not_taken() {
        let mut document = document();
        assert!(taken(&document.save()).is_none(), "compressed");
        let plain = document.save_nocompress();
        assert!(taken(&plain).is_some());
        assert!(taken(&[plain.as_slice(), &document.save()].concat()).is_none(), "two");
        assert!(Pack::take(Purpose::Fold, Epoch::FIRST, ChangeHash([0; 32]), &plain).is_none(), "misnamed");
        let change = document.get_last_local_change().unwrap();
        assert!(taken(change.raw_bytes()).is_none(), "a change");
    }

    proptest! {
        #[test]
        fn damaged_bytes_end_without_a_pack(at in 0usize..2000, bits in 1u8.., tail in vec(any::<u8>(), 0..40)) {
            let mut bytes = document().save_nocompress();
            let at = at % bytes.len();
            bytes[at] ^= bits;
            prop_assert!(taken(&bytes).is_none());
            prop_assert!(taken(&[&MAGIC, tail.as_slice()].concat()).is_none());
        }
    }
}
