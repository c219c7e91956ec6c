//! Where batches lie: cells of the swarm's memory for what all must know, files of its tree for what is long.
//!
//! WIRE: the space, its fields and the names of the files.

use std::sync::Arc;

use bytes::Bytes;
use starfish_dht::PeerId;
use starfish_fs::path::{PathError, VfsPath};
use starfish_fs::vfs::{Attributes, ByteStream, Parents, Removal, Vfs, VfsError, collect, stream_of};
use starfish_memory::{Cell, Memory, ReadError, Space, WriteError};
use tracing::debug;

use super::definition::{Card, Definition, End, MAX_LISTED_BYTES, decode, encode};
use super::receipt::{SliceReceipt, TaskResult};
use super::results::Place;
use super::sealed::{Pledge, SealKey};
use crate::task::{Digest, JobId, MAX_MODULE_BYTES};

/// The space of the swarm's memory that batches have.
pub(crate) const SPACE: &str = "jobs";
/// The folder of the swarm's tree that batches have.
const FOLDER: &str = "/.jobs";

const CARD: &[u8] = b"card";
const STOP: &[u8] = b"stop";
const AGAIN: &[u8] = b"again";
const END: &[u8] = b"end";
/// Receipts: behind it the generation and the first task, both big endian.
const RECEIPT: &[u8] = b"r";

/// Pledges: as receipts, and behind that who made it.
const PLEDGE: &[u8] = b"p";
/// The keys to them, likewise.
const KEY: &[u8] = b"k";
/// How many of the nodes that a batch asks for are enough.
const ENOUGH: &[u8] = b"enough";

/// The longest definition: a task with all of its arguments.
const MAX_DEFINITION: usize = 1 << 20;

/// Why something of a batch cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum BatchStoreError {
    /// The tree does not have it, or does not take it.
    #[error("the files of the job cannot be used")]
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
    /// What is there is not what was submitted.
    #[error("{0} is damaged, or of another version")]
    Damaged(VfsPath),
    /// Its list of items is not what its definition says.
    #[error("the items of job {0} are damaged")]
    Items(JobId),
    /// A receipt that was there is not, or is another.
    #[error("a receipt of job {0} is gone")]
    Receipt(JobId),
    /// A path of its own that is none.
    #[error("not a path")]
    Path(#[from] PathError),
}

/// What a cell tells.
#[derive(Debug)]
pub(crate) enum News {
    Card(Card),
    Stopped,
    Again(u32),
    End(End),
    Receipt(SliceReceipt, Vec<TaskResult>),
    /// Somebody has found something out, and will tell what.
    Pledge(Place, u64, Digest),
    /// The key to a pledge.
    Key(Place, SealKey),
    /// So many nodes that run each task are enough.
    Enough(u8),
    /// The batch is no longer kept.
    Gone,
}

impl News {
    /// Whether there may be a pledge to open now.
    pub(crate) fn is_of_pledges(&self) -> bool {
        matches!(self, Self::Pledge(..) | Self::Key(..))
    }
}

/// See the [module](self). A cheap handle.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    memory: Memory,
    space: Space,
    pub(crate) files: Arc<dyn Vfs>,
}

impl Store {
    pub(crate) fn new(memory: Memory, space: Space, files: Arc<dyn Vfs>) -> Self {
        Self { memory, space, files }
    }

    /// All cells of a batch, or of all batches.
    pub(crate) async fn cells(&self, job: Option<JobId>) -> Result<Vec<Cell>, BatchStoreError> {
        let space = self.space.clone();
        let read = move || {
            let mut cells = Vec::new();
            let prefix = job.map(|job| job.0);
            space.for_each_cell(prefix.as_ref().map_or(&[], |id| &id[..]), &mut |cell| {
                cells.push(cell.clone());
            })?;
            Ok(cells)
        };
        tokio::task::spawn_blocking(read).await.unwrap_or_else(|_| Ok(Vec::new()))
    }

    /// Keeps a new batch. From here on it is everybody's.
    pub(crate) async fn post(&self, job: JobId, card: &Card) -> Result<(), BatchStoreError> {
        self.put(job, CARD, encode(card)?).await
    }

    pub(crate) async fn stop(&self, job: JobId) -> Result<(), BatchStoreError> {
        self.put(job, STOP, encode(&())?).await
    }

    pub(crate) async fn end(&self, job: JobId, end: &End) -> Result<(), BatchStoreError> {
        self.put(job, END, encode(end)?).await
    }

    pub(crate) async fn again(&self, job: JobId, generation: u32) -> Result<(), BatchStoreError> {
        let mut batch = self.space.batch();
        let key = Bytes::copy_from_slice(&job.0);
        batch.put(key.clone(), AGAIN, encode(&generation)?).delete(key, STOP);
        self.memory.commit(batch).await?;
        Ok(())
    }

