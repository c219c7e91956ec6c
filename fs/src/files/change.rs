//! Changing names and attributes: looks at the tree, then commits a few cells. No bytes of files move.

use super::{Files, Spot, about, now_ms};
use crate::links::Last;
use crate::path::{MAX_PATH_BYTES, VfsPath};
use crate::tree::store::Edits;
use crate::tree::{Content, DEFAULT_DIR_MODE, Found, Inode, LINK_MODE, Mode, Place, Tree};
use crate::vfs::{Attributes, Entry, VfsError};
use crate::vfs::{Kind, Removal};

/// One entry of a directory that is copied, with the place of its copy.
struct Copied {
    source: Found,
    entry: Entry,
    /// Index of the copied directory that holds it, in the order of copying; `None` for the topmost.
    parent: Option<usize>,
}

impl Files {
    pub(super) async fn make_dir(&self, path: &VfsPath) -> Result<Entry, VfsError> {
        let at = self.resolve(path, Last::Keep)?;
        self.make(path, &at, &Content::Dir, DEFAULT_DIR_MODE).await
    }

    /// As `mkdir -p` does: what is missing on the way is made, links on the way are followed.
    pub(super) async fn make_dirs(&self, path: &VfsPath) -> Result<Entry, VfsError> {
        let mut on_the_way = VfsPath::root();
        for name in path.names() {
            on_the_way = on_the_way.join(name)?;
            let is_last = on_the_way == *path;
            let at = self.resolve(&on_the_way, Last::Follow)?;
            let made = match self.find(&at) {
                Err(VfsError::NotFound { .. }) => {
                    self.make(path, &at, &Content::Dir, DEFAULT_DIR_MODE).await.err()
                }
                Err(error) => Some(error),
                Ok(_) => None,
            };
            match (made, self.find(&at)) {
                (None | Some(VfsError::Exists { .. }), Ok(Found::Dir(_))) => {}
                (_, Ok(Found::Leaf(_))) if is_last => return Err(VfsError::Exists { path: path.clone() }),
                (_, Ok(Found::Leaf(_))) => return Err(VfsError::NotADirectory { path: path.clone() }),
                (Some(error), _) | (None, Err(error)) => return Err(about(error, path)),
            }
        }
        self.entry(&self.resolve(path, Last::Follow)?)
    }

    pub(super) async fn make_link(&self, path: &VfsPath, target: &str) -> Result<Entry, VfsError> {
        if target.is_empty() || target.len() > MAX_PATH_BYTES || target.contains('\0') {
            return Err(VfsError::Invalid { path: path.clone(), reason: "a link cannot point there" });
        }
        let at = self.resolve(path, Last::Keep)?;
        self.make(path, &at, &Content::Symlink { target: target.to_owned() }, LINK_MODE).await
    }

    async fn make(
        &self,
        path: &VfsPath,
        at: &VfsPath,
        content: &Content,
        mode: u32,
    ) -> Result<Entry, VfsError> {
        if at.is_root() {
            return Err(VfsError::Exists { path: path.clone() });
        }
        let _guard = self.inner.locks.entry(at).await;
        let spot = self.spot(at).map_err(|error| about(error, path))?;
        if spot.existing.is_some() {
            return Err(VfsError::Exists { path: path.clone() });
        }
        let mut edits = Edits::default();
        edits.create(&spot.place(), content, Mode { mode, mtime_ms: now_ms() })?;
        self.inner.tree.commit(edits).await?;
        self.entry(at)
    }

    pub(super) async fn remove_entry(&self, path: &VfsPath, removal: Removal) -> Result<(), VfsError> {
        let at = self.resolve(path, Last::Keep)?;
        if let Found::Leaf(_) = self.find(&at).map_err(|error| about(error, path))? {
            let _guard = self.inner.locks.entry(&at).await;
            if let found @ Found::Leaf(_) = self.find(&at).map_err(|error| about(error, path))? {
                return self.remove_all(&[found]).await;
            }
        }
        let _guard = self.inner.locks.whole().await;
        let found = self.find(&at).map_err(|error| about(error, path))?;
        check_movable(&found, path)?;
        let doomed = {
            let tree = self.inner.tree.read();
            if removal == Removal::Single && !tree.is_empty(found.inodes()) {
                return Err(VfsError::NotEmpty { path: path.clone() });
            }
            below(&tree, found)
        };
        self.remove_all(&doomed).await
    }

