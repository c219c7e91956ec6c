//! The swarm's files: names in memory, bytes in blobs, seen as one [`Vfs`].
//!
//! A file of up to 2 KiB stands in its inode's cell and so is on every node. The bytes of a longer one are
//! segments (blobs of 1 to 4 MiB), listed in a manifest; they stay on the node that wrote them and come to a node
//! that reads them. What is acknowledged is on this node's disk: segments first, then the cells that name them.
//!
//! [`read`] and [`write`] carry bytes, [`change`] changes names; [`lock`] orders local changes.

mod announce;
mod change;
mod lock;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use starfish_dht::Network;
use starfish_memory::Memory;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::blob::BlobStore;
use crate::links::{self, Last};
use crate::path::VfsPath;
use crate::tree::store::TreeStore;
use crate::tree::{Found, Inode, Miss, Tree};
use crate::vfs::{Attributes, ByteStream, Entry, Parents, Removal, Vfs, VfsError};
use announce::Announcer;
use lock::Locks;

/// How files are handled.
#[derive(Clone, Debug)]
pub struct FilesOptions {
    /// How many segments a reader fetches ahead, and so in parallel. Each may hold 4 MiB. Default 6.
    pub read_ahead: usize,
}

impl Default for FilesOptions {
    fn default() -> Self {
        Self { read_ahead: 6 }
    }
}

/// What the files of the swarm and this node's part of them amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Files and links in the tree.
    pub files: u64,
    /// Directories in the tree.
    pub dirs: u64,
    /// Blobs on this node.
    pub blobs: u64,
    /// What they take on this node's disk.
    pub bytes: u64,
    /// What is still free on that disk, for this user.
    pub free: u64,
    /// The size of that disk.
    pub total: u64,
}

