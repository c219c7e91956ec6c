//! What the cells of a document hold, epoch by epoch, and the document that they make.
//!
//! The epoch that counts is the latest that was opened. What it begins with follows from the pack that opened it. Changes
//! of the epoch before that this pack does not hold, written by somebody who did not know of it, are brought over; so
//! are those of other epochs that were opened beside it, by way of the epoch before. All that is a function of the cells
//! alone, so replicas with the same cells show the same document.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use automerge::{ActorId, AutoCommit, Change, ChangeHash};

use super::{
    change::{Kind, Name},
    epoch::Epoch,
    pack::Pack,
    state,
    transplant::{Counterparts, Floor, Moved, Side, transplant},
};

/// Everything that is whole.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Changes that have cells of their own.
    pub(crate) single: BTreeMap<Epoch, BTreeMap<ChangeHash, Change>>,
    pub(crate) packs: Vec<Arc<Pack>>,
}

/// A document as one epoch has it.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) document: AutoCommit,
    /// What was brought over from the epoch before and has no cells here.
    pub(crate) brought: Vec<Change>,
    /// How many changes were passed over because they contradict others.
    pub(crate) passed_over: u64,
}

impl Frame {
    fn take(&mut self, moved: Moved) {
        self.passed_over += moved.failed;
        self.brought.extend(moved.made);
    }
}

impl History {
    /// The epoch that counts.
    pub(crate) fn current(&self) -> Epoch {
        self.packs.iter().filter_map(|pack| pack.opens()).max().unwrap_or(Epoch::FIRST)
    }

    /// The epoch before the one that counts, whose changes are still brought over; the one that counts if it is the first.
    /// What is older, or beside it, counts no more.
    pub(crate) fn oldest(&self) -> Epoch {
        self.opening(self.current()).map_or(Epoch::FIRST, |opening| opening.epoch)
    }

    /// Whether what has this name is of an epoch that counts no more.
    pub(crate) fn is_over(&self, epoch: Epoch) -> bool {
        is_over(self.oldest(), epoch)
    }

    /// The names of what is superfluous because some pack holds it, or because its epoch counts no more.
    pub(crate) fn superfluous(&self) -> BTreeSet<Name> {
        let mut found = BTreeSet::new();
        for (epoch, changes) in &self.single {
            let held = |hash: &ChangeHash| self.packed(*epoch).any(|pack| pack.hashes().contains(hash));
            let gone = changes.keys().filter(|hash| self.is_over(*epoch) || held(hash));
            found.extend(gone.map(|hash| Name { kind: Kind::Change, epoch: *epoch, hash: *hash }));
        }
        for pack in &self.packs {
            if self.is_over(pack.epoch) || self.packs.iter().any(|other| pack.is_within(other)) {
                found.insert(pack.full_name());
            }
        }
        found
    }

    /// The packs of an epoch.
    pub(crate) fn packed(&self, epoch: Epoch) -> impl Iterator<Item = &Pack> {
        self.packs.iter().map(Arc::as_ref).filter(move |pack| pack.epoch == epoch)
    }

    /// The pack that opened an epoch.
    fn opening(&self, epoch: Epoch) -> Option<&Pack> {
        self.packs.iter().map(Arc::as_ref).find(|pack| pack.opens() == Some(epoch))
    }

    /// The document as `epoch` has it. Names in `deleted` what stands for what was deleted, too.
    pub(crate) fn frame(&self, epoch: Epoch, deleted: &mut HashSet<ChangeHash>) -> Frame {
        let Some(opening) = self.opening(epoch) else { return self.assemble(epoch, None, deleted) };
        if !deleted.is_empty() {
            cover(deleted, &mut opening.floor.document.clone());
        }
        if !self.is_news(opening) {
            return self.assemble(epoch, Some(opening), deleted);
        }
        let mut before = self.frame(opening.epoch, deleted);
        let siblings: BTreeMap<Epoch, &Pack> = self
            .packed(opening.epoch)
            .filter_map(|pack| Some((pack.opens()?, pack)))
            .filter(|(opened, _)| *opened < epoch && self.has_changes(*opened))
            .collect();
        for (sibling, opening) in siblings {
            let mut beside = self.assemble(sibling, Some(opening), deleted);
            let counterparts = self.bring_over(&mut before, &mut beside, opening, sibling, deleted);
            bring_back(&mut beside, &mut before, opening, sibling, &counterparts, deleted);
        }
        cover(deleted, &mut before.document);
        let mut frame = self.assemble(epoch, Some(opening), deleted);
        self.bring_over(&mut before, &mut frame, opening, epoch, deleted);
        frame.passed_over += before.passed_over;
        frame
    }

