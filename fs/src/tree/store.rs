//! The tree and the memory that its cells lie in: the one place where this crate touches cells of memory.
//!
//! The tree is an index in RAM. It is read from all cells when the node starts, and from then on told of every
//! cell that wins, local or from a peer, before the write is acknowledged: so whoever has waited for a commit sees
//! it in the tree. The bytes of small files stay in memory's store and are read when asked for.

use std::io;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, Weak};

use starfish_dht::PeerId;
use starfish_memory::{Cell, Memory, Observer, Space, WriteError};

use super::cell::Field;
use super::lost::{Loser, Lost};
use super::version::{self, Old, Retention};
use super::{Change, Content, Found, Inode, Mode, Place, Stamp, Tree};
use crate::vfs::VfsError;

/// The space that the tree has in memory.
// WIRE: all nodes must agree.
const SPACE: &str = "fs";

/// The most cells committed at once; a recursive change of more is several commits, each of which leaves a whole
/// tree.
const MAX_BATCH_CELLS: usize = 512;
/// The most bytes committed at once.
const MAX_BATCH_BYTES: usize = 512 * 1024;

/// How often the tree is waited for, when what is read is being replaced all the time.
const MAX_CATCH_UPS: usize = 8;

/// Where memory keeps what holds for the whole swarm.
const SETTINGS: &str = "sys";
/// There, how long old contents are kept.
const RETENTION: &[u8] = b"files/retention";

/// The tree of this node, and the way to change it.
#[derive(Clone, Debug)]
pub(crate) struct TreeStore {
    memory: Memory,
    space: Space,
    tree: Arc<RwLock<Tree>>,
    lost: Arc<Lost>,
}

/// Changes of some inodes. Those of one inode are never torn apart.
#[derive(Debug, Default)]
pub(crate) struct Edits(Vec<InodeEdit>, Vec<(Inode, Vec<u8>)>);

#[derive(Debug)]
struct InodeEdit {
    inode: Inode,
    cells: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What memory calls; it must not keep the tree alive after the node's files are closed.
#[derive(Debug)]
struct Index {
    tree: Weak<RwLock<Tree>>,
    lost: Weak<Lost>,
}

impl Observer for Index {
    fn minds(&self, cell: &Cell) -> bool {
        &*cell.space == SPACE && cell.field == Content::NAME
    }

    fn lost(&self, loser: &Cell, winner: &Cell, is_there: &dyn Fn(&[u8]) -> bool) {
        let (Some(lost), Some((inode, stamp, Change::Content(Some(content))))) =
            (self.lost.upgrade(), change_of(loser))
        else {
            return;
        };
        // What was taken out on purpose is not kept, nor is what is there anyway. Who knew what they replaced have kept it.
        let is_needless = match change_of(winner) {
            Some((_, _, Change::Content(Some(winner)))) => winner == content,
            _ => true,
        };
        if !is_needless && matches!(content, Content::File(_)) && !is_there(&version::field(stamp)) {
            lost.note(Loser { inode, stamp, content });
        }
    }

    fn applied(&self, cells: &[Cell]) {
        let Some(tree) = self.tree.upgrade() else { return };
        let changes: Vec<_> =
            cells.iter().filter(|cell| &*cell.space == SPACE).filter_map(change_of).collect();
        if changes.is_empty() {
            return;
        }
        let mut tree = tree.write().unwrap_or_else(PoisonError::into_inner);
        for (inode, stamp, change) in changes {
            tree.apply(inode, stamp, change);
        }
    }
}

impl Edits {
    /// A new entry.
    pub(crate) fn create(&mut self, place: &Place, content: &Content, mode: Mode) -> Result<Inode, VfsError> {
        let inode = Inode::random();
        self.push(inode, vec![encoded(place)?, encoded(content)?, encoded(&mode)?]);
        Ok(inode)
    }

    /// A move or a removal.
    pub(crate) fn place(&mut self, inode: Inode, place: &Place) -> Result<(), VfsError> {
        self.push(inode, vec![encoded(place)?]);
        Ok(())
    }

    /// Other content.
    pub(crate) fn replace(&mut self, inode: Inode, content: &Content, mode: Mode) -> Result<(), VfsError> {
        self.push(inode, vec![encoded(content)?, encoded(&mode)?]);
        Ok(())
    }

    /// Other content, and what it was before kept under the stamp that it was written with.
    pub(crate) fn replace_keeping(
        &mut self,
        inode: Inode,
        content: &Content,
        mode: Mode,
        (stamp, old, old_mode, until_ms): (Stamp, Content, Mode, u64),
    ) -> Result<(), VfsError> {
        let old = Old { content: old, mode: old_mode, until_ms };
        let (_, bytes) = encoded(&old)?;
        self.push(inode, vec![encoded(content)?, encoded(&mode)?, (version::field(stamp), bytes)]);
        Ok(())
    }

    /// A content that lost against another one, kept as one that was replaced then.
    pub(crate) fn keep(&mut self, inode: Inode, stamp: Stamp, old: &Old) -> Result<(), VfsError> {
        let (_, bytes) = encoded(old)?;
        self.push(inode, vec![(version::field(stamp), bytes)]);
        Ok(())
    }

