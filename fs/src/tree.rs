//! Names and directories: what tree the cells of all inodes make.
//!
//! A pure state machine: cells go in, in any order and any number of times, and the tree that can be seen is a
//! function of the greatest cell of each field alone. So all nodes that have the same cells see the same tree.
//! The rules for what cannot happen on one machine but does happen on two:
//!
//! - **Two directories under one name are one** in view: they list, resolve, move and go together. New entries
//!   are made in the one with the least inode.
//! - **Two files under one name both stay.** A directory of that name keeps it; else the file whose place was
//!   taken first (by stamp, then inode) does. The others show as `name (conflict of <author>)`.
//! - **A removal removes what its author saw.** If the content was edited elsewhere meanwhile, the file stays.
//! - **A live inode whose directory is gone, or has not arrived yet, shows in `/lost+found`** until that changes.
//! - **A cycle** (two directories moved into each other) is cut at the member that was moved last (by stamp, then
//!   inode): it shows in `/lost+found`, with everything below it.
//!
//! Together: every live inode is reachable, by exactly one path.
//!
//! [`cell`] is the format, [`store`] keeps a tree in step with the memory.

pub(crate) mod cell;
mod name;
#[cfg(test)]
mod proptests;
pub(crate) mod store;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

pub(crate) use cell::{Content, Inode, Mode, Place, Stamp};

use crate::hash::BlobHash;
use crate::path::VfsPath;
use crate::vfs::{Entry, Kind};

/// Permissions of a directory that was never given any.
pub(crate) const DEFAULT_DIR_MODE: u32 = 0o755;
/// Permissions of a file that was never given any.
pub(crate) const DEFAULT_FILE_MODE: u32 = 0o644;
/// Permissions of every link, as on Linux.
pub(crate) const LINK_MODE: u32 = 0o777;

/// The value that a cell brings: `None` for a tombstone, or for bytes that do not decode.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Place(Option<Place>),
    Content(Option<Content>),
    Mode(Option<Mode>),
}

/// What a name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A directory: all inodes that make it up, the least first.
    Dir(Vec<Inode>),
    /// A file or link.
    Leaf(Inode),
}

/// Why a path leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Miss {
    /// A name is not there.
    NotFound,
    /// A name before the last one is no directory.
    NotADirectory,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) found: Found,
}

/// The tree. See the module's text for its rules.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    nodes: HashMap<Inode, Node>,
    /// Live inodes by the parent and the name that they claim, whether or not that parent is there.
    claims: HashMap<Inode, BTreeMap<String, Vec<Inode>>>,
    /// Live inodes whose claim cannot be met; they show in `/lost+found`.
    strays: BTreeSet<Inode>,
    /// Those of the strays at which a cycle is cut.
    cuts: BTreeSet<Inode>,
}

/// What is known of an inode.
#[derive(Debug, Default)]
struct Node {
    place: Register<Place>,
    content: Register<Summary>,
    mode: Register<Mode>,
}

/// The greatest write of one field.
#[derive(Debug)]
struct Register<T> {
    stamp: Stamp,
    value: Option<T>,
}

/// What listings need of a content; the bytes stay in memory's store.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Summary {
    kind: Kind,
    size: u64,
    hash: Option<BlobHash>,
    target: Option<Box<str>>,
}

impl<T> Default for Register<T> {
    fn default() -> Self {
        Self { stamp: Stamp::default(), value: None }
    }
}

impl<T> Register<T> {
    fn is_older_than(&self, stamp: Stamp) -> bool {
        self.stamp < stamp
    }
}

impl From<Content> for Summary {
    fn from(content: Content) -> Self {
        let kind = content.kind();
        match content {
            Content::Dir => Self { kind, size: 0, hash: None, target: None },
            Content::Symlink { target } => {
                Self { kind, size: target.len() as u64, hash: None, target: Some(target.into()) }
            }
            Content::File(file) => Self { kind, size: file.size, hash: Some(file.hash), target: None },
        }
    }
}

