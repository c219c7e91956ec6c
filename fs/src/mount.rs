//! The tree as a folder of this machine, by FUSE: every program reads and writes the swarm's files.
//!
//! [`Mount::new`] mounts any [`Vfs`] and serves it until it is taken away. Nothing but `/dev/fuse` is needed, and
//! `fusermount3` for users who are not root.
//!
//! In reading order: `point` looks after the mount point; `bridge` takes the kernel's requests and `answer` has them worked on; `mounted` is what they
//! are about, with `names`, `content` and `directories` doing the work; `table` (pure) says which inode number is
//! which path, `open_file` and `stage` hold what is being written.
//!
//! What programs may rely on:
//! - What was written is in the tree, and on this node's disk, when `close` or `fsync` returns. Others see a file as it
//!   was or as it is, never half of it. Of two who write one file at once, the later `close` wins, whole.
//! - What other nodes do shows within a second or two.
//! - A file that is removed or replaced while open stays readable and writable until it is closed.
//! - Locks (`flock`, `fcntl`) hold among the programs of this machine.
//!
//! Deliberately absent: owners (everything belongs to who mounts), hard links, extended attributes, devices and
//! sockets; times of access and of change. A big file that is changed in one place is written anew as a whole when it
//! is closed, although only what changed takes room.

mod answer;
mod attributes;
mod bridge;
mod content;
mod directories;
mod fault;
mod mounted;
mod names;
mod open_file;
mod point;
mod stage;
mod table;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fuser::{Config, MountOption, Session};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

pub use self::point::{Force, MountError, is_mounted, unmount};

use self::answer::Bridge;
use self::attributes::Owner;
use self::mounted::Mounted;
use crate::vfs::Vfs;

/// How long what the kernel asked for may take to end after the mount was taken away. Longer than a slow disk needs for
/// what is still on its way to the tree.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether files can be changed through the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Yes.
    ReadWrite,
    /// The kernel refuses every change.
    ReadOnly,
}

/// How to mount.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// Whether files can be changed.
    pub access: Access,
    /// A folder that exists, on the disk whose space is shown as the tree's. What is being written lies on it, in files
    /// without names, until it is in the tree.
    pub disk: PathBuf,
}

/// A mount. When it is dropped without [`Mount::close`], the mount point goes, and with it what was not closed.
#[derive(Debug)]
pub struct Mount {
    point: PathBuf,
    mounted: Arc<Mounted>,
    tasks: TaskTracker,
    ended: oneshot::Receiver<()>,
    has_ended: bool,
}

/// What became of a mount that was taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Programs still used it; their open files are of no use any more.
    pub was_busy: bool,
    /// Files whose last changes could not be brought to the tree.
    pub lost: usize,
}

impl Mount {
    /// Mounts `tree` on the folder `point`, in which there must be nothing. Where a process died that had mounted it
    /// there, that is cleared away.
    pub async fn new(tree: Arc<dyn Vfs>, point: &Path, options: MountOptions) -> Result<Self, MountError> {
        let point = point::prepare(point).await?;
        let owner =
            Owner { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw() };
        let mounted = Arc::new(Mounted::new(tree, owner, options.disk.clone()));
        let tasks = TaskTracker::new();
        let (end, ended) = oneshot::channel();
        let bridge = Bridge {
            mounted: Arc::clone(&mounted),
            runtime: tokio::runtime::Handle::current(),
            tasks: tasks.clone(),
            disk: options.disk,
            end: Some(end),
        };
        let (config, folder) = (config(options.access), point.clone());
        let started = tokio::task::spawn_blocking(move || start(bridge, &folder, &config)).await;
        let refused = |source| MountError::Refused { path: point.clone(), source };
        started.map_err(io::Error::other).and_then(|started| started).map_err(refused)?;
        Ok(Self { point, mounted, tasks, ended, has_ended: false })
    }

    /// The mount point's full name.
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// Waits until somebody takes the mount away.
    pub async fn ended(&mut self) {
        if !self.has_ended {
            // A session that ended without a word is over as well.
            let _ = (&mut self.ended).await;
            self.has_ended = true;
        }
    }

    /// Takes the mount away, if nobody did, and brings to the tree what programs have written and not closed.
    pub async fn close(mut self) -> Result<Closed, MountError> {
        let was_busy = !self.has_ended && self.take_away().await?;
        if !was_busy {
            let _ = tokio::time::timeout(PATIENCE, self.ended()).await;
            self.tasks.close();
            let _ = tokio::time::timeout(PATIENCE, self.tasks.wait()).await;
        }
        self.has_ended = true;
        Ok(Closed { was_busy, lost: self.mounted.commit_all().await })
    }

    /// Whether programs still used it.
    async fn take_away(&mut self) -> Result<bool, MountError> {
        match point::unmount(&self.point, Force::WhenUnused).await {
            Ok(()) | Err(MountError::NotMounted(_)) => return Ok(false),
            Err(_) => {}
        }
        point::unmount(&self.point, Force::Always).await?;
        Ok(true)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if !self.has_ended {
            // Nobody is there to be told of an error.
            let _ = point::unmount_now(&self.point, Force::Always);
        }
    }
}

fn config(access: Access) -> Config {
    let mut config = Config::default();
    let access = match access {
        Access::ReadWrite => MountOption::RW,
        Access::ReadOnly => MountOption::RO,
    };
    config.mount_options = vec![
        MountOption::FSName(point::SOURCE.to_owned()),
        MountOption::Subtype(point::SOURCE.to_owned()),
        // The kernel checks permissions by the modes that it is told.
        MountOption::DefaultPermissions,
        MountOption::NoDev,
        MountOption::NoSuid,
        MountOption::NoAtime,
        access,
    ];
    config
}

/// Mounts, and serves from a thread of its own.
fn start(bridge: Bridge, point: &Path, config: &Config) -> io::Result<()> {
    let session = Session::new(bridge, point, config)?.spawn()?;
    // When it is dropped it unmounts whatever is on the mount point then, which may be somebody else's next mount. It is
    // we who see to that, so it is forgotten, and with it one descriptor until this process ends.
    std::mem::forget(session);
    Ok(())
}
