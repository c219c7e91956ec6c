//! How many commits there were: told in each of them, and beside the store as soon as it is on the disk.
//!
//! The engine takes a journal that ends early, is damaged or is gone for one that a crash has cut off, and drops what followed. A
//! start that finds a number in the store that is less than the one beside it knows better.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use fjall::Keyspace;

/// Where the number is among the cells: before all of them, since the name of a space never begins so.
pub(crate) const ADDRESS: [u8; 1] = [0];
/// All cells are from here on.
pub(crate) const BEHIND: [u8; 1] = [1];

/// The number, and the same with all bits turned: a file that does not say both says nothing.
const LEN: usize = 2 * size_of::<u64>();

/// Counts the commits of one store. Only the writer does.
#[derive(Debug)]
pub(crate) struct Commits {
    made: AtomicU64,
    /// Nothing if it cannot be opened: then no more is known than the engine says.
    file: Option<File>,
    lost: u64,
}

impl Commits {
    /// Of the store in `folder`, with these cells.
    pub(crate) fn of(folder: &Path, cells: &Keyspace) -> Result<Self, fjall::Error> {
        let number = cells.get(ADDRESS)?;
        let made = number.and_then(|number| Some(u64::from_be_bytes((*number).try_into().ok()?)));
        let made = made.unwrap_or_default();
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(folder.join("commits"))
            .inspect_err(|error| tracing::warn!(%error, "it cannot be told whether commits are missing"))
            .ok();
        let told = file.as_ref().and_then(read).unwrap_or_default();
        Ok(Self { made: AtomicU64::new(made.max(told)), file, lost: told.saturating_sub(made) })
    }

    /// How many that were on the disk were not there when the store was opened.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// Whether there is not one of them. Then it is not the end that is missing, and the engine may come across the rest later.
    pub(crate) fn are_all_lost(&self) -> bool {
        self.lost > 0 && self.lost == self.made.load(Ordering::Relaxed)
    }

    /// The number of the last one, as it stands in the store.
    pub(crate) fn last(&self) -> [u8; 8] {
        self.made.load(Ordering::Relaxed).to_be_bytes()
    }

    /// The number of the next one.
    pub(crate) fn next(&self) -> [u8; 8] {
        self.made.load(Ordering::Relaxed).saturating_add(1).to_be_bytes()
    }

    /// That one was made.
    pub(crate) fn is_made(&self) {
        self.made.fetch_add(1, Ordering::Relaxed);
    }

    /// All that were made are on the disk.
    pub(crate) fn are_on_disk(&self) {
        let made = self.made.load(Ordering::Relaxed);
        let mut bytes = [0; LEN];
        bytes[..LEN / 2].copy_from_slice(&made.to_le_bytes());
        bytes[LEN / 2..].copy_from_slice(&(!made).to_le_bytes());
        if let Some(Err(error)) = self.file.as_ref().map(|file| file.write_all_at(&bytes, 0)) {
            tracing::debug!(%error, "how many commits there were cannot be told");
        }
    }
}

fn read(file: &File) -> Option<u64> {
    let mut bytes = [0; LEN];
    let whole: io::Result<()> = file.read_exact_at(&mut bytes, 0);
    whole.ok()?;
    let (made, turned) = bytes.split_first_chunk()?;
    let made = u64::from_le_bytes(*made);
    (turned == (!made).to_le_bytes()).then_some(made)
}
