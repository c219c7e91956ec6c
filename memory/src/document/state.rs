//! One document, put together from its cells.
//!
//! Cells come in any order and from anybody. What makes no sense is counted and passed over; a change whose
//! dependencies are missing waits for them. Replicas with the same cells show the same document even if somebody
//! wrote changes that contradict each other: then the document is put together anew, in an order that depends on
//! nothing but the changes.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    panic::{AssertUnwindSafe, catch_unwind},
};

use automerge::{ActorId, AutoCommit, Change, ChangeHash, ReadDoc, TextEncoding};
use bytes::Bytes;
use serde_json::Value;

use super::{
    change::{self, Assembled, Assembly, Kind, MAX_HEADS, Name, Record},
    epoch::{EPOCH_BYTES, Epoch},
    gather::Gathered,
    history::Frame,
    pack::{self, Purpose},
    packs::Packs,
    shared::Editor,
    value,
};
use crate::cell::{Author, Cell};

/// Changes that automerge may stumble over before the document is given up. Only a hostile peer makes any.
const MAX_CULPRITS: usize = 8;

/// What an open document takes in memory, beside its changes; and how many times its changes' bytes.
const OPEN_BYTES: usize = 32 * 1024;
const OPEN_FACTOR: usize = 8;

/// The changes of an epoch may take so many bytes in any case, ...
const SMALL_HISTORY: usize = 16 * 1024;
/// ... and so many times what the document says.
const MAX_GROWTH: usize = 3;
/// The epoch before may take so many times as much: it may have been long before it could be closed. So all stays below ten times
/// what the document says.
const MAX_OLDER: usize = 2;

/// Changes that must have been brought over from an epoch before for it to be worth closing this one.
const MANY_BROUGHT: usize = 64;

/// Bytes of the field of a change's cell.
const FIELD_BYTES: usize = 1 + EPOCH_BYTES + 32 + 2;

/// Why cells cannot be taken in one by one: all of them must be looked at together.
#[derive(Debug, thiserror::Error)]
#[error("changes of the document contradict each other")]
pub(crate) struct Contradiction;

/// A document in memory, as the epoch that counts has it.
#[derive(Debug)]
pub(crate) struct Document {
    automerge: AutoCommit,
    epoch: Epoch,
    deletions: BTreeMap<Author, Vec<ChangeHash>>,
    /// What stands, in this epoch, for what was deleted in one before.
    deleted: HashSet<ChangeHash>,
    assembly: Assembly,
    /// Changes that waited or were taken.
    seen: HashSet<ChangeHash>,
    /// Cells and changes that were passed over.
    damaged: u64,
    size: Size,
    /// Changes that were brought over from an epoch before and have no cells in this one.
    brought: usize,
}

/// What the cells of a document take, in bytes of their values and fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    /// Changes of the epoch that counts that have cells of their own.
    pub(crate) single: usize,
    /// Packs of that epoch.
    pub(crate) packed: usize,
    /// What is older, and kept for the sake of those who do not know of this epoch yet.
    pub(crate) older: usize,
}

impl Size {
    /// All of it.
    pub(crate) fn total(&self) -> usize {
        self.single + self.packed + self.older
    }

    /// What is to be done about a document of this size that says so many bytes of JSON.
    pub(crate) fn compaction(&self, text: usize) -> Option<Compaction> {
        let allowed = SMALL_HISTORY.max(MAX_GROWTH * text);
        let is_long = self.current() > allowed || self.older > MAX_OLDER * allowed;
        match (is_long, self.single > allowed.max(self.packed)) {
            (false, _) => None,
            (true, false) => Some(Compaction::Close),
            (true, true) => Some(Compaction::CloseOrFold),
        }
    }

    /// What belongs to the epoch that counts.
    pub(crate) fn current(&self) -> usize {
        self.single + self.packed
    }
}

/// How the history of a document is made less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compaction {
    /// Its epoch is closed, if it can be.
    Close,
    /// And if not, its changes are folded into a pack.
    CloseOrFold,
}

impl Default for Document {
    fn default() -> Self {
        Self {
            automerge: new_automerge(),
            epoch: Epoch::FIRST,
            deletions: BTreeMap::new(),
            deleted: HashSet::new(),
            assembly: Assembly::default(),
            seen: HashSet::new(),
            damaged: 0,
            size: Size::default(),
            brought: 0,
        }
    }
}

pub(crate) fn new_automerge() -> AutoCommit {
    AutoCommit::new_with_encoding(TextEncoding::UnicodeCodePoint)
}

