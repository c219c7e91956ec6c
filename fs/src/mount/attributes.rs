//! What the kernel is told about a file: the tree's entry, or the state of one that is being written.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo};

use crate::vfs::{Entry, Kind};

/// What `st_blocks` counts in.
const BLOCK: u64 = 512;
/// What programs are advised to read and write at once; the kernel wants no more than a page here.
const PREFERRED_SIZE: u32 = 4096;

/// To whom the kernel says that everything belongs: the tree has no owners, so it is whoever mounts it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// A file as it is shown, wherever its bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) kind: Kind,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) mtime_ms: u64,
    /// Whether it still has a name.
    pub(super) is_named: bool,
}

impl From<&Entry> for Shown {
    fn from(entry: &Entry) -> Self {
        let Entry { kind, size, mode, mtime_ms, .. } = *entry;
        Self { kind, size, mode, mtime_ms, is_named: true }
    }
}

impl Owner {
    /// For the kernel.
    pub(super) fn attributes(self, ino: u64, shown: Shown) -> FileAttr {
        let mtime = time(shown.mtime_ms);
        FileAttr {
            ino: INodeNo(ino),
            size: shown.size,
            blocks: shown.size.div_ceil(BLOCK),
            atime: mtime,
            mtime,
            ctime: mtime,
            crtime: mtime,
            kind: file_type(shown.kind),
            perm: (shown.mode & 0o7777) as u16,
            // A directory with 1 tells `find` not to conclude anything from the number.
            nlink: u32::from(shown.is_named),
            uid: self.uid,
            gid: self.gid,
            rdev: 0,
            blksize: PREFERRED_SIZE,
            flags: 0,
        }
    }
}

/// The kernel's word for it.
pub(super) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Dir => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
    }
}

fn time(ms: u64) -> SystemTime {
    // What is beyond the clock's range is as good as never.
    UNIX_EPOCH.checked_add(Duration::from_millis(ms)).unwrap_or(UNIX_EPOCH)
}

/// In the tree's unit; what was before 1970 is 1970.
pub(super) fn milliseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Now, in the tree's unit.
pub(super) fn now_ms() -> u64 {
    milliseconds(SystemTime::now())
}