    /// Old contents that are kept no longer.
    pub(crate) fn forget(&mut self, inode: Inode, stamps: &[Stamp]) {
        self.1.extend(stamps.iter().map(|stamp| (inode, version::field(*stamp))));
    }

    /// The end of an inode, without anything that could be restored.
    pub(crate) fn expunge(&mut self, inode: Inode) {
        let fields = [Place::NAME, Content::NAME, Mode::NAME];
        self.1.extend(fields.map(|field| (inode, field.to_vec())));
    }

    /// Other attributes.
    pub(crate) fn mode(&mut self, inode: Inode, mode: Mode) -> Result<(), VfsError> {
        self.push(inode, vec![encoded(&mode)?]);
        Ok(())
    }

    fn push(&mut self, inode: Inode, cells: Vec<(Vec<u8>, Vec<u8>)>) {
        self.0.push(InodeEdit { inode, cells });
    }
}

impl InodeEdit {
    fn bytes(&self) -> usize {
        self.cells.iter().map(|(_, value)| value.len() + 32).sum()
    }
}

impl TreeStore {
    /// The other nodes that have a replica of the tree, also those that are away. Reads from the disk.
    pub(crate) fn replicas(&self) -> io::Result<Vec<PeerId>> {
        self.memory.members().map_err(io::Error::other)
    }

    /// Builds the tree of what memory holds, and keeps it in step from then on.
    pub(crate) async fn open(memory: Memory) -> io::Result<Self> {
        let space = memory.space(SPACE).map_err(io::Error::other)?;
        let (tree, lost) = (Arc::new(RwLock::new(Tree::default())), Arc::new(Lost::default()));
        // Observing comes first: what is then met twice does no harm, what is missed would be missing.
        memory.observe(Arc::new(Index { tree: Arc::downgrade(&tree), lost: Arc::downgrade(&lost) }));
        let load = {
            let (space, tree) = (space.clone(), Arc::clone(&tree));
            move || {
                space.for_each_cell(b"", &mut |cell| {
                    if let Some((inode, stamp, change)) = change_of(cell) {
                        tree.write().unwrap_or_else(PoisonError::into_inner).apply(inode, stamp, change);
                    }
                })
            }
        };
        tokio::task::spawn_blocking(load).await?.map_err(io::Error::other)?;
        Ok(Self { memory, space, tree, lost })
    }

    /// The tree as it is. Not to be held for long, nor across an await: commits wait for it.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Tree> {
        self.tree.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an inode is, bytes and all: the version that the tree shows.
    pub(crate) async fn content(&self, inode: Inode) -> Result<Option<Content>, VfsError> {
        for _ in 0..MAX_CATCH_UPS {
            let content = self.stored(inode).await?;
            if self.shows(inode, content.as_ref()) {
                return Ok(content);
            }
            // A commit is on disk a moment before it is in the tree. An empty one behind it waits for that.
            let empty = self.space.batch();
            self.memory.commit(empty).await.map_err(|error| failed("wait for the tree", error))?;
        }
        self.stored(inode).await
    }

    /// Whether the tree has the same content for the inode.
    fn shows(&self, inode: Inode, content: Option<&Content>) -> bool {
        let shown = self.read().entry("", &Found::Leaf(inode));
        match content {
            Some(Content::File(file)) => shown.hash == Some(file.hash.to_string()),
            Some(Content::Symlink { target }) => shown.target.as_ref() == Some(target),
            Some(Content::Dir) | None => true,
        }
    }

    async fn stored(&self, inode: Inode) -> Result<Option<Content>, VfsError> {
        let fields = self.space.fields(&inode.0).await.map_err(|error| failed("read the tree", error))?;
        let content = fields.iter().find(|(field, _)| field == Content::NAME);
        Ok(content.and_then(|(_, value)| Content::decode(value.inline()?)))
    }

    /// What an inode is now, with the stamp of its content.
    pub(crate) async fn current(&self, inode: Inode) -> Result<Option<(Stamp, Content, Mode)>, VfsError> {
        let stamp_and_mode = || {
            let tree = self.read();
            (tree.stamp(inode), tree.mode(inode))
        };
        let mut before = stamp_and_mode();
        for _ in 0..MAX_CATCH_UPS {
            let content = self.content(inode).await?;
            let after = stamp_and_mode();
            // Another content may have come meanwhile: the stamp of one must not go with the other.
            if before.0 == after.0 {
                let (stamp, mode) = after;
                return Ok(stamp.zip(content).map(|(stamp, content)| (stamp, content, mode)));
            }
            before = after;
        }
        Err(failed("read what a file is now", io::Error::other("it keeps changing")))
    }

    /// What an inode was before, with the stamps of these contents.
    pub(crate) async fn old(&self, inode: Inode) -> Result<Vec<(Stamp, Old)>, VfsError> {
        let fields = self.space.fields(&inode.0).await.map_err(|error| failed("read the tree", error))?;
        let old = fields
            .iter()
            .filter_map(|(field, value)| Some((version::stamp_of(field)?, Old::decode(value.inline()?)?)));
        Ok(old.collect())
    }

