//! The programs that a node has: as they came, and compiled.
//!
//! Both are named by the BLAKE3 of the program. Programs may come from peers and are checked against their
//! name. Compiled code is only ever made here, by a process that does nothing else, and is written by the node
//! itself: the workers that run it can read this folder but not write to it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex as SyncMutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::Mutex;
use tracing::debug;

use crate::pool::{CompileError, Pool};
use crate::profile::Profile;
use crate::sandbox::seal_artifact;
use crate::task::Digest;

/// What each of the two folders may hold; what was used longest ago goes first.
const MAX_FOLDER_BYTES: u64 = 2 << 30;
/// A compiled program that was found in its folder is not looked for again for so long: what was used in that time is not
/// removed, and the smallest calls take less time than a look.
const FOUND_FOR: Duration = Duration::from_secs(10);
/// Programs of which that is remembered.
const MAX_FOUND: usize = 256;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Programs {
    modules: PathBuf,
    compiled: PathBuf,
    /// One compilation at a time: it takes a core and much memory.
    compiling: Mutex<()>,
    /// Compiled programs that were there a moment ago.
    found: SyncMutex<HashMap<(Digest, Profile), Found>>,
}

#[derive(Debug)]
struct Found {
    artifact: String,
    at: Instant,
}

/// Why a program cannot be made ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrepareError {
    #[error("the program cannot be read or kept")]
    Disk(#[from] std::io::Error),
    #[error("the program is not what its hash says")]
    WrongBytes,
    #[error(transparent)]
    Compile(#[from] CompileError),
}

impl Programs {
    pub(crate) fn open(modules: PathBuf, compiled: PathBuf) -> std::io::Result<Self> {
        std::fs::create_dir_all(&modules)?;
        std::fs::create_dir_all(&compiled)?;
        Ok(Self { modules, compiled, compiling: Mutex::new(()), found: SyncMutex::default() })
    }

    /// Whether the program is here.
    pub(crate) async fn has(&self, module: Digest) -> bool {
        tokio::fs::try_exists(self.module_path(module)).await.unwrap_or(false)
    }

    /// Keeps a program.
    pub(crate) async fn put(&self, module: Digest, wasm: Bytes) -> Result<(), PrepareError> {
        if Digest::of(&wasm) != module {
            return Err(PrepareError::WrongBytes);
        }
        if !self.has(module).await {
            write_whole(self.module_path(module), wasm).await?;
        }
        Ok(())
    }

    /// A program's bytes.
    pub(crate) async fn get(&self, module: Digest) -> Result<Bytes, PrepareError> {
        let path = self.module_path(module);
        let wasm = Bytes::from(tokio::fs::read(&path).await?);
        if Digest::of(&wasm) != module {
            tokio::fs::remove_file(&path).await?;
            return Err(PrepareError::WrongBytes);
        }
        touch(path).await;
        Ok(wasm)
    }

    /// The name of the compiled form in the cache folder; compiles the program if there is none.
    pub(crate) async fn artifact(
        &self,
        module: Digest,
        pool: &Pool,
        profile: Profile,
    ) -> Result<String, PrepareError> {
        if let Some(name) = self.find(module, pool, profile).await {
            return Ok(name);
        }
        let _only = self.compiling.lock().await;
        if let Some(name) = self.find(module, pool, profile).await {
            return Ok(name);
        }
        let wasm = self.get(module).await?;
        let code = pool.compile(&wasm, profile).await?;
        let name = artifact_name(module, pool.compatibility(profile).unwrap_or_default());
        write_whole(self.compiled.join(&name), seal_artifact(&code).into()).await?;
        debug!(%module, bytes = code.len(), "compiled a program");
        Ok(name)
    }

    /// The name of the compiled form, if it was in the cache folder a moment ago: whoever cannot read it has to
    /// [`discard`](Self::discard) it.
    pub(crate) fn lately(&self, module: Digest, profile: Profile) -> Option<String> {
        let found = self.found();
        let found = found.get(&(module, profile)).filter(|found| found.at.elapsed() < FOUND_FOR)?;
        Some(found.artifact.clone())
    }

    fn found(&self) -> MutexGuard<'_, HashMap<(Digest, Profile), Found>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops a compiled form that turned out to be of no use.
    pub(crate) async fn discard(&self, artifact: &str) {
        self.found().retain(|_, found| found.artifact != artifact);
        let _ = tokio::fs::remove_file(self.compiled.join(artifact)).await;
    }

    async fn find(&self, module: Digest, pool: &Pool, profile: Profile) -> Option<String> {
        if let Some(name) = self.lately(module, profile) {
            return Some(name);
        }
        let name = artifact_name(module, pool.compatibility(profile)?);
        let path = self.compiled.join(&name);
        let there = tokio::fs::try_exists(&path).await.unwrap_or(false);
        if !there {
            return None;
        }
        touch(path).await;
        let mut found = self.found();
        if found.len() >= MAX_FOUND {
            found.retain(|_, found| found.at.elapsed() < FOUND_FOR);
        }
        if found.len() < MAX_FOUND {
            found.insert((module, profile), Found { artifact: name.clone(), at: Instant::now() });
        }
        Some(name)
    }

    fn module_path(&self, module: Digest) -> PathBuf {
        self.modules.join(format!("{module}.wasm"))
    }
}

fn artifact_name(module: Digest, compatibility: u64) -> String {
    format!("{module}-{compatibility:016x}.cwasm")
}

/// Marks a file as used now.
async fn touch(path: PathBuf) {
    let touch = move || {
        let times = std::fs::FileTimes::new().set_modified(SystemTime::now());
        std::fs::File::options().append(true).open(path)?.set_times(times)
    };
    // Only the order of eviction depends on it.
    let _ = tokio::task::spawn_blocking(touch).await;
}

/// Writes a file under a name that never shows less than all of it, and makes room for it.
async fn write_whole(path: PathBuf, bytes: Bytes) -> std::io::Result<()> {
    let write = move || {
        let Some(folder) = path.parent() else { return Err(std::io::ErrorKind::InvalidInput.into()) };
        let partial = path.with_extension(format!("{:08x}.partial", rand::random::<u32>()));
        make_room(folder, MAX_FOLDER_BYTES.saturating_sub(bytes.len() as u64))?;
        std::fs::write(&partial, &bytes)?;
        std::fs::rename(&partial, &path)
    };
    tokio::task::spawn_blocking(write).await.map_err(std::io::Error::other)?
}

/// Removes files, oldest first, until the rest is within `allowed` bytes.
fn make_room(folder: &Path, allowed: u64) -> std::io::Result<()> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        files.push((metadata.modified()?, metadata.len(), entry.path()));
    }
    files.sort_unstable();
    let mut total: u64 = files.iter().map(|(_, length, _)| length).sum();
    for (_, length, path) in files {
        if total <= allowed {
            break;
        }
        std::fs::remove_file(path)?;
        total -= length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_is_kept_only_under_its_own_hash() {
        let dir = tempfile::tempdir().unwrap();
        let programs = Programs::open(dir.path().join("m"), dir.path().join("c")).unwrap();
        let digest = Digest::of(b"program");
        let wrong = programs.put(digest, "other".into()).await;
        assert!(matches!(wrong, Err(PrepareError::WrongBytes)));
        programs.put(digest, "program".into()).await.unwrap();
        assert_eq!(programs.get(digest).await.unwrap(), "program");
        std::fs::write(programs.module_path(digest), "damaged").unwrap();
        assert!(matches!(programs.get(digest).await, Err(PrepareError::WrongBytes)));
        assert!(!programs.has(digest).await, "a damaged program is fetched again");
    }

    #[test]
    fn the_oldest_go_first() {
        let dir = tempfile::tempdir().unwrap();
        for (name, age) in [("old", 20), ("new", 0), ("middle", 10)] {
            let file = std::fs::File::create(dir.path().join(name)).unwrap();
            file.set_len(10).unwrap();
            file.set_modified(SystemTime::now() - std::time::Duration::from_secs(age)).unwrap();
        }
        make_room(dir.path(), 15).unwrap();
        let left: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["new"]);
    }
}
