//! From the tree to a folder of the host.
//!
//! The tree is written by others, so the host is guarded against it: nothing below the folder that the user named is
//! written through a link (a name of the target that is a link is replaced, or refused where a folder is needed), a
//! file appears under its name only when it is whole ([`Partial`]), and permissions carry no set-uid or set-gid bit.
//! What is neither file nor link (a device, a pipe) is never replaced.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::partial::{Finish, KEPT_MODE, Partial, times};
use super::{AT_ONCE, CopyError, OnProgress, SMALL, Summary, Tracker, blocking, host};
use crate::path::{VfsPath, check_name};
use crate::vfs::{ByteStream, Entry, Kind, Vfs};

/// Something to be made on the host.
struct Item {
    from: VfsPath,
    to: PathBuf,
    entry: Entry,
}

/// Copies the directory `from`, with everything in it, to the folder `to`, which is made if it is not there. What is
/// there already stays, unless something of the same name comes.
pub async fn export_dir(
    vfs: &dyn Vfs,
    from: &VfsPath,
    to: &Path,
    on_progress: OnProgress<'_>,
) -> Result<Summary, CopyError> {
    let tracker = Tracker::new(on_progress);
    let mut entry = vfs.stat(from).await?;
    match entry.kind {
        Kind::Dir => {}
        Kind::File => return Err(CopyError::SourceNotADirectory { path: from.clone() }),
        // It is followed, and has no permissions of its own.
        Kind::Symlink => entry.mode = 0o755,
    }
    {
        // The user named the topmost folder, so here a link is followed.
        let to = to.to_owned();
        blocking(move || fs::create_dir_all(&to).map_err(|error| host("make the folder", &to, error)))
            .await?;
    }
    let mut dirs = vec![Item { from: from.clone(), to: to.to_owned(), entry }];
    let mut next = 0;
    while let Some(dir) = dirs.get(next) {
        let (below, rest): (Vec<_>, Vec<_>) =
            children(dir, vfs).await?.into_iter().partition(|item| item.entry.kind == Kind::Dir);
        for dir in &below {
            let to = dir.to.clone();
            blocking(move || make_dir(&to)).await?;
        }
        let copied = stream::iter(rest).map(|item| export_item(item, vfs, &tracker));
        copied.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        dirs.extend(below);
        next += 1;
    }
    // Last and from below: a folder may be read-only, and its time changes with what is made in it.
    for Item { to, entry, .. } in dirs.into_iter().rev() {
        blocking(move || finish_dir(&to, &entry)).await?;
        tracker.count(|summary| summary.dirs += 1);
    }
    Ok(tracker.finish())
}

/// Copies one file (following a link to it) to the path `to`. The user named that path, so here a link is followed, as
/// `cp` does: what it leads to gets the content, and keeps its permissions.
pub async fn export_file(
    vfs: &dyn Vfs,
    from: &VfsPath,
    to: &Path,
    on_progress: OnProgress<'_>,
) -> Result<Summary, CopyError> {
    let tracker = Tracker::new(on_progress);
    let mut entry = vfs.stat(from).await?;
    if entry.kind == Kind::Symlink {
        entry = Entry { kind: Kind::File, mode: 0o644, ..entry };
    }
    let named = to.to_owned();
    let (to, mode) = blocking(move || behind_link(named)).await?;
    entry.mode = mode.unwrap_or(entry.mode);
    let item = Item { from: from.clone(), to, entry };
    export_content(&item, vfs, &tracker).await?;
    Ok(tracker.finish())
}

async fn children(dir: &Item, vfs: &dyn Vfs) -> Result<Vec<Item>, CopyError> {
    let entries = vfs.list(&dir.from).await?;
    let item = |entry: Entry| {
        // Names are the only part of the tree that becomes a path of the host. They were checked when they came in;
        // a `Vfs` over a network might not have.
        let invalid = |source| CopyError::Path { path: dir.to.clone(), source };
        check_name(&entry.name).map_err(invalid)?;
        let from = dir.from.join(&entry.name).map_err(invalid)?;
        Ok(Item { from, to: dir.to.join(&entry.name), entry })
    };
    entries.into_iter().map(item).collect()
}

async fn export_item(item: Item, vfs: &dyn Vfs, tracker: &Tracker<'_>) -> Result<(), CopyError> {
    match (item.entry.kind, &item.entry.target) {
        (Kind::Symlink, Some(target)) => {
            let (target, to, mtime_ms) = (target.clone(), item.to.clone(), item.entry.mtime_ms);
            blocking(move || make_link(&target, &to, mtime_ms)).await?;
            tracker.count(|summary| summary.links += 1);
            Ok(())
        }
        (Kind::Symlink, None) | (Kind::Dir, _) => Ok(()),
        (Kind::File, _) => export_content(&item, vfs, tracker).await,
    }
}

