//! Bringing changes that were written in one epoch into another.
//!
//! The two have a common floor: a point in the history of each at which both say the same. A change is brought over by
//! looking at what its own epoch says at the floor with everything that the change knew of, without it and with it, and
//! doing the same at the corresponding point of the other epoch. What comes of it depends on nothing else, whoever
//! computes it and whatever else is known there: so it is one change with one hash, which merges like any other.

use std::collections::{HashMap, HashSet};

use automerge::{AutoCommit, AutomergeError, Change, ChangeHash};

use super::{epoch::Epoch, shared::Editor, tree::Tree};

/// Which change stands for which.
pub(crate) type Counterparts = HashMap<ChangeHash, ChangeHash>;

/// A point in the history of a document.
#[derive(Debug)]
pub(crate) struct Floor {
    /// The document as it was there.
    pub(crate) document: AutoCommit,
    /// All its changes.
    pub(crate) hashes: HashSet<ChangeHash>,
}

/// One side of the move: a document as an epoch has it, and where the floor is in it.
#[derive(Debug)]
pub(crate) struct Side<'a> {
    epoch: Epoch,
    document: &'a mut AutoCommit,
    floor: &'a Floor,
    /// Changes above the floor that were looked up.
    above: HashMap<ChangeHash, Change>,
}

impl<'a> Side<'a> {
    /// The side of `document`, of which some changes are at hand.
    pub(crate) fn new(
        epoch: Epoch,
        document: &'a mut AutoCommit,
        floor: &'a Floor,
        changes: impl IntoIterator<Item = Change>,
    ) -> Self {
        let above = changes.into_iter().map(|change| (change.hash(), change)).collect();
        Self { epoch, document, floor, above }
    }

    /// The document with the floor, these changes, and whatever they know of. (A fork would make it of all its changes
    /// anew, also of the very many below the floor.)
    fn at(&mut self, mut heads: Vec<ChangeHash>) -> Result<AutoCommit, AutomergeError> {
        let (mut seen, mut changes) = (HashSet::new(), Vec::new());
        while let Some(hash) = heads.pop() {
            if self.floor.hashes.contains(&hash) || !seen.insert(hash) {
                continue;
            }
            let change = self.change(hash)?;
            heads.extend(change.deps());
            changes.push(change);
        }
        let mut document = self.floor.document.clone();
        document.apply_changes(changes)?;
        Ok(document)
    }

    fn change(&mut self, hash: ChangeHash) -> Result<Change, AutomergeError> {
        if let Some(change) = self.above.get(&hash) {
            return Ok(change.clone());
        }
        let change = self.document.get_change_by_hash(&hash).ok_or(AutomergeError::InvalidHash(hash))?;
        self.above.insert(hash, change.clone());
        Ok(change)
    }

    fn take(&mut self, changes: &[Change]) -> Result<(), AutomergeError> {
        self.document.apply_changes(changes.iter().cloned())?;
        self.above.extend(changes.iter().map(|change| (change.hash(), change.clone())));
        Ok(())
    }
}

/// What came of a move.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    /// The changes that were made on the other side.
    pub(crate) made: Vec<Change>,
    /// How many changes could not be brought over, and never will be.
    pub(crate) failed: u64,
}

/// Brings `changes`, in the order of their dependencies, from one side to the other; notes in `counterparts` what
/// stands for what. What depends on something `absent` waits; of what the
/// others depend on, what has no counterpart is below the floor.
pub(crate) fn transplant(
    from: &mut Side<'_>,
    to: &mut Side<'_>,
    changes: &[Change],
    counterparts: &mut Counterparts,
    mut absent: HashSet<ChangeHash>,
) -> Moved {
    let mut moved = Moved::default();
    let mut last: Option<Pair> = None;
    for change in changes {
        if counterparts.contains_key(&change.hash()) {
            continue;
        }
        if change.deps().iter().any(|hash| absent.contains(hash)) {
            absent.insert(change.hash());
            continue;
        }
        match bring(from, to, change, counterparts, &mut last) {
            Ok(brought) => moved.made.extend(brought),
            Err(error) => {
                tracing::debug!(%error, "a change of another epoch cannot be brought over");
                moved.failed += 1;
                absent.insert(change.hash());
            }
        }
    }
    moved
}

fn bring(
    from: &mut Side<'_>,
    to: &mut Side<'_>,
    change: &Change,
    counterparts: &mut Counterparts,
    last: &mut Option<Pair>,
) -> Result<Vec<Change>, AutomergeError> {
    let known: Vec<ChangeHash> =
        change.deps().iter().filter(|hash| counterparts.contains_key(hash)).copied().collect();
    // One after the other, as a node writes them, they need not be looked up each time.
    let follows = |pair: &mut Pair| known == [pair.change] && pair.knows_all(change.deps());
    let mut pair = match last.take().and_then(|mut pair| follows(&mut pair).then_some(pair)) {
        Some(pair) => pair,
        None => {
            let there = known.iter().filter_map(|hash| counterparts.get(hash)).copied().collect();
            let (here, there) = (from.at(change.deps().to_vec())?, to.at(there)?);
            Pair { change: change.hash(), said: Tree::read(&here), here, there }
        }
    };
    pair.here.apply_changes([change.clone()])?;
    pair.change = change.hash();
    let base = std::mem::replace(&mut pair.said, Tree::read(&pair.here));
    let author = to.epoch.actor(Some((from.epoch, change.hash())));
    let name = from.epoch.name_origin(change.hash());
    let mut editor = Editor::with_message(&mut pair.there, author, name);
    pair.said.carry(&base, &mut editor)?;
    let brought = editor.finish_with_own();
    to.take(&brought)?;
    if let Some(own) = brought.last() {
        counterparts.insert(change.hash(), own.hash());
    }
    *last = Some(pair);
    Ok(brought)
}

/// Both sides at a change and at its counterpart.
struct Pair {
    change: ChangeHash,
    here: AutoCommit,
    /// What is said here.
    said: Tree,
    there: AutoCommit,
}

impl Pair {
    fn knows_all(&mut self, hashes: &[ChangeHash]) -> bool {
        hashes.iter().all(|hash| self.here.get_change_by_hash(hash).is_some())
    }
}
