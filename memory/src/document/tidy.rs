//! What of a document's cells is superfluous, because a pack holds it or its epoch counts no more.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use serde_json::Value;

use super::{
    change::{self, Kind},
    epoch::Epoch,
    gather::Gathered,
    history::is_over,
    pack::Pack,
    packs::Packs,
    state::Size,
    value,
};
use crate::cell::Cell;

/// What is to be done about the cells of a document that has more of them than it needs.
#[derive(Debug, Default)]
pub(crate) struct Tidying {
    /// To be written first: changes of an epoch that will count no more, as the oldest that does has them.
    pub(crate) write: Vec<(Bytes, Bytes)>,
    /// Fields of cells that are superfluous then.
    pub(crate) remove: Vec<Bytes>,
    /// The epoch that counts, and what opened it.
    pub(crate) epoch: Epoch,
    opened_by: Option<Arc<Pack>>,
    /// What the cells take.
    pub(crate) size: Size,
    /// What need not come back.
    pub(crate) settled: Settled,
}

impl Tidying {
    /// What the document said when the epoch that counts began.
    pub(crate) fn said(&self) -> Option<Value> {
        self.opened_by.as_ref().map(|pack| value::read(&pack.floor.document))
    }
}

/// What is known to be superfluous, whoever brings it.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    oldest: Epoch,
    /// Tags of changes that are in packs, in order.
    packed: Vec<u64>,
}

impl Settled {
    /// Whether a cell with this field is superfluous.
    pub(crate) fn holds(&self, field: &[u8]) -> bool {
        change::name_in(field).is_some_and(|(name, _)| {
            is_over(self.oldest, name.epoch)
                || (name.kind == Kind::Change
                    && self.packed.binary_search(&name.epoch.tag(&name.hash)).is_ok())
        })
    }

    /// About what it takes in memory.
    pub(crate) fn weight(&self) -> usize {
        size_of::<Self>() + self.packed.len() * size_of::<u64>()
    }
}

/// What is superfluous among all cells of a document; `None` if nothing is packed.
pub(crate) fn tidying(cells: &[Cell], packs: &Packs) -> Option<Tidying> {
    let gathered = Gathered::of(cells, packs);
    let history = &gathered.history;
    if history.packs.is_empty() {
        return None;
    }
    let oldest = history.oldest();
    let mut write = Vec::new();
    let is_older_here = cells
        .iter()
        .any(|cell| change::name_in(&cell.field).is_some_and(|(name, _)| is_over(oldest, name.epoch)));
    if is_older_here {
        for change in history.frame(oldest, &mut HashSet::new()).brought {
            let is_here =
                history.single.get(&oldest).is_some_and(|single| single.contains_key(&change.hash()))
                    || history.packed(oldest).any(|pack| pack.hashes().contains(&change.hash()));
            if !is_here {
                write.extend(change::cells_of(oldest, &change)?);
            }
        }
    }
    let superfluous = history.superfluous();
    let is_superfluous = |field: &[u8]| {
        change::name_in(field)
            .is_some_and(|(name, _)| is_over(oldest, name.epoch) || superfluous.contains(&name))
    };
    let fields = cells.iter().map(|cell| &cell.field);
    let remove = fields.filter(|field| is_superfluous(field)).cloned().collect();
    let packed = history.packs.iter().filter(|pack| !is_over(oldest, pack.epoch));
    let mut packed: Vec<u64> =
        packed.flat_map(|pack| pack.hashes().iter().map(|hash| pack.epoch.tag(hash))).collect();
    packed.sort_unstable();
    packed.dedup();
    let epoch = history.current();
    let opened_by = history.packs.iter().find(|pack| pack.opens() == Some(epoch)).cloned();
    let (size, settled) = (gathered.size(epoch), Settled { oldest, packed });
    Some(Tidying { write, remove, epoch, opened_by, size, settled })
}
