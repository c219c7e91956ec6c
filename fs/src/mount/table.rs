//! Inode numbers: which number the kernel was given for which place in the tree. Pure; no I/O, no clock.
//!
//! A node knows its directory and its name in it, and a path is made by walking up. So moving a directory changes
//! one node, and everything below follows. A node stays for as long as the kernel may name it (it counts lookups
//! and says how many it forgets), something below it stays, or it is pinned; that bounds the table by what the
//! kernel itself keeps in memory. Numbers are never used again.

use std::collections::HashMap;

use super::fault::Fault;
use crate::path::VfsPath;
use crate::vfs::{Entry, Kind};

/// The root's number, which the kernel knows without asking.
pub(super) const ROOT: u64 = 1;

/// What a content was when the kernel last began to cache it.
pub(super) type Version = (Option<String>, u64);

#[derive(Debug)]
pub(super) struct Table {
    nodes: HashMap<u64, Node>,
    next: u64,
}

#[derive(Debug)]
struct Node {
    /// Its directory and its name there; `None` for the root, and for what was removed or replaced.
    place: Option<(u64, String)>,
    kind: Kind,
    /// The tree's own name for it; `None` for a file that the tree does not have yet.
    identity: Option<String>,
    children: HashMap<String, u64>,
    /// How often the kernel was told the number and has not forgotten it.
    lookups: u64,
    /// How many others need it: open handles, mostly.
    pins: u64,
    cached: Option<Version>,
}

impl Default for Table {
    fn default() -> Self {
        let mut root = Node::new(None, Kind::Dir, None);
        // The kernel never forgets the root.
        root.pins = 1;
        Self { nodes: [(ROOT, root)].into(), next: ROOT + 1 }
    }
}

impl Node {
    fn new(place: Option<(u64, String)>, kind: Kind, identity: Option<String>) -> Self {
        Self { place, kind, identity, children: HashMap::new(), lookups: 0, pins: 0, cached: None }
    }
}

/// Looking.
impl Table {
    /// Where the inode is in the tree now.
    pub(super) fn path(&self, ino: u64) -> Result<VfsPath, Fault> {
        let mut names = Vec::new();
        let mut at = ino;
        while at != ROOT {
            let node = self.nodes.get(&at).ok_or(Fault::Stale(ino))?;
            let (parent, name) = node.place.as_ref().ok_or(Fault::Stale(ino))?;
            names.push(name.as_str());
            at = *parent;
        }
        names.reverse();
        Ok(VfsPath::parse(&format!("/{}", names.join("/")))?)
    }

    /// The number of `name` in `parent`, if the kernel was given one.
    pub(super) fn child(&self, parent: u64, name: &str) -> Option<u64> {
        self.nodes.get(&parent)?.children.get(name).copied()
    }

    /// The directory that holds the inode, and its name there.
    pub(super) fn place(&self, ino: u64) -> Option<(u64, String)> {
        self.nodes.get(&ino)?.place.clone()
    }

    /// What the inode is.
    pub(super) fn kind(&self, ino: u64) -> Option<Kind> {
        Some(self.nodes.get(&ino)?.kind)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.nodes.len()
    }
}

/// Giving out and taking back.
impl Table {
    /// The number of what the tree just said stands at a place, which is given to the kernel once more. Another file
    /// than before (it was replaced on another node) is another number.
    pub(super) fn found(&mut self, parent: u64, entry: &Entry) -> u64 {
        let known = self.child(parent, &entry.name).filter(|ino| self.is_same(*ino, entry));
        let ino = known.unwrap_or_else(|| self.add(parent, &entry.name, entry.kind, None));
        self.identify(ino, &entry.inode);
        self.look_up(ino);
        ino
    }

    /// The same for an entry of a listing, which may be older than what is known: nothing is replaced by it.
    pub(super) fn listed(&mut self, parent: u64, entry: &Entry) -> Option<u64> {
        match self.child(parent, &entry.name) {
            None => Some(self.found(parent, entry)),
            Some(ino) if self.kind(ino) == Some(entry.kind) => {
                self.look_up(ino);
                Some(ino)
            }
            Some(_) => None,
        }
    }

