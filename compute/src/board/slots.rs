//! The slots of a node: what is at work in them, and which job goes into the next.

use starfish_dht::PeerId;

use super::{Action, Board, Millis, Terms};
use crate::notice::Capacity;
use crate::task::JobId;

impl Board {
    /// What this node could take on now.
    pub fn capacity(&self) -> Capacity {
        let busy = u32::try_from(self.claims.len()).unwrap_or(u32::MAX).saturating_add(self.lent);
        Capacity { slots: self.slots, free: self.slots.saturating_sub(busy), memory_bytes: self.memory_bytes }
    }

    /// What a node that can be reached could take on, as far as it has said so.
    pub fn capacity_of(&self, node: PeerId) -> Option<Capacity> {
        if node == self.me { Some(self.capacity()) } else { self.peers.get(&node).copied().flatten() }
    }

    /// Takes a free slot for something else than jobs of this board, if there is one.
    pub fn lend(&mut self) -> bool {
        let is_free = self.capacity().free > 0;
        self.lent += u32::from(is_free);
        is_free
    }

    /// A slot that was lent is free again.
    pub fn give_back(&mut self, now: Millis) -> Vec<Action> {
        self.lent = self.lent.saturating_sub(1);
        self.dispatch(now)
    }

    /// Whether there is a job that this node would run if it had a free slot.
    pub fn has_waiting(&self, now: Millis) -> bool {
        self.claimable(now).next().is_some()
    }

    /// Claims as many jobs as there are free slots: its own first, since their data is here, then the oldest.
    pub(super) fn dispatch(&mut self, now: Millis) -> Vec<Action> {
        let free = self.capacity().free as usize;
        if free == 0 {
            return Vec::new();
        }
        let mut open: Vec<_> = self.claimable(now).collect();
        open.sort_unstable();
        open.truncate(free);
        self.claims.extend(open.iter().map(|(_, key)| *key));
        open.into_iter().map(|(_, (keeper, job))| Action::TryClaim { keeper, job }).collect()
    }

    /// The jobs that this node may run and does not ask for already, each with what decides its turn.
    fn claimable(&self, now: Millis) -> impl Iterator<Item = ((bool, Millis), (PeerId, JobId))> {
        let mine = self.kept.iter().filter(move |(_, kept)| kept.is_open_to(self.me, now));
        let mine = mine.map(|(job, kept)| (&kept.terms, (false, kept.submitted), (self.me, *job)));
        let foreign = self.open.iter().filter_map(|key| Some((key, self.heard.get(key)?)));
        let foreign = foreign
            .filter(move |((keeper, _), heard)| heard.not_before <= now && self.peers.contains_key(keeper));
        let foreign = foreign.map(|(key, heard)| (&heard.notice.terms, (true, heard.first), *key));
        let may_run = |terms: &Terms| {
            terms.on.is_none_or(|on| on == self.me) && terms.memory_bytes <= self.memory_bytes
        };
        mine.chain(foreign)
            .filter(move |(terms, _, key)| may_run(terms) && !self.claims.contains(key))
            .map(|(_, order, key)| (order, key))
    }
}
