//! A file system in memory: what the swarm's tree looks like from one node, without a swarm.
//!
//! For tests of everything that works on a [`Vfs`]. It shares no code with the tree but paths and links, so the
//! two also check each other (see [`crate::conformance`]).

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};

use crate::hash::BlobHash;
use crate::links::{self, Last};
use crate::path::{MAX_PATH_BYTES, VfsPath};
use crate::vfs::{Attributes, ByteStream, Entry, Kind, Parents, Removal, Vfs, VfsError};

/// Files and directories in memory.
#[derive(Debug)]
pub struct MemVfs {
    nodes: Mutex<BTreeMap<VfsPath, Node>>,
    next_inode: AtomicU64,
}

#[derive(Clone, Debug)]
struct Node {
    inode: u64,
    mode: u32,
    mtime_ms: u64,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    Dir,
    File(Bytes),
    Link(String),
}

type Nodes = BTreeMap<VfsPath, Node>;

impl Default for MemVfs {
    fn default() -> Self {
        let root = Node { inode: 0, mode: 0o755, mtime_ms: 0, body: Body::Dir };
        Self { nodes: Mutex::new([(VfsPath::root(), root)].into()), next_inode: AtomicU64::new(1) }
    }
}

impl MemVfs {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn node(&self, body: Body, mode: u32) -> Node {
        let inode = self.next_inode.fetch_add(1, Ordering::Relaxed);
        Node { inode, mode, mtime_ms: now_ms(), body }
    }

    fn make(&self, path: &VfsPath, body: Body, mode: u32) -> Result<Entry, VfsError> {
        let mut nodes = self.lock();
        let at = resolve(&nodes, path, Last::Keep)?;
        if nodes.contains_key(&at) {
            return Err(VfsError::Exists { path: path.clone() });
        }
        check_parent(&nodes, &at, path)?;
        let node = self.node(body, mode);
        let entry = entry(&at, &node);
        nodes.insert(at, node);
        Ok(entry)
    }

    /// Where a file can be written; its node if there is one.
    fn target(&self, nodes: &Nodes, path: &VfsPath) -> Result<(VfsPath, Node), VfsError> {
        let at = resolve(nodes, path, Last::Follow)?;
        match nodes.get(&at) {
            Some(Node { body: Body::Dir, .. }) => Err(VfsError::IsADirectory { path: path.clone() }),
            Some(node) => Ok((at, node.clone())),
            None => {
                check_parent(nodes, &at, path)?;
                Ok((at, self.node(Body::File(Bytes::new()), 0o644)))
            }
        }
    }
}

fn resolve(nodes: &Nodes, path: &VfsPath, last: Last) -> Result<VfsPath, VfsError> {
    links::resolve(path, last, |at| match &nodes.get(at)?.body {
        Body::Link(target) => Some(target.clone()),
        Body::Dir | Body::File(_) => None,
    })
}

/// The node at a path without links, with the error that its absence is.
fn get<'n>(nodes: &'n Nodes, at: &VfsPath, path: &VfsPath) -> Result<&'n Node, VfsError> {
    if let Some(node) = nodes.get(at) {
        return Ok(node);
    }
    check_parent(nodes, at, path)?;
    Err(VfsError::NotFound { path: path.clone() })
}

/// The parent of a new entry must be a directory; whether a name before it is a file or missing matters.
fn check_parent(nodes: &Nodes, at: &VfsPath, path: &VfsPath) -> Result<(), VfsError> {
    let Some(parent) = at.parent() else { return Ok(()) };
    match nodes.get(&parent).map(|node| &node.body) {
        Some(Body::Dir) => Ok(()),
        Some(_) => Err(VfsError::NotADirectory { path: path.clone() }),
        None => {
            check_parent(nodes, &parent, path)?;
            Err(VfsError::NotFound { path: path.clone() })
        }
    }
}

/// Nothing takes the place of the root.
fn check_not_root(at: &VfsPath, path: &VfsPath) -> Result<(), VfsError> {
    if at.is_root() {
        return Err(VfsError::Invalid { path: path.clone(), reason: "is the root" });
    }
    Ok(())
}

fn below<'n>(nodes: &'n Nodes, dir: &VfsPath) -> impl Iterator<Item = (&'n VfsPath, &'n Node)> {
    // Not everything after `dir` is below it: `/a-b` sorts between `/a` and `/a/b`.
    let dir = dir.clone();
    let after = nodes.range((Bound::Excluded(dir.clone()), Bound::Unbounded));
    after.filter(move |(path, _)| path.starts_with(&dir))
}

