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
use serde_json::Value;

use super::{
    change::{self, Assembled, Assembly, MAX_HEADS, Record},
    shared::Editor,
    value,
};
use crate::cell::{Author, Cell};

/// Changes that automerge may stumble over before the document is given up. Only a hostile peer makes any.
const MAX_CULPRITS: usize = 8;

/// What an open document takes in memory, beside its changes; and how many times its changes' bytes.
const OPEN_BYTES: usize = 32 * 1024;
const OPEN_FACTOR: usize = 8;

/// Why cells cannot be taken in one by one: all of them must be looked at together.
#[derive(Debug, thiserror::Error)]
#[error("changes of the document contradict each other")]
pub(crate) struct Contradiction;

/// A document in memory.
#[derive(Debug)]
pub(crate) struct Document {
    automerge: AutoCommit,
    deletions: BTreeMap<Author, Vec<ChangeHash>>,
    assembly: Assembly,
    /// Changes that waited or were taken.
    seen: HashSet<ChangeHash>,
    /// Cells and changes that were passed over.
    damaged: u64,
    bytes: usize,
}

impl Default for Document {
    fn default() -> Self {
        Self {
            automerge: new_automerge(),
            deletions: BTreeMap::new(),
            assembly: Assembly::default(),
            seen: HashSet::new(),
            damaged: 0,
            bytes: 0,
        }
    }
}

fn new_automerge() -> AutoCommit {
    AutoCommit::new_with_encoding(TextEncoding::UnicodeCodePoint)
}

impl Document {
    /// Puts a document together from all of its cells.
    pub(crate) fn load<'a>(cells: impl IntoIterator<Item = &'a Cell>) -> Self {
        let mut document = Self::default();
        let changes = document.gather(cells);
        match apply(&mut document.automerge, &changes) {
            Ok(()) => {}
            Err(Contradiction) => {
                let (automerge, passed_over) = settle(changes);
                document.automerge = automerge;
                document.damaged += passed_over;
            }
        }
        document
    }

    /// Takes in more cells. After an error the document must be loaded anew.
    pub(crate) fn take<'a>(
        &mut self,
        cells: impl IntoIterator<Item = &'a Cell>,
    ) -> Result<(), Contradiction> {
        let changes = self.gather(cells);
        if changes.is_empty() { Ok(()) } else { apply(&mut self.automerge, &changes) }
    }

    /// The changes that are whole and new, after noting everything else.
    fn gather<'a>(&mut self, cells: impl IntoIterator<Item = &'a Cell>) -> Vec<Change> {
        let mut changes = Vec::new();
        for cell in cells {
            match change::parse(cell) {
                Some(Record::Part { hash, .. }) if self.seen.contains(&hash) => {}
                Some(Record::Part { hash, number, of, bytes }) => {
                    self.bytes += bytes.len();
                    match self.assembly.add(hash, number, of, bytes) {
                        Assembled::Change(change) => {
                            self.seen.insert(hash);
                            changes.push(*change);
                        }
                        Assembled::Incomplete => {}
                        Assembled::Damaged => self.damaged += 1,
                    }
                }
                Some(Record::Deleted { author, heads }) => {
                    self.deletions.insert(author, heads);
                }
                Some(Record::Elsewhere) => {}
                None => self.damaged += 1,
            }
        }
        changes
    }

    /// Whether the document is there: something was written that no deletion knew of.
    pub(crate) fn exists(&mut self) -> bool {
        let deleted: BTreeSet<&ChangeHash> = self.deletions.values().flatten().collect();
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
            self.bytes += change.raw_bytes().len();
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
        OPEN_BYTES + OPEN_FACTOR * self.bytes
    }

    /// The bytes of its history.
    pub(crate) fn history_bytes(&self) -> usize {
        self.bytes
    }
}

/// Applies changes, all at once. Automerge asserts some of what it is given: a hostile change is to end in an error.
fn apply(automerge: &mut AutoCommit, changes: &[Change]) -> Result<(), Contradiction> {
    let applied = catch_unwind(AssertUnwindSafe(|| automerge.apply_changes(changes.iter().cloned())));
    match applied {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Contradiction),
    }
}

/// The document that contradicting changes make: each in turn, in the order of dependencies and then of hashes, passing
/// over those that do not go with what is there. Returns how many were passed over, too.
fn settle(changes: Vec<Change>) -> (AutoCommit, u64) {
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
fn in_order(changes: Vec<Change>) -> Vec<Change> {
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
