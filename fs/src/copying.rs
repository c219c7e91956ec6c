//! Copying between a folder of the host and the tree: [`import_dir`] and [`export_dir`].
//!
//! Works on any [`crate::vfs::Vfs`], so a client of a running node copies with it as the node itself does. Modes,
//! modification times, symbolic links and empty directories are kept; owners, hard links and extended attributes
//! are not. What could not be copied, or not as one, is named in the [`Summary`].

mod export;
mod import;
mod partial;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;

use tokio::sync::{Semaphore, SemaphorePermit};

pub use export::{export_dir, export_file};
pub use import::{import_dir, import_file};

use crate::path::{PathError, VfsPath};
use crate::vfs::VfsError;

/// Files copied at the same time, if they are short. They share waits for the disk, commits and messages: with a quarter
/// as many, a swarm takes twice the processor time for each.
const AT_ONCE: usize = 64;
/// A file takes one place of these for so many bytes, ...
const PLACE_BYTES: u64 = 64 << 10;
/// ... but no more than this: so few long ones are under way that the node's memory does not fill with their segments.
const MAX_PLACES: u64 = 8;
/// Files up to this length are held whole: the way to another thread, or another process, takes longer than they do.
const SMALL: u64 = 64 << 10;
/// Remarks that are kept for the summary; the rest is only counted.
const MAX_REMARKS: usize = 100;

/// What has been copied so far, and in the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files.
    pub files: u64,
    /// Directories, the topmost included.
    pub dirs: u64,
    /// Symbolic links.
    pub links: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// How many things of the source whoever copies it should know of.
    pub n_remarks: u64,
    /// The first hundred of them.
    pub remarks: Vec<(PathBuf, Remark)>,
}

/// What whoever copies a thing should know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remark {
    /// It is neither file, directory nor link, and was passed over.
    PassedOver,
    /// It was gone before it could be copied.
    Vanished,
    /// It changed while it was copied: it may be a bit of what it was before and a bit of what it was then.
    Changed,
}

/// Called after each file or part of one, with all that is copied so far.
pub type OnProgress<'a> = &'a (dyn Fn(&Summary) + Send + Sync);

/// A copy failed. What was copied until then stays.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Something on the host.
    #[error("could not {what} {}", path.display())]
    Host {
        /// What was tried, as a verb.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// Something in the tree.
    #[error(transparent)]
    Tree(#[from] VfsError),
    /// The tree's names are UTF-8.
    #[error("{path:?}: the name is not UTF-8; rename the file to copy it")]
    NotUtf8 {
        /// The file, its name with escapes.
        path: PathBuf,
    },
    /// A name or path of the host is too long for the tree.
    #[error("{}: cannot be a path of the tree", path.display())]
    Path {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: PathError,
    },
    /// A link stands where a folder is needed; what is written through it would end up elsewhere.
    #[error("{}: is there already and is not a folder; nothing is written through it", path.display())]
    NotAFolder {
        /// The link or file.
        path: PathBuf,
    },
    /// What stands where a file is to be is a device, a pipe, a socket or a folder.
    #[error("{}: is there already and is not a regular file (`-` is standard output)", path.display())]
    NotAFile {
        /// The device, pipe, socket or folder.
        path: PathBuf,
    },
    /// The source is a directory where a file was expected, or the reverse.
    #[error("{path}: is not a directory")]
    SourceNotADirectory {
        /// The source.
        path: VfsPath,
    },
}

impl CopyError {
    /// Whether it says that this is not there.
    fn is_vanished(&self, gone: &Path) -> bool {
        matches!(self, Self::Host { path, source, .. } if path == gone && source.kind() == io::ErrorKind::NotFound)
    }
}

/// Counts and reports, from many copies at once, and keeps them from being too many.
struct Tracker<'a> {
    summary: Mutex<Summary>,
    on_progress: OnProgress<'a>,
    places: Semaphore,
}

impl<'a> Tracker<'a> {
    fn new(on_progress: OnProgress<'a>) -> Self {
        Self { summary: Mutex::default(), on_progress, places: Semaphore::new(AT_ONCE) }
    }

    /// Waits until a file of so many bytes may be copied as well; it may for as long as the permit is held.
    async fn place(&self, bytes: u64) -> Option<SemaphorePermit<'_>> {
        let n = bytes.div_ceil(PLACE_BYTES).clamp(1, MAX_PLACES);
        // Never closed, so there is always a place in the end.
        self.places.acquire_many(n as u32).await.ok()
    }

    fn count(&self, change: impl FnOnce(&mut Summary)) {
        let mut summary = self.summary.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut summary);
        (self.on_progress)(&summary);
    }

    fn remark(&self, path: PathBuf, remark: Remark) {
        self.count(|summary| {
            summary.n_remarks += 1;
            if summary.remarks.len() < MAX_REMARKS {
                summary.remarks.push((path, remark));
            }
        });
    }

    fn finish(self) -> Summary {
        self.summary.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

fn host(what: &'static str, path: &Path, source: io::Error) -> CopyError {
    CopyError::Host { what, path: path.to_owned(), source }
}

/// Runs file work of the host off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CopyError> + Send + 'static,
) -> Result<T, CopyError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(host("copy", Path::new(""), io::Error::other(error))),
    }
}
