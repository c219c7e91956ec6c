//! From a folder of the host into the tree.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use futures::{StreamExt, TryStreamExt, stream};

use super::{AT_ONCE, CopyError, OnProgress, Remark, SMALL, Summary, Tracker, blocking, host};
use crate::host::HostFile;
use crate::path::VfsPath;
use crate::vfs::{Attributes, Parents, Removal, Vfs, VfsError, stream_of};

/// Something found on the host.
#[derive(Clone)]
struct Item {
    from: PathBuf,
    to: VfsPath,
    attributes: Attributes,
    what: What,
}

#[derive(Clone)]
enum What {
    Dir,
    File {
        len: u64,
    },
    Link {
        target: String,
    },
    Other,
    /// It was there a moment ago.
    Nothing,
}

/// Copies the folder `from`, with everything in it, to the directory `to`, which is made if it is not there. What is
/// there already stays, unless something of the same name comes.
pub async fn import_dir(
    from: &Path,
    vfs: &dyn Vfs,
    to: &VfsPath,
    on_progress: OnProgress<'_>,
) -> Result<Summary, CopyError> {
    let tracker = Tracker::new(on_progress);
    let items = {
        let (from, to) = (from.to_owned(), to.clone());
        blocking(move || walk(from, to)).await?
    };
    let (dirs, rest): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| matches!(item.what, What::Dir));
    // The topmost with its parents; then level by level, so that each finds its parent made.
    vfs.mkdir(to, Parents::Create).await?;
    for level in dirs.chunk_by(|left, right| depth(left) == depth(right)) {
        let made = stream::iter(level.to_vec()).map(|dir| import_dir_entry(dir, vfs, &tracker));
        made.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    }
    let copied = stream::iter(rest).map(|item| import_item(item, vfs, &tracker));
    copied.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    Ok(tracker.finish())
}

/// Copies one file (following a link to it) to the path `to`.
pub async fn import_file(
    from: &Path,
    vfs: &dyn Vfs,
    to: &VfsPath,
    on_progress: OnProgress<'_>,
) -> Result<Summary, CopyError> {
    let tracker = Tracker::new(on_progress);
    let metadata = tokio::fs::metadata(from).await.map_err(|error| host("read", from, error))?;
    if metadata.is_dir() {
        return Err(host("read", from, io::ErrorKind::IsADirectory.into()));
    }
    if !metadata.is_file() {
        // A pipe would be waited for, and a device never ends.
        let reason =
            io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file; `-` reads standard input");
        return Err(host("read", from, reason));
    }
    let what = What::File { len: metadata.len() };
    let item = Item { from: from.to_owned(), to: to.clone(), attributes: attributes(&metadata), what };
    import_item(item, vfs, &tracker).await?;
    let summary = tracker.finish();
    match summary.files {
        0 => Err(host("read", from, io::ErrorKind::NotFound.into())),
        _ => Ok(summary),
    }
}

fn depth(item: &Item) -> usize {
    item.to.names().count()
}

async fn import_dir_entry(item: Item, vfs: &dyn Vfs, tracker: &Tracker<'_>) -> Result<(), CopyError> {
    vfs.mkdir(&item.to, Parents::Create).await?;
    vfs.set_attributes(&item.to, item.attributes).await?;
    tracker.count(|summary| summary.dirs += 1);
    Ok(())
}

async fn import_item(item: Item, vfs: &dyn Vfs, tracker: &Tracker<'_>) -> Result<(), CopyError> {
    match &item.what {
        What::Dir => {}
        What::Other => tracker.remark(item.from.clone(), Remark::PassedOver),
        What::Nothing => tracker.remark(item.from.clone(), Remark::Vanished),
        What::File { len } => {
            let _place = tracker.place(*len).await;
            file(&item, *len, vfs, tracker).await?;
        }
        What::Link { target } => {
            link(&item, target, vfs).await?;
            tracker.count(|summary| summary.links += 1);
        }
    }
    Ok(())
}

/// Copies a file that was this long when it was found, and remarks if it is not the same any more.
async fn file(item: &Item, len: u64, vfs: &dyn Vfs, tracker: &Tracker<'_>) -> Result<(), CopyError> {
    let metadata = match import_content(item, len, vfs, tracker).await {
        Err(error) if error.is_vanished(&item.from) => {
            tracker.remark(item.from.clone(), Remark::Vanished);
            return Ok(());
        }
        copied => copied?,
    };
    if metadata.len() != len || attributes(&metadata).mtime_ms != item.attributes.mtime_ms {
        tracker.remark(item.from.clone(), Remark::Changed);
    }
    tracker.count(|summary| summary.files += 1);
    Ok(())
}

