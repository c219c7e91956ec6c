//! The blobs on this node's disk: `iroh-blobs`' file store with what it leaves open made firm.
//!
//! That store acknowledges a blob before its data or its index entry are on disk, so here each data file is synced
//! as it is added, and [`LocalBlobs::flush`] ends the store's write batch. Flushes are shared: whoever comes while
//! one is under way waits for the next, together with all others that came.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use iroh_blobs::api::blobs::{AddProgress, BlobStatus, EncodedItem};
use iroh_blobs::protocol::{ChunkRanges, ChunkRangesExt};
use iroh_blobs::store::fs::FsStore;
use iroh_blobs::store::fs::options::Options;
use iroh_blobs::{Hash, api};
use tokio::sync::Mutex;

use super::BlobUsage;
use crate::hash::BlobHash;

/// How often a read is tried while the store is busy with the same blob (it queues 32 requests a blob).
const BUSY_RETRIES: u32 = 50;
/// The pause between two such tries; 50 of them are a second.
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// Parts of a stream that wait for the store. Each is as long as its source makes it, so few.
const STREAM_BUFFER: usize = 2;

/// The file store. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct LocalBlobs {
    store: FsStore,
    options: Arc<Options>,
    flush: Arc<Flush>,
}

/// Flushes are numbered: `wanted` counts requests, `done` the last one that a finished flush covers.
#[derive(Debug, Default)]
struct Flush {
    wanted: AtomicU64,
    done: Mutex<u64>,
}

impl LocalBlobs {
    pub(super) async fn open(dir: &Path) -> io::Result<Self> {
        tokio::fs::create_dir_all(dir).await?;
        // The store refuses relative paths.
        let dir = tokio::fs::canonicalize(dir).await?;
        let options = Options::new(&dir);
        let store = FsStore::load_with_opts(dir.join("blobs.db"), options.clone())
            .await
            .map_err(|error| io::Error::other(format!("{error:#}")))?;
        Ok(Self { store, options: Arc::new(options), flush: Arc::default() })
    }

    pub(super) async fn stop(&self) {
        if let Err(error) = self.store.shutdown().await {
            tracing::warn!(%error, "blob store did not shut down cleanly");
        }
    }

    /// The store behind, for the protocol.
    pub(super) fn store(&self) -> &api::Store {
        &self.store
    }

    pub(super) async fn has(&self, hash: BlobHash) -> io::Result<bool> {
        Ok(self.size(hash).await?.is_some())
    }

    /// The length of a blob that is whole here.
    pub(super) async fn size(&self, hash: BlobHash) -> io::Result<Option<u64>> {
        match self.store.status(iroh(hash)).await.map_err(io::Error::from)? {
            BlobStatus::Complete { size } => Ok(Some(size)),
            _ => Ok(None),
        }
    }

    pub(super) async fn add_bytes(&self, bytes: Bytes) -> io::Result<BlobHash> {
        let is_inlined = self.options.is_inlined_all(bytes.len() as u64);
        let hash = added(self.store.add_bytes(bytes)).await?;
        if !is_inlined {
            self.sync_files(hash).await?;
        }
        Ok(hash)
    }

    pub(super) async fn add_stream<S>(&self, bytes: S) -> io::Result<BlobHash>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        // The store wants a stream that is `Sync`; a channel's receiving end is one.
        let (sender, receiver) = tokio::sync::mpsc::channel(STREAM_BUFFER);
        let parts = futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|part| (part, receiver))
        });
        let forward = async move {
            futures::pin_mut!(bytes);
            while let Some(part) = bytes.next().await {
                if sender.send(part).await.is_err() {
                    break;
                }
            }
        };
        let adding = self.store.add_stream(parts).await;
        let (hash, ()) = tokio::join!(added(adding), forward);
        let hash = hash?;
        self.sync_files(hash).await?;
        Ok(hash)
    }

    /// Short blobs and hash trees stand in the store's index and have no file of their own.
    async fn sync_files(&self, hash: BlobHash) -> io::Result<()> {
        let hash = iroh(hash);
        let files = [self.options.path.data_path(&hash), self.options.path.outboard_path(&hash)];
        blocking(move || files.iter().try_for_each(|file| sync_if_there(file))).await
    }

    pub(super) async fn flush(&self) -> io::Result<()> {
        let ticket = self.flush.wanted.fetch_add(1, Ordering::SeqCst) + 1;
        let mut done = self.flush.done.lock().await;
        if *done >= ticket {
            return Ok(());
        }
        let covers = self.flush.wanted.load(Ordering::SeqCst);
        let data = self.options.path.data_path.clone();
        blocking(move || sync_if_there(&data)).await?;
        self.store.sync_db().await.map_err(into_io)?;
        *done = covers;
        Ok(())
    }

    /// Reads and verifies. What the blob lacks, or what does not fit its hash, is an error.
    pub(super) async fn read_range(&self, hash: BlobHash, range: Range<u64>) -> io::Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        for _ in 0..BUSY_RETRIES {
            match self.try_read_range(hash, range.clone()).await {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                result => return result,
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    async fn try_read_range(&self, hash: BlobHash, range: Range<u64>) -> io::Result<Bytes> {
        let mut items = self.store.export_bao(iroh(hash), ChunkRanges::bytes(range.clone())).stream();
        let mut bytes = BytesMut::with_capacity((range.end - range.start) as usize);
        let mut items = std::pin::pin!(&mut items);
        while let Some(item) = items.next().await {
            match item {
                EncodedItem::Leaf(leaf) => {
                    // Leaves are whole chunk groups, so the first and the last may stick out of the range.
                    let leaf_end = leaf.offset + leaf.data.len() as u64;
                    let (from, to) = (range.start.max(leaf.offset), range.end.min(leaf_end));
                    if from < to {
                        bytes.extend_from_slice(
                            &leaf.data[(from - leaf.offset) as usize..(to - leaf.offset) as usize],
                        );
                    }
                }
                EncodedItem::Error(error) => return Err(error.into()),
                EncodedItem::Size(_) | EncodedItem::Parent(_) | EncodedItem::Done => {}
            }
        }
        if bytes.len() as u64 == range.end - range.start {
            Ok(bytes.freeze())
        } else {
            Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("blob {hash} is not whole on this node"),
            ))
        }
    }

    pub(super) async fn usage(&self) -> io::Result<BlobUsage> {
        let blobs = self.store.list().hashes().await.map_err(into_io)?.len() as u64;
        let (data, index) = (self.options.path.data_path.clone(), self.store_file());
        let bytes = blocking(move || {
            let mut bytes = std::fs::metadata(index)?.len();
            for entry in std::fs::read_dir(data)? {
                // A file may be renamed away between the listing and the question.
                bytes += entry?.metadata().map_or(0, |metadata| metadata.len());
            }
            Ok(bytes)
        });
        Ok(BlobUsage { blobs, bytes: bytes.await? })
    }

    fn store_file(&self) -> PathBuf {
        self.options.path.data_path.with_file_name("blobs.db")
    }
}