    /// A file that was just made here and that the tree does not know yet.
    pub(super) fn made(&mut self, parent: u64, name: &str) -> u64 {
        let ino = self.add(parent, name, Kind::File, None);
        self.look_up(ino);
        ino
    }

    /// The kernel is told the number once more.
    pub(super) fn look_up(&mut self, ino: u64) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.lookups += 1;
        }
    }

    /// The kernel forgets so many of the times that it was told the number.
    pub(super) fn forget(&mut self, ino: u64, lookups: u64) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.lookups = node.lookups.saturating_sub(lookups);
        }
        self.drop_unused(ino);
    }

    /// Keeps the node although the kernel may forget it.
    pub(super) fn pin(&mut self, ino: u64) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.pins += 1;
        }
    }

    /// The opposite of [`Table::pin`].
    pub(super) fn unpin(&mut self, ino: u64) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.pins = node.pins.saturating_sub(1);
        }
        self.drop_unused(ino);
    }

    fn is_same(&self, ino: u64, entry: &Entry) -> bool {
        let Some(node) = self.nodes.get(&ino) else { return false };
        // A directory may get another identity when two of the same name grow together; who stands in it stays in it.
        let is_known = |identity: &String| entry.kind == Kind::Dir || *identity == entry.inode;
        node.kind == entry.kind && node.identity.as_ref().is_none_or(is_known)
    }

    fn add(&mut self, parent: u64, name: &str, kind: Kind, identity: Option<String>) -> u64 {
        let ino = self.next;
        self.next += 1;
        self.nodes.insert(ino, Node::new(None, kind, identity));
        self.put(ino, parent, name);
        ino
    }

    fn drop_unused(&mut self, mut ino: u64) {
        // A directory may have waited for its last child to go.
        while let Some(node) = self.nodes.get(&ino) {
            if node.lookups > 0 || node.pins > 0 || !node.children.is_empty() {
                return;
            }
            let parent = self.take(ino);
            self.nodes.remove(&ino);
            let Some(parent) = parent else { return };
            ino = parent;
        }
    }
}

/// Changing.
impl Table {
    /// The tree's own name for the inode.
    pub(super) fn identify(&mut self, ino: u64, identity: &str) {
        if let Some(node) = self.nodes.get_mut(&ino)
            && node.identity.as_deref() != Some(identity)
        {
            node.identity = Some(identity.to_owned());
        }
    }

    /// The inode has a new place; what stood there has none any more.
    pub(super) fn moved(&mut self, ino: u64, parent: u64, name: &str) {
        let old = self.take(ino);
        self.put(ino, parent, name);
        if let Some(old) = old {
            self.drop_unused(old);
        }
    }

    /// The inode was removed from the tree.
    pub(super) fn removed(&mut self, ino: u64) {
        if let Some(parent) = self.take(ino) {
            self.drop_unused(parent);
        }
    }

    /// Whether what the kernel has cached of the content is `version`; from now on it is.
    pub(super) fn is_cached(&mut self, ino: u64, version: Version) -> bool {
        let Some(node) = self.nodes.get_mut(&ino) else { return false };
        let is_cached = node.cached.as_ref() == Some(&version);
        node.cached = Some(version);
        is_cached
    }