impl Document {
    /// Puts a document together from all of its cells.
    pub(crate) fn load<'a>(cells: impl IntoIterator<Item = &'a Cell>, packs: &Packs) -> Self {
        let gathered = Gathered::of(cells, packs);
        let epoch = gathered.history.current();
        let size = gathered.size(epoch);
        let Gathered { history, deletions, assembly, damaged, .. } = gathered;
        let mut deleted: HashSet<ChangeHash> = deletions.values().flatten().copied().collect();
        let Frame { mut document, passed_over, brought } = history.frame(epoch, &mut deleted);
        let mut seen: HashSet<ChangeHash> =
            document.get_changes_meta(&[]).iter().map(|change| change.hash).collect();
        seen.extend(history.single.get(&epoch).into_iter().flatten().map(|(hash, _)| *hash));
        let damaged = damaged + passed_over;
        let brought = brought.len();
        Self { automerge: document, epoch, deletions, deleted, assembly, seen, damaged, size, brought }
    }

    /// Takes in more cells. After an error the document must be loaded anew.
    pub(crate) fn take<'a>(
        &mut self,
        cells: impl IntoIterator<Item = &'a Cell>,
    ) -> Result<(), Contradiction> {
        let changes = self.gather(cells)?;
        if changes.is_empty() { Ok(()) } else { apply(&mut self.automerge, &changes) }
    }

    /// The changes that are whole and new, after noting everything else.
    fn gather<'a>(
        &mut self,
        cells: impl IntoIterator<Item = &'a Cell>,
    ) -> Result<Vec<Change>, Contradiction> {
        let mut changes = Vec::new();
        for cell in cells {
            match change::parse(cell) {
                Some(Record::Part { name, .. }) if name.epoch != self.epoch || name.kind != Kind::Change => {
                    return Err(Contradiction);
                }
                Some(Record::Part { name, .. }) if self.seen.contains(&name.hash) => {}
                Some(Record::Part { name, number, of, bytes }) => {
                    self.size.single += cell.field.len() + bytes.len();
                    match self.assembly.add(name, number, of, bytes) {
                        Assembled::Change(change) => {
                            self.seen.insert(name.hash);
                            changes.push(*change);
                        }
                        Assembled::Incomplete => {}
                        Assembled::Damaged | Assembled::Pack(_) => self.damaged += 1,
                    }
                }
                // It may speak of what was before this epoch.
                Some(Record::Deleted { .. }) if self.epoch != Epoch::FIRST => return Err(Contradiction),
                Some(Record::Deleted { author, heads }) => {
                    self.deletions.insert(author, heads);
                }
                None => self.damaged += 1,
            }
        }
        Ok(changes)
    }

    /// The epoch that counts.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// A pack of all changes of the epoch that are known here, as cells. After an error in writing them the document must be
    /// loaded anew.
    pub(crate) fn pack(&mut self, purpose: Purpose) -> Option<Vec<(Bytes, Bytes)>> {
        let (hash, bytes) = pack::pack(self.automerge.get_changes(&[]))?;
        let cells = change::parts_of(Name { kind: Kind::Pack(purpose), epoch: self.epoch, hash }, &bytes)?;
        if purpose == Purpose::Fold {
            // What it holds is superfluous, and so are earlier packs.
            self.size = Size { single: 0, packed: cells.len() * FIELD_BYTES + bytes.len(), ..self.size };
        }
        Some(cells)
    }

    /// Whether the document is there: something was written that no deletion knew of.
    pub(crate) fn exists(&mut self) -> bool {
        let deleted: BTreeSet<&ChangeHash> = self.deletions.values().flatten().chain(&self.deleted).collect();
        self.automerge.get_heads().iter().any(|head| !deleted.contains(head))
    }

    /// What it says, whether it is there or not.
    pub(crate) fn value(&self) -> Value {
        value::read(&self.automerge)
    }

    /// Whether more is going on side by side than a deletion can name.
    pub(crate) fn is_splintered(&mut self) -> bool {
        self.automerge.get_heads().len() > MAX_HEADS
    }

    /// Notes a deletion of this node, and returns what it must name to cover all that is known here.
    pub(crate) fn delete(&mut self, author: Author) -> Vec<ChangeHash> {
        let heads = self.automerge.get_heads();
        self.deletions.insert(author, heads.clone());
        heads
    }

    /// Edits the document as `actor`; returns the changes that this came to. After an error the document must be
    /// loaded anew.
    pub(crate) fn edit<E>(
        &mut self,
        actor: &ActorId,
        edit: impl FnOnce(&mut Editor<'_>) -> Result<(), E>,
    ) -> Result<Vec<Change>, E> {
        let existed = self.exists();
        let mut editor = Editor::new(&mut self.automerge, actor.clone());
        edit(&mut editor)?;
        if !existed && editor.is_untouched() {
            editor.touch();
        }
        let changes = editor.finish();
        for change in &changes {
            self.seen.insert(change.hash());
            self.size.single += FIELD_BYTES + change.raw_bytes().len();
        }
        Ok(changes)
    }

    /// How many cells and changes were passed over.
    pub(crate) fn damaged(&self) -> u64 {
        self.damaged
    }

    /// How many changes it is made of.
    pub(crate) fn changes(&self) -> u64 {
        self.automerge.stats().num_changes
    }

    /// About what it takes in memory.
    pub(crate) fn weight(&self) -> usize {
        weight(self.size.current())
    }

    /// What is to be done about it if it says so many bytes of JSON. What was brought over is so again by everybody who puts the
    /// document together, which takes milliseconds for each change, until another epoch begins.
    pub(crate) fn compaction(&self, text: usize) -> Option<Compaction> {
        self.size.compaction(text).or(self.is_slow().then_some(Compaction::Close))
    }

    /// Whether it takes long to put it together.
    pub(crate) fn is_slow(&self) -> bool {
        self.brought > MANY_BROUGHT
    }

    /// What its cells take.
    pub(crate) fn size(&self) -> Size {
        self.size
    }
}

