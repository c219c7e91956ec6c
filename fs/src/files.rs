//! The swarm's files: names in memory, bytes in blobs, seen as one [`Vfs`].
//!
//! A file of up to 2 KiB stands in its inode's cell and so is on every node. The bytes of a longer one are
//! segments of 1 to 4 MiB, listed in a manifest. What is acknowledged is on this node's disk: segments first, then the
//! cells that name them. From then on [`crate::durable`] spreads their shards over the swarm, [`crate::repair`] keeps
//! them there, and [`crate::gather`] brings them back for whoever reads.
//!
//! [`read`] and [`write`] carry bytes, [`change`] changes names; [`lock`] orders local changes; [`durability`] says
//! what is safe by now, and hands over what is here when this node leaves.

mod change;
mod desk;
mod durability;
mod flight;
mod lock;
#[cfg(test)]
mod ranges;
mod read;
#[cfg(test)]
mod rest;
#[cfg(test)]
mod survival;
#[cfg(test)]
mod tests;
mod values;
mod versions;
mod write;

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use starfish_dht::Network;
use starfish_memory::Memory;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::durable::Publisher;
use crate::gather::Segments;
use crate::gc;
use crate::handover::Progress;
use crate::links::{self, Last};
use crate::path::VfsPath;
use crate::peers::{Peers, serve, wire};
use crate::repair::{Pace, Repair};
use crate::scrub;
use crate::store::{Limits, Store};
use crate::tree::store::TreeStore;
use crate::tree::version::millis;
use crate::tree::{Found, Inode, Miss, Tree, lost};
use crate::vfs::{Attributes, ByteStream, Changed, Entry, Parents, Removal, Vfs, VfsError};
use desk::OpenDesk;
use flight::Flights;
use lock::Locks;

#[cfg(test)]
pub(crate) use read::segments_of;
pub(crate) use read::{all_segments_of, segments_of_all};

pub use durability::Handover;
pub use versions::Version;

/// How often it is looked whether a file has settled, which takes some milliseconds between neighbours.
const SETTLE_LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long is waited for that.
const SETTLE_PATIENCE: Duration = Duration::from_secs(10);

/// How files are handled.
#[derive(Clone, Debug)]
pub struct FilesOptions {
    /// How many segments a reader fetches ahead, and so in parallel. Each may hold 4 MiB. Default 6.
    pub read_ahead: usize,
    /// The most bytes that this node keeps for the swarm. Default: whatever the disk has, but for a reserve.
    pub quota: u64,
    /// The most bytes of files read lately that stay on this disk. Default 256 MiB.
    pub cache: u64,
    /// How long a member that fell silent is waited for before what it held is made anew. Default 10 minutes.
    pub repair_grace: Duration,
    /// Bytes per second that repair moves or makes, at the most. Default 64 MiB.
    pub repair_rate: u64,
    /// How long from one run to the next that frees what no file refers to; zero never runs. Default one hour.
    pub gc_every: Duration,
    /// Segments and shards that such a run looks at in a second, at the most; 0 never runs. Default 100,000.
    pub gc_rate: u64,
    /// How long from the beginning of one look for damage on this disk to that of the next; zero never looks. Default one
    /// day.
    pub scrub_every: Duration,
    /// Bytes that such a look reads in a second, at the most; 0 never looks. Default 4 MiB.
    pub scrub_rate: u64,
    /// Where this node is: shards of short files are spread over zones. Default: nowhere in particular.
    pub zone: String,
}

impl Default for FilesOptions {
    fn default() -> Self {
        Self {
            read_ahead: 6,
            quota: u64::MAX,
            cache: 256 << 20,
            repair_grace: Duration::from_secs(600),
            repair_rate: 64 << 20,
            gc_every: Duration::from_secs(3600),
            gc_rate: 100_000,
            scrub_every: Duration::from_secs(24 * 3600),
            scrub_rate: 4 << 20,
            zone: String::new(),
        }
    }
}

/// What the files of the swarm and this node's part of them amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Files and links in the tree.
    pub files: u64,
    /// Directories in the tree.
    pub dirs: u64,
    /// The bytes of all files, each content counted once.
    pub content: u64,
    /// Segments and shards on this node.
    pub blobs: u64,
    /// What they take on this node's disk, without those that are only cached.
    pub bytes: u64,
    /// What is cached on this node's disk, and goes when space is needed.
    pub cached: u64,
    /// What all living members keep, as far as they have said.
    pub swarm: u64,
    /// Living members that `swarm` counts, this node among them.
    pub members: u64,
    /// What is still free on that disk, for this user.
    pub free: u64,
    /// The size of that disk.
    pub total: u64,
}