    pub(crate) async fn receipt(&self, job: JobId, receipt: &SliceReceipt) -> Result<(), BatchStoreError> {
        self.put(job, &field_of(RECEIPT, &place_of(receipt)), receipt.encode()?).await
    }

    pub(crate) async fn pledge(&self, job: JobId, pledge: &Pledge) -> Result<(), BatchStoreError> {
        let place = place_of_pledge(pledge);
        self.put(job, &field_of(PLEDGE, &place), pledge.encode()?).await
    }

    /// Publishes keys to pledges of this node.
    pub(crate) async fn reveal(&self, job: JobId, keys: &[(Place, SealKey)]) -> Result<(), BatchStoreError> {
        let mut batch = self.space.batch();
        for (place, key) in keys {
            batch.put(Bytes::copy_from_slice(&job.0), field_of(KEY, place), encode(key)?);
        }
        self.memory.commit(batch).await?;
        Ok(())
    }

    pub(crate) async fn enough(&self, job: JobId, nodes: u8) -> Result<(), BatchStoreError> {
        self.put(job, ENOUGH, encode(&nodes)?).await
    }

    /// A pledge as it lies in memory, if it is still the one with this hash.
    pub(crate) async fn read_pledge(
        &self,
        job: JobId,
        place: Place,
        digest: Digest,
    ) -> Result<Pledge, BatchStoreError> {
        let value = self.space.field(&job.0, &field_of(PLEDGE, &place)).await?;
        let pledge = value.and_then(|value| Pledge::decode(&value, &job).ok());
        pledge.filter(|pledge| pledge.digest == digest).ok_or(BatchStoreError::Receipt(job))
    }

    /// The receipt that a place names.
    pub(crate) async fn read_receipt(
        &self,
        job: JobId,
        place: Place,
    ) -> Result<(SliceReceipt, Vec<TaskResult>), BatchStoreError> {
        let value = self
            .space
            .field(&job.0, &field_of(RECEIPT, &place))
            .await?
            .ok_or(BatchStoreError::Receipt(job))?;
        SliceReceipt::decode(&value, &job).map_err(|_| BatchStoreError::Receipt(job))
    }

    async fn put(&self, job: JobId, field: &[u8], value: Vec<u8>) -> Result<(), BatchStoreError> {
        let mut batch = self.space.batch();
        batch.put(Bytes::copy_from_slice(&job.0), Bytes::copy_from_slice(field), value);
        self.memory.commit(batch).await?;
        Ok(())
    }

