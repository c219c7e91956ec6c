//! How soon a key that is set on one of twenty nodes is on all of them, while all together set 5,000 keys a second. It takes
//! a minute; the nodes are in this process, and in its memory.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures::future::try_join_all;
use starfish_dht::testing::TestSwarm;
use starfish_memory::{Event, Memory, MemorySync, Space};
use tokio::{sync::mpsc, time::MissedTickBehavior};

const NODES: usize = 20;
const SETS_A_SECOND: usize = 5_000;
const LASTING: Duration = Duration::from_secs(30);
/// Nodes set a batch of single keys so often.
const TICK: Duration = Duration::from_millis(20);
/// Every so many ticks of a node, one of its keys is watched for on all others.
const SAMPLED: usize = 5;
/// How long the last keys may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Samples that were seen and not counted yet.
const MAX_WAITING: usize = 65_536;
const VALUE: [u8; 100] = [7; 100];
const SAMPLES: &[u8] = b"sample/";

#[expect(clippy::print_stdout, reason = "what was measured")]
fn say(what: &str, figure: &str) {
    println!("{what}: {figure}");
}

/// Sets keys at its part of the rate until the time is over; the number of the samples among them.
async fn write(space: Space, node: usize) -> anyhow::Result<usize> {
    let each = SETS_A_SECOND / NODES * usize::try_from(TICK.as_millis())? / 1000;
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (start, mut n, mut samples) = (Instant::now(), 0, 0);
    while start.elapsed() < LASTING {
        ticks.tick().await;
        let sets = (0..each).map(|one| {
            let (space, key) = (&space, format!("key/{node:02}/{:09}", n * each + one));
            async move { space.set(key.as_bytes(), VALUE.to_vec().into(), None).await }
        });
        try_join_all(sets).await?;
        if n % SAMPLED == 0 {
            let key = [SAMPLES, format!("{node:02}/{samples:06}").as_bytes()].concat();
            space.set(&key, VALUE.to_vec().into(), None).await?;
            samples += 1;
        }
        n += 1;
    }
    Ok(samples)
}

/// Tells of each sample that comes to this node, or is set there.
async fn watch(space: Space, seen: mpsc::Sender<(Vec<u8>, Instant)>) -> anyhow::Result<()> {
    let mut events = space.watch(SAMPLES);
    loop {
        match events.next().await.context("the store cannot be read")? {
            Event::Value { key, .. } => seen.send((key.to_vec(), Instant::now())).await?,
            Event::Lagged => anyhow::bail!("a watcher was too slow"),
            _ => {}
        }
    }
}

async fn measure() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let swarm = TestSwarm::start(NODES).await;
    let (mut memories, mut syncs): (Vec<Memory>, Vec<MemorySync>) = Default::default();
    for node in 0..NODES {
        let network = swarm.network(node).clone();
        let memory = Memory::open(&dir.path().join(node.to_string()), &network.local_peer())?;
        syncs.push(memory.join(network).await?);
        memories.push(memory);
    }
    let spaces: Vec<Space> = memories.iter().map(|memory| memory.space("bench")).collect::<Result<_, _>>()?;
    let (sender, mut seen) = mpsc::channel(MAX_WAITING);
    let watchers: Vec<_> =
        spaces.iter().map(|space| tokio::spawn(watch(space.clone(), sender.clone()))).collect();
    // Gossip finds its ways.
    tokio::time::sleep(Duration::from_secs(10)).await;

    let writers = spaces.iter().enumerate().map(|(node, space)| tokio::spawn(write(space.clone(), node)));
    let writing = try_join_all(writers);
    let start = Instant::now();
    let mut samples = HashMap::<Vec<u8>, Vec<Instant>>::new();
    let (mut all, mut expected) = (0, None);
    tokio::pin!(writing);
    while expected.is_none_or(|expected| all < expected) {
        tokio::select! {
            written = &mut writing, if expected.is_none() => {
                let written: Vec<usize> = written?.into_iter().collect::<anyhow::Result<_>>()?;
                expected = Some(written.iter().sum::<usize>() * NODES);
            }
            next = tokio::time::timeout(PATIENCE, seen.recv()) => {
                let (key, when) = next.context("a key is not everywhere")?.context("watchers live")?;
                samples.entry(key).or_default().push(when);
                all += 1;
            }
        }
    }
    let cells: u64 = memories[0].stats().cells;
    let mut times: Vec<Duration> = samples
        .values()
        .map(|seen| {
            let (first, last) = (seen.iter().min(), seen.iter().max());
            first.zip(last).map_or(Duration::ZERO, |(first, last)| *last - *first)
        })
        .collect();
    times.sort_unstable();
    let of_hundred = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    say("nodes", &NODES.to_string());
    say("sets a second, all nodes", &format!("{:.0}", cells as f64 / start.elapsed().as_secs_f64()));
    say("from the node it was set on to all others, median", &format!("{:.0?}", of_hundred(50)));
    say("of a hundred the slowest", &format!("{:.0?}", of_hundred(99)));
    say("the slowest", &format!("{:.0?}", of_hundred(100)));
    watchers.iter().for_each(tokio::task::JoinHandle::abort);
    for sync in syncs {
        sync.stop().await;
    }
    Ok(())
}

fn main() -> anyhow::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(measure())
}
