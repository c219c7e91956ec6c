//! Values that are too large for a cell, over a keeper that has them in memory.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use starfish_dht::PeerId;
use starfish_memory::{
    BlobError, BlobName, Blobs, ByteStream, Condition, Event, KeyKind, Lifetime, MAX_LARGE, MAX_VALUE,
    Memory, MemoryOptions, Space, Value, WriteError, stream_of,
};
use tempfile::TempDir;

/// Keeps blobs in a map.
#[derive(Debug, Default)]
struct Shelf {
    blobs: Mutex<HashMap<BlobName, Bytes>>,
    /// So often nothing is found, whatever there is.
    blind: AtomicU32,
}

impl Shelf {
    fn len(&self) -> usize {
        self.blobs.lock().unwrap().len()
    }
}

#[async_trait]
impl Blobs for Shelf {
    async fn put(&self, name: BlobName, mut content: ByteStream) -> Result<(), BlobError> {
        let mut bytes = Vec::new();
        while let Some(part) = content.try_next().await? {
            bytes.extend_from_slice(&part);
        }
        assert!(self.blobs.lock().unwrap().insert(name, bytes.into()).is_none(), "a name was used twice");
        Ok(())
    }

    async fn fetch(&self, name: BlobName, hash: &[u8; 32]) -> Result<ByteStream, BlobError> {
        if self.blind.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(BlobError::NotFound);
        }
        let bytes = self.blobs.lock().unwrap().get(&name).cloned().ok_or(BlobError::NotFound)?;
        assert_eq!(blake3::hash(&bytes).as_bytes(), hash);
        Ok(stream_of(bytes))
    }

    async fn copy(&self, from: BlobName, to: BlobName) -> Result<(), BlobError> {
        let mut blobs = self.blobs.lock().unwrap();
        let bytes = blobs.get(&from).cloned().ok_or(BlobError::NotFound)?;
        assert!(blobs.insert(to, bytes).is_none(), "a name was used twice");
        Ok(())
    }

    async fn remove(&self, name: BlobName) -> Result<(), BlobError> {
        self.blobs.lock().unwrap().remove(&name);
        Ok(())
    }

    async fn names(&self) -> Result<Vec<BlobName>, BlobError> {
        Ok(self.blobs.lock().unwrap().keys().copied().collect())
    }
}

struct Node {
    memory: Memory,
    space: Space,
    shelf: Arc<Shelf>,
    dir: TempDir,
}

const LINGER: Duration = Duration::from_millis(10);

fn open(dir: TempDir, shelf: Arc<Shelf>) -> anyhow::Result<Node> {
    let options = MemoryOptions { linger: LINGER, ..MemoryOptions::default() };
    let memory = Memory::open_with(&dir.path().join("memory"), &PeerId::random(), options)?;
    let blobs: Arc<dyn Blobs> = shelf.clone();
    memory.keep_large_values(&blobs);
    let space = memory.space("app")?;
    Ok(Node { memory, space, shelf, dir })
}

fn node() -> anyhow::Result<Node> {
    open(tempfile::tempdir()?, Arc::default())
}

fn large(byte: u8) -> Bytes {
    Bytes::from(vec![byte; MAX_VALUE + 1])
}

#[tokio::test]
async fn a_large_value_is_read_as_it_was_written_also_after_a_restart() -> anyhow::Result<()> {
    let Node { memory, space, shelf, dir } = node()?;
    space.set(b"k", large(1), None).await?;
    space.set(b"fits", Bytes::from(vec![0; MAX_VALUE]), None).await?;
    assert_eq!(shelf.len(), 1, "what fits a cell is in it");
    drop((memory, space));
    let Node { space, memory, .. } = &open(dir, shelf)?;
    assert_eq!(space.get(b"k").await?.unwrap(), large(1));
    let Some(Value::Large(value)) = space.value(b"k").await? else { panic!("it is large") };
    assert_eq!(value.len(), MAX_VALUE as u64 + 1);
    let parts: Vec<Bytes> = memory.open_value(&value).await?.try_collect().await?;
    assert_eq!(parts.concat(), large(1));
    assert_eq!(space.kind(b"k").await?, Some(KeyKind::Value));
    Ok(())
}

