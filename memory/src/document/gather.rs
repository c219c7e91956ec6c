//! What the cells of a document say, sorted: changes, packs, deletions.

use std::collections::BTreeMap;

use automerge::ChangeHash;
use bytes::Bytes;

use super::{
    change::{self, Assembled, Assembly, Kind, Name, Record},
    epoch::Epoch,
    history::History,
    packs::Packs,
    state::Size,
};
use crate::cell::{Author, Cell};

/// What cells say, sorted.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    pub(crate) history: History,
    pub(crate) deletions: BTreeMap<Author, Vec<ChangeHash>>,
    pub(crate) assembly: Assembly,
    bytes: BTreeMap<Name, usize>,
    /// Cells that say nothing that makes sense.
    pub(crate) damaged: u64,
}

impl Gathered {
    /// What these cells say, all together.
    pub(crate) fn of<'a>(cells: impl IntoIterator<Item = &'a Cell>, packs: &Packs) -> Self {
        let mut gathered = Self::default();
        for cell in cells {
            match change::parse(cell) {
                Some(Record::Part { name, number, of, bytes }) => {
                    *gathered.bytes.entry(name).or_default() += cell.field.len() + bytes.len();
                    gathered.add(name, number, of, bytes, packs);
                }
                Some(Record::Deleted { author, heads }) => {
                    gathered.deletions.insert(author, heads);
                }
                None => gathered.damaged += 1,
            }
        }
        gathered
    }

    fn add(&mut self, name: Name, number: u16, of: u16, bytes: Bytes, packs: &Packs) {
        let Name { kind, epoch, hash } = name;
        match (self.assembly.add(name, number, of, bytes), kind) {
            (Assembled::Change(change), _) => {
                self.history.single.entry(epoch).or_default().insert(hash, *change);
            }
            (Assembled::Pack(bytes), Kind::Pack(purpose)) => match packs.take(purpose, name, &bytes) {
                Some(pack) => self.history.packs.push(pack),
                None => self.damaged += 1,
            },
            (Assembled::Incomplete, _) => {}
            (Assembled::Damaged | Assembled::Pack(_), _) => self.damaged += 1,
        }
    }

    /// What the cells take without those that are superfluous.
    pub(crate) fn size(&self, current: Epoch) -> Size {
        let (mut size, superfluous) = (Size::default(), self.history.superfluous());
        for (name, bytes) in self.bytes.iter().filter(|(name, _)| !superfluous.contains(name)) {
            match name.kind {
                _ if name.epoch != current => size.older += bytes,
                Kind::Change => size.single += bytes,
                Kind::Pack(_) => size.packed += bytes,
            }
        }
        size
    }
}