    /// Whether the epoch before, or one beside, has something that `opening` does not.
    fn is_news(&self, opening: &Pack) -> bool {
        let epoch = opening.epoch;
        let single = self.single.get(&epoch).into_iter().flatten();
        single.clone().any(|(hash, _)| !opening.hashes().contains(hash))
            || self.packed(epoch).any(|pack| !pack.hashes().is_subset(opening.hashes()))
            || self
                .packed(epoch)
                .filter_map(Pack::opens)
                .any(|sibling| Some(sibling) < opening.opens() && self.has_changes(sibling))
            || self.opening(epoch).is_some_and(|before| self.is_news(before))
    }

    fn has_changes(&self, epoch: Epoch) -> bool {
        self.single.get(&epoch).is_some_and(|changes| !changes.is_empty())
            || self.packed(epoch).next().is_some()
    }

    /// The document of an epoch from its own changes alone.
    fn assemble(&self, epoch: Epoch, opening: Option<&Pack>, deleted: &mut HashSet<ChangeHash>) -> Frame {
        let largest = self.packed(epoch).max_by_key(|pack| pack.hashes().len());
        let beginning = opening.and_then(Pack::beginning);
        if let (Some(opening), Some(beginning)) = (opening, beginning)
            && opening.heads.iter().all(|head| deleted.contains(head))
        {
            deleted.insert(beginning.change.hash());
        }
        let is_packed = |hash: &ChangeHash| largest.is_some_and(|pack| pack.hashes().contains(hash));
        let mut changes: Vec<Change> = Vec::new();
        changes.extend(
            beginning.map(|beginning| beginning.change.clone()).filter(|first| !is_packed(&first.hash())),
        );
        for pack in self.packed(epoch) {
            if let Some(largest) = largest
                && pack.name != largest.name
                && !pack.hashes().is_subset(largest.hashes())
            {
                changes.extend(pack.floor.document.clone().get_changes(&[]));
            }
        }
        let single = self.single.get(&epoch).into_iter().flatten();
        changes.extend(single.filter(|(hash, _)| !is_packed(hash)).map(|(_, change)| change.clone()));
        let ground = largest.map(|pack| &pack.floor).or(beginning.map(|beginning| &beginning.floor));
        let mut document = ground.map_or_else(state::new_automerge, |floor| floor.document.clone());
        if state::apply(&mut document, &changes).is_ok() {
            return Frame { document, brought: Vec::new(), passed_over: 0 };
        }
        let packed = largest.map(|pack| pack.floor.document.clone().get_changes(&[])).unwrap_or_default();
        let (document, passed_over) = state::settle([packed, changes].concat());
        Frame { document, brought: Vec::new(), passed_over }
    }

