//! A million keys of 100 bytes: what they take of memory, how soon they are there after a restart, and what nodes tell each
//! other of them. It takes minutes and some 500 MB of disk.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use starfish_dht::{PeerId, testing::TestSwarm};
use starfish_memory::{Memory, MemoryStats};

const KEYS: usize = 1_000_000;
const MISSED: usize = 1_000;
const VALUE: [u8; 100] = [7; 100];
/// The child that opens the store this process has left.
const CHILD: &str = "STARFISH_BENCH_OPEN";

#[expect(clippy::print_stdout, reason = "what was measured")]
fn say(what: &str, figure: &str) {
    println!("{what}: {figure}");
}

fn resident_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0) / 1024
}

async fn fill(memory: &Memory, keys: std::ops::Range<usize>) -> anyhow::Result<()> {
    let space = memory.space("bench")?;
    for some in keys.collect::<Vec<usize>>().chunks(1000) {
        let mut batch = space.batch();
        for key in some {
            // Not in order, as keys are.
            let key = (*key as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            batch.put(format!("{key:016x}"), "", VALUE.to_vec());
        }
        memory.commit(batch).await?;
    }
    Ok(())
}

async fn open(dir: &Path) -> anyhow::Result<()> {
    let start = Instant::now();
    let memory = Memory::open(dir, &PeerId::random())?;
    let read = memory.space("bench")?.get(b"0000000000000000").await?;
    anyhow::ensure!(read.is_some(), "the first key is there");
    say("restart to first read", &format!("{:.2} s", start.elapsed().as_secs_f64()));
    say("resident then", &format!("{} MB", resident_mb()));
    Ok(())
}

async fn until(what: &str, met: impl Fn() -> bool) -> anyhow::Result<Duration> {
    let start = Instant::now();
    while !met() {
        anyhow::ensure!(start.elapsed() < Duration::from_secs(600), "{what} takes too long");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(start.elapsed())
}

fn bytes(stats: &MemoryStats) -> u64 {
    stats.sync_bytes_sent + stats.sync_bytes_received
}

async fn replicate(dir: &Path) -> anyhow::Result<()> {
    let swarm = TestSwarm::start(2).await;
    let networks = [swarm.network(0).clone(), swarm.network(1).clone()];
    let full = Memory::open(&dir.join("full"), &networks[0].local_peer())?;
    let new = Memory::open(&dir.join("new"), &networks[1].local_peer())?;
    fill(&full, 0..KEYS).await?;
    say("one replica, resident", &format!("{} MB", resident_mb()));

    let agree = || full.digest() == new.digest();
    let _sync = full.join(networks[0].clone()).await?;
    let mut sync = new.join(networks[1].clone()).await?;
    let start = Instant::now();
    let (space, mut slowest) = (new.space("bench")?, Duration::ZERO);
    while !agree() {
        let read = Instant::now();
        space.get(b"0000000000000000").await?;
        slowest = slowest.max(read.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let fetched = format!(
        "{:.1} s, {} MB; the slowest read meanwhile {:.1} ms; both replicas resident {} MB",
        start.elapsed().as_secs_f64(),
        bytes(&new.stats()) >> 20,
        slowest.as_secs_f64() * 1000.0,
        resident_mb()
    );
    say("a newcomer has all", &fetched);

    sync.stop().await;
    fill(&full, KEYS..KEYS + MISSED).await?;
    let before = bytes(&new.stats());
    sync = new.join(networks[1].clone()).await?;
    let took = until("what was missed", agree).await?;
    let missed = format!("{} kB, {:.1} s", (bytes(&new.stats()) - before) / 1024, took.as_secs_f64());
    say("a node that missed 1,000 of them", &missed);

    tokio::time::sleep(Duration::from_secs(5)).await;
    let (stats, rounds) = (new.stats(), |stats: &MemoryStats| stats.sync_rounds_agreed);
    until("two rounds", || rounds(&new.stats()) >= rounds(&stats) + 2).await?;
    let then = [new.stats(), full.stats()];
    let began = rounds(&then[0]) - rounds(&stats);
    // Those that the peer began count as well.
    let all = bytes(&then[0]) - bytes(&stats);
    say("bytes between two nodes that agree", &format!("{all} while one began {began} rounds"));
    sync.stop().await;
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    if let Some(dir) = std::env::var_os(CHILD) {
        return runtime.block_on(open(Path::new(&dir)));
    }
    let dir = tempfile::tempdir()?;
    runtime.block_on(replicate(dir.path()))?;
    drop(runtime);
    let program = std::env::current_exe().context("this program")?;
    let child = std::process::Command::new(program).env(CHILD, dir.path().join("full")).status()?;
    anyhow::ensure!(child.success(), "the store opens again");
    Ok(())
}