    /// Frees all that belongs to a batch.
    pub(crate) async fn forget(&self, job: JobId) -> Result<(), BatchStoreError> {
        match self.files.remove(&folder(job)?, Removal::Recursive).await {
            Ok(()) | Err(VfsError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        self.space.delete(&job.0).await?;
        Ok(())
    }

    /// Makes the folder of a new batch and writes what it is.
    pub(crate) async fn define(
        &self,
        job: JobId,
        definition: &Definition,
        program: Bytes,
    ) -> Result<(), BatchStoreError> {
        self.files.mkdir(&folder(job)?, Parents::Create).await?;
        self.write(&path(job, "program.wasm")?, stream_of(program)).await?;
        self.write(&path(job, "definition")?, stream_of(encode(definition)?)).await
    }

    pub(crate) async fn definition(&self, job: JobId, digest: Digest) -> Result<Definition, BatchStoreError> {
        let bytes = self.read_as(job, "definition", MAX_DEFINITION, digest).await?;
        decode(&bytes).ok_or(BatchStoreError::Damaged(path(job, "definition")?))
    }

    pub(crate) async fn program(&self, job: JobId, module: Digest) -> Result<Bytes, BatchStoreError> {
        self.read_as(job, "program.wasm", MAX_MODULE_BYTES, module).await
    }

    /// The file of a batch that has this name and this hash. Where two halves of a swarm have made one batch (of a tick, say) and
    /// not in the same way, the tree has two files of a name, and shows one of them as a conflict.
    async fn read_as(
        &self,
        job: JobId,
        name: &str,
        max: usize,
        digest: Digest,
    ) -> Result<Bytes, BatchStoreError> {
        let bytes = self.read(&path(job, name)?, max).await?;
        if Digest::of(&bytes) == digest {
            return Ok(bytes);
        }
        let entries = self.files.list(&folder(job)?).await?;
        for other in entries.iter().filter(|entry| entry.name != name && entry.name.starts_with(name)) {
            let bytes = self.read(&path(job, &other.name)?, max).await?;
            if Digest::of(&bytes) == digest {
                return Ok(bytes);
            }
        }
        Err(BatchStoreError::Damaged(path(job, name)?))
    }

    /// Keeps the items of a list: each ends with a zero byte, which no argument can hold.
    pub(crate) async fn put_items(&self, job: JobId, items: &[String]) -> Result<(), BatchStoreError> {
        let bytes: Vec<u8> = items.iter().flat_map(|item| [item.as_bytes(), b"\0"].concat()).collect();
        self.files.mkdir(&folder(job)?, Parents::Create).await?;
        self.write(&path(job, "items")?, stream_of(bytes)).await
    }

    pub(crate) async fn items(&self, job: JobId) -> Result<Bytes, BatchStoreError> {
        self.read(&path(job, "items")?, 2 * MAX_LISTED_BYTES).await
    }

    /// The file of a batch with this name.
    pub(crate) async fn put_file(
        &self,
        job: JobId,
        name: &str,
        content: ByteStream,
    ) -> Result<(), BatchStoreError> {
        self.files.mkdir(&folder(job)?, Parents::Create).await?;
        self.write(&path(job, name)?, content).await
    }

    pub(crate) async fn file(&self, job: JobId, name: &str) -> Result<ByteStream, BatchStoreError> {
        Ok(self.files.read(&path(job, name)?, 0..u64::MAX).await?)
    }

    /// Writes a file and waits until it outlives this node, as far as there are others.
    pub(crate) async fn write(&self, path: &VfsPath, content: ByteStream) -> Result<(), BatchStoreError> {
        self.files.write(path, content, Attributes::default()).await?;
        self.files.settle(path).await?;
        Ok(())
    }

    async fn read(&self, path: &VfsPath, max: usize) -> Result<Bytes, BatchStoreError> {
        let content = self.files.read(path, 0..max as u64 + 1).await?;
        Ok(collect(content, max).await?)
    }
}

/// What stands for a definition.
pub(crate) fn digest_of(definition: &Definition) -> Result<Digest, postcard::Error> {
    Ok(Digest::of(&encode(definition)?))
}

/// Which batch a cell is of, and what it tells. What makes no sense, or is not to be believed, tells nothing.
pub(crate) fn news_of(cell: &Cell, unix_ms: u64) -> Option<(JobId, News)> {
    let job = JobId(cell.key.as_ref().try_into().ok()?);
    let Some(value) = cell.live(unix_ms) else {
        return (cell.field == CARD).then_some((job, News::Gone));
    };
    let news = match &cell.field[..] {
        CARD => News::Card(decode::<Card>(value).filter(Card::is_sound)?),
        STOP => News::Stopped,
        AGAIN => News::Again(decode(value)?),
        END => News::End(decode(value)?),
        ENOUGH => News::Enough(decode(value)?),
        field if field.starts_with(PLEDGE) => {
            let pledge = Pledge::decode(value, &job).ok()?;
            let place = place_of_pledge(&pledge);
            let is_there = *field == field_of(PLEDGE, &place);
            is_there.then_some(News::Pledge(place, pledge.range.end, pledge.digest))?
        }
        field if field.starts_with(KEY) => News::Key(place_in(field)?, decode(value)?),
        field => match SliceReceipt::decode(value, &job) {
            Ok((receipt, results)) => {
                let expected = field_of(RECEIPT, &place_of(&receipt));
                (field == expected).then_some(News::Receipt(receipt, results))?
            }
            Err(error) => {
                debug!(%job, %error, "a receipt is not believed");
                return None;
            }
        },
    };
    Some((job, news))
}

/// The name of the file with what a task said, if it is long; `by` where several nodes run it.
pub(crate) fn output_name(generation: u32, task: u64, stream: &str, by: Option<PeerId>) -> String {
    let by = by.map(|by| format!(".{by}")).unwrap_or_default();
    format!("{generation}.{task}.{stream}{by}")
}

/// Where a receipt lies that is its node's word alone.
fn place_of(receipt: &SliceReceipt) -> Place {
    Place { start: receipt.range.start, generation: receipt.generation, by: None }
}

fn place_of_pledge(pledge: &Pledge) -> Place {
    Place { start: pledge.range.start, generation: pledge.generation, by: Some(pledge.by) }
}

fn field_of(kind: &[u8], place: &Place) -> Vec<u8> {
    let by = place.by.map(PeerId::to_bytes).unwrap_or_default();
    [kind, &place.generation.to_be_bytes(), &place.start.to_be_bytes(), &by].concat()
}

/// What a field of that kind is about.
fn place_in(field: &[u8]) -> Option<Place> {
    let (generation, rest) = field.get(1..)?.split_first_chunk()?;
    let (start, by) = rest.split_first_chunk()?;
    let by = PeerId::from_bytes(by).ok()?;
    Some(Place {
        start: u64::from_be_bytes(*start),
        generation: u32::from_be_bytes(*generation),
        by: Some(by),
    })
}

fn folder(job: JobId) -> Result<VfsPath, PathError> {
    VfsPath::parse(&format!("{FOLDER}/{job}"))
}

fn path(job: JobId, name: &str) -> Result<VfsPath, PathError> {
    VfsPath::parse(&format!("{FOLDER}/{job}/{name}"))
}