async fn link(item: &Item, target: &str, vfs: &dyn Vfs) -> Result<(), CopyError> {
    match vfs.symlink(&item.to, target).await {
        Err(VfsError::Exists { .. }) => {
            vfs.remove(&item.to, Removal::Single).await?;
            vfs.symlink(&item.to, target).await?;
        }
        made => drop(made?),
    }
    vfs.set_attributes(&item.to, Attributes { mode: None, ..item.attributes }).await?;
    Ok(())
}

/// A long file goes over part by part, and counts as it does. Gives what the file was like afterwards.
async fn import_content(
    item: &Item,
    len: u64,
    vfs: &dyn Vfs,
    tracker: &Tracker<'_>,
) -> Result<Metadata, CopyError> {
    let count = |bytes| tracker.count(|summary| summary.bytes += bytes);
    if len <= SMALL {
        let path = item.from.clone();
        let read = blocking(move || read(&path).map_err(|error| host("read", &path, error)));
        let (bytes, metadata) = read.await?;
        let len = bytes.len() as u64;
        vfs.write(&item.to, stream_of(bytes), item.attributes).await?;
        count(len);
        return Ok(metadata);
    }
    let path = item.from.clone();
    let opened = blocking(move || {
        let open = || {
            let file = File::open(&path)?;
            Ok((file.try_clone()?, file))
        };
        open().map_err(|error| host("read", &path, error))
    });
    let (file, same) = opened.await?;
    let source = HostFile { file, name: item.from.display().to_string() };
    vfs.write_from(&item.to, source, item.attributes, &count).await?;
    same.metadata().map_err(|error| host("read", &item.from, error))
}

/// A short file, and what it was like afterwards.
fn read(path: &Path) -> io::Result<(Vec<u8>, Metadata)> {
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok((bytes, file.metadata()?))
}

/// Everything in a folder, the folder itself first, parents before children and level by level.
fn walk(from: PathBuf, to: VfsPath) -> Result<Vec<Item>, CopyError> {
    let metadata = std::fs::metadata(&from).map_err(|error| host("read", &from, error))?;
    let mut items = vec![Item { from, to, attributes: attributes(&metadata), what: What::Dir }];
    let mut next = 0;
    while let Some(item) = items.get(next) {
        if matches!(item.what, What::Dir) {
            match children(item) {
                Ok(mut children) => items.append(&mut children),
                // Not the topmost one: it was asked for.
                Err(error) if next > 0 && error.is_vanished(&item.from) => items[next].what = What::Nothing,
                Err(error) => return Err(error),
            }
        }
        next += 1;
    }
    Ok(items)
}

fn children(dir: &Item) -> Result<Vec<Item>, CopyError> {
    let failed = |error| host("read", &dir.from, error);
    std::fs::read_dir(&dir.from)
        .map_err(failed)?
        .map(|entry| {
            let from = entry.map_err(failed)?.path();
            let name = from.file_name().and_then(|name| name.to_str());
            let name = name.ok_or_else(|| CopyError::NotUtf8 { path: from.clone() })?;
            let to = dir.to.join(name).map_err(|source| CopyError::Path { path: from.clone(), source })?;
            let found = std::fs::symlink_metadata(&from).map_err(|error| host("read", &from, error));
            match found.and_then(|metadata| Ok((what(&from, &metadata)?, attributes(&metadata)))) {
                Ok((what, attributes)) => Ok(Item { from, to, attributes, what }),
                Err(error) if error.is_vanished(&from) => {
                    Ok(Item { from, to, attributes: Attributes::default(), what: What::Nothing })
                }
                Err(error) => Err(error),
            }
        })
        .collect()
}

fn what(path: &Path, metadata: &Metadata) -> Result<What, CopyError> {
    let kind = metadata.file_type();
    if kind.is_dir() {
        return Ok(What::Dir);
    }
    if kind.is_file() {
        return Ok(What::File { len: metadata.len() });
    }
    if !kind.is_symlink() {
        return Ok(What::Other);
    }
    let target = std::fs::read_link(path).map_err(|error| host("read the link", path, error))?;
    let target = target.to_str().ok_or_else(|| CopyError::NotUtf8 { path: path.to_owned() })?;
    Ok(What::Link { target: target.to_owned() })
}

fn attributes(metadata: &Metadata) -> Attributes {
    let mtime_ms = metadata.mtime().saturating_mul(1000).saturating_add(metadata.mtime_nsec() / 1_000_000);
    Attributes { mode: Some(metadata.mode() & 0o7777), mtime_ms: Some(u64::try_from(mtime_ms).unwrap_or(0)) }
}
