//! What a single node promises, on a real store.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use starfish_dht::PeerId;
use starfish_memory::{
    BlobError, Cell, Content, Event, IncrementError, MAX_KEY, MAX_VALUE, Memory, MemoryOptions, Observer,
    Space, Value, WriteError,
};
use tempfile::TempDir;

struct Node {
    memory: Memory,
    space: Space,
    _dir: TempDir,
}

fn node() -> anyhow::Result<Node> {
    let dir = tempfile::tempdir()?;
    let memory = Memory::open(&dir.path().join("memory"), &PeerId::random())?;
    let space = memory.space("app")?;
    Ok(Node { memory, space, _dir: dir })
}

fn text(value: Option<Bytes>) -> Option<String> {
    value.map(|value| String::from_utf8_lossy(&value).into_owned())
}

#[tokio::test]
async fn what_was_set_is_read_until_it_is_deleted() -> anyhow::Result<()> {
    let Node { space, .. } = &node()?;
    assert_eq!(space.get(b"k").await?, None);
    assert!(!space.delete(b"k").await?);
    space.set(b"k", "one".into(), None).await?;
    space.set(b"k", "two".into(), None).await?;
    assert_eq!(text(space.get(b"k").await?).as_deref(), Some("two"));
    assert!(space.delete(b"k").await?);
    assert_eq!(space.get(b"k").await?, None);
    Ok(())
}

#[tokio::test]
async fn spaces_and_keys_that_look_alike_are_kept_apart() -> anyhow::Result<()> {
    let Node { memory, .. } = &node()?;
    let names: [(&str, &[u8]); 6] =
        [("a", b"b"), ("a", b"\0"), ("a", b"\0\x01"), ("a", b"\0\xFF"), ("a/b", b"b"), ("a", b"/bb")];
    for (i, (space, key)) in names.iter().enumerate() {
        memory.space(space)?.set(key, i.to_string().into(), None).await?;
    }
    for (i, (space, key)) in names.iter().enumerate() {
        assert_eq!(text(memory.space(space)?.get(key).await?), Some(i.to_string()));
    }
    Ok(())
}

