//! A file of 64 MiB into the swarm's tree and out of it on another node, beside what the machine does with it.

use std::io::Write;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::{StreamExt, TryStreamExt, stream};
use rand::RngCore;
use starfish_dht::Network;
use starfish_dht::testing::TestSwarm;
use starfish_fs::vfs::Attributes;
use starfish_fs::{Files, FilesOptions, Vfs, VfsPath};
use starfish_memory::{Memory, MemorySync};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const LEN: usize = 64 << 20;
const PART: usize = 1 << 20;

struct Node {
    files: Files,
    _sync: MemorySync,
    _dir: TempDir,
}

impl Node {
    async fn start(network: Network) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let memory = Memory::open(&dir.path().join("memory"), &network.local_peer())?;
        let sync = memory.join(network.clone()).await?;
        // Every read goes over the network: nothing is cached on disk.
        let options = FilesOptions { cache: 0, ..FilesOptions::default() };
        let files = Files::open(&dir.path().join("files"), network, memory, options).await?;
        Ok(Self { files, _sync: sync, _dir: dir })
    }
}

fn content() -> Vec<Bytes> {
    let mut bytes = vec![0; LEN];
    rand::rng().fill_bytes(&mut bytes);
    let bytes = Bytes::from(bytes);
    (0..LEN / PART).map(|part| bytes.slice(part * PART..(part + 1) * PART)).collect()
}

/// Writes new content; how long until it is on this disk, and until it is at full durability.
async fn put(files: &Files, path: &VfsPath) -> anyhow::Result<(Duration, Duration)> {
    let content = stream::iter(content().into_iter().map(Ok)).boxed();
    let start = Instant::now();
    files.write(path, content, Attributes::default()).await?;
    let local = start.elapsed();
    while files.waiting(path).files > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok((local, start.elapsed()))
}

async fn get(files: &Files, path: &VfsPath) -> anyhow::Result<Duration> {
    while files.stat(path).await.is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let start = Instant::now();
    let read = files.read(path, 0..u64::MAX).await?;
    read.try_for_each(|_| async { Ok(()) }).await?;
    Ok(start.elapsed())
}

/// The limit of a put: the same bytes hashed, written and synced by one thread.
fn copy_and_hash() -> anyhow::Result<Duration> {
    let content = content();
    let dir = tempfile::tempdir()?;
    let start = Instant::now();
    let mut file = std::fs::File::create(dir.path().join("copy"))?;
    let mut hasher = blake3::Hasher::new();
    for part in &content {
        file.write_all(part)?;
        hasher.update(part);
    }
    file.sync_data()?;
    hasher.finalize();
    Ok(start.elapsed())
}

async fn swarm(n: usize) -> anyhow::Result<(TestSwarm, Vec<Node>)> {
    let swarm = TestSwarm::start(n).await;
    let mut nodes = Vec::new();
    for index in 0..n {
        nodes.push(Node::start(swarm.network(index).clone()).await?);
    }
    Ok((swarm, nodes))
}

fn measure(criterion: &mut Criterion) -> anyhow::Result<()> {
    let runtime = Runtime::new()?;
    let (_swarm, nodes) = runtime.block_on(swarm(5))?;
    let path = VfsPath::parse("/file")?;
    let mut group = criterion.benchmark_group("a file of 64 MiB, five nodes in one process");
    group.throughput(Throughput::Bytes(LEN as u64)).sample_size(10);
    let repeat = |n: u64, once: &dyn Fn() -> anyhow::Result<Duration>| {
        (0..n).map(|_| once().unwrap_or(Duration::from_secs(3600))).sum::<Duration>()
    };
    group.bench_function("limit: hash, write and sync", |bencher| {
        bencher.iter_custom(|n| repeat(n, &copy_and_hash));
    });
    let files = &nodes[0].files;
    group.bench_function("put, on this disk", |bencher| {
        bencher.iter_custom(|n| repeat(n, &|| Ok(runtime.block_on(put(files, &path))?.0)));
    });
    group.bench_function("put, at full durability", |bencher| {
        bencher.iter_custom(|n| repeat(n, &|| Ok(runtime.block_on(put(files, &path))?.1)));
    });
    group.bench_function("get on another node", |bencher| {
        bencher.iter_custom(|n| {
            repeat(n, &|| {
                // Other content each time, so that nothing is in memory.
                runtime.block_on(put(files, &path))?;
                std::thread::sleep(Duration::from_millis(200));
                runtime.block_on(get(&nodes[3].files, &path))
            })
        });
    });
    group.finish();
    Ok(())
}

#[expect(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to measure")]
fn all(criterion: &mut Criterion) {
    measure(criterion).expect("a swarm in this process");
}

criterion_group!(benches, all);
criterion_main!(benches);