fn moved(path: &VfsPath, from: &VfsPath, to: &VfsPath) -> Result<VfsPath, VfsError> {
    let rest = path.names().skip(from.names().count());
    Ok(rest.into_iter().try_fold(to.clone(), |at, name| at.join(name))?)
}

fn entry(path: &VfsPath, node: &Node) -> Entry {
    let (kind, size, hash, target) = match &node.body {
        Body::Dir => (Kind::Dir, 0, None, None),
        Body::File(bytes) => (Kind::File, bytes.len() as u64, Some(BlobHash::of(bytes).to_string()), None),
        Body::Link(target) => (Kind::Symlink, target.len() as u64, None, Some(target.clone())),
    };
    Entry {
        name: path.name().unwrap_or_default().to_owned(),
        kind,
        size,
        mode: node.mode,
        mtime_ms: node.mtime_ms,
        hash,
        target,
        inode: format!("{:032x}", node.inode),
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[async_trait]
impl Vfs for MemVfs {
    async fn stat(&self, path: &VfsPath) -> Result<Entry, VfsError> {
        let nodes = self.lock();
        let at = resolve(&nodes, path, Last::Keep)?;
        Ok(entry(&at, get(&nodes, &at, path)?))
    }

    async fn list(&self, path: &VfsPath) -> Result<Vec<Entry>, VfsError> {
        let nodes = self.lock();
        let at = resolve(&nodes, path, Last::Follow)?;
        let Body::Dir = get(&nodes, &at, path)?.body else {
            return Err(VfsError::NotADirectory { path: path.clone() });
        };
        let depth = at.names().count() + 1;
        let children = below(&nodes, &at).filter(|(path, _)| path.names().count() == depth);
        let mut entries: Vec<Entry> = children.map(|(path, node)| entry(path, node)).collect();
        entries.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(entries)
    }

    async fn read(&self, path: &VfsPath, range: Range<u64>) -> Result<ByteStream, VfsError> {
        let nodes = self.lock();
        let at = resolve(&nodes, path, Last::Follow)?;
        match &get(&nodes, &at, path)?.body {
            Body::Dir => Err(VfsError::IsADirectory { path: path.clone() }),
            Body::Link(_) => Err(VfsError::NotFound { path: path.clone() }),
            Body::File(bytes) => {
                let end = range.end.min(bytes.len() as u64);
                let part = bytes.slice(range.start.min(end) as usize..end as usize);
                Ok(stream::iter((!part.is_empty()).then_some(Ok(part))).boxed())
            }
        }
    }

    async fn write(
        &self,
        path: &VfsPath,
        content: ByteStream,
        attributes: Attributes,
    ) -> Result<Entry, VfsError> {
        self.target(&self.lock(), path)?;
        let parts = content.try_fold(BytesMut::new(), |mut bytes, part| async move {
            bytes.extend_from_slice(&part);
            Ok(bytes)
        });
        let bytes = parts.await?.freeze();
        let mut nodes = self.lock();
        let (at, mut node) = self.target(&nodes, path)?;
        node.body = Body::File(bytes);
        node.mode = attributes.mode.unwrap_or(node.mode) & 0o7777;
        node.mtime_ms = attributes.mtime_ms.unwrap_or_else(now_ms);
        let entry = entry(&at, &node);
        nodes.insert(at, node);
        Ok(entry)
    }

    async fn mkdir(&self, path: &VfsPath, parents: Parents) -> Result<Entry, VfsError> {
        if parents == Parents::MustExist {
            return self.make(path, Body::Dir, 0o755);
        }
        let mut on_the_way = VfsPath::root();
        for name in path.names() {
            on_the_way = on_the_way.join(name)?;
            let mut nodes = self.lock();
            let at = resolve(&nodes, &on_the_way, Last::Follow)?;
            match nodes.get(&at).map(|node| &node.body) {
                Some(Body::Dir) => {}
                Some(_) if on_the_way == *path => return Err(VfsError::Exists { path: path.clone() }),
                Some(_) => return Err(VfsError::NotADirectory { path: path.clone() }),
                None => {
                    check_parent(&nodes, &at, path)?;
                    nodes.insert(at, self.node(Body::Dir, 0o755));
                }
            }
        }
        let nodes = self.lock();
        let at = resolve(&nodes, path, Last::Follow)?;
        Ok(entry(&at, get(&nodes, &at, path)?))
    }

    async fn symlink(&self, path: &VfsPath, target: &str) -> Result<Entry, VfsError> {
        if target.is_empty() || target.len() > MAX_PATH_BYTES || target.contains('\0') {
            return Err(VfsError::Invalid { path: path.clone(), reason: "a link cannot point there" });
        }
        self.make(path, Body::Link(target.to_owned()), 0o777)
    }

    async fn remove(&self, path: &VfsPath, removal: Removal) -> Result<(), VfsError> {
        let mut nodes = self.lock();
        let at = resolve(&nodes, path, Last::Keep)?;
        get(&nodes, &at, path)?;
        if at.is_root() {
            return Err(VfsError::Invalid { path: path.clone(), reason: "cannot be moved or removed" });
        }
        if removal == Removal::Single && below(&nodes, &at).next().is_some() {
            return Err(VfsError::NotEmpty { path: path.clone() });
        }
        nodes.retain(|path, _| !path.starts_with(&at));
        Ok(())
    }

    async fn rename(&self, from: &VfsPath, to: &VfsPath) -> Result<(), VfsError> {
        let mut nodes = self.lock();
        let (source, target) = (resolve(&nodes, from, Last::Keep)?, resolve(&nodes, to, Last::Keep)?);
        let is_dir = matches!(get(&nodes, &source, from)?.body, Body::Dir);
        if source.is_root() {
            return Err(VfsError::Invalid { path: from.clone(), reason: "cannot be moved or removed" });
        }
        if source == target {
            return Ok(());
        }
        check_not_root(&target, to)?;
        if target.starts_with(&source) {
            return Err(VfsError::Invalid { path: to.clone(), reason: "is inside what is to be moved" });
        }
        check_parent(&nodes, &target, to)?;
        match nodes.get(&target).map(|node| matches!(node.body, Body::Dir)) {
            Some(true) if !is_dir => return Err(VfsError::IsADirectory { path: to.clone() }),
            Some(false) if is_dir => return Err(VfsError::NotADirectory { path: to.clone() }),
            Some(true) if below(&nodes, &target).next().is_some() => {
                return Err(VfsError::NotEmpty { path: to.clone() });
            }
            _ => {}
        }
        let all: Vec<VfsPath> = nodes.keys().filter(|path| path.starts_with(&source)).cloned().collect();
        for path in all {
            if let Some(node) = nodes.remove(&path) {
                nodes.insert(moved(&path, &source, &target)?, node);
            }
        }
        Ok(())
    }

    async fn copy(&self, from: &VfsPath, to: &VfsPath) -> Result<(), VfsError> {
        let mut nodes = self.lock();
        let (source, target) = (resolve(&nodes, from, Last::Keep)?, resolve(&nodes, to, Last::Follow)?);
        let is_dir = matches!(get(&nodes, &source, from)?.body, Body::Dir);
        if source == target && !is_dir {
            return Ok(());
        }
        check_not_root(&target, to)?;
        if is_dir && target.starts_with(&source) {
            return Err(VfsError::Invalid { path: to.clone(), reason: "is inside what is to be copied" });
        }
        check_parent(&nodes, &target, to)?;
        let replaced = match nodes.get(&target) {
            Some(_) if is_dir => return Err(VfsError::Exists { path: to.clone() }),
            Some(Node { body: Body::Dir, .. }) => return Err(VfsError::IsADirectory { path: to.clone() }),
            existing => existing.map(|node| node.inode),
        };
        let all: Vec<(VfsPath, Node)> = nodes
            .iter()
            .filter(|(path, _)| path.starts_with(&source))
            .map(|(path, node)| (path.clone(), node.clone()))
            .collect();
        for (path, node) in all {
            let inode = replaced.unwrap_or_else(|| self.next_inode.fetch_add(1, Ordering::Relaxed));
            nodes.insert(moved(&path, &source, &target)?, Node { inode, ..node });
        }
        Ok(())
    }

    async fn set_attributes(&self, path: &VfsPath, attributes: Attributes) -> Result<Entry, VfsError> {
        let mut nodes = self.lock();
        let at = resolve(&nodes, path, Last::Keep)?;
        get(&nodes, &at, path)?;
        let node = nodes.get_mut(&at).ok_or_else(|| VfsError::NotFound { path: path.clone() })?;
        node.mode = attributes.mode.unwrap_or(node.mode) & 0o7777;
        node.mtime_ms = attributes.mtime_ms.unwrap_or(node.mtime_ms);
        Ok(entry(&at, node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_does_what_every_file_system_does() {
        crate::conformance::check(&MemVfs::new()).await.unwrap();
    }
}