#[tokio::test]
async fn a_value_with_a_time_to_live_goes_when_it_is_over() -> anyhow::Result<()> {
    let Node { space, .. } = &node()?;
    space.set(b"gone", "x".into(), Some(Duration::ZERO)).await?;
    space.set(b"here", "x".into(), Some(Duration::from_secs(3600))).await?;
    assert_eq!(space.get(b"gone").await?, None);
    assert!(space.get(b"here").await?.is_some());
    assert_eq!(space.scan(b"", None, 10).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn counting_starts_at_zero_or_at_the_value_and_ends_with_it() -> anyhow::Result<()> {
    let Node { space, .. } = &node()?;
    assert_eq!(space.incr(b"n", 5).await?, 5);
    assert_eq!(space.incr(b"n", -7).await?, -2);
    assert_eq!(text(space.get(b"n").await?).as_deref(), Some("-2"));
    space.set(b"n", "40".into(), None).await?;
    assert_eq!(space.incr(b"n", 2).await?, 42);
    assert!(space.delete(b"n").await?);
    assert_eq!(space.get(b"n").await?, None);
    assert_eq!(space.incr(b"n", 1).await?, 1);
    assert!(space.delete(b"n").await?, "a key that was only ever counted can be deleted too");
    assert_eq!(space.get(b"n").await?, None);
    Ok(())
}

#[tokio::test]
async fn increments_at_once_are_all_counted() -> anyhow::Result<()> {
    let Node { space, .. } = &node()?;
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let space = space.clone();
            tokio::spawn(async move { space.incr(b"n", 1).await })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    assert_eq!(text(space.get(b"n").await?).as_deref(), Some("100"));
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_written_is_refused_by_name() -> anyhow::Result<()> {
    let Node { memory, space, .. } = &node()?;
    let long = vec![b'k'; MAX_KEY + 1];
    assert!(matches!(space.set(&long, "x".into(), None).await, Err(WriteError::KeyTooLong { .. })));
    let large = Bytes::from(vec![0; MAX_VALUE + 1]);
    assert!(matches!(space.set(b"k", large, None).await, Err(WriteError::Blob(BlobError::NoKeeper))));
    space.set(b"k", "text".into(), None).await?;
    let refused = space.incr(b"k", 1).await;
    assert!(matches!(refused, Err(WriteError::Increment(IncrementError::NotAnInteger))), "{refused:?}");
    let mut batch = space.batch();
    batch.put("k", vec![0, 1], "x");
    assert!(matches!(memory.commit(batch).await, Err(WriteError::ReservedField)));
    assert!(memory.space("Not A Space").is_err());
    Ok(())
}

#[tokio::test]
async fn a_scan_pages_through_the_keys_in_order() -> anyhow::Result<()> {
    let Node { space, .. } = &node()?;
    for i in (0..100).rev() {
        space.set(format!("k{i:02}").as_bytes(), i.to_string().into(), None).await?;
    }
    space.set(b"other", "x".into(), None).await?;
    space.incr(b"k50", 1000).await?;
    space.delete(b"k51").await?;

    let mut seen = Vec::new();
    let mut after: Option<Bytes> = None;
    loop {
        let page = space.scan(b"k", after.as_deref(), 7).await?;
        assert!(page.len() <= 7);
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        seen.extend(page);
    }
    assert_eq!(seen.len(), 99);
    assert!(seen.is_sorted_by(|a, b| a.key < b.key));
    assert_eq!(seen[50].value, "1050".into());
    assert!(space.scan(b"k", None, 0).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_batch_writes_fields_whole_and_delete_takes_them_all() -> anyhow::Result<()> {
    let Node { memory, space, .. } = &node()?;
    let mut batch = space.batch();
    batch
        .put("inode", "name", "a")
        .put("inode", "size", "1")
        .put("inode", "size", "2")
        .delete("inode", "mode");
    assert_eq!(batch.len(), 3);
    memory.commit(batch).await?;
    let expected: Vec<(Bytes, Value)> = vec![("name".into(), "a".into()), ("size".into(), "2".into())];
    assert_eq!(space.fields(b"inode").await?, expected);
    assert_eq!(space.get(b"inode").await?, None, "fields are not the plain value");
    assert!(space.delete(b"inode").await?);
    assert!(space.fields(b"inode").await?.is_empty());
    Ok(())
}

#[derive(Default)]
struct Recorder(Mutex<Vec<Cell>>);

impl Observer for Recorder {
    fn applied(&self, cells: &[Cell]) {
        self.0.lock().unwrap().extend_from_slice(cells);
    }
}

#[tokio::test]
async fn an_observer_knows_of_a_write_before_it_is_acknowledged() -> anyhow::Result<()> {
    let Node { memory, space, .. } = &node()?;
    space.set(b"before", "x".into(), None).await?;
    let recorder = Arc::new(Recorder::default());
    memory.observe(recorder.clone());
    for i in 0..50 {
        let stamp = space.set(b"k", i.to_string().into(), None).await?;
        let seen = recorder.0.lock().unwrap();
        assert_eq!(seen.len(), i + 1);
        assert_eq!(seen[i].stamp, stamp);
    }
    space.delete(b"k").await?;
    assert_eq!(recorder.0.lock().unwrap()[50].content, Content::Tombstone);
    Ok(())
}

#[tokio::test]
async fn every_cell_is_visited_dead_ones_too() -> anyhow::Result<()> {
    let Node { space, .. } = &node()?;
    space.set(b"a/1", "x".into(), None).await?;
    space.set(b"a/2", "x".into(), None).await?;
    space.set(b"b", "x".into(), None).await?;
    space.delete(b"a/1").await?;
    let mut seen = Vec::new();
    space.for_each_cell(b"a/", &mut |cell| seen.push((cell.key.clone(), cell.content.clone())))?;
    let expected: Vec<(Bytes, Content)> =
        vec![("a/1".into(), Content::Tombstone), ("a/2".into(), Content::Value("x".into()))];
    assert_eq!(seen, expected);
    Ok(())
}

#[tokio::test]
async fn a_watch_shows_what_is_there_and_then_what_changes() -> anyhow::Result<()> {
    let Node { space, .. } = &node()?;
    space.set(b"w/1", "one".into(), None).await?;
    space.set(b"other", "x".into(), None).await?;
    let mut watch = space.watch(b"w/");
    let value =
        |key: &'static str, value: &'static str| Some(Event::Value { key: key.into(), value: value.into() });
    assert_eq!(watch.next().await, value("w/1", "one"));
    assert_eq!(watch.next().await, Some(Event::Live));
    space.set(b"other", "y".into(), None).await?;
    space.set(b"w/2", "two".into(), None).await?;
    assert_eq!(watch.next().await, value("w/2", "two"));
    space.incr(b"w/3", 3).await?;
    assert_eq!(watch.next().await, value("w/3", "3"));
    space.delete(b"w/1").await?;
    assert_eq!(watch.next().await, Some(Event::Deleted { key: "w/1".into() }));
    Ok(())
}

#[tokio::test]
async fn a_watcher_that_falls_behind_is_told_and_starts_over() -> anyhow::Result<()> {
    let Node { memory, space, .. } = &node()?;
    space.set(b"first", "x".into(), None).await?;
    let mut watch = space.watch(b"");
    assert!(matches!(watch.next().await, Some(Event::Value { .. })));
    let mut batch = space.batch();
    for i in 0..2000 {
        batch.put(format!("k{i:04}"), "", "x");
    }
    memory.commit(batch).await?;
    assert_eq!(watch.next().await, Some(Event::Lagged));
    for _ in 0..2001 {
        assert!(matches!(watch.next().await, Some(Event::Value { .. })));
    }
    assert_eq!(watch.next().await, Some(Event::Live));
    space.set(b"last", "x".into(), None).await?;
    assert_eq!(watch.next().await, Some(Event::Value { key: "last".into(), value: "x".into() }));
    Ok(())
}

#[tokio::test]
async fn what_was_counted_after_a_deletion_or_expiry_outlives_what_it_was_counted_on() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let horizon = Duration::from_millis(500);
    let memory = Memory::open_with(
        dir.path(),
        &PeerId::random(),
        MemoryOptions { horizon, ..MemoryOptions::default() },
    )?;
    let space = memory.space("app")?;
    space.set(b"deleted", "1".into(), None).await?;
    space.delete(b"deleted").await?;
    space.set(b"expired", "1".into(), Some(Duration::from_millis(1))).await?;
    space.set(b"gone", "1".into(), None).await?;
    space.delete(b"gone").await?;
    while space.get(b"expired").await?.is_some() {
        tokio::task::yield_now().await;
    }
    for key in [b"deleted", b"expired"] {
        space.incr(key, 5).await?;
    }
    // What nobody has counted on is reaped, and so would the others have been.
    while memory.stats().tombstones > 1 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(horizon).await;
    for key in [b"deleted", b"expired"] {
        assert_eq!(space.get(key).await?.unwrap(), "5");
        space.set(key, "2".into(), None).await?;
        assert_eq!(space.get(key).await?.unwrap(), "2");
    }
    Ok(())
}

#[tokio::test]
async fn the_digest_tells_what_is_held_and_stats_count_it() -> anyhow::Result<()> {
    let Node { memory, space, .. } = &node()?;
    let empty = memory.digest();
    space.set(b"k", "x".into(), None).await?;
    let one = memory.digest();
    assert_ne!(empty, one);
    space.set(b"k", "x".into(), None).await?;
    assert_ne!(one, memory.digest(), "a new version is a different cell");
    space.delete(b"k").await?;
    let stats = memory.stats();
    assert_eq!((stats.cells, stats.tombstones), (1, 1));
    Ok(())
}
