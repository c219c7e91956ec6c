//! Opening a store that its engine does not take as it is.
//!
//! Of what the engine has besides tables two things are needed by all: the file that tells its version, which is the same
//! in all stores, and the journals, of which any beginning makes sense. So of a damaged journal the longest beginning is
//! looked for that is taken, in a copy whose tables are links: what was found stays as it is.

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use crate::store::{Store, StoreEngine};

const VERSION: &str = "version";
const JOURNAL: &str = "jnl";
/// The search for the place where a journal is damaged ends this close to it, in bytes.
const PRECISION: u64 = 4096;

/// What can be opened of a store. Where it was copied for that, the copy goes once it is closed: fields are dropped in their order.
pub(super) struct Attempt {
    pub(super) engine: StoreEngine,
    _copy: Option<Copy>,
}

impl Attempt {
    /// Opens the store in `folder`, or as much of it as can be. `sound` is the folder of a store that is sound.
    pub(super) fn at(folder: &Path, sound: &Path) -> Option<Self> {
        if let Some(engine) = open(folder) {
            return Some(Self { engine, _copy: None });
        }
        let copied = Self::of_copy(folder, sound);
        copied
            .inspect_err(|error| tracing::warn!(%error, "the damaged memory cannot be copied"))
            .ok()
            .flatten()
    }

    fn of_copy(folder: &Path, sound: &Path) -> io::Result<Option<Self>> {
        let journals = journals(folder)?;
        let copy = |n_bytes: u64| Copy::make(folder, sound, &journals, n_bytes);
        let takes = |n_bytes: u64| Ok::<bool, io::Error>(open(&copy(n_bytes)?.0).is_some());
        let (mut taken, mut refused) = (0, journals.iter().map(|(_, len)| len).sum::<u64>());
        if takes(refused)? {
            taken = refused;
        } else if !takes(taken)? {
            return Ok(None);
        }
        while refused - taken > PRECISION {
            let middle = taken + (refused - taken) / 2;
            if takes(middle)? {
                taken = middle;
            } else {
                refused = middle;
            }
        }
        let copy = copy(taken)?;
        Ok(open(&copy.0).map(|engine| Self { engine, _copy: Some(copy) }))
    }
}

fn open(folder: &Path) -> Option<StoreEngine> {
    catch_unwind(AssertUnwindSafe(|| Store::engine_of(folder).ok())).ok().flatten()
}

/// The journals in a folder, in the order in which they were written, with their lengths.
fn journals(folder: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut journals = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if let (true, Some(number)) = (path.extension().is_some_and(|end| end == JOURNAL), number) {
            journals.push((number, path.clone(), path.metadata()?.len()));
        }
    }
    journals.sort_unstable();
    Ok(journals.into_iter().map(|(_, path, len)| (path, len)).collect())
}

/// A folder that is gone when this is dropped.
struct Copy(PathBuf);

impl Copy {
    /// Of a store, with the first so many bytes of its journals.
    fn make(folder: &Path, sound: &Path, journals: &[(PathBuf, u64)], mut n_bytes: u64) -> io::Result<Self> {
        let copy = Self(folder.with_extension("attempt"));
        let _ = fs::remove_dir_all(&copy.0);
        link_all(folder, &copy.0, &|path| journals.iter().any(|(journal, _)| journal == path))?;
        let _ = fs::remove_file(copy.0.join(VERSION));
        fs::copy(sound.join(VERSION), copy.0.join(VERSION))?;
        for (path, len) in journals {
            let (Some(name), true) = (path.file_name(), n_bytes > 0) else { break };
            fs::copy(path, copy.0.join(name))?;
            let file = fs::File::options().write(true).open(copy.0.join(name))?;
            file.set_len(n_bytes.min(*len))?;
            n_bytes = n_bytes.saturating_sub(*len);
        }
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn link_all(from: &Path, to: &Path, is_left_out: &dyn Fn(&Path) -> bool) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        if path.is_dir() {
            link_all(&path, &to.join(name), is_left_out)?;
        } else if !is_left_out(&path) {
            fs::hard_link(&path, to.join(name))?;
        }
    }
    Ok(())
}
