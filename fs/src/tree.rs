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
//! - **Of two edits of one file that did not know of each other the later one shows**, and the other is a version of it ([`lost`]).
//! - **A removal removes what its author saw.** If the content was edited elsewhere meanwhile, the file stays.
//! - **A live inode whose directory is gone, or has not arrived yet, shows in `/lost+found`** until that changes.
//! - **A cycle** (two directories moved into each other) is cut at the member that was moved last (by stamp, then
//!   inode): it shows in `/lost+found`, with everything below it.
//!
//! Together: every live inode is reachable, by exactly one path.
//!
//! [`cell`] is the format, [`change`] takes cells in, [`look`] answers, [`store`] keeps a tree in step with memory.

pub(crate) mod cell;
mod change;
mod look;
pub(crate) mod lost;
mod name;
#[cfg(test)]
mod proptests;
pub(crate) mod store;
pub(crate) mod version;

use std::collections::{BTreeMap, BTreeSet, HashMap};

pub(crate) use cell::{Content, Inode, Mode, Place, Stamp};

use crate::hash::BlobHash;
use crate::vfs::Kind;

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