/// About what a document takes in memory whose changes come to so many bytes.
pub(crate) fn weight(bytes: usize) -> usize {
    OPEN_BYTES + OPEN_FACTOR * bytes
}

/// Applies changes, all at once. Automerge asserts some of what it is given: a hostile change is to end in an error.
pub(crate) fn apply(automerge: &mut AutoCommit, changes: &[Change]) -> Result<(), Contradiction> {
    let applied = catch_unwind(AssertUnwindSafe(|| automerge.apply_changes(changes.iter().cloned())));
    match applied {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Contradiction),
    }
}

/// The document that contradicting changes make: each in turn, in the order of dependencies and then of hashes, passing
/// over those that do not go with what is there. Returns how many were passed over, too.
pub(crate) fn settle(changes: Vec<Change>) -> (AutoCommit, u64) {
    let ordered = in_order(changes);
    let mut culprits = HashSet::new();
    while culprits.len() <= MAX_CULPRITS {
        let (automerge, passed_over, stumbled) = replay(&ordered, &culprits);
        match stumbled {
            None => return (automerge, passed_over + culprits.len() as u64),
            Some(culprit) => culprits.insert(culprit),
        };
    }
    (new_automerge(), ordered.len() as u64)
}

/// Applies one after the other, up to one that automerge panics over.
fn replay(ordered: &[Change], without: &HashSet<ChangeHash>) -> (AutoCommit, u64, Option<ChangeHash>) {
    let mut automerge = new_automerge();
    let mut passed_over = 0;
    for change in ordered.iter().filter(|change| !without.contains(&change.hash())) {
        let applied = catch_unwind(AssertUnwindSafe(|| automerge.apply_changes([change.clone()])));
        match applied {
            Ok(Ok(())) => {}
            Ok(Err(_)) => passed_over += 1,
            Err(_) => return (automerge, passed_over, Some(change.hash())),
        }
    }
    (automerge, passed_over, None)
}

/// Changes behind what they depend on, and of those that could come next the one with the least hash first. What
/// depends on something that is not there comes last.
pub(crate) fn in_order(changes: Vec<Change>) -> Vec<Change> {
    let mut waiting: BTreeMap<ChangeHash, Change> =
        changes.into_iter().map(|change| (change.hash(), change)).collect();
    let mut missing: BTreeMap<ChangeHash, usize> = BTreeMap::new();
    let mut followers: BTreeMap<ChangeHash, Vec<ChangeHash>> = BTreeMap::new();
    for (hash, change) in &waiting {
        missing.insert(*hash, change.deps().len());
        for dependency in change.deps() {
            followers.entry(*dependency).or_default().push(*hash);
        }
    }
    let mut ready: BTreeSet<ChangeHash> =
        missing.iter().filter(|(_, count)| **count == 0).map(|(hash, _)| *hash).collect();
    let mut ordered = Vec::with_capacity(waiting.len());
    while let Some(hash) = ready.pop_first() {
        ordered.extend(waiting.remove(&hash));
        for follower in followers.remove(&hash).unwrap_or_default() {
            if let Some(count) = missing.get_mut(&follower) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    ready.insert(follower);
                }
            }
        }
    }
    ordered.extend(waiting.into_values());
    ordered
}

#[cfg(test)]
mod tests;