async fn export_content(item: &Item, vfs: &dyn Vfs, tracker: &Tracker<'_>) -> Result<(), CopyError> {
    let _place = tracker.place(item.entry.size).await;
    while export_once(item, vfs, tracker).await? == Finish::Misfit {
        tracing::debug!(to = %item.to.display(), "what was there before was something else");
    }
    tracker.count(|summary| summary.files += 1);
    Ok(())
}

async fn export_once(item: &Item, vfs: &dyn Vfs, tracker: &Tracker<'_>) -> Result<Finish, CopyError> {
    if item.entry.size <= SMALL {
        let (content, is_whole) = first_parts(vfs.read(&item.from, 0..u64::MAX).await?).await?;
        if is_whole {
            return export_small(item, content.concat(), tracker).await;
        }
    }
    let file = {
        let (to, entry) = (item.to.clone(), item.entry.clone());
        blocking(move || begin(&to, &entry)).await?
    };
    let offset = file.offset();
    let written = AtomicU64::new(0);
    let count = |bytes| {
        written.fetch_add(bytes, Ordering::Relaxed);
        tracker.count(|summary| summary.bytes += bytes);
    };
    count(offset);
    vfs.read_to(&item.from, offset..u64::MAX, file.handle()?, &count).await?;
    let (mode, mtime_ms) = (item.entry.mode, item.entry.mtime_ms);
    let finish = blocking(move || file.finish(mode, mtime_ms)).await?;
    if finish == Finish::Misfit {
        tracker.count(|summary| summary.bytes = summary.bytes.saturating_sub(written.into_inner()));
    }
    Ok(finish)
}

/// The parts of a stream, and whether they are all: no more are read than a small file has.
async fn first_parts(mut content: ByteStream) -> Result<(Vec<Bytes>, bool), CopyError> {
    let (mut parts, mut len) = (Vec::new(), 0);
    while let Some(part) = content.try_next().await? {
        len += part.len() as u64;
        parts.push(part);
        if len > SMALL {
            return Ok((parts, false));
        }
    }
    Ok((parts, true))
}

/// A small file is made in one go: the way to another thread and back takes longer than writing it.
async fn export_small(item: &Item, content: Vec<u8>, tracker: &Tracker<'_>) -> Result<Finish, CopyError> {
    let (to, entry, len) = (item.to.clone(), item.entry.clone(), content.len() as u64);
    let work = move || begin(&to, &entry)?.write(&content)?.finish(entry.mode, entry.mtime_ms);
    let finish = blocking(work).await?;
    tracker.count(|summary| summary.bytes += len);
    Ok(finish)
}

fn begin(to: &Path, entry: &Entry) -> Result<Partial, CopyError> {
    check_replaceable(to)?;
    Partial::begin(to, entry)
}

/// Where a path leads that may be a link; if it is one, with the permissions of what is there.
fn behind_link(path: PathBuf) -> Result<(PathBuf, Option<u32>), CopyError> {
    if !fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_symlink()) {
        return Ok((path, None));
    }
    let failed = |error| host("follow the link", &path, error);
    let metadata = fs::metadata(&path).map_err(failed)?;
    // Before the path is looked for: a pipe behind /dev/stdout has none.
    if !metadata.is_file() {
        return Err(CopyError::NotAFile { path });
    }
    Ok((fs::canonicalize(&path).map_err(failed)?, Some(metadata.permissions().mode())))
}

/// A new file takes the place of a file or link, and of nothing else.
fn check_replaceable(path: &Path) -> Result<(), CopyError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.is_file() && !metadata.is_symlink() => {
            Err(CopyError::NotAFile { path: path.to_owned() })
        }
        _ => Ok(()),
    }
}

fn make_dir(path: &Path) -> Result<(), CopyError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let metadata = fs::symlink_metadata(path).map_err(|error| host("read", path, error))?;
            if metadata.is_dir() { Ok(()) } else { Err(CopyError::NotAFolder { path: path.to_owned() }) }
        }
        made => made.map_err(|error| host("make the folder", path, error)),
    }
}

fn finish_dir(path: &Path, entry: &Entry) -> Result<(), CopyError> {
    let finish = || {
        let dir = File::open(path)?;
        dir.set_permissions(Permissions::from_mode(entry.mode & KEPT_MODE))?;
        dir.set_times(times(entry.mtime_ms))
    };
    finish().map_err(|error| host("set the attributes of", path, error))
}

fn make_link(target: &str, path: &Path, mtime_ms: u64) -> Result<(), CopyError> {
    let make = || {
        match std::os::unix::fs::symlink(target, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(path)?;
                std::os::unix::fs::symlink(target, path)?;
            }
            made => made?,
        }
        let time = rustix::fs::Timespec {
            tv_sec: (mtime_ms / 1000) as i64,
            tv_nsec: (mtime_ms % 1000 * 1_000_000) as _,
        };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        Ok(rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?)
    };
    make().map_err(|error| host("make the link", path, error))
}
