//! Granted parts of the tree, as folders of this machine: copied out before a task, and what the task changed
//! copied back after it.
//!
//! `wasmtime-wasi` opens folders of the host only, so a grant becomes a private folder within a worker's
//! scratch folder. Which content a task is given is decided when its job is submitted: [`digest`] names it, and
//! a node whose tree says otherwise (news travels) waits or declines, so that no task runs on half of an update.
//!
//! A folder that a guest could write to is read back with suspicion: links are never followed, and the worker
//! process is gone by then, so nothing moves underneath.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::{StreamExt, TryStreamExt};
use starfish_fs::path::{PathError, VfsPath};
use starfish_fs::vfs::{Attributes, ByteStream, Entry, Kind, Parents, Removal, Vfs, VfsError};
use tokio::io::AsyncWriteExt;
use tokio_util::io::ReaderStream;

use crate::in_words;
use crate::task::{Access, Digest, Grant, Mebibytes};

/// Entries of all grants of a task: a source tree, but not a whole disk.
const MAX_ENTRIES: usize = 100_000;
/// Content of all grants of a task.
const MAX_BYTES: u64 = 8 << 30;
/// Files copied at a time: enough to keep a disk and some peers busy.
const PARALLEL: usize = 8;
/// How often a tree that differs from what is wanted is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Why a grant cannot be given.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The tree says no.
    #[error("the granted folder cannot be read")]
    Tree(#[from] VfsError),
    /// A file or link cannot be granted by itself.
    #[error("{0} is not a directory, and only directories can be granted")]
    NotADirectory(VfsPath),
    /// Too much to copy.
    #[error("the granted folders hold more than {MAX_ENTRIES} entries or {}", Mebibytes(MAX_BYTES))]
    TooMuch,
    /// The copy failed.
    #[error("the granted folder cannot be copied to this disk")]
    Disk(#[from] std::io::Error),
    /// The tree of this node differs from what the task was submitted for.
    #[error("{0} is not here as it was when the job was submitted")]
    Differs(VfsPath),
}

/// Why changes did not reach the tree.
#[derive(Debug, thiserror::Error)]
enum CommitError {
    #[error("the tree did not take a change")]
    Tree(#[from] VfsError),
    #[error("a change cannot be read")]
    Disk(#[from] std::io::Error),
    #[error("a changed file has a name that is not UTF-8")]
    Name,
}

impl From<PathError> for CommitError {
    fn from(error: PathError) -> Self {
        Self::Tree(error.into())
    }
}

/// A staged grant: where it lies, and what was in it.
#[derive(Debug)]
pub(crate) struct Staged {
    grant: Grant,
    host: PathBuf,
    before: BTreeMap<PathBuf, Mark>,
}

/// All grants of a task, each in a folder within a worker's scratch folder.
#[derive(Debug)]
pub(crate) struct LaidOut {
    folder: PathBuf,
    staged: Vec<Staged>,
}

impl LaidOut {
    /// Lays grants out below `scratch`; without any there is no folder.
    pub(crate) async fn make(
        vfs: &dyn Vfs,
        grants: impl Iterator<Item = &Grant>,
        scratch: &Path,
    ) -> Result<Self, StageError> {
        let (folder, mut staged) = (scratch.join("task"), Vec::new());
        for (number, grant) in grants.enumerate() {
            if number == 0 {
                tokio::fs::create_dir(&folder).await?;
            }
            staged.push(stage(vfs, grant, folder.join(number.to_string())).await?);
        }
        Ok(Self { folder, staged })
    }

    /// The folder that all are in, and all else of the same task may be.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn staged(&self) -> &[Staged] {
        &self.staged
    }

    /// Carries into the tree what has changed; an error says in words that it was not.
    pub(crate) async fn commit(&self, vfs: &dyn Vfs) -> Result<(), String> {
        for staged in &self.staged {
            let committed = staged.commit(vfs).await;
            committed.map_err(|error| format!("its changes were not made: {}", in_words(&error)))?;
        }
        Ok(())
    }

    /// Removes the folder; says whether nothing is left of it.
    pub(crate) async fn clear(self) -> bool {
        self.staged.is_empty() || tokio::fs::remove_dir_all(&self.folder).await.is_ok()
    }
}

/// What tells a changed entry from an unchanged one. A guest can set a modification time, not a change time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    kind: Kind,
    inode: u64,
    changed: (i64, i64),
    size: u64,
}

/// Everything in a granted folder, by its path relative to it; parents come before children.
async fn walk(vfs: &dyn Vfs, root: &VfsPath) -> Result<Vec<(VfsPath, Entry)>, StageError> {
    if vfs.stat(root).await?.kind != Kind::Dir {
        return Err(StageError::NotADirectory(root.clone()));
    }
    let (mut found, mut folders, mut bytes) = (Vec::new(), vec![root.clone()], 0_u64);
    while let Some(folder) = folders.pop() {
        for entry in vfs.list(&folder).await? {
            let path = folder.join(&entry.name).map_err(VfsError::from)?;
            bytes = bytes.saturating_add(entry.size);
            if found.len() >= MAX_ENTRIES || bytes > MAX_BYTES {
                return Err(StageError::TooMuch);
            }
            if entry.kind == Kind::Dir {
                folders.push(path.clone());
            }
            found.push((path, entry));
        }
    }
    Ok(found)
}

/// Names the content of a granted folder: names, kinds, modes and contents, but no times.
pub(crate) async fn digest(vfs: &dyn Vfs, root: &VfsPath) -> Result<Digest, StageError> {
    let mut entries = walk(vfs, root).await?;
    entries.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    let mut hasher = blake3::Hasher::new();
    for (path, entry) in &entries {
        let Entry { name: _, kind, size, mode, mtime_ms: _, hash, target, inode: _ } = entry;
        let content = hash.as_deref().or(target.as_deref()).unwrap_or_default();
        let size = if *kind == Kind::Dir { 0 } else { *size };
        for field in [path.as_str(), &format!("{kind:?} {size} {mode:o}"), content] {
            hasher.update(&(field.len() as u64).to_le_bytes());
            hasher.update(field.as_bytes());
        }
    }
    Ok(Digest(*hasher.finalize().as_bytes()))
}

/// Waits until the tree of this node shows every grant as its digest says.
pub(crate) async fn await_digests(
    vfs: &dyn Vfs,
    inputs: &[(Grant, Digest)],
    patience: Duration,
) -> Result<(), StageError> {
    let deadline = tokio::time::Instant::now() + patience;
    for (grant, wanted) in inputs {
        loop {
            match digest(vfs, &grant.path).await {
                Ok(found) if found == *wanted => break,
                Ok(_) | Err(StageError::Tree(VfsError::NotFound { .. }))
                    if tokio::time::Instant::now() < deadline =>
                {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                Ok(_) => return Err(StageError::Differs(grant.path.clone())),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Copies a granted folder out of the tree to `host`, which must not be there yet.
async fn stage(vfs: &dyn Vfs, grant: &Grant, host: PathBuf) -> Result<Staged, StageError> {
    let entries = walk(vfs, &grant.path).await?;
    tokio::fs::create_dir_all(&host).await?;
    let mut files = Vec::new();
    for (path, entry) in entries {
        let target = host.join(relative(&grant.path, &path));
        match entry.kind {
            Kind::Dir => tokio::fs::create_dir(&target).await?,
            Kind::Symlink => tokio::fs::symlink(entry.target.as_deref().unwrap_or_default(), &target).await?,
            Kind::File => files.push((path, target, entry)),
        }
    }
    let copies = files.into_iter().map(|(path, target, entry)| copy_out(vfs, path, target, entry));
    futures::stream::iter(copies).buffer_unordered(PARALLEL).try_collect::<()>().await?;
    let before = survey_of(host.clone()).await?;
    Ok(Staged { grant: grant.clone(), host, before })
}

/// Copies a file of the tree to `target`, which must not be there yet.
pub(crate) async fn copy_out(
    vfs: &dyn Vfs,
    path: VfsPath,
    target: PathBuf,
    entry: Entry,
) -> Result<(), StageError> {
    let mut content = vfs.read(&path, 0..entry.size).await?;
    let mut options = tokio::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).open(&target).await?;
    while let Some(bytes) = content.next().await {
        file.write_all(&bytes?).await?;
    }
    file.flush().await?;
    let file = file.into_std().await;
    let finish = move || {
        file.set_modified(UNIX_EPOCH + Duration::from_millis(entry.mtime_ms))?;
        // The worker must be able to read it; what a guest may do is decided by the grant, not by mode bits.
        file.set_permissions(std::fs::Permissions::from_mode(entry.mode & 0o777 | 0o600))
    };
    Ok(tokio::task::spawn_blocking(finish).await.map_err(std::io::Error::other)??)
}

impl Staged {
    /// The folder on this machine.
    pub(crate) fn host(&self) -> &Path {
        &self.host
    }

    /// The grant that it is a copy for.
    pub(crate) fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Carries what has changed into the tree. Each file changes at once; the whole does not, but doing it
    /// again (after a crash, or on another node) ends in the same state.
    async fn commit(&self, vfs: &dyn Vfs) -> Result<(), CommitError> {
        if self.grant.access == Access::ReadOnly {
            return Ok(());
        }
        let after = survey_of(self.host.clone()).await?;
        let gone = self
            .before
            .iter()
            .rev()
            .filter(|(path, mark)| after.get(*path).is_none_or(|now| now.kind != mark.kind));
        for (path, _) in gone {
            match vfs.remove(&self.in_tree(path)?, Removal::Recursive).await {
                Ok(()) | Err(VfsError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let new = after.iter().filter(|(path, mark)| match self.before.get(*path) {
            // What is in a folder has entries of its own.
            Some(before) if mark.kind == Kind::Dir => before.kind != Kind::Dir,
            before => before != Some(mark),
        });
        for (path, mark) in new {
            self.copy_in(vfs, path, mark.kind).await?;
        }
        Ok(())
    }

    async fn copy_in(&self, vfs: &dyn Vfs, relative: &Path, kind: Kind) -> Result<(), CommitError> {
        let (host, path) = (self.host.join(relative), self.in_tree(relative)?);
        match kind {
            Kind::Dir => drop(vfs.mkdir(&path, Parents::Create).await?),
            Kind::Symlink => {
                let target = tokio::fs::read_link(&host).await?;
                let target = target.to_str().ok_or(CommitError::Name)?;
                if let Err(VfsError::Exists { .. }) = vfs.symlink(&path, target).await {
                    vfs.remove(&path, Removal::Single).await?;
                    vfs.symlink(&path, target).await?;
                }
            }
            Kind::File => {
                let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
                let open = move || std::fs::File::options().read(true).custom_flags(no_follow).open(host);
                let file = tokio::task::spawn_blocking(open).await.map_err(std::io::Error::other)??;
                let attributes = Attributes { mode: None, mtime_ms: modified_ms(&file.metadata()?) };
                vfs.write(&path, content_of(file, &path), attributes).await?;
            }
        }
        Ok(())
    }

    fn in_tree(&self, relative: &Path) -> Result<VfsPath, CommitError> {
        let mut path = self.grant.path.clone();
        for name in relative {
            path = path.join(name.to_str().ok_or(CommitError::Name)?)?;
        }
        Ok(path)
    }
}

fn content_of(file: std::fs::File, path: &VfsPath) -> ByteStream {
    let what = format!("reading what the task wrote to {path}");
    let bytes = ReaderStream::with_capacity(tokio::fs::File::from_std(file), crate::wire::CHUNK);
    Box::pin(bytes.map_err(move |source| VfsError::Io { what: what.clone(), source }))
}

fn modified_ms(metadata: &Metadata) -> Option<u64> {
    let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    modified.duration_since(UNIX_EPOCH).ok().and_then(|since| u64::try_from(since.as_millis()).ok())
}

fn relative(root: &VfsPath, path: &VfsPath) -> PathBuf {
    path.names().skip(root.names().count()).collect()
}

async fn survey_of(root: PathBuf) -> std::io::Result<BTreeMap<PathBuf, Mark>> {
    tokio::task::spawn_blocking(move || survey(&root)).await.map_err(std::io::Error::other)?
}

/// Every file, folder and link below `root`, by relative path, so that parents come first. Links are not
/// followed, and what is none of the three (there is no way for a guest to make any) is passed over.
fn survey(root: &Path) -> std::io::Result<BTreeMap<PathBuf, Mark>> {
    let (mut marks, mut folders) = (BTreeMap::new(), vec![PathBuf::new()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let path = folder.join(entry.file_name());
            let kind = match metadata.file_type() {
                kind if kind.is_dir() => Kind::Dir,
                kind if kind.is_symlink() => Kind::Symlink,
                kind if kind.is_file() => Kind::File,
                _ => continue,
            };
            if kind == Kind::Dir {
                folders.push(path.clone());
            }
            let changed = (metadata.ctime(), metadata.ctime_nsec());
            marks.insert(path, Mark { kind, inode: metadata.ino(), changed, size: metadata.len() });
        }
    }
    Ok(marks)
}

/// Bytes on the disk below `root`, as far as they can be seen.
pub(crate) fn measure(root: &Path) -> u64 {
    let (mut bytes, mut folders) = (0, vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                // An entry costs something even when it is empty.
                Ok(metadata) => bytes += metadata.blocks() * 512 + 256,
                Err(_) => {}
            }
        }
    }
    bytes
}
