//! Where functions lie: their records in the swarm's memory, their programs in its tree.
//!
//! WIRE: the space, its fields and the names of the files.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use starfish_fs::path::{PathError, VfsPath};
use starfish_fs::vfs::{Attributes, Parents, Removal, Vfs, VfsError, collect, stream_of};
use starfish_memory::{Cell, Memory, ReadError, Space, SpaceError, WriteError};

use super::version::{Function, FunctionName, Version, VersionId};
use crate::batch::definition::{decode, encode};
use crate::task::{Digest, MAX_MODULE_BYTES};
use crate::unread::Unread;

/// The space of the swarm's memory that functions have.
const SPACE: &str = "functions";
/// The folder of the swarm's tree that functions have.
const FOLDER: &str = "/.functions";
/// The field that names the current version.
const CURRENT: &[u8] = b"current";
/// The fields of versions: behind it number and tag.
const VERSION: &[u8] = b"v";

/// Why something of a function cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum FunctionStoreError {
    /// The tree does not have it, or does not take it.
    #[error("the program of the function cannot be used")]
    Files(#[from] VfsError),
    /// Memory cannot be read.
    #[error("the swarm's memory cannot be read")]
    Read(#[from] ReadError),
    /// Memory does not take it.
    #[error("the swarm's memory does not take it")]
    Write(#[from] WriteError),
    /// It cannot be put into words.
    #[error("it cannot be encoded")]
    Encode(#[from] postcard::Error),
    /// What is there is not what was deployed.
    #[error("{0} is damaged")]
    Damaged(VfsPath),
    /// A path of its own that is none.
    #[error("not a path")]
    Path(#[from] PathError),
}

/// All functions that a node knows.
pub(crate) type Known = BTreeMap<FunctionName, Function>;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Store {
    memory: Memory,
    space: Space,
    pub(crate) files: Arc<dyn Vfs>,
    unread: Arc<Unread>,
    known: tokio::sync::Mutex<Arc<Known>>,
}

impl Store {
    pub(crate) fn open(memory: &Memory, files: Arc<dyn Vfs>) -> Result<Self, SpaceError> {
        let space = memory.space(SPACE)?;
        let unread = Unread::watch(memory, SPACE);
        Ok(Self { memory: memory.clone(), space, files, unread, known: Default::default() })
    }

    /// All functions, as memory has them now.
    pub(crate) async fn all(&self) -> Result<Arc<Known>, ReadError> {
        let mut known = self.known.lock().await;
        if self.unread.take() {
            match self.read().await {
                Ok(read) => *known = Arc::new(read),
                Err(error) => {
                    self.unread.again();
                    return Err(error);
                }
            }
        }
        Ok(Arc::clone(&known))
    }

    async fn read(&self) -> Result<Known, ReadError> {
        let space = self.space.clone();
        let read = move || {
            let mut cells = Vec::new();
            space.for_each_cell(&[], &mut |cell| cells.push(cell.clone()))?;
            Ok(known_of(&cells, crate::runner::unix_ms()))
        };
        tokio::task::spawn_blocking(read).await.unwrap_or_else(|_| Ok(Known::new()))
    }

    /// Keeps a new version and makes it the current one. From here on it is everybody's.
    pub(crate) async fn deploy(
        &self,
        name: &FunctionName,
        number: u32,
        version: &Version,
        program: Bytes,
    ) -> Result<VersionId, FunctionStoreError> {
        let record = encode(version)?;
        let id = VersionId::new(number, &record);
        self.files.mkdir(&folder(name)?, Parents::Create).await?;
        let path = path(name, id)?;
        self.files.write(&path, stream_of(program), Attributes::default()).await?;
        self.files.settle(&path).await?;
        let (key, mut batch) = (key(name), self.space.batch());
        batch.put(key.clone(), field(id), record).put(key, CURRENT, id.to_bytes().to_vec());
        self.memory.commit(batch).await?;
        Ok(id)
    }

    /// Makes a version the current one.
    pub(crate) async fn set_current(
        &self,
        name: &FunctionName,
        id: VersionId,
    ) -> Result<(), FunctionStoreError> {
        let mut batch = self.space.batch();
        batch.put(key(name), CURRENT, id.to_bytes().to_vec());
        self.memory.commit(batch).await?;
        Ok(())
    }

    /// Frees what belongs to some versions.
    pub(crate) async fn forget(
        &self,
        name: &FunctionName,
        ids: &[VersionId],
    ) -> Result<(), FunctionStoreError> {
        let mut batch = self.space.batch();
        for id in ids {
            batch.delete(key(name), field(*id));
            removed(self.files.remove(&path(name, *id)?, Removal::Single).await)?;
        }
        self.memory.commit(batch).await?;
        Ok(())
    }

    /// Frees all that belongs to a function.
    pub(crate) async fn remove(&self, name: &FunctionName) -> Result<(), FunctionStoreError> {
        self.space.delete(name.as_str().as_bytes()).await?;
        removed(self.files.remove(&folder(name)?, Removal::Recursive).await)
    }

    /// The program of a version.
    pub(crate) async fn program(
        &self,
        name: &FunctionName,
        id: VersionId,
        module: Digest,
    ) -> Result<Bytes, FunctionStoreError> {
        let path = path(name, id)?;
        let content = self.files.read(&path, 0..MAX_MODULE_BYTES as u64 + 1).await?;
        let program = collect(content, MAX_MODULE_BYTES).await?;
        if Digest::of(&program) == module { Ok(program) } else { Err(FunctionStoreError::Damaged(path)) }
    }
}

/// What cells tell of functions. What makes no sense tells nothing.
fn known_of(cells: &[Cell], unix_ms: u64) -> Known {
    let mut parts: BTreeMap<FunctionName, (Option<VersionId>, BTreeMap<VersionId, Version>)> =
        BTreeMap::new();
    for cell in cells {
        let name = std::str::from_utf8(&cell.key).ok().and_then(|name| name.parse::<FunctionName>().ok());
        let (Some(name), Some(value)) = (name, cell.live(unix_ms)) else { continue };
        let (current, versions) = parts.entry(name).or_default();
        if cell.field == CURRENT {
            *current = VersionId::from_bytes(value);
        } else if let Some(id) = cell.field.strip_prefix(VERSION).and_then(VersionId::from_bytes)
            && let Some(version) = decode(value)
        {
            versions.insert(id, version);
        }
    }
    let functions = parts.into_iter().filter_map(|(name, (current, versions))| {
        let function = Function::merge(name.clone(), current, versions)?;
        Some((name, function))
    });
    functions.collect()
}

fn removed(result: Result<(), VfsError>) -> Result<(), FunctionStoreError> {
    match result {
        Ok(()) | Err(VfsError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn key(name: &FunctionName) -> Bytes {
    Bytes::copy_from_slice(name.as_str().as_bytes())
}

fn field(id: VersionId) -> Vec<u8> {
    [VERSION, &id.to_bytes()].concat()
}

fn folder(name: &FunctionName) -> Result<VfsPath, PathError> {
    VfsPath::parse(&format!("{FOLDER}/{name}"))
}

fn path(name: &FunctionName, id: VersionId) -> Result<VfsPath, PathError> {
    VfsPath::parse(&format!("{FOLDER}/{name}/{id}.wasm"))
}