    /// Removes in order. Directories come after what is in them, so that a crash in between leaves a whole tree.
    async fn remove_all(&self, doomed: &[Found]) -> Result<(), VfsError> {
        let mut edits = Edits::default();
        {
            let tree = self.inner.tree.read();
            for inode in doomed.iter().flat_map(Found::inodes) {
                if let Some(place) = tree.removal(*inode) {
                    edits.place(*inode, &place)?;
                }
            }
        }
        self.inner.tree.commit(edits).await
    }

    pub(super) async fn move_entry(&self, from: &VfsPath, to: &VfsPath) -> Result<(), VfsError> {
        let (source, target) = (self.resolve(from, Last::Keep)?, self.resolve(to, Last::Keep)?);
        let _guard = self.inner.locks.whole().await;
        let moved = self.find(&source).map_err(|error| about(error, from))?;
        check_movable(&moved, from)?;
        if source == target {
            return Ok(());
        }
        if target.starts_with(&source) {
            return Err(VfsError::Invalid { path: to.clone(), reason: "is inside what is to be moved" });
        }
        let spot = self.spot(&target).map_err(|error| about(error, to))?;
        let mut edits = Edits::default();
        {
            let tree = self.inner.tree.read();
            if let Some(existing) = &spot.existing {
                check_replaceable(&tree, &moved, existing, to)?;
                for inode in existing.inodes() {
                    if let Some(place) = tree.removal(*inode) {
                        edits.place(*inode, &place)?;
                    }
                }
            }
        }
        for inode in moved.inodes() {
            edits.place(*inode, &spot.place())?;
        }
        self.inner.tree.commit(edits).await
    }

    pub(super) async fn copy_entry(&self, from: &VfsPath, to: &VfsPath) -> Result<(), VfsError> {
        let (source, target) = (self.resolve(from, Last::Keep)?, self.resolve(to, Last::Follow)?);
        let _guard = self.inner.locks.whole().await;
        let found = self.find(&source).map_err(|error| about(error, from))?;
        if source == target && matches!(found, Found::Leaf(_)) {
            return Ok(());
        }
        if target.starts_with(&source) && matches!(found, Found::Dir(_)) {
            return Err(VfsError::Invalid { path: to.clone(), reason: "is inside what is to be copied" });
        }
        let spot = self.spot(&target).map_err(|error| about(error, to))?;
        let mut edits = Edits::default();
        match (&found, &spot.existing) {
            (Found::Leaf(_), Some(Found::Dir(_))) => return Err(VfsError::IsADirectory { path: to.clone() }),
            (Found::Dir(_), Some(_)) => return Err(VfsError::Exists { path: to.clone() }),
            (Found::Leaf(inode), Some(Found::Leaf(existing))) => {
                let mode = mode_of(&self.entry(&source)?);
                self.replace(*existing, &self.content_of(*inode, from).await?, mode, &mut edits).await?;
            }
            (_, None) => {
                let top = self.entry(&source)?;
                let copied = copied(&self.inner.tree.read(), found, &top);
                self.copy_all(copied, &spot, from, &mut edits).await?;
            }
        }
        self.inner.tree.commit(edits).await
    }

    async fn copy_all(
        &self,
        all: Vec<Copied>,
        spot: &Spot,
        from: &VfsPath,
        edits: &mut Edits,
    ) -> Result<(), VfsError> {
        let mut copies: Vec<Inode> = Vec::with_capacity(all.len());
        for copied in &all {
            let content = match &copied.source {
                Found::Dir(_) => Content::Dir,
                Found::Leaf(inode) => self.content_of(*inode, from).await?,
            };
            let place = match copied.parent.and_then(|parent| copies.get(parent)) {
                Some(parent) => Place { parent: *parent, name: copied.entry.name.clone(), removed: None },
                None => spot.place(),
            };
            copies.push(edits.create(&place, &content, mode_of(&copied.entry))?);
        }
        Ok(())
    }