    /// Brings over what `opening` does not hold, into the epoch that it opened.
    fn bring_over(
        &self,
        from: &mut Frame,
        to: &mut Frame,
        opening: &Pack,
        into: Epoch,
        deleted: &mut HashSet<ChangeHash>,
    ) -> Counterparts {
        let mut late = from.document.get_changes(&opening.heads);
        late.retain(|change| !opening.hashes().contains(&change.hash()));
        let mut counterparts = Counterparts::new();
        if late.is_empty() {
            return counterparts;
        }
        // What somebody has brought over and written down before. Of several changes by one who brings over, the last
        // stands for what was brought.
        let mut written: HashMap<ActorId, (u64, ChangeHash)> = HashMap::new();
        let single = self.single.get(&into).into_iter().flatten();
        let single = single.map(|(hash, change)| (change.actor_id().clone(), change.seq(), *hash));
        let applied = to.document.get_changes_meta(&[]);
        let applied =
            applied.iter().map(|change| (change.actor.clone().into_owned(), change.seq, change.hash));
        for (actor, seq, hash) in single.chain(applied) {
            let last = written.entry(actor).or_insert((seq, hash));
            *last = (*last).max((seq, hash));
        }
        let mut open = Vec::new();
        for change in &late {
            match written.get(&into.actor(Some((opening.epoch, change.hash())))) {
                Some((_, hash)) => {
                    counterparts.insert(change.hash(), *hash);
                }
                None => open.push(change.clone()),
            }
        }
        let nothing = nothing();
        let mut here = Side::new(opening.epoch, &mut from.document, &opening.floor, late);
        let mut there = Side::new(into, &mut to.document, ground(opening, &nothing), []);
        let moved = transplant(&mut here, &mut there, &open, &mut counterparts, HashSet::new());
        to.take(moved);
        mark(deleted, &mut from.document, &counterparts);
        counterparts
    }
}

/// Whether `epoch` counts no more where `oldest` is the oldest that does.
pub(crate) fn is_over(oldest: Epoch, epoch: Epoch) -> bool {
    epoch.number() < oldest.number() || (epoch.number() == oldest.number() && epoch != oldest)
}

/// Brings what was written in an epoch that does not count back into the one before it.
fn bring_back(
    from: &mut Frame,
    to: &mut Frame,
    opening: &Pack,
    epoch: Epoch,
    counterparts: &Counterparts,
    deleted: &mut HashSet<ChangeHash>,
) {
    // What was brought over from there is there already.
    let mut known: Counterparts = counterparts.iter().map(|(there, here)| (*here, *there)).collect();
    let nothing = nothing();
    let floor = ground(opening, &nothing);
    let all = from.document.get_changes(&[]).into_iter();
    let all = all.filter(|change| !floor.hashes.contains(&change.hash()));
    let (brought, changes): (Vec<Change>, Vec<Change>) =
        all.partition(|change| epoch.origin(opening.epoch, change).is_some());
    // Of some, what was brought over has not arrived here yet.
    let absent = brought.iter().map(Change::hash).filter(|hash| !known.contains_key(hash)).collect();
    let at_hand = brought.iter().chain(&changes).cloned();
    let mut here = Side::new(epoch, &mut from.document, floor, at_hand);
    let mut there = Side::new(opening.epoch, &mut to.document, &opening.floor, []);
    let moved = transplant(&mut here, &mut there, &changes, &mut known, absent);
    to.take(moved);
    mark(deleted, &mut from.document, &known);
}

/// Where the epoch that `opening` opens begins; at nothing, if that cannot be told.
fn ground<'a>(opening: &'a Pack, nothing: &'a Floor) -> &'a Floor {
    opening.beginning().map_or(nothing, |beginning| &beginning.floor)
}

fn nothing() -> Floor {
    Floor { document: state::new_automerge(), hashes: HashSet::new() }
}

/// What a deleted change builds on is deleted, too.
fn cover(deleted: &mut HashSet<ChangeHash>, document: &mut AutoCommit) {
    if deleted.is_empty() {
        return;
    }
    for change in document.get_changes_meta(&[]).iter().rev() {
        if deleted.contains(&change.hash) {
            deleted.extend(change.deps.iter().copied());
        }
    }
}

/// What stands for what was deleted is deleted, too.
fn mark(deleted: &mut HashSet<ChangeHash>, document: &mut AutoCommit, counterparts: &Counterparts) {
    cover(deleted, document);
    for (origin, here) in counterparts {
        if deleted.contains(origin) {
            deleted.insert(*here);
        }
    }
}

#[cfg(test)]
mod tests;
