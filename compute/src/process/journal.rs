//! What a node knows of one process: which events wait, and what is written when one was handled. Pure.
//!
//! Cells go in, in any order and from whatever owners; the greater stamp of a cell wins, as in memory. A state names all events that went into it:
//! the last ones itself, those before in lists that are cells of their own, named by what is in them. So states of two
//! owners can share lists, and neither can change those of the other.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use starfish_dht::PeerId;
use starfish_memory::Stamp;

use super::record::{Answer, Event, Field, Snapshot, Spec};
use crate::batch::definition::{decode, encode};
use crate::id::EventId;
use crate::millis;

/// How long an event is kept after it was handled: halves of a swarm that are apart for longer may lose what only one of them has handled. An
/// event that is sent again after that is another one.
pub const KEEP_FOR: Duration = Duration::from_secs(24 * 3600);
/// Events of a list. It is written as soon as there are so many.
pub const LIST: usize = 128;
/// Events that a state names itself; then the first of them are named by their list. That has been written some time before, so that
/// no node is left with a state whose lists it lacks.
pub const SEAL_AT: usize = 192;
/// Lists of a state. Beyond this the oldest goes before its time.
pub const MAX_SEALED: usize = 96;

/// A cell to write, or to delete.
pub(crate) type Write = (Field, Option<Vec<u8>>);

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Journal {
    spec: Option<(Stamp, Spec)>,
    snapshot: Option<(Stamp, Snapshot)>,
    /// All events that are kept, with the tag of the process that they are for.
    events: HashMap<EventId, (Stamp, u64)>,
    sealed: BTreeMap<EventId, (Stamp, Vec<EventId>)>,
    handled: HashSet<EventId>,
    waiting: BTreeSet<(Stamp, EventId)>,
    /// A list that the state names has not come yet.
    is_torn: bool,
}

impl Journal {
    /// A cell has this value now, or none.
    pub(crate) fn apply(&mut self, field: Field, stamp: Stamp, value: Option<&[u8]>) {
        match field {
            Field::Spec if self.spec.as_ref().is_none_or(|(old, _)| *old < stamp) => {
                self.spec = value.and_then(decode).map(|spec| (stamp, spec));
                self.sort();
            }
            Field::State if self.snapshot.as_ref().is_none_or(|(old, _)| *old < stamp) => {
                let snapshot = value.and_then(decode::<Snapshot>).filter(is_sound);
                self.replace(snapshot.map(|snapshot| (stamp, snapshot)));
            }
            Field::Sealed(id) => {
                match value.and_then(decode::<Vec<EventId>>).filter(|list| list_id(list) == id) {
                    Some(list) => drop(self.sealed.insert(id, (stamp, list))),
                    None => drop(self.sealed.remove(&id)),
                }
                if self.is_torn {
                    self.sort();
                }
            }
            Field::Event(id) => self.apply_event(id, stamp, value.and_then(decode)),
            Field::Spec | Field::State | Field::Answer(_) => {}
        }
    }

    fn apply_event(&mut self, id: EventId, stamp: Stamp, event: Option<Event>) {
        if let Some((old, _)) = self.events.remove(&id) {
            self.waiting.remove(&(old, id));
        }
        let Some(event) = event else { return };
        self.events.insert(id, (stamp, event.tag));
        if Some(event.tag) == self.tag() && !self.handled.contains(&id) {
            self.waiting.insert((stamp, id));
        }
    }

    fn replace(&mut self, snapshot: Option<(Stamp, Snapshot)>) {
        let before = std::mem::replace(&mut self.snapshot, snapshot);
        let (Some((_, old)), Some((_, new))) = (before, &self.snapshot) else { return self.sort() };
        // Mostly a state follows from the one before: then only the last events are new.
        let added = new.sealed.strip_prefix(&old.sealed[..]);
        let lists = added.map(|added| added.iter().map(|(id, _)| self.list(id)).collect::<Option<Vec<_>>>());
        let Some(Some(lists)) = lists else { return self.sort() };
        let fresh: HashSet<EventId> = lists.into_iter().flatten().chain(&new.open).copied().collect();
        if self.is_torn || old.tag != new.tag || !old.open.iter().all(|id| fresh.contains(id)) {
            return self.sort();
        }
        for id in fresh {
            if self.handled.insert(id)
                && let Some((stamp, _)) = self.events.get(&id)
            {
                self.waiting.remove(&(*stamp, id));
            }
        }
    }

    /// Works out anew which events wait.
    fn sort(&mut self) {
        let (handled, waiting, is_torn) = {
            let snapshot = self.snapshot();
            let lists = snapshot.into_iter().flat_map(|snapshot| &snapshot.sealed);
            let lists: Option<Vec<_>> = lists.map(|(id, _)| self.list(id)).collect();
            let open = snapshot.into_iter().flat_map(|snapshot| &snapshot.open);
            let known = lists.iter().flatten().copied().flatten();
            let handled: HashSet<EventId> = known.chain(open).copied().collect();
            let is_ours = |tag: u64| Some(tag) == self.tag();
            let waits = |(id, (_, tag)): &(&EventId, &(Stamp, u64))| is_ours(*tag) && !handled.contains(*id);
            let waiting = self.events.iter().filter(waits).map(|(id, (stamp, _))| (*stamp, *id)).collect();
            (handled, waiting, lists.is_none())
        };
        (self.handled, self.waiting, self.is_torn) = (handled, waiting, is_torn);
    }

