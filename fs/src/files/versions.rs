//! What a file was before, and making it so again.

use serde::{Deserialize, Serialize};

use super::{Files, about, now_ms};
use crate::hash::BlobHash;
use crate::links::Last;
use crate::path::VfsPath;
use crate::tree::cell::FileContent;
use crate::tree::store::Edits;
use crate::tree::version::{MAX_VERSIONS, Retention, expired, millis};
use crate::tree::{Content, Found, Inode, Mode, Place, Stamp};
use crate::vfs::{Entry, Parents, Vfs, VfsError};

/// One content that a file has or had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Its name, for [`Files::restore`].
    pub id: String,
    /// Its length in bytes.
    pub size: u64,
    /// BLAKE3 of the content.
    pub hash: String,
    /// When it was written, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// When it was replaced or removed; `None` for the one that holds.
    pub until_ms: Option<u64>,
}

/// A version and what it is made of.
struct Kept {
    inode: Inode,
    version: Version,
    file: FileContent,
    mode: Mode,
}

impl Files {
    /// What was and is at a path, the newest first: contents of the file that is there, and of files of that name that
    /// were removed.
    pub async fn versions(&self, path: &VfsPath) -> Result<Vec<Version>, VfsError> {
        Ok(self.all_versions(path).await?.into_iter().map(|found| found.version).collect())
    }

    /// Makes a file what it was in a version, which is named by (the beginning of) its id. What holds now becomes an older
    /// version, and missing directories are made.
    pub async fn restore(&self, path: &VfsPath, id: &str) -> Result<Entry, VfsError> {
        let at = self.resolve(path, Last::Follow)?;
        let mut matching = self
            .all_versions(&at)
            .await?
            .into_iter()
            .filter(|found| !id.is_empty() && found.version.id.starts_with(id));
        let Some(wanted) = matching.next() else {
            return Err(VfsError::Invalid { path: path.clone(), reason: "has no such version" });
        };
        if matching.next().is_some() {
            return Err(VfsError::Invalid {
                path: path.clone(),
                reason: "has several versions that begin so",
            });
        }
        if let Some(parent) = at.parent() {
            self.mkdir(&parent, Parents::Create).await?;
        }
        let _guard = self.inner.locks.entry(&at).await;
        let spot = self.spot(&at).map_err(|error| about(error, path))?;
        let mode = Mode { mtime_ms: now_ms(), ..wanted.mode };
        let content = Content::File(wanted.file);
        let mut edits = Edits::default();
        match spot.existing {
            Some(Found::Dir(_)) => return Err(VfsError::IsADirectory { path: path.clone() }),
            Some(Found::Leaf(inode)) => self.replace(inode, &content, mode, &mut edits).await?,
            None => {
                let place = Place { parent: spot.parent, name: spot.name, removed: None };
                edits.place(wanted.inode, &place)?;
                edits.replace(wanted.inode, &content, mode)?;
            }
        }
        self.inner.tree.commit(edits).await?;
        self.entry(&at)
    }

    /// Adds to `edits` that a file has other content from now on; what it had is kept as a version.
    pub(super) async fn replace(
        &self,
        inode: Inode,
        content: &Content,
        mode: Mode,
        edits: &mut Edits,
    ) -> Result<(), VfsError> {
        let old = self.inner.tree.current(inode).await?;
        match old {
            Some((stamp, old @ Content::File(_), old_mode)) if old != *content => {
                edits.replace_keeping(inode, content, mode, (stamp, old, old_mode, now_ms()))
            }
            _ => edits.replace(inode, content, mode),
        }
    }

    /// How long the swarm keeps what files were before.
    pub async fn retention(&self) -> Result<Retention, VfsError> {
        self.inner.tree.retention().await
    }

    /// Keeps what files were before for so long, and no more than [`MAX_VERSIONS`], in all of the swarm. What has had its time by then is forgotten within
    /// the hour.
    pub async fn set_retention(&self, retention: Retention) -> Result<(), VfsError> {
        let count = retention.count.min(MAX_VERSIONS);
        self.inner.tree.set_retention(Retention { count, ..retention }).await
    }

    async fn all_versions(&self, path: &VfsPath) -> Result<Vec<Kept>, VfsError> {
        let at = self.resolve(path, Last::Follow)?;
        let inodes = {
            let shown = match self.find(&at) {
                Ok(Found::Leaf(inode)) => Some(inode),
                _ => None,
            };
            let tree = self.inner.tree.read();
            // One that has the same name and is there is shown under another one, after a conflict.
            let others = tree.trace(&at).into_iter().filter(|other| Some(*other) != shown);
            let removed = others.filter(|other| shown.is_none() || tree.removed_at(*other).is_some());
            shown.into_iter().chain(removed).collect::<Vec<Inode>>()
        };
        let mut all = Vec::new();
        for inode in inodes {
            all.extend(self.versions_of(inode).await?);
        }
        if all.is_empty() {
            return match self.find(&at) {
                Ok(Found::Dir(_)) => Err(VfsError::IsADirectory { path: path.clone() }),
                _ => Err(VfsError::NotFound { path: path.clone() }),
            };
        }
        all.sort_by_key(|found| {
            std::cmp::Reverse((found.version.until_ms.is_none(), found.version.since_ms))
        });
        Ok(all)
    }

    async fn versions_of(&self, inode: Inode) -> Result<Vec<Kept>, VfsError> {
        let removed = self.inner.tree.read().removed_at(inode);
        let mut all = Vec::new();
        if let Some((stamp, Content::File(file), mode)) = self.inner.tree.current(inode).await? {
            all.push(found(inode, stamp, file, mode, removed));
        }
        for (stamp, old) in self.inner.tree.old(inode).await? {
            if let Content::File(file) = old.content {
                all.push(found(inode, stamp, file, old.mode, Some(old.until_ms)));
            }
        }
        // What it is now is no old version, and does not count as one.
        let (now, old): (Vec<Kept>, Vec<Kept>) =
            all.into_iter().partition(|found| found.version.until_ms.is_none());
        let until: Vec<u64> = old.iter().filter_map(|found| found.version.until_ms).collect();
        let gone = expired(&until, now_ms(), self.inner.tree.retention().await?);
        let kept = old.into_iter().zip(gone).filter(|(_, gone)| !gone).map(|(found, _)| found);
        Ok(now.into_iter().chain(kept).collect())
    }
}

fn found(inode: Inode, stamp: Stamp, file: FileContent, mode: Mode, until_ms: Option<u64>) -> Kept {
    let name = [&inode.0[..], &stamp.time.to_be_bytes(), &stamp.author].concat();
    let version = Version {
        id: BlobHash::of(&name).short(),
        size: file.size,
        hash: file.hash.to_string(),
        since_ms: millis(stamp),
        until_ms,
    };
    Kept { inode, version, file, mode }
}