    /// How long old contents are kept. What cannot be understood counts as if it were not there.
    pub(crate) async fn retention(&self) -> Result<Retention, VfsError> {
        let kept =
            self.settings()?.get(RETENTION).await.map_err(|error| failed("read the retention", error))?;
        let retention = kept.and_then(|bytes| postcard::from_bytes(&bytes).ok());
        Ok(retention.filter(Retention::is_sound).unwrap_or_default())
    }

    /// Keeps old contents for so long from now on, in all of the swarm.
    pub(crate) async fn set_retention(&self, retention: Retention) -> Result<(), VfsError> {
        let bytes =
            postcard::to_stdvec(&retention).map_err(|error| failed("write the retention down", error))?;
        self.settings()?.set(RETENTION, bytes.into(), None).await.map_err(not_changed)?;
        Ok(())
    }

    fn settings(&self) -> Result<Space, VfsError> {
        self.memory.space(SETTINGS).map_err(|error| failed("open the settings", error))
    }

    /// All contents of an inode that are to be kept: the one that holds, or held until it was removed, and those before
    /// it; and the stamps of those that have had their time.
    pub(crate) async fn retained(
        &self,
        inode: Inode,
        now_ms: u64,
        retention: Retention,
    ) -> Result<(Vec<Content>, Vec<Stamp>), VfsError> {
        let removed = self.read().removed_at(inode);
        let old = self.old(inode).await?;
        let until: Vec<u64> = old.iter().map(|(_, old)| old.until_ms).chain(removed).collect();
        let expired = version::expired(&until, now_ms, retention);
        let (mut kept, mut gone) = (Vec::new(), Vec::new());
        for ((stamp, old), is_expired) in old.into_iter().zip(&expired) {
            if *is_expired { gone.push(stamp) } else { kept.push(old.content) }
        }
        let is_gone = removed.is_some() && expired.last() == Some(&true);
        if !is_gone {
            kept.extend(self.content(inode).await?);
        }
        Ok((kept, gone))
    }

    /// Whether no part of the tree was lost and is still to come back, and all contents that lost against others are kept.
    pub(crate) fn is_whole(&self) -> bool {
        self.memory.is_whole() && !self.lost.is_waiting()
    }

    /// Contents that lost against others.
    pub(crate) fn lost(&self) -> &Lost {
        &self.lost
    }

    /// Returns when all that is here of the tree outlives a failure of the machine.
    pub(crate) async fn flush(&self) -> Result<(), WriteError> {
        self.memory.flush().await
    }

    /// Makes changes, in order; what fits a batch is atomic. On return they are on disk and in the tree.
    pub(crate) async fn commit(&self, edits: Edits) -> Result<(), VfsError> {
        for forgotten in edits.1.chunks(MAX_BATCH_CELLS) {
            let mut batch = self.space.batch();
            for (inode, field) in forgotten {
                batch.delete(inode.0.to_vec(), field.clone());
            }
            self.memory.commit(batch).await.map_err(not_changed)?;
        }
        let mut edits = edits.0.into_iter().peekable();
        while edits.peek().is_some() {
            let (mut batch, mut cells, mut bytes) = (self.space.batch(), 0, 0);
            while let Some(edit) = edits.next_if(|edit| {
                cells == 0
                    || (cells + edit.cells.len() <= MAX_BATCH_CELLS
                        && bytes + edit.bytes() <= MAX_BATCH_BYTES)
            }) {
                cells += edit.cells.len();
                bytes += edit.bytes();
                for (field, value) in edit.cells {
                    batch.put(edit.inode.0.to_vec(), field, value);
                }
            }
            self.memory.commit(batch).await.map_err(not_changed)?;
        }
        Ok(())
    }
}

fn change_of(cell: &Cell) -> Option<(Inode, Stamp, Change)> {
    let inode = Inode::from_key(&cell.key)?;
    let stamp = Stamp { time: cell.stamp.time, author: *cell.stamp.author.as_bytes() };
    let value = match &cell.content {
        starfish_memory::Content::Value(value) => Some(value.as_ref()),
        _ => None,
    };
    let change = match cell.field.as_ref() {
        field if field == Place::NAME => Change::Place(value.and_then(Place::decode)),
        field if field == Content::NAME => Change::Content(value.and_then(Content::decode)),
        field if field == Mode::NAME => Change::Mode(value.and_then(Mode::decode)),
        _ => return None,
    };
    Some((inode, stamp, change))
}

fn encoded<F: Field>(value: &F) -> Result<(Vec<u8>, Vec<u8>), VfsError> {
    Ok((F::NAME.to_vec(), value.encode().map_err(|error| failed("encode a cell", error))?))
}

fn not_changed(error: WriteError) -> VfsError {
    if error.is_no_room() {
        return VfsError::NoSpace { what: "a change of the tree".to_owned() };
    }
    failed("change the tree", error)
}

fn failed(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> VfsError {
    VfsError::Io { what: format!("could not {what}"), source: io::Error::other(error) }
}