    pub(crate) fn spec(&self) -> Option<&Spec> {
        self.spec.as_ref().map(|(_, spec)| spec)
    }

    fn tag(&self) -> Option<u64> {
        self.spec().map(|spec| spec.tag)
    }

    /// The state of the process that there is now, once an event went into it.
    pub(crate) fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot
            .as_ref()
            .map(|(_, snapshot)| snapshot)
            .filter(|snapshot| Some(snapshot.tag) == self.tag())
    }

    /// Tells whether the state is still the one that it was.
    pub(crate) fn state_stamp(&self) -> Option<Stamp> {
        self.snapshot.as_ref().map(|(stamp, _)| *stamp)
    }

    /// Whether an event is journaled.
    pub(crate) fn knows(&self, id: &EventId) -> bool {
        self.events.get(id).is_some_and(|(_, tag)| Some(*tag) == self.tag())
    }

    /// Whether an event is in the state.
    pub(crate) fn has_handled(&self, id: &EventId) -> bool {
        self.tag().is_some() && self.handled.contains(id)
    }

    /// How many events wait.
    pub(crate) fn pending(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing is known of it at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.spec.is_none() && self.events.is_empty()
    }

    /// The event that is to be handled next: the one that was journaled first.
    pub(crate) fn next(&self) -> Option<EventId> {
        if self.is_torn {
            return None;
        }
        self.waiting.first().map(|(_, id)| *id)
    }

    /// An event is not there after all.
    pub(crate) fn forget(&mut self, id: &EventId) {
        if let Some((stamp, _)) = self.events.remove(id) {
            self.waiting.remove(&(stamp, *id));
        }
    }

    /// What is written when an event was handled: all of it at once.
    pub(crate) fn handled(
        &self,
        event: EventId,
        state: Option<Vec<u8>>,
        outcome: Result<Vec<u8>, String>,
        (by, at_ms): (PeerId, u64),
    ) -> Result<Vec<Write>, postcard::Error> {
        let mut writes = Vec::new();
        let mut snapshot = self.snapshot().cloned().unwrap_or_default();
        snapshot.tag = self.tag().unwrap_or_default();
        snapshot.handled = snapshot.handled.saturating_add(1);
        snapshot.failed = snapshot.failed.saturating_add(u64::from(outcome.is_err()));
        (snapshot.by, snapshot.at_ms) = (Some(by), at_ms);
        snapshot.open.push(event);
        if let Some(state) = state {
            snapshot.state = state;
        }
        self.seal(&mut snapshot, at_ms, &mut writes)?;
        self.let_go(&mut snapshot, at_ms, &mut writes);
        writes.push((Field::Answer(event), Some(encode(&Answer { outcome, by, at_ms })?)));
        writes.push((Field::State, Some(encode(&snapshot)?)));
        Ok(writes)
    }

    /// Has a list name the events that it is long enough for.
    fn seal(
        &self,
        snapshot: &mut Snapshot,
        at_ms: u64,
        writes: &mut Vec<Write>,
    ) -> Result<(), postcard::Error> {
        let is_full = snapshot.open.len() >= SEAL_AT;
        if snapshot.open.len() != LIST && !is_full {
            return Ok(());
        }
        let list = &snapshot.open[..LIST];
        let id = list_id(list);
        if self.list(&id).is_none() {
            writes.push((Field::Sealed(id), Some(encode(&list)?)));
        }
        if is_full {
            snapshot.open.drain(..LIST);
            snapshot.sealed.push((id, at_ms));
        }
        Ok(())
    }

    /// Drops the oldest list, with its events, when its time is over; and a list of the same age that an owner wrote whose state did not
    /// win.
    fn let_go(&self, snapshot: &mut Snapshot, at_ms: u64, writes: &mut Vec<Write>) {
        let keep_ms = millis(KEEP_FOR);
        let is_old = |last_ms: u64| last_ms.saturating_add(keep_ms) < at_ms;
        if let Some((id, last_ms)) = snapshot.sealed.first().copied()
            && (is_old(last_ms) || snapshot.sealed.len() > MAX_SEALED)
        {
            snapshot.sealed.remove(0);
            let list = self.list(&id).into_iter().flatten();
            writes.extend(list.flat_map(|id| [(Field::Event(*id), None), (Field::Answer(*id), None)]));
            writes.push((Field::Sealed(id), None));
            return;
        }
        let is_named = |id: &EventId| snapshot.sealed.iter().any(|(named, _)| named == id);
        let mut others =
            self.sealed.iter().filter(|(id, (stamp, _))| is_old(stamp.unix_ms()) && !is_named(id));
        if let Some((id, _)) = others.next() {
            writes.push((Field::Sealed(*id), None));
        }
    }

    fn list(&self, id: &EventId) -> Option<&Vec<EventId>> {
        self.sealed.get(id).map(|(_, list)| list)
    }
}

fn is_sound(snapshot: &Snapshot) -> bool {
    snapshot.open.len() < SEAL_AT && snapshot.sealed.len() <= MAX_SEALED
}

/// What names a list of events.
fn list_id(list: &[EventId]) -> EventId {
    let mut hasher = blake3::Hasher::new();
    for id in list {
        hasher.update(&id.0);
    }
    EventId(crate::id::half(hasher.finalize()))
}

#[cfg(test)]
mod simulation;