impl Node {
    fn is_live(&self) -> bool {
        self.content.value.is_some() && !self.is_removed()
    }

    fn is_removed(&self) -> bool {
        self.place.value.as_ref().is_some_and(|place| place.removed == Some(self.content.stamp))
    }

    fn is_dir(&self) -> bool {
        self.content.value.as_ref().is_some_and(|summary| summary.kind == Kind::Dir)
    }
}

impl Found {
    /// The inode that stands for it: of a directory, the one that new entries go to.
    pub(crate) fn inode(&self) -> Inode {
        match self {
            Self::Dir(dirs) => dirs.first().copied().unwrap_or(Inode::ROOT),
            Self::Leaf(inode) => *inode,
        }
    }

    /// All inodes behind it.
    pub(crate) fn inodes(&self) -> &[Inode] {
        match self {
            Self::Dir(dirs) => dirs,
            Self::Leaf(inode) => std::slice::from_ref(inode),
        }
    }
}

/// Looking.
impl Tree {
    /// What `path` leads to; links are not followed.
    pub(crate) fn find(&self, path: &VfsPath) -> Result<Found, Miss> {
        let mut found = Found::Dir(vec![Inode::ROOT]);
        for name in path.names() {
            let Found::Dir(dirs) = &found else { return Err(Miss::NotADirectory) };
            found = self.look(dirs, name).ok_or(Miss::NotFound)?;
        }
        Ok(found)
    }

    /// What is under a name of a directory.
    pub(crate) fn look(&self, dirs: &[Inode], name: &str) -> Option<Found> {
        let candidates = self.candidates(dirs, name);
        match self.split(candidates) {
            (dirs, _) if !dirs.is_empty() => Some(Found::Dir(dirs)),
            (_, leaves) if !leaves.is_empty() => leaves.first().copied().map(Found::Leaf),
            // Conflict names depend on the whole directory.
            _ if name::may_be_conflict(name) => {
                self.list(dirs).into_iter().find(|listed| listed.name == name).map(|listed| listed.found)
            }
            _ => None,
        }
    }

    /// The names of a directory, sorted.
    pub(crate) fn list(&self, dirs: &[Inode]) -> Vec<Listed> {
        let mut plain = BTreeMap::new();
        let mut conflicts = Vec::new();
        for (name, candidates) in self.all_candidates(dirs) {
            let (dirs, mut leaves) = self.split(candidates);
            let found = if dirs.is_empty() { Found::Leaf(leaves.remove(0)) } else { Found::Dir(dirs) };
            conflicts.extend(leaves.into_iter().map(|leaf| (name.clone(), leaf)));
            plain.insert(name, found);
        }
        for (name, leaf) in conflicts {
            let author = self.nodes.get(&leaf).map_or([0; 16], |node| node.place.stamp.author);
            let shown = name::conflict(&name, author, leaf, |name| plain.contains_key(name));
            plain.insert(shown, Found::Leaf(leaf));
        }
        plain.into_iter().map(|(name, found)| Listed { name, found }).collect()
    }

    /// Whether a directory shows nothing.
    pub(crate) fn is_empty(&self, dirs: &[Inode]) -> bool {
        self.all_candidates(dirs).is_empty()
    }

    /// Describes what was found under `name`.
    pub(crate) fn entry(&self, name: &str, found: &Found) -> Entry {
        let inode = found.inode();
        let node = self.nodes.get(&inode);
        let summary = node.and_then(|node| node.content.value.as_ref());
        let kind = summary.map_or(Kind::Dir, |summary| summary.kind);
        let default_mode = match kind {
            Kind::Dir => DEFAULT_DIR_MODE,
            Kind::File => DEFAULT_FILE_MODE,
            Kind::Symlink => LINK_MODE,
        };
        let mode = node.and_then(|node| node.mode.value);
        Entry {
            name: name.to_owned(),
            kind,
            size: summary.map_or(0, |summary| summary.size),
            mode: mode.map_or(default_mode, |mode| mode.mode),
            mtime_ms: mode.map_or(0, |mode| mode.mtime_ms),
            hash: summary.and_then(|summary| summary.hash).map(|hash| hash.to_string()),
            target: summary.and_then(|summary| summary.target.as_deref()).map(str::to_owned),
            inode: inode.to_string(),
        }
    }

