//! What a node costs that holds a million shards and has nothing to do.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use bytes::Bytes;
use futures::{TryStreamExt, stream};
use starfish_dht::testing::TestSwarm;

use super::*;
use crate::code::Code;
use crate::hash::BlobHash;
use crate::store::{Bundle, Kind};

const SHARDS: u64 = 1_000_000;
/// Shards that are added at once.
const BATCH: u64 = 1000;
/// The length of each.
const LEN: usize = 64;
/// How long what a start leaves to do may take: the store's engine merges tables.
const SETTLES: Duration = Duration::from_secs(20);
/// How long the node is watched while it does nothing.
const WATCHED: Duration = Duration::from_secs(30);
/// Tells the second process where the shards are.
const FOLDER: &str = "STARFISH_TEST_AT_REST";

/// The shards are made by one process, and the node is another, so that what making them took is not counted.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a million shards take minutes and hundreds of MiB of disk: run it alone, with --release, --ignored and --nocapture"]
async fn a_million_shards_at_rest_take_little() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return watch(Path::new(&folder)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    fill(&folder.path().join("blobs")).await;
    let name = "files::rest::a_million_shards_at_rest_take_little";
    let node = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--ignored", "--nocapture"])
        .env(FOLDER, folder.path())
        .status();
    assert!(node.unwrap().success());
}

async fn fill(dir: &Path) {
    let limits = Limits { quota: u64::MAX, cache: 0 };
    let store = Store::open(dir, limits).await.unwrap();
    let bundle = |seed: u64| {
        let mut bytes = vec![0; LEN];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        let (hash, segment) = (BlobHash::of(&bytes), Bytes::from(bytes));
        let shards = Code::of(LEN as u64).shards(&segment, &[0]).unwrap();
        (hash, Bundle::new(LEN as u64, [0].into_iter().zip(shards).collect()).unwrap())
    };
    let batches = stream::iter((0..SHARDS / BATCH).map(Ok));
    batches
        .try_for_each_concurrent(2, async |batch| {
            let bundles = (batch * BATCH..(batch + 1) * BATCH).map(bundle).collect();
            store.add_all_shards(bundles).await?.into_iter().collect::<io::Result<()>>()
        })
        .await
        .unwrap();
    store.close().await.unwrap();
}

async fn watch(folder: &Path) {
    let swarm = TestSwarm::start(1).await;
    let network = swarm.network(0).clone();
    let memory = Memory::open(&folder.join("memory"), &network.local_peer()).unwrap();
    let _sync = memory.join(network.clone()).await.unwrap();
    let start = Instant::now();
    let files = Files::open(&folder.join("blobs"), network, memory, FilesOptions::default()).await.unwrap();
    eprintln!("opened in {:?}", start.elapsed());
    assert_eq!(files.inner.store.holdings().kept, SHARDS);

    let before = cpu();
    tokio::time::sleep(SETTLES).await;
    eprintln!("what the start left to do took {:?} of a processor", cpu() - before);
    let (start, before) = (Instant::now(), cpu());
    tokio::time::sleep(WATCHED).await;
    let share = (cpu() - before).as_secs_f64() / start.elapsed().as_secs_f64();
    let (resident, own) = (memory_mib("VmRSS:"), memory_mib("RssAnon:"));
    let percent = share * 100.0;
    eprintln!("at rest: {percent:.2} % of a core, {resident} MiB resident, {own} of them not of files");

    let (mut after, mut seen, mut longest) = (None, 0, Duration::ZERO);
    loop {
        let start = Instant::now();
        let page = files.inner.store.page(Kind::Shards, after, gc::STEP).await.unwrap();
        longest = longest.max(start.elapsed());
        let Some((last, _)) = page.last() else { break };
        after = Some(*last);
        seen += page.len() as u64;
    }
    let (start, inner) = (Instant::now(), &files.inner);
    gc::collect(&inner.store, &inner.tree, &inner.segments, Duration::from_secs(3600), inner.options.gc_rate)
        .await
        .unwrap();
    eprintln!("the longest step of a look at all: {longest:?}; a run of gc: {:?}", start.elapsed());
    assert_eq!(seen, SHARDS);
    assert!(share < 0.01 && resident < 100 && longest < Duration::from_millis(20));
    files.stop().await;
}

/// The time on a processor that this process has taken.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

fn memory_mib(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}