    /// What the kernel has cached is no version that the tree ever had.
    pub(super) fn uncached(&mut self, ino: u64) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.cached = None;
        }
    }

    fn put(&mut self, ino: u64, parent: u64, name: &str) {
        let Some(directory) = self.nodes.get_mut(&parent) else { return };
        let replaced = directory.children.insert(name.to_owned(), ino);
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.place = Some((parent, name.to_owned()));
        }
        if let Some(node) = replaced.filter(|old| *old != ino).and_then(|old| self.nodes.get_mut(&old)) {
            node.place = None;
        }
    }

    /// Takes the inode from its place, and says in which directory that was.
    fn take(&mut self, ino: u64) -> Option<u64> {
        let (parent, name) = self.nodes.get_mut(&ino)?.place.take()?;
        if let Some(directory) = self.nodes.get_mut(&parent) {
            directory.children.remove(&name);
        }
        Some(parent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, kind: Kind, identity: &str) -> Entry {
        Entry {
            name: name.to_owned(),
            kind,
            size: 0,
            mode: 0o644,
            mtime_ms: 0,
            hash: None,
            target: None,
            inode: identity.to_owned(),
        }
    }

    fn path(table: &Table, ino: u64) -> String {
        table.path(ino).unwrap().to_string()
    }

    #[test]
    fn what_is_in_a_directory_follows_when_it_is_moved() {
        let mut table = Table::default();
        let a = table.found(ROOT, &entry("a", Kind::Dir, "1"));
        let b = table.found(a, &entry("b", Kind::Dir, "2"));
        let f = table.found(b, &entry("f", Kind::File, "3"));
        assert_eq!(path(&table, f), "/a/b/f");
        table.moved(a, ROOT, "z");
        assert_eq!(path(&table, f), "/z/b/f");
        assert_eq!(table.child(ROOT, "a"), None);
        table.moved(b, ROOT, "b");
        assert_eq!(path(&table, f), "/b/f");
    }

    #[test]
    fn a_file_that_is_replaced_keeps_its_number_and_loses_its_place() {
        let mut table = Table::default();
        let old = table.found(ROOT, &entry("f", Kind::File, "1"));
        let new = table.found(ROOT, &entry("new", Kind::File, "2"));
        table.moved(new, ROOT, "f");
        assert!(matches!(table.path(old), Err(Fault::Stale(_))));
        assert_eq!(path(&table, new), "/f");
        assert_eq!(table.found(ROOT, &entry("f", Kind::File, "2")), new);
        assert_ne!(table.found(ROOT, &entry("f", Kind::File, "3")), new, "another node replaced it");
    }

    #[test]
    fn an_old_listing_replaces_nothing() {
        let mut table = Table::default();
        let ino = table.found(ROOT, &entry("f", Kind::File, "new"));
        assert_eq!(table.listed(ROOT, &entry("f", Kind::File, "old")), Some(ino));
        assert_eq!(table.listed(ROOT, &entry("f", Kind::Dir, "old")), None);
        assert_eq!(path(&table, ino), "/f");
    }

    #[test]
    fn what_the_kernel_forgets_is_forgotten_in_whatever_order() {
        let mut table = Table::default();
        let a = table.found(ROOT, &entry("a", Kind::Dir, "1"));
        let f = table.found(a, &entry("f", Kind::File, "2"));
        table.found(a, &entry("f", Kind::File, "2"));
        table.forget(a, 1);
        assert_eq!(path(&table, f), "/a/f", "a directory stays for what is in it");
        table.pin(f);
        table.forget(f, 2);
        assert_eq!(path(&table, f), "/a/f", "a file stays while it is open");
        table.unpin(f);
        assert_eq!(table.len(), 1, "only the root is left");
        table.forget(ROOT, 100);
        assert_eq!(path(&table, ROOT), "/");
    }

    #[test]
    fn a_file_made_here_is_the_one_that_the_tree_shows_later() {
        let mut table = Table::default();
        let ino = table.made(ROOT, "f");
        table.identify(ino, "1");
        assert_eq!(table.found(ROOT, &entry("f", Kind::File, "1")), ino);
        table.removed(ino);
        assert_ne!(table.found(ROOT, &entry("f", Kind::File, "1")), ino);
    }

    #[test]
    fn the_kernel_keeps_its_pages_only_while_the_content_is_the_same() {
        let mut table = Table::default();
        let ino = table.made(ROOT, "f");
        let version = |hash: &str| (Some(hash.to_owned()), 7);
        assert!(!table.is_cached(ino, version("a")));
        assert!(table.is_cached(ino, version("a")));
        assert!(!table.is_cached(ino, version("b")));
        table.uncached(ino);
        assert!(!table.is_cached(ino, version("b")));
    }
}