    async fn content_of(&self, inode: Inode, path: &VfsPath) -> Result<Content, VfsError> {
        self.inner.tree.content(inode).await?.ok_or_else(|| VfsError::NotFound { path: path.clone() })
    }

    pub(super) async fn change_attributes(
        &self,
        path: &VfsPath,
        attributes: Attributes,
    ) -> Result<Entry, VfsError> {
        let at = self.resolve(path, Last::Keep)?;
        let _guard = self.inner.locks.entry(&at).await;
        let entry = self.entry(&at).map_err(|error| about(error, path))?;
        let mode = Mode {
            mode: attributes.mode.unwrap_or(entry.mode) & 0o7777,
            mtime_ms: attributes.mtime_ms.unwrap_or(entry.mtime_ms),
        };
        let mut edits = Edits::default();
        for inode in self.find(&at)?.inodes() {
            edits.mode(*inode, mode)?;
        }
        self.inner.tree.commit(edits).await?;
        self.entry(&at)
    }
}

impl Spot {
    fn place(&self) -> Place {
        Place { parent: self.parent, name: self.name.clone(), removed: None }
    }
}

fn mode_of(entry: &Entry) -> Mode {
    Mode { mode: entry.mode, mtime_ms: entry.mtime_ms }
}

/// `/` and `/lost+found` are no entries of their own.
fn check_movable(found: &Found, path: &VfsPath) -> Result<(), VfsError> {
    let is_fixed = |inode: &Inode| *inode == Inode::ROOT || *inode == Inode::LOST;
    if found.inodes().iter().any(is_fixed) {
        return Err(VfsError::Invalid { path: path.clone(), reason: "cannot be moved or removed" });
    }
    Ok(())
}

/// Whether `moved` may take the place of `existing`, as `rename` of POSIX says.
fn check_replaceable(tree: &Tree, moved: &Found, existing: &Found, path: &VfsPath) -> Result<(), VfsError> {
    let path = path.clone();
    match (moved, existing) {
        (Found::Leaf(_), Found::Leaf(_)) => Ok(()),
        (Found::Leaf(_), Found::Dir(_)) => Err(VfsError::IsADirectory { path }),
        (Found::Dir(_), Found::Leaf(_)) => Err(VfsError::NotADirectory { path }),
        (Found::Dir(_), Found::Dir(dirs)) if !tree.is_empty(dirs) => Err(VfsError::NotEmpty { path }),
        (Found::Dir(_), Found::Dir(_)) => check_movable(existing, &path),
    }
}

/// Everything below `top`, the deepest first, and `top` itself at the end.
fn below(tree: &Tree, top: Found) -> Vec<Found> {
    let (mut open, mut all) = (vec![top], Vec::new());
    while let Some(found) = open.pop() {
        if let Found::Dir(dirs) = &found {
            open.extend(tree.list(dirs).into_iter().map(|listed| listed.found));
        }
        all.push(found);
    }
    all.reverse();
    all
}

/// `top` and everything below it, directories before what is in them.
fn copied(tree: &Tree, top: Found, entry: &Entry) -> Vec<Copied> {
    let mut all = vec![Copied { source: top, entry: entry.clone(), parent: None }];
    let mut next = 0;
    while let Some(Copied { source, entry, .. }) = all.get(next) {
        if let (Found::Dir(dirs), Kind::Dir) = (source, entry.kind) {
            let children = tree.list(dirs).into_iter().map(|listed| Copied {
                entry: tree.entry(&listed.name, &listed.found),
                source: listed.found,
                parent: Some(next),
            });
            let children: Vec<_> = children.collect();
            all.extend(children);
        }
        next += 1;
    }
    all
}
