//! Durable writes, 64 in flight, beside cells of the same sizes written to the storage engine in batches of as many.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use futures::{StreamExt, TryStreamExt, stream};
use starfish_dht::PeerId;
use starfish_memory::Memory;
use tokio::runtime::Runtime;

/// Writes that wait at once, and the cells of one batch of the engine.
const IN_FLIGHT: usize = 64;
const KEY: usize = 16;
const VALUE: [u8; 100] = [7; 100];
/// What the memory writes for one of them: the space and the key's end in its address, stamp and author in its record.
const SPACE: &[u8] = b"bench\0";
const END: &[u8] = b"\0\x01";
const STAMPED: [u8; 130] = [7; 130];

async fn sets(memory: &Memory, n: u64) -> anyhow::Result<Duration> {
    let space = memory.space("bench")?;
    let start = Instant::now();
    stream::iter(0..n)
        .map(|_| {
            let space = space.clone();
            async move {
                let key: [u8; KEY] = rand::random();
                space.set(&key, Bytes::from_static(&VALUE), None).await
            }
        })
        .buffer_unordered(IN_FLIGHT)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    Ok(start.elapsed())
}

fn batches(database: &Database, cells: &Keyspace, n: u64) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let mut left = n;
    while left > 0 {
        let some = left.min(IN_FLIGHT as u64);
        let mut batch = database.batch().durability(Some(PersistMode::SyncData));
        for _ in 0..some {
            let address = [SPACE, &rand::random::<[u8; KEY]>(), END].concat();
            batch.insert(cells, address, STAMPED);
        }
        batch.commit()?;
        left -= some;
    }
    Ok(start.elapsed())
}

fn measure(criterion: &mut Criterion) -> anyhow::Result<()> {
    let runtime = Runtime::new()?;
    let dir = tempfile::tempdir()?;
    let memory = Memory::open(&dir.path().join("memory"), &PeerId::random()).context("a fresh folder")?;
    // It fills as the memory does.
    let database = Database::builder(dir.path().join("limit")).open()?;
    let cells = database.keyspace("cells", KeyspaceCreateOptions::default)?;
    let mut group = criterion.benchmark_group("durable writes, 64 in flight");
    group.throughput(Throughput::Elements(1)).sample_size(10);
    group.bench_function("memory", |bencher| {
        bencher.iter_custom(|n| runtime.block_on(sets(&memory, n)).unwrap_or(Duration::MAX));
    });
    group.bench_function("limit: the engine, in batches of 64", |bencher| {
        bencher.iter_custom(|n| batches(&database, &cells, n).unwrap_or(Duration::MAX));
    });
    group.finish();
    Ok(())
}

#[expect(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to measure")]
fn all(criterion: &mut Criterion) {
    measure(criterion).expect("a folder, and a store in it");
}

criterion_group!(benches, all);
criterion_main!(benches);
