//! Bringing changes that were written in one epoch into another.
//!
//! The two have a common floor: a point in the history of each at which both say the same. A change is brought over by
//! looking at what its own epoch says at the floor with everything that the change knew of, without it and with it, and
//! doing the same at the corresponding point of the other epoch. What comes of it depends on nothing else, whoever
//! computes it and whatever else is known there: so it is one change with one hash, which merges like any other.

use std::collections::{HashMap, HashSet, VecDeque};

use automerge::{AutoCommit, AutomergeError, Change, ChangeHash, ReadDoc};

use super::{epoch::Epoch, shared::Editor, tree::Tree};

/// Pairs that are kept: about as many as write a document at once without hearing each other.
const MAX_PAIRS: usize = 4;
/// Operations of the documents in them: of a large document only one is kept.
const MAX_OPERATIONS: u64 = 1_000_000;

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

    /// What a copy at `heads` has above the floor and one with `has` has not; and where the two meet.
    fn between(
        &mut self,
        has: &HashSet<ChangeHash>,
        heads: &[ChangeHash],
    ) -> Result<(Vec<Change>, HashSet<ChangeHash>), AutomergeError> {
        let (mut waiting, mut seen) = (heads.to_vec(), HashSet::new());
        let (mut changes, mut met) = (Vec::new(), HashSet::new());
        while let Some(hash) = waiting.pop() {
            if self.floor.hashes.contains(&hash) || !seen.insert(hash) {
                continue;
            }
            if has.contains(&hash) {
                met.insert(hash);
                continue;
            }
            let change = self.change(hash)?;
            waiting.extend(change.deps());
            changes.push(change);
        }
        Ok((changes, met))
    }

    fn change(&mut self, hash: ChangeHash) -> Result<Change, AutomergeError> {
        if let Some(change) = self.above.get(&hash) {
            return Ok(change.clone());
        }
        let change = self.document.get_change_by_hash(&hash).ok_or(AutomergeError::InvalidHash(hash))?;
        self.above.insert(hash, change.clone());
        Ok(change)
    }

    /// Notes changes that are going to be taken.
    fn note(&mut self, changes: &[Change]) {
        self.above.extend(changes.iter().map(|change| (change.hash(), change.clone())));
    }

    /// Takes changes into the document; returns those that it took. All at once is many times as quick.
    fn take(&mut self, mut changes: Vec<Change>) -> Vec<Change> {
        if self.document.apply_changes(changes.iter().cloned()).is_err() {
            changes.retain(|change| self.document.apply_changes([change.clone()]).is_ok());
        }
        changes
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

/// A copy of one side, at some point above the floor.
#[derive(Debug)]
struct Copied {
    document: AutoCommit,
    /// What it has above the floor, and what of that nothing else there builds on.
    has: HashSet<ChangeHash>,
    heads: HashSet<ChangeHash>,
}

impl Copied {
    fn of(floor: &Floor) -> Self {
        Self { document: floor.document.clone(), has: HashSet::new(), heads: HashSet::new() }
    }

    /// What is to be applied so that it is at `heads`; `None` if it has something that they do not know of.
    fn way_to(
        &self,
        side: &mut Side<'_>,
        heads: &[ChangeHash],
    ) -> Result<Option<Vec<Change>>, AutomergeError> {
        let (changes, met) = side.between(&self.has, heads)?;
        Ok(self.heads.is_subset(&met).then_some(changes))
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), AutomergeError> {
        self.document.apply_changes(changes.iter().cloned())?;
        self.note(changes);
        Ok(())
    }

    /// Notes changes that are in the document.
    fn note(&mut self, changes: &[Change]) {
        self.has.extend(changes.iter().map(Change::hash));
        self.heads.extend(changes.iter().map(Change::hash));
        for hash in changes.iter().flat_map(Change::deps) {
            self.heads.remove(hash);
        }
    }
}

/// Both sides at a change and at its counterpart.
#[derive(Debug)]
struct Pair {
    here: Copied,
    /// What is said here.
    said: Tree,
    there: Copied,
}

/// Where changes were brought over last. The next ones mostly follow one of those, and to go on from there takes a fraction of
/// beginning at the floor.
#[derive(Debug, Default)]
struct Pairs(VecDeque<Pair>);

impl Pairs {
    /// Both sides with exactly what is known at `here` and at `there`.
    fn take(
        &mut self,
        (from, here): (&mut Side<'_>, &[ChangeHash]),
        (to, there): (&mut Side<'_>, &[ChangeHash]),
    ) -> Result<Pair, AutomergeError> {
        let mut best: Option<(usize, Vec<Change>, Vec<Change>)> = None;
        for (place, pair) in self.0.iter().enumerate() {
            if let Some(missing) = pair.here.way_to(from, here)?
                && best.as_ref().is_none_or(|(_, known, _)| missing.len() < known.len())
                && let Some(missing_there) = pair.there.way_to(to, there)?
            {
                best = Some((place, missing, missing_there));
            }
        }
        let found = best.and_then(|(place, here, there)| Some((self.0.remove(place)?, here, there)));
        let (mut pair, missing, missing_there) = match found {
            Some(found) => found,
            None => {
                let pair = Pair {
                    here: Copied::of(from.floor),
                    said: Tree::read(&from.floor.document),
                    there: Copied::of(to.floor),
                };
                let (missing, _) = from.between(&pair.here.has, here)?;
                let (missing_there, _) = to.between(&pair.there.has, there)?;
                (pair, missing, missing_there)
            }
        };
        if !missing.is_empty() {
            pair.here.apply(&missing)?;
            pair.said = Tree::read(&pair.here.document);
        }
        pair.there.apply(&missing_there)?;
        Ok(pair)
    }

    fn keep(&mut self, pair: Pair) {
        let operations = pair.here.document.stats().num_ops + pair.there.document.stats().num_ops;
        let most = usize::try_from(MAX_OPERATIONS / operations.max(1)).unwrap_or(MAX_PAIRS);
        self.0.push_front(pair);
        self.0.truncate(most.clamp(1, MAX_PAIRS));
    }
}

/// Brings `changes`, in the order of their dependencies, from one side to the other; notes in `counterparts` what
/// stands for what. What depends on something `absent` waits; of what the others depend on, what has no counterpart is
/// below the floor.
pub(crate) fn transplant(
    from: &mut Side<'_>,
    to: &mut Side<'_>,
    changes: &[Change],
    counterparts: &mut Counterparts,
    mut absent: HashSet<ChangeHash>,
) -> Moved {
    let mut moved = Moved::default();
    let mut pairs = Pairs::default();
    for change in changes {
        if counterparts.contains_key(&change.hash()) {
            continue;
        }
        if change.deps().iter().any(|hash| absent.contains(hash)) {
            absent.insert(change.hash());
            continue;
        }
        match bring(from, to, change, counterparts, &mut pairs) {
            Ok(brought) => moved.made.extend(brought),
            Err(error) => {
                tracing::debug!(%error, "a change of another epoch cannot be brought over");
                moved.failed += 1;
                absent.insert(change.hash());
            }
        }
    }
    let made = moved.made.len();
    moved.made = to.take(moved.made);
    moved.failed += (made - moved.made.len()) as u64;
    moved
}

fn bring(
    from: &mut Side<'_>,
    to: &mut Side<'_>,
    change: &Change,
    counterparts: &mut Counterparts,
    pairs: &mut Pairs,
) -> Result<Vec<Change>, AutomergeError> {
    let known = change.deps().iter().filter_map(|hash| counterparts.get(hash).copied());
    let there: Vec<ChangeHash> = known.collect();
    // In a pair that fails nobody goes on.
    let mut pair = pairs.take((from, change.deps()), (to, &there))?;
    pair.here.apply(std::slice::from_ref(change))?;
    let base = std::mem::replace(&mut pair.said, Tree::read(&pair.here.document));
    let author = to.epoch.actor(Some((from.epoch, change.hash())));
    let name = from.epoch.name_origin(change.hash());
    let mut editor = Editor::with_message(&mut pair.there.document, author, name);
    pair.said.carry(&base, &mut editor)?;
    let brought = editor.finish_with_own();
    pair.there.note(&brought);
    to.note(&brought);
    if let Some(own) = brought.last() {
        counterparts.insert(change.hash(), own.hash());
    }
    pairs.keep(pair);
    Ok(brought)
}
