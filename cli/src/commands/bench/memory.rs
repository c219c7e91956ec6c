//! Writes of the shared memory: on one node, on all of them, and without a node in between.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use starfish_node::dht::PeerId;
use starfish_node::memory::Memory;

use super::figure::{Figure, Value};
use super::swarm::Swarm;

/// Enough for some seconds.
const WRITES: usize = 5000;
/// Writes under way at once, as from many clients; they share commits.
const IN_FLIGHT: usize = 64;
/// A small value, such as a line of settings.
const VALUE: Bytes = Bytes::from_static(&[b'v'; 100]);

/// Sets keys through the first node's API, then the same without any node.
pub(super) async fn writes(swarm: &Swarm, root: &Path, figures: &mut Vec<Figure>) -> anyhow::Result<()> {
    let space = swarm.client(0).space("bench");
    let start = Instant::now();
    let sets = (0..WRITES).map(|n| {
        let space = space.clone();
        async move { anyhow::Ok(space.set(&key(n), VALUE, None).await?) }
    });
    stream::iter(sets).buffer_unordered(IN_FLIGHT).try_collect::<()>().await?;
    let local = start.elapsed();
    swarm.wait_in_sync().await?;
    let everywhere = start.elapsed();
    let direct = without_a_node(root).await?;

    let rate = |elapsed| Value::per_second(WRITES, elapsed);
    figures.push(
        Figure::new("keys set through the API", rate(local))
            .against("the same store in process, no HTTP", rate(direct)),
    );
    figures.push(Figure::new("keys set on every node", rate(everywhere)).against("on one node", rate(local)));
    Ok(())
}

/// The same writes with the same promise (on disk when acknowledged), called directly.
async fn without_a_node(root: &Path) -> anyhow::Result<Duration> {
    let memory = Memory::open(&root.join("memory"), &PeerId::random())?;
    let space = memory.space("bench")?;
    let start = Instant::now();
    let sets = (0..WRITES).map(|n| {
        let space = space.clone();
        async move { anyhow::Ok(space.set(&key(n), VALUE, None).await.map(drop)?) }
    });
    stream::iter(sets).buffer_unordered(IN_FLIGHT).try_collect::<()>().await?;
    Ok(start.elapsed())
}

fn key(n: usize) -> Vec<u8> {
    format!("key-{n:06}").into_bytes()
}