#[tokio::test]
async fn values_grow_over_the_border_and_keep_their_time() -> anyhow::Result<()> {
    let Node { space, .. } = &node()?;
    space.set(b"k", Bytes::from(vec![1; MAX_VALUE]), Some(Duration::from_secs(60))).await?;
    assert_eq!(space.append(b"k", "x".into()).await?, MAX_VALUE as u64 + 1);
    assert_eq!(space.append(b"k", "y".into()).await?, MAX_VALUE as u64 + 2);
    assert!(space.get(b"k").await?.unwrap().ends_with(b"\x01xy"));
    assert!(space.entry(b"k").await?.unwrap().expires_ms.is_some());
    assert!(space.expire(b"k", Lifetime::Forever).await?);
    let entry = space.entry(b"k").await?.unwrap();
    assert_eq!(entry.expires_ms, None);
    assert!(space.get(b"k").await?.unwrap().ends_with(b"xy"));
    assert!(matches!(space.incr(b"k", 1).await, Err(WriteError::Increment(_))));
    let refused = space.put(b"k", large(2), Lifetime::Forever, Condition::Absent).await?;
    assert_eq!(refused.version, None);
    let done = space.put(b"k", large(2), Lifetime::Forever, Condition::Version(entry.version)).await?;
    assert!(done.version.is_some());
    assert_eq!(space.append(b"new", large(3)).await?, MAX_VALUE as u64 + 1);
    Ok(())
}

#[tokio::test]
async fn fields_and_batches_take_large_values() -> anyhow::Result<()> {
    let Node { memory, space, .. } = &node()?;
    assert_eq!(space.set_fields(b"h", vec![("a".into(), large(1)), ("b".into(), "small".into())]).await?, 2);
    assert_eq!(space.field(b"h", b"a").await?.unwrap(), large(1));
    let fields = space.fields(b"h").await?;
    assert!(matches!(fields[0].1, Value::Large(_)) && fields[1].1 == "small".into());
    let mut batch = space.batch();
    batch.put("k", "", large(2)).put("h", "c", large(3));
    memory.commit(batch).await?;
    assert_eq!(space.get(b"k").await?.unwrap(), large(2));
    assert!(matches!(space.incr_field(b"h", b"c", 1).await, Err(WriteError::Increment(_))));
    assert!(space.delete(b"h").await?);
    assert_eq!(space.kind(b"h").await?, None);
    Ok(())
}

#[tokio::test]
async fn a_watch_tells_how_large_a_value_is() -> anyhow::Result<()> {
    let Node { space, .. } = &node()?;
    let mut watch = space.watch(b"");
    assert_eq!(watch.next().await, Some(Event::Live));
    space.set(b"k", large(1), None).await?;
    let Some(Event::Value { value: Value::Large(value), .. }) = watch.next().await else {
        panic!("no event")
    };
    assert_eq!(value.len(), MAX_VALUE as u64 + 1);
    Ok(())
}

#[tokio::test]
async fn what_is_longer_than_a_value_may_be_is_refused_and_leaves_nothing() -> anyhow::Result<()> {
    let Node { memory, space, shelf, .. } = &node()?;
    let part = Bytes::from(vec![0; 1 << 20]);
    let endless = stream::iter(std::iter::repeat_with(move || Ok(part.clone()))).boxed();
    let refused = memory.stash(endless).await;
    assert!(matches!(refused, Err(WriteError::ValueTooLong { len }) if len > MAX_LARGE), "{refused:?}");
    let broken = stream::iter([Ok(large(1)), Err(BlobError::Busy)]).boxed();
    assert!(matches!(memory.stash(broken).await, Err(WriteError::Blob(BlobError::Busy))));
    assert_eq!((shelf.len(), space.get(b"k").await?), (0, None));
    Ok(())
}

#[tokio::test]
async fn a_value_whose_bytes_come_a_moment_later_is_waited_for() -> anyhow::Result<()> {
    let Node { space, shelf, .. } = &node()?;
    space.set(b"k", large(1), None).await?;
    shelf.blind.store(3, Ordering::SeqCst);
    assert_eq!(space.get(b"k").await?.unwrap(), large(1));
    Ok(())
}

#[tokio::test]
async fn the_bytes_of_values_that_are_gone_go_and_no_others() -> anyhow::Result<()> {
    let Node { memory, space, shelf, .. } = &node()?;
    for number in 0..5 {
        space.set(b"k", large(number), None).await?;
        space.set_fields(b"h", vec![("f".into(), large(number))]).await?;
    }
    space.set(b"deleted", large(9), None).await?;
    space.delete(b"deleted").await?;
    space.put(b"k", large(8), Lifetime::Forever, Condition::Absent).await?;
    assert!(shelf.len() > 2);
    tokio::select! {
        () = memory.tend_large_values() => {}
        () = async { while shelf.len() > 2 { tokio::time::sleep(LINGER).await } } => {}
    }
    assert_eq!(space.get(b"k").await?.unwrap(), large(4));
    assert_eq!(space.field(b"h", b"f").await?.unwrap(), large(4));
    Ok(())
}
