//! How soon a node is there, how soon it is a member, and what it costs to do nothing.

use std::path::Path;
use std::time::Duration;

use super::figure::{Figure, Value};
use super::swarm::{Start, Swarm};

/// How long nodes are left alone before their memory is looked at: two beacons and what a join leaves to do.
const SETTLE: Duration = Duration::from_secs(10);

/// Starts the swarm that everything else is measured on.
pub(super) async fn swarm(root: &Path, n: usize, figures: &mut Vec<Figure>) -> anyhow::Result<Swarm> {
    let (mut swarm, founded) = Swarm::found(root).await?;
    let mut joins = Vec::new();
    for _ in 1..n {
        joins.push(swarm.add().await?);
    }
    figures.push(Figure::new("node ready, in a new swarm", Value::Time(founded.ready)));
    figures
        .push(Figure::new("node ready, joining (median)", Value::Time(median(&joins, |start| start.ready))));
    figures
        .push(Figure::new("member, from spawn (median)", Value::Time(median(&joins, |start| start.joined))));
    figures.push(Figure::new("idle memory of a node", Value::Bytes(idle_memory(&swarm).await?)));
    Ok(swarm)
}

/// Lets `n` nodes join one after the other, and says how long it took the last.
pub(super) async fn many(root: &Path, n: usize, figures: &mut Vec<Figure>) -> anyhow::Result<()> {
    let (mut swarm, mut last) = Swarm::found(root).await?;
    for _ in 1..n {
        last = swarm.add().await?;
    }
    figures.push(Figure::new(format!("member, from spawn, as node {n}"), Value::Time(last.joined)));
    figures.push(Figure::new(format!("idle memory, of {n} nodes"), Value::Bytes(idle_memory(&swarm).await?)));
    swarm.stop().await;
    Ok(())
}

/// What a node's process holds, on average; its worker processes come and go and are not counted.
async fn idle_memory(swarm: &Swarm) -> anyhow::Result<u64> {
    tokio::time::sleep(SETTLE).await;
    let resident: Vec<u64> =
        swarm.statuses().await?.into_iter().filter_map(|status| status.resident_bytes).collect();
    Ok(resident.iter().sum::<u64>() / resident.len().max(1) as u64)
}

fn median(starts: &[Start], of: impl Fn(&Start) -> Duration) -> Duration {
    let mut times: Vec<Duration> = starts.iter().map(of).collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