/// The name of a blob as the store wants it.
pub(super) fn iroh(hash: BlobHash) -> Hash {
    Hash::from_bytes(*hash.as_bytes())
}

/// What was added. With collection off nothing is removed, so the tag that protects the blob can go at once.
async fn added(adding: AddProgress<'_>) -> io::Result<BlobHash> {
    let hash = adding.temp_tag().await.map_err(into_io)?.hash();
    Ok(BlobHash::from_bytes(*hash.as_bytes()))
}

fn into_io(error: api::RequestError) -> io::Error {
    let api::Error::Io(error) = error.into();
    error
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Syncs a file or a folder.
fn sync_if_there(path: &Path) -> io::Result<()> {
    match std::fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        file => file?.sync_data(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn open() -> (tempfile::TempDir, LocalBlobs) {
        let dir = tempfile::tempdir().unwrap();
        let blobs = LocalBlobs::open(&dir.path().join("blobs")).await.unwrap();
        (dir, blobs)
    }

    fn sample(len: usize) -> Bytes {
        (0..len).map(|index| (index * 7 + index / 251) as u8).collect::<Vec<_>>().into()
    }

    #[tokio::test]
    async fn any_range_of_a_blob_reads_back() {
        let (_dir, blobs) = open().await;
        for len in [1, 1024, 16_384, 16_385, 300_000] {
            let bytes = sample(len);
            let hash = blobs.add_bytes(bytes.clone()).await.unwrap();
            assert_eq!(hash, BlobHash::of(&bytes));
            for range in [0..len, len / 3..len / 2, len - 1..len, 0..1] {
                let read = blobs.read_range(hash, range.start as u64..range.end as u64).await.unwrap();
                assert_eq!(read, bytes.slice(range.clone()), "{range:?} of {len}");
            }
        }
    }

    #[tokio::test]
    async fn a_stream_becomes_one_blob() {
        let (_dir, blobs) = open().await;
        let parts: Vec<_> = (0..20).map(|part| Ok(sample(10_000 + part))).collect();
        let whole: Vec<u8> = (0..20).flat_map(|part| sample(10_000 + part)).collect();
        let hash = blobs.add_stream(futures::stream::iter(parts)).await.unwrap();
        assert_eq!(hash, BlobHash::of(&whole));
        let short = blobs.add_stream(futures::stream::iter([Ok(sample(10))])).await.unwrap();
        assert_eq!(short, BlobHash::of(&sample(10)));
        let failing = futures::stream::iter([Ok(sample(20_000)), Err(io::Error::other("gone"))]);
        assert!(blobs.add_stream(failing).await.is_err());
    }

    #[tokio::test]
    async fn blobs_outlive_the_store() {
        let (dir, blobs) = open().await;
        let small = blobs.add_bytes(sample(100)).await.unwrap();
        let large = blobs.add_bytes(sample(100_000)).await.unwrap();
        tokio::try_join!(blobs.flush(), blobs.flush(), blobs.flush()).unwrap();
        blobs.stop().await;
        drop(blobs);
        let blobs = LocalBlobs::open(&dir.path().join("blobs")).await.unwrap();
        assert!(blobs.has(small).await.unwrap() && blobs.has(large).await.unwrap());
        assert_eq!(blobs.usage().await.unwrap().blobs, 2);
    }

    #[tokio::test]
    async fn a_damaged_blob_is_an_error_and_never_wrong_bytes() {
        let (dir, blobs) = open().await;
        let hash = blobs.add_bytes(sample(100_000)).await.unwrap();
        let path = dir.path().join(format!("blobs/data/{hash}.data"));
        let mut data = std::fs::read(&path).unwrap();
        data[50_000] ^= 1;
        std::fs::write(&path, data).unwrap();
        assert!(blobs.read_range(hash, 49_000..51_000).await.is_err());
        assert!(blobs.read_range(hash, 0..10_000).await.is_ok(), "the rest still reads");
    }

    #[tokio::test]
    async fn many_readers_of_one_blob_all_succeed() {
        let (_dir, blobs) = open().await;
        let hash = blobs.add_bytes(sample(200_000)).await.unwrap();
        let reads = (0..200).map(|_| blobs.read_range(hash, 0..200_000));
        for read in futures::future::join_all(reads).await {
            assert_eq!(read.unwrap(), sample(200_000));
        }
    }
}
