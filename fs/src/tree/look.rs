//! What can be seen of a tree.

use std::collections::BTreeMap;

use super::cell::{Inode, Mode, Place, Stamp};
use super::{DEFAULT_DIR_MODE, DEFAULT_FILE_MODE, Found, LINK_MODE, Listed, Miss, Tree, name};
use crate::hash::BlobHash;
use crate::path::VfsPath;
use crate::vfs::{Entry, Kind};

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

    /// The stamp of an inode's content, if it has any.
    pub(crate) fn stamp(&self, inode: Inode) -> Option<Stamp> {
        let node = self.nodes.get(&inode)?;
        node.content.value.as_ref().map(|_| node.content.stamp)
    }

    /// An inode's attributes.
    pub(crate) fn mode(&self, inode: Inode) -> Mode {
        let mode = self.nodes.get(&inode).and_then(|node| node.mode.value);
        mode.unwrap_or(Mode { mode: DEFAULT_FILE_MODE, mtime_ms: 0 })
    }

    /// When an inode was removed, in milliseconds since the Unix epoch; `None` if it was not.
    pub(crate) fn removed_at(&self, inode: Inode) -> Option<u64> {
        let node = self.nodes.get(&inode).filter(|node| node.is_removed())?;
        Some(super::version::millis(node.place.stamp))
    }

    /// Every inode that is or was at a path, as their last places tell.
    pub(crate) fn trace(&self, path: &VfsPath) -> Vec<Inode> {
        let mut at = vec![Inode::ROOT];
        for name in path.names() {
            let is_here = |node: &super::Node| {
                node.place
                    .value
                    .as_ref()
                    .is_some_and(|place| place.name == name && at.contains(&place.parent))
            };
            at = self.nodes.iter().filter(|(_, node)| is_here(node)).map(|(inode, _)| *inode).collect();
        }
        at
    }

    /// Whether this content of an inode, or a later one, has been seen.
    pub(crate) fn knows(&self, inode: Inode, stamp: Stamp) -> bool {
        self.nodes.get(&inode).is_some_and(|node| node.content.stamp >= stamp)
    }

    /// The latest stamp of an inode's content, and of the places of it and of the directories above it.
    pub(crate) fn changed(&self, inode: Inode) -> Stamp {
        let chain = self.chain(inode);
        let places = chain.iter().filter_map(|(inode, _)| Some(self.nodes.get(inode)?.place.stamp));
        places.chain(chain.first().map(|(_, content)| *content)).max().unwrap_or_default()
    }

    /// An inode and the directories above it, with the stamps of their contents.
    pub(crate) fn chain(&self, inode: Inode) -> Vec<(Inode, Stamp)> {
        let mut chain = Vec::new();
        let mut at = Some(inode);
        while let Some((inode, node)) = at.and_then(|inode| Some((inode, self.nodes.get(&inode)?))) {
            // A cycle that is not cut yet ends, too.
            if chain.iter().any(|(seen, _)| *seen == inode) {
                break;
            }
            chain.push((inode, node.content.stamp));
            at = node.place.value.as_ref().map(|place| place.parent);
        }
        chain
    }

    /// All files, those that were removed among them, with the hashes of their contents.
    pub(crate) fn files(&self) -> impl Iterator<Item = (Inode, BlobHash)> {
        self.nodes.iter().filter_map(|(inode, node)| Some((*inode, node.content.value.as_ref()?.hash?)))
    }

    /// The bytes of all files, each content counted once.
    pub(crate) fn content_bytes(&self) -> u64 {
        let live = self.nodes.values().filter(|node| node.is_live());
        let mut seen = std::collections::HashSet::new();
        live.filter_map(|node| node.content.value.as_ref())
            .filter(|summary| summary.hash.is_none_or(|hash| seen.insert(hash)))
            .map(|summary| summary.size)
            .sum()
    }

    /// How many files (with links) and directories there are.
    pub(crate) fn count(&self) -> (u64, u64) {
        let live = || self.nodes.values().filter(|node| node.is_live());
        let dirs = live().filter(|node| node.is_dir()).count() as u64;
        (live().count() as u64 - dirs, dirs)
    }

    pub(super) fn is_live_dir(&self, inode: Inode) -> bool {
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
