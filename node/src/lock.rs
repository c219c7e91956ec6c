//! One node per data folder.
//!
//! The lock is the kernel's (`flock` on `node.lock`), so it ends with the process however that ends: a
//! folder is never left locked by a `kill -9`. The pid in the file is only for people.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::data_dir::DataDir;

/// [`NodeLock::is_held`] holds the lock for microseconds; a node holds it for as long as it runs.
const PROBE_TRIES: u32 = 3;
const PROBE_PAUSE: Duration = Duration::from_millis(10);

/// Held for as long as the node runs.
#[derive(Debug)]
pub struct NodeLock {
    _file: File,
}

/// Why the folder could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another node runs on it.
    #[error("a node is already running on {data_dir}{}", pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Held {
        /// The folder.
        data_dir: PathBuf,
        /// The process that holds it; unknown while that process is still starting.
        pid: Option<u32>,
    },
    /// The lock file cannot be used.
    #[error("cannot lock {path}")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl NodeLock {
    /// Takes the folder, or says who has it.
    pub fn acquire(dir: &DataDir) -> Result<Self, LockError> {
        let path = dir.lock();
        let failed = |source| LockError::Io { path: dir.lock(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false) // It names the holder, should there be one.
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        let mut tries = 0;
        while let Err(error) = file.try_lock() {
            match error {
                // Not a node perhaps, but somebody in `is_held`.
                TryLockError::WouldBlock if tries < PROBE_TRIES => std::thread::sleep(PROBE_PAUSE),
                TryLockError::WouldBlock => {
                    return Err(LockError::Held {
                        data_dir: dir.path().to_owned(),
                        pid: read_pid(&mut file),
                    });
                }
                TryLockError::Error(source) => return Err(failed(source)),
            }
            tries += 1;
        }
        let pid = std::process::id().to_string();
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(pid.as_bytes()))
            .map_err(failed)?;
        Ok(Self { _file: file })
    }

    /// Whether somebody has the folder now.
    pub fn is_held(dir: &DataDir) -> bool {
        let Ok(file) = File::open(dir.lock()) else { return false };
        // Shared, so that several who ask do not see each other.
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_learns_who_the_first_is_and_changes_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::new(temp.path());
        assert!(!NodeLock::is_held(&dir));
        let first = NodeLock::acquire(&dir).unwrap();
        assert!(NodeLock::is_held(&dir));
        for _ in 0..2 {
            let LockError::Held { pid, .. } = NodeLock::acquire(&dir).unwrap_err() else {
                panic!("not held")
            };
            assert_eq!(pid, Some(std::process::id()));
        }
        drop(first);
        assert!(!NodeLock::is_held(&dir));
        NodeLock::acquire(&dir).unwrap();
    }

    #[test]
    fn a_lock_file_without_a_holder_is_no_obstacle() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::new(temp.path());
        std::fs::write(dir.lock(), "4194999\n and much more").unwrap();
        let _lock = NodeLock::acquire(&dir).unwrap();
        assert_eq!(std::fs::read_to_string(dir.lock()).unwrap(), std::process::id().to_string());
    }
}