/// Files could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// What this node keeps.
    #[error("could not open the store in {}", path.display())]
    Store {
        /// Their folder.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The tree.
    #[error("could not read the tree from memory")]
    Tree(#[source] io::Error),
    /// Files are open already on this network.
    #[error("cannot serve files to others")]
    Serve(#[source] starfish_dht::AcceptError),
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
    store: Store,
    segments: Segments,
    peers: Peers,
    desk: Arc<OpenDesk>,
    publisher: Publisher,
    repair: Repair,
    leaving: Progress,
    tree: TreeStore,
    locks: Locks,
    flights: Flights,
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
    /// Opens the files of the swarm that `memory` is part of. What this node keeps lies in `dir`, and is served to peers
    /// from now on.
    pub async fn open(
        dir: &Path,
        network: Network,
        memory: Memory,
        options: FilesOptions,
    ) -> Result<Self, OpenError> {
        let limits = Limits { quota: options.quota, cache: options.cache };
        let store = Store::open(dir, limits)
            .await
            .map_err(|source| OpenError::Store { path: dir.to_owned(), source })?;
        let tree = TreeStore::open(memory).await.map_err(OpenError::Tree)?;
        let desk = Arc::new(OpenDesk::new(
            network.clone(),
            tree.clone(),
            options.zone.clone(),
            options.repair_grace,
        ));
        let peers = Peers::new(network.clone());
        let others = {
            let desk = Arc::clone(&desk);
            Arc::new(move || desk.others())
        };
        let segments = Segments::new(store.clone(), peers.clone(), others);
        let publisher = Publisher::new(store.clone(), peers.clone(), desk.clone());
        let pace = Pace { grace: options.repair_grace, rate: options.repair_rate };
        let repair = Repair::new(
            (store.clone(), peers.clone()),
            segments.clone(),
            tree.clone(),
            publisher.clone(),
            desk.clone(),
            pace,
        );
        desk.set_workers(Some((publisher.clone(), repair.clone())));
        let incoming = network.accept(wire::NAME).map_err(OpenError::Serve)?;
        let inner = Arc::new(Inner {
            dir: dir.to_owned(),
            options,
            network,
            store,
            segments,
            peers,
            desk,
            publisher,
            repair,
            leaving: Progress::default(),
            tree,
            locks: Locks::new(),
            flights: Flights::default(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
        });
        inner.start(incoming);
        Ok(Self { inner })
    }

    /// Ends background work. What was written is on disk by then; reads of what is elsewhere fail from then on.
    pub async fn stop(&self) {
        self.inner.stopping.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        self.inner.desk.set_workers(None);
        if let Err(error) = self.inner.store.close().await {
            tracing::warn!(%error, "the store did not close cleanly");
        }
    }

    /// Bytes of shards that others gave to this node for its readers, since it was started.
    pub fn fetched_bytes(&self) -> u64 {
        self.inner.segments.fetched_bytes()
    }

    /// What there is.
    pub fn usage(&self) -> io::Result<Usage> {
        let holdings = self.inner.store.holdings();
        let disk = rustix::fs::statvfs(&self.inner.dir)?;
        let (files, dirs, content) = {
            let tree = self.inner.tree.read();
            let (files, dirs) = tree.count();
            (files, dirs, tree.content_bytes())
        };
        let members = self.inner.network.members();
        let others = || members.iter().filter(|member| member.alive);
        let kept_by_others: u64 = others().map(|member| member.beacon.capacity.used_bytes).sum();
        Ok(Usage {
            files,
            dirs,
            content,
            blobs: holdings.kept + holdings.cached,
            bytes: holdings.kept_bytes,
            cached: holdings.cached_bytes,
            swarm: kept_by_others.saturating_add(holdings.kept_bytes),
            members: others().count() as u64 + 1,
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

impl Inner {
    fn start(self: &Arc<Self>, incoming: starfish_dht::Incoming) {
        let (store, peers, desk) = (self.store.clone(), self.peers.clone(), self.desk.clone());
        let (network, stopping) = (self.network.clone(), self.stopping.clone());
        self.tasks.spawn(serve::serve(incoming, network, store, peers, desk, stopping));
        let (publisher, repair) = (self.publisher.clone(), self.repair.clone());
        self.spawn(async move { publisher.run().await });
        self.spawn(async move { repair.run().await });
        let tree = self.tree.clone();
        self.spawn(async move { lost::keep(&tree).await });
        let (store, segments) = (self.store.clone(), self.segments.clone());
        self.spawn(async move { scrub::restore(&store, &segments).await });
        let store = self.store.clone();
        let pace = scrub::Pace { every: self.options.scrub_every, rate: self.options.scrub_rate };
        self.spawn(async move { scrub::run(&store, pace).await });
        let (store, tree, segments) = (self.store.clone(), self.tree.clone(), self.segments.clone());
        let pace = gc::Pace { every: self.options.gc_every, rate: self.options.gc_rate };
        self.spawn(async move { gc::run(&store, &tree, &segments, pace).await });
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.stopping.clone();
        self.tasks.spawn(async move { stopping.run_until_cancelled(work).await });
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

pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[async_trait]
impl Vfs for Files {
    async fn stat(&self, path: &VfsPath) -> Result<Entry, VfsError> {
        self.entry(&self.resolve(path, Last::Keep)?).map_err(|error| about(error, path))
    }

    async fn changed(&self, path: &VfsPath) -> Result<Option<Changed>, VfsError> {
        let at = self.resolve(path, Last::Keep)?;
        let stamp = {
            let tree = self.inner.tree.read();
            tree.changed(find(&tree, &at).map_err(|error| about(error, path))?.inode())
        };
        let version = format!("{:016x}-{}", stamp.time, data_encoding::HEXLOWER.encode(&stamp.author));
        Ok(Some(Changed { version, at_ms: millis(stamp) }))
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

    async fn bytes_here(&self, path: &VfsPath) -> Result<u64, VfsError> {
        self.held_bytes(path).await
    }

    async fn settle(&self, path: &VfsPath) -> Result<(), VfsError> {
        let settled = async {
            while self.waiting(path).files > 0 {
                tokio::time::sleep(SETTLE_LOOK_EVERY).await;
            }
        };
        // Whoever could not take it is waited for no longer; what is missing is made up for later.
        let _ = tokio::time::timeout(SETTLE_PATIENCE, settled).await;
        Ok(())
    }
}