    /// The cell with which `inode` is removed as it is seen here; `None` if it is not there.
    pub(crate) fn removal(&self, inode: Inode) -> Option<Place> {
        let node = self.nodes.get(&inode).filter(|node| node.is_live())?;
        let place = node.place.value.clone().unwrap_or(Place {
            parent: Inode::LOST,
            name: name::of_nameless(inode),
            removed: None,
        });
        Some(Place { removed: Some(node.content.stamp), ..place })
    }

    /// How many files (with links) and directories there are.
    pub(crate) fn count(&self) -> (u64, u64) {
        let live = || self.nodes.values().filter(|node| node.is_live());
        let dirs = live().filter(|node| node.is_dir()).count() as u64;
        (live().count() as u64 - dirs, dirs)
    }

    fn is_live_dir(&self, inode: Inode) -> bool {
        inode == Inode::ROOT
            || inode == Inode::LOST
            || self.nodes.get(&inode).is_some_and(|node| node.is_live() && node.is_dir())
    }

    /// Live inodes under exactly this name.
    fn candidates(&self, dirs: &[Inode], name: &str) -> Vec<Inode> {
        let claims = dirs.iter().filter_map(|dir| self.claims.get(dir)?.get(name)).flatten();
        let mut candidates: Vec<Inode> = claims.copied().filter(|inode| !self.cuts.contains(inode)).collect();
        if dirs.contains(&Inode::LOST) {
            candidates.extend(self.strays.iter().filter(|stray| self.stray_name(**stray) == name));
        }
        if dirs.contains(&Inode::ROOT) && name == name::LOST_AND_FOUND && self.holds_lost() {
            candidates.push(Inode::LOST);
        }
        candidates
    }

    /// Live inodes by name.
    fn all_candidates(&self, dirs: &[Inode]) -> BTreeMap<String, Vec<Inode>> {
        let mut all: BTreeMap<String, Vec<Inode>> = BTreeMap::new();
        for (name, claims) in dirs.iter().filter_map(|dir| self.claims.get(dir)).flatten() {
            for inode in claims.iter().filter(|inode| !self.cuts.contains(inode)) {
                all.entry(name.clone()).or_default().push(*inode);
            }
        }
        if dirs.contains(&Inode::LOST) {
            for stray in &self.strays {
                all.entry(self.stray_name(*stray)).or_default().push(*stray);
            }
        }
        if dirs.contains(&Inode::ROOT) && self.holds_lost() {
            all.entry(name::LOST_AND_FOUND.to_owned()).or_default().push(Inode::LOST);
        }
        all
    }

    fn holds_lost(&self) -> bool {
        let claims = self.claims.get(&Inode::LOST).into_iter().flat_map(BTreeMap::values).flatten();
        !self.strays.is_empty() || claims.into_iter().any(|inode| !self.cuts.contains(inode))
    }

    fn stray_name(&self, stray: Inode) -> String {
        let place = self.nodes.get(&stray).and_then(|node| node.place.value.as_ref());
        place.map_or_else(|| name::of_nameless(stray), |place| place.name.clone())
    }

    /// Directories by inode, and leaves by who took the name first.
    fn split(&self, candidates: Vec<Inode>) -> (Vec<Inode>, Vec<Inode>) {
        let (mut dirs, mut leaves): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(|inode| self.is_live_dir(*inode));
        dirs.sort_unstable();
        leaves.sort_unstable_by_key(|inode| (self.nodes.get(inode).map(|node| node.place.stamp), *inode));
        (dirs, leaves)
    }
}

/// Changing.
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
