//! Where this replica counts: the field of every counter that is its own.
//!
//! A count in that field is overwritten by the next, so it must never be smaller than one that others have heard of.
//! After a crash, or damage of the disk, the store may have lost its newest cells. So a replica that was not closed
//! well counts in a new field from then on; the old one stays and is added up like everybody's.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::cell::Author;

/// The file's last byte.
const OPEN: u8 = 0;
const CLOSED: u8 = 1;

/// The fields that a replica counts in.
#[derive(Debug)]
pub(crate) struct Slot {
    name: Mutex<[u8; 16]>,
    file: PathBuf,
}

impl Slot {
    /// The one of the last time if that ended well, or a new one.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let file = dir.join("counts");
        let name = match fs::read(&file).ok().as_deref().and_then(<[u8]>::split_last) {
            Some((&CLOSED, name)) if name.len() == 16 => name.try_into().unwrap_or_else(|_| rand::random()),
            _ => rand::random(),
        };
        let slot = Self { name: Mutex::new(name), file };
        slot.write(OPEN)?;
        Ok(slot)
    }

    /// As counters name it.
    pub(crate) fn name(&self) -> Author {
        Author::from_bytes(*self.guard())
    }

    /// Goes on with another one: what was counted in the old one may be lost here.
    pub(crate) fn renew(&self) -> io::Result<()> {
        *self.guard() = rand::random();
        self.write(OPEN)
    }

    fn guard(&self) -> MutexGuard<'_, [u8; 16]> {
        self.name.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that was counted is on the disk: the next time may go on with it.
    pub(crate) fn close(&self) -> io::Result<()> {
        self.write(CLOSED)
    }

    fn write(&self, state: u8) -> io::Result<()> {
        let temporary = self.file.with_extension("new");
        let mut file = File::create(&temporary)?;
        file.write_all(&*self.guard())?;
        file.write_all(&[state])?;
        file.sync_all()?;
        fs::rename(&temporary, &self.file)?;
        // The name must be on the disk before anything is counted under it.
        File::open(self.file.parent().unwrap_or(Path::new(".")))?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counting_goes_on_in_the_same_field_only_after_a_good_end() {
        let folder = tempfile::tempdir().unwrap();
        let first = Slot::open(folder.path()).unwrap();
        first.close().unwrap();
        let second = Slot::open(folder.path()).unwrap();
        assert_eq!(second.name(), first.name());
        let third = Slot::open(folder.path()).unwrap();
        assert_ne!(third.name(), second.name(), "the second was not closed");
        fs::write(folder.path().join("counts"), b"\x01").unwrap();
        assert!(Slot::open(folder.path()).is_ok(), "a damaged file is begun anew");
    }
}
