//! Taking cells into a tree.

use std::collections::{BTreeMap, HashSet};

use super::cell::{Inode, Stamp};
use super::{Change, Node, Register, Summary, Tree};

impl Tree {
    /// Takes one cell in. Old and known ones change nothing.
    pub(crate) fn apply(&mut self, inode: Inode, stamp: Stamp, change: Change) {
        let is_fixed = inode == Inode::ROOT || inode == Inode::LOST;
        if is_fixed && !matches!(change, Change::Mode(_)) {
            return;
        }
        let node = self.nodes.entry(inode).or_default();
        match change {
            Change::Mode(value) => {
                if node.mode.is_older_than(stamp) {
                    node.mode = Register { stamp, value };
                }
            }
            Change::Place(value) => {
                if node.place.is_older_than(stamp) {
                    self.reattach(inode, |node| node.place = Register { stamp, value });
                }
            }
            Change::Content(value) => {
                if node.content.is_older_than(stamp) {
                    let value = value.map(Summary::from);
                    self.reattach(inode, |node| node.content = Register { stamp, value });
                }
            }
        }
    }

    /// Makes a change that may move an inode, or make it come or go.
    fn reattach(&mut self, inode: Inode, change: impl FnOnce(&mut Node)) {
        let was_dir = self.is_live_dir(inode);
        self.withdraw_claim(inode);
        if let Some(node) = self.nodes.get_mut(&inode) {
            change(node);
        }
        self.make_claim(inode);
        self.judge(inode);
        let is_dir = self.is_live_dir(inode);
        if was_dir != is_dir {
            let children = self.claims.get(&inode).into_iter().flat_map(BTreeMap::values).flatten();
            for child in children.copied().collect::<Vec<_>>() {
                self.judge(child);
            }
        }
        if was_dir || is_dir {
            self.cut_cycles(inode);
        }
    }

    fn withdraw_claim(&mut self, inode: Inode) {
        let Some(place) = self.nodes.get(&inode).and_then(|node| node.place.value.as_ref()) else { return };
        let Some(names) = self.claims.get_mut(&place.parent) else { return };
        if let Some(claimants) = names.get_mut(&place.name) {
            claimants.retain(|claimant| *claimant != inode);
            if claimants.is_empty() {
                names.remove(&place.name);
            }
        }
        if names.is_empty() {
            self.claims.remove(&place.parent);
        }
    }

    fn make_claim(&mut self, inode: Inode) {
        let Some(node) = self.nodes.get(&inode).filter(|node| node.is_live()) else { return };
        if let Some(place) = &node.place.value {
            let names = self.claims.entry(place.parent).or_default();
            names.entry(place.name.clone()).or_default().push(inode);
        }
    }

    /// Decides whether an inode is a stray.
    fn judge(&mut self, inode: Inode) {
        let is_stray = self.nodes.get(&inode).is_some_and(|node| {
            let has_place = || node.place.value.as_ref().is_some_and(|place| self.is_live_dir(place.parent));
            node.is_live() && (self.cuts.contains(&inode) || !has_place())
        });
        if is_stray {
            self.strays.insert(inode);
        } else {
            self.strays.remove(&inode);
        }
    }

    /// Finds the cycles anew after a change of one directory. A cycle is either an old one, and then its cut is
    /// still a member of it, or it goes through the changed directory.
    fn cut_cycles(&mut self, changed: Inode) {
        let old = std::mem::take(&mut self.cuts);
        for start in old.iter().copied().chain([changed]) {
            let last_moved = self
                .cycle_through(start)
                .into_iter()
                .max_by_key(|member| (self.nodes.get(member).map(|node| node.place.stamp), *member));
            self.cuts.extend(last_moved);
        }
        for inode in old.into_iter().chain(self.cuts.clone()) {
            self.judge(inode);
        }
    }

    /// The directories on the cycle that `start` is on; empty if it is on none.
    fn cycle_through(&self, start: Inode) -> HashSet<Inode> {
        let mut members = HashSet::new();
        let mut at = start;
        while self.is_live_dir(at) && members.insert(at) {
            let place = self.nodes.get(&at).and_then(|node| node.place.value.as_ref());
            match place {
                Some(place) if place.parent == start => return members,
                Some(place) => at = place.parent,
                None => break,
            }
        }
        HashSet::new()
    }
}
