//! A file of the host that is not whole yet. It has another name until it is.
//!
//! A long one is named after its content and stays where a copy breaks off, so that the next copy goes on behind what
//! is there. What was there before is not trusted: the whole is held against the content's hash at the end.

use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use super::{CopyError, host};
use crate::host::HostFile;
use crate::vfs::Entry;

/// Permission bits that are kept.
pub(super) const KEPT_MODE: u32 = 0o1777;
/// Files from this length on are worth going on with.
const RESUMED_FROM: u64 = 8 << 20;
/// Characters of a BLAKE3 hash in hexadecimal, and how many of them make a name.
const HASH_LEN: usize = 64;
const NAME_LEN: usize = 32;

pub(super) struct Partial {
    file: File,
    path: PathBuf,
    to: PathBuf,
    resumed: Option<Resumed>,
    is_finished: bool,
}

/// A copy that may go on later.
struct Resumed {
    /// The hash that the whole must have.
    hash: String,
    /// Bytes that were there.
    offset: u64,
}

/// What became of a file that is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    /// It has its name.
    Done,
    /// What was there before was not the beginning of this content; it is removed.
    Misfit,
}

impl Partial {
    /// Begins a copy of `entry`, or goes on with one.
    pub(super) fn begin(to: &Path, entry: &Entry) -> Result<Self, CopyError> {
        let is_hash =
            |hash: &&String| hash.len() == HASH_LEN && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        let hash = entry.hash.as_ref().filter(|_| entry.size >= RESUMED_FROM).filter(is_hash);
        let resumed = hash.and_then(|hash| Self::resume(to, hash, entry.size).transpose());
        resumed.unwrap_or_else(|| Self::create(to))
    }

    fn create(to: &Path) -> Result<Self, CopyError> {
        let path = to.with_file_name(format!(".starfish-{:016x}", rand::random::<u64>()));
        // A new file: a link of that name is not followed, and nobody else reads what is not whole.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        // The name that was asked for, not the one for the meantime, is what its user knows.
        let file = file.map_err(|error| host("make", to, error))?;
        Ok(Self { file, path, to: to.to_owned(), resumed: None, is_finished: false })
    }

    /// `None` if somebody else is at it.
    fn resume(to: &Path, hash: &str, size: u64) -> Result<Option<Self>, CopyError> {
        let path = to.with_file_name(format!(".starfish-{}", &hash[..NAME_LEN]));
        let open = || {
            let no_link = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(no_link);
            let file = options.open(&path)?;
            let metadata = file.metadata()?;
            let is_own = metadata.is_file()
                && metadata.uid() == rustix::process::geteuid().as_raw()
                && metadata.nlink() == 1;
            if !is_own || file.try_lock().is_err() {
                return Ok(None);
            }
            let is_too_long = metadata.len() > size;
            if is_too_long {
                file.set_len(0)?;
            }
            Ok(Some((file, if is_too_long { 0 } else { metadata.len() })))
        };
        let opened = open().map_err(|error| host("make", to, error))?;
        Ok(opened.map(|(file, offset)| {
            let resumed = Some(Resumed { hash: hash.to_owned(), offset });
            Self { file, path, to: to.to_owned(), resumed, is_finished: false }
        }))
    }

    /// Where the copy goes on.
    pub(super) fn offset(&self) -> u64 {
        self.resumed.as_ref().map_or(0, |resumed| resumed.offset)
    }

    pub(super) fn write(mut self, part: &[u8]) -> Result<Self, CopyError> {
        self.file.write_all(part).map_err(|error| host("write", &self.to, error))?;
        Ok(self)
    }

    /// The file, for whoever writes the rest.
    pub(super) fn handle(&self) -> Result<HostFile, CopyError> {
        let file = self.file.try_clone().map_err(|error| host("write", &self.to, error))?;
        Ok(HostFile { file, name: self.to.display().to_string() })
    }

    /// Gives the file its attributes and its name.
    pub(super) fn finish(mut self, mode: u32, mtime_ms: u64) -> Result<Finish, CopyError> {
        if let Some(resumed) = &self.resumed
            && resumed.offset > 0
            && !self.is_of(&resumed.hash).map_err(|error| host("read", &self.to, error))?
        {
            self.resumed = None;
            return Ok(Finish::Misfit);
        }
        let finish = || {
            self.file.set_permissions(Permissions::from_mode(mode & KEPT_MODE))?;
            self.file.set_times(times(mtime_ms))?;
            fs::rename(&self.path, &self.to)
        };
        finish().map_err(|error| host("write", &self.to, error))?;
        self.is_finished = true;
        Ok(Finish::Done)
    }

    /// Whether all of it has this hash.
    fn is_of(&self, hash: &str) -> io::Result<bool> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0))?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(file)?;
        Ok(hasher.finalize().to_hex().eq_ignore_ascii_case(hash))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // What nothing came of is nothing to go on with.
        let is_empty = || self.file.metadata().is_ok_and(|file| file.len() == 0);
        if !self.is_finished
            && (self.resumed.is_none() || is_empty())
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::debug!(path = %self.path.display(), %error, "unfinished file not removed");
        }
    }
}

pub(super) fn times(mtime_ms: u64) -> FileTimes {
    FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_millis(mtime_ms))
}
