//! Reads of plain values, in process: what was just written, the same after a restart, and keys that are not there, each beside the
//! storage engine below.

use std::{hint::black_box, path::Path, sync::Arc};

use anyhow::Context as _;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use starfish_dht::PeerId;
use starfish_memory::{Memory, Space};
use tokio::runtime::Runtime;

const KEYS: u64 = 100_000;
const VALUE: [u8; 100] = [b'v'; 100];
/// Tasks that read side by side.
const TASKS: usize = 2;
/// Reads that are timed together, as a task of a server does them.
const AT_ONCE: u64 = 1000;

/// As long as those of `redis-benchmark`, and not in order.
fn key(number: u64) -> String {
    format!("key:{:012}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % 1_000_000_000_000)
}

async fn fill(space: &Space, memory: &Memory) -> anyhow::Result<()> {
    for some in (0..KEYS).collect::<Vec<u64>>().chunks(1000) {
        let mut batch = space.batch();
        for number in some {
            batch.put(key(*number), "", VALUE.to_vec());
        }
        memory.commit(batch).await?;
    }
    Ok(())
}

fn limit(dir: &Path) -> anyhow::Result<Keyspace> {
    let database = Database::builder(dir).open()?;
    let cells = database.keyspace("cells", KeyspaceCreateOptions::default)?;
    for number in 0..KEYS {
        cells.insert(key(number), VALUE)?;
    }
    Ok(cells)
}

fn measure(criterion: &mut Criterion) -> anyhow::Result<()> {
    let runtime = Runtime::new()?;
    let dir = tempfile::tempdir()?;
    let (path, author) = (dir.path().join("memory"), PeerId::random());
    let memory = Memory::open(&path, &author).context("a fresh folder")?;
    let mut group = criterion.benchmark_group("gets, one task unless said");
    group.throughput(Throughput::Elements(AT_ONCE)).sample_size(10);
    let keys: Vec<String> = (0..AT_ONCE).map(|number| key(number * KEYS / AT_ONCE)).collect();
    let others: Vec<String> = keys.iter().map(|key| format!("{key}-not")).collect();
    let gets = async |space: &Space, keys: &[String]| {
        for key in keys {
            black_box(space.get(key.as_bytes()).await.ok());
        }
    };

    let space = memory.space("default")?;
    runtime.block_on(fill(&space, &memory))?;
    group.bench_function("just written", |bencher| bencher.iter(|| runtime.block_on(gets(&space, &keys))));
    group.bench_function("not there", |bencher| bencher.iter(|| runtime.block_on(gets(&space, &others))));
    drop((space, memory));
    let memory = Memory::open(&path, &author).context("the same folder")?;
    let space = memory.space("default")?;
    group.bench_function("after a restart", |bencher| bencher.iter(|| runtime.block_on(gets(&space, &keys))));

    // More than are kept in memory.
    let all: Vec<String> = (0..KEYS).map(key).collect();
    let mut turn = all.chunks_exact(keys.len()).cycle();
    group.bench_function("all keys in turn", |bencher| {
        bencher.iter(|| runtime.block_on(gets(&space, turn.next().unwrap_or_default())));
    });

    let halves: Vec<Arc<[String]>> = keys.chunks(keys.len() / TASKS).map(Arc::from).collect();
    let side_by_side = async || {
        let tasks = halves.iter().map(|keys| {
            let (space, keys) = (space.clone(), Arc::clone(keys));
            tokio::spawn(async move {
                // As long as one task alone takes for all, so that what the tasks themselves take does not count.
                for key in std::iter::repeat_n(&*keys, TASKS).flatten() {
                    black_box(space.get(key.as_bytes()).await.ok());
                }
            })
        });
        futures::future::join_all(tasks).await;
    };
    group.throughput(Throughput::Elements(AT_ONCE * TASKS as u64));
    group
        .bench_function("the same by two tasks", |bencher| bencher.iter(|| runtime.block_on(side_by_side())));
    group.throughput(Throughput::Elements(AT_ONCE));

    let cells = limit(&dir.path().join("limit"))?;
    group.bench_function("limit: the engine", |bencher| {
        bencher.iter(|| keys.iter().for_each(|key| drop(black_box(cells.get(key)))));
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