/// Files could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The blobs.
    #[error("could not open the blobs in {}", path.display())]
    Blobs {
        /// Their folder.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The tree.
    #[error("could not read the tree from memory")]
    Tree(#[source] io::Error),
}

/// The swarm's files, seen from this node. Cheap to clone.
#[derive(Clone)]
pub struct Files {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    options: FilesOptions,
    network: Network,
    blobs: BlobStore,
    tree: TreeStore,
    locks: Locks,
    announcer: Announcer,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

/// Where a new entry would stand.
struct Spot {
    /// The directory: the inode that new entries go to.
    parent: Inode,
    name: String,
    /// What stands there now.
    existing: Option<Found>,
}

impl fmt::Debug for Files {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Files").field("dir", &self.inner.dir).finish_non_exhaustive()
    }
}

impl Files {
    /// Opens the files of the swarm that `memory` is part of. Blobs lie in `dir`, and are served to peers from now on.
    pub async fn open(
        dir: &Path,
        network: Network,
        memory: Memory,
        options: FilesOptions,
    ) -> Result<Self, OpenError> {
        let blobs = BlobStore::open(dir, network.clone())
            .await
            .map_err(|source| OpenError::Blobs { path: dir.to_owned(), source })?;
        let tree = TreeStore::open(memory).await.map_err(OpenError::Tree)?;
        let (tasks, stopping) = (TaskTracker::new(), CancellationToken::new());
        let (announcer, announcing) = Announcer::new(network.clone(), stopping.clone());
        tasks.spawn(announcing);
        let (dir, locks) = (dir.to_owned(), Locks::new());
        let inner = Inner { dir, options, network, blobs, tree, locks, announcer, tasks, stopping };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Ends background work and closes the blobs. Operations fail from then on.
    pub async fn stop(&self) {
        self.inner.stopping.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        self.inner.blobs.stop().await;
    }

    /// This node's blobs.
    pub fn blobs(&self) -> &BlobStore {
        &self.inner.blobs
    }

    /// What there is; walks this node's blobs, so not for every request.
    pub async fn usage(&self) -> io::Result<Usage> {
        let blobs = self.inner.blobs.usage().await?;
        let disk = rustix::fs::statvfs(&self.inner.dir)?;
        let (files, dirs) = self.inner.tree.read().count();
        Ok(Usage {
            files,
            dirs,
            blobs: blobs.blobs,
            bytes: blobs.bytes,
            free: disk.f_bavail * disk.f_frsize,
            total: disk.f_blocks * disk.f_frsize,
        })
    }

    /// `path` without links.
    fn resolve(&self, path: &VfsPath, last: Last) -> Result<VfsPath, VfsError> {
        let tree = self.inner.tree.read();
        links::resolve(path, last, |at| {
            let found = tree.find(at).ok()?;
            tree.entry("", &found).target
        })
    }

    /// What stands at a path without links.
    fn find(&self, path: &VfsPath) -> Result<Found, VfsError> {
        find(&self.inner.tree.read(), path)
    }

    /// Where an entry at a path without links would stand.
    fn spot(&self, path: &VfsPath) -> Result<Spot, VfsError> {
        let Some((parent, name)) = path.split() else {
            return Err(VfsError::Invalid { path: path.clone(), reason: "is the root" });
        };
        let tree = self.inner.tree.read();
        match find(&tree, &parent).map_err(|error| about(error, path))? {
            Found::Leaf(_) => Err(VfsError::NotADirectory { path: path.clone() }),
            Found::Dir(dirs) => {
                let existing = tree.look(&dirs, name);
                Ok(Spot { parent: Found::Dir(dirs).inode(), name: name.to_owned(), existing })
            }
        }
    }

    /// Describes what stands at a path without links.
    fn entry(&self, path: &VfsPath) -> Result<Entry, VfsError> {
        let tree = self.inner.tree.read();
        let found = find(&tree, path)?;
        Ok(tree.entry(path.name().unwrap_or_default(), &found))
    }
}

fn find(tree: &Tree, path: &VfsPath) -> Result<Found, VfsError> {
    tree.find(path).map_err(|miss| match miss {
        Miss::NotFound => VfsError::NotFound { path: path.clone() },
        Miss::NotADirectory => VfsError::NotADirectory { path: path.clone() },
    })
}

/// The same error, about the path that the user named and not the one that it means.
fn about(error: VfsError, path: &VfsPath) -> VfsError {
    let path = path.clone();
    match error {
        VfsError::NotFound { .. } => VfsError::NotFound { path },
        VfsError::NotADirectory { .. } => VfsError::NotADirectory { path },
        VfsError::IsADirectory { .. } => VfsError::IsADirectory { path },
        VfsError::Invalid { reason, .. } => VfsError::Invalid { path, reason },
        other => other,
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[async_trait]
impl Vfs for Files {
    async fn stat(&self, path: &VfsPath) -> Result<Entry, VfsError> {
        self.entry(&self.resolve(path, Last::Keep)?).map_err(|error| about(error, path))
    }

    async fn list(&self, path: &VfsPath) -> Result<Vec<Entry>, VfsError> {
        let at = self.resolve(path, Last::Follow)?;
        let tree = self.inner.tree.read();
        match find(&tree, &at).map_err(|error| about(error, path))? {
            Found::Leaf(_) => Err(VfsError::NotADirectory { path: path.clone() }),
            Found::Dir(dirs) => {
                let listed = tree.list(&dirs);
                Ok(listed.iter().map(|listed| tree.entry(&listed.name, &listed.found)).collect())
            }
        }
    }

    async fn read(&self, path: &VfsPath, range: Range<u64>) -> Result<ByteStream, VfsError> {
        self.read_range(path, range).await
    }

    async fn write(
        &self,
        path: &VfsPath,
        content: ByteStream,
        attributes: Attributes,
    ) -> Result<Entry, VfsError> {
        self.write_file(path, content, attributes).await
    }

    async fn mkdir(&self, path: &VfsPath, parents: Parents) -> Result<Entry, VfsError> {
        match parents {
            Parents::MustExist => self.make_dir(path).await,
            Parents::Create => self.make_dirs(path).await,
        }
    }

    async fn symlink(&self, path: &VfsPath, target: &str) -> Result<Entry, VfsError> {
        self.make_link(path, target).await
    }

    async fn remove(&self, path: &VfsPath, removal: Removal) -> Result<(), VfsError> {
        self.remove_entry(path, removal).await
    }

    async fn rename(&self, from: &VfsPath, to: &VfsPath) -> Result<(), VfsError> {
        self.move_entry(from, to).await
    }

    async fn copy(&self, from: &VfsPath, to: &VfsPath) -> Result<(), VfsError> {
        self.copy_entry(from, to).await
    }

    async fn set_attributes(&self, path: &VfsPath, attributes: Attributes) -> Result<Entry, VfsError> {
        self.change_attributes(path, attributes).await
    }
}
