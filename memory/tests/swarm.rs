//! What several nodes promise each other, over real connections.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use starfish_dht::testing::{PATIENCE, TestSwarm, wait_until};
use starfish_memory::{Lifetime, Memory, MemoryOptions, MemorySync, Space};
use tempfile::TempDir;

/// A swarm whose every node has a memory.
struct Memories {
    swarm: TestSwarm,
    nodes: Vec<Node>,
}

struct Node {
    memory: Memory,
    _sync: MemorySync,
    _dir: TempDir,
}

impl Memories {
    async fn start(n: usize) -> anyhow::Result<Self> {
        Self::start_with(n, MemoryOptions::default()).await
    }

    async fn start_with(n: usize, options: MemoryOptions) -> anyhow::Result<Self> {
        let mut memories = Self { swarm: TestSwarm::start(n).await, nodes: Vec::new() };
        for index in 0..n {
            memories.attach_with(index, options).await?;
        }
        Ok(memories)
    }

    async fn attach(&mut self, index: usize) -> anyhow::Result<()> {
        self.attach_with(index, MemoryOptions::default()).await
    }

    async fn attach_with(&mut self, index: usize, options: MemoryOptions) -> anyhow::Result<()> {
        let network = self.swarm.network(index).clone();
        let dir = tempfile::tempdir()?;
        let memory = Memory::open_with(dir.path(), &network.local_peer(), options)?;
        let sync = memory.join(network).await?;
        self.nodes.push(Node { memory, _sync: sync, _dir: dir });
        Ok(())
    }

    fn space(&self, index: usize) -> Space {
        self.nodes[index].memory.space("app").unwrap()
    }

    async fn wait_value(&self, index: usize, key: &str, value: &str) {
        let space = self.space(index);
        wait_until(&format!("`{key}` to be `{value}` on node {index}"), PATIENCE, || async {
            space.get(key.as_bytes()).await.unwrap().is_some_and(|found| found == value)
        })
        .await;
    }

    async fn wait_agreed(&self) {
        wait_until("all nodes to agree", PATIENCE, || async {
            let digest = self.nodes[0].memory.digest();
            self.nodes.iter().all(|node| node.memory.digest() == digest)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_set_on_one_node_is_read_on_the_others() -> anyhow::Result<()> {
    let memories = Memories::start(3).await?;
    memories.space(0).set(b"k", "from a".into(), None).await?;
    memories.wait_value(1, "k", "from a").await;
    memories.wait_value(2, "k", "from a").await;
    memories.space(2).delete(b"k").await?;
    let first = memories.space(0);
    wait_until("the deletion", PATIENCE, || async { first.get(b"k").await.unwrap().is_none() }).await;
    memories.wait_agreed().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn increments_on_all_nodes_add_up() -> anyhow::Result<()> {
    let memories = Memories::start(3).await?;
    let adding = (0..3).map(|index| {
        let space = memories.space(index);
        async move {
            for _ in 0..20 {
                space.incr(b"n", 1).await.unwrap();
            }
        }
    });
    futures::future::join_all(adding).await;
    for index in 0..3 {
        memories.wait_value(index, "n", "60").await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_long_a_value_lasts_takes_nothing_from_what_others_count_or_write_meanwhile() -> anyhow::Result<()>
{
    let memories = Memories::start(2).await?;
    let [a, b] = [memories.space(0), memories.space(1)];
    a.incr(b"counted", 10).await?;
    for key in ["set", "both"] {
        a.set(key.as_bytes(), "10".into(), None).await?;
    }
    a.set(b"expired", "7".into(), Some(Duration::from_millis(1))).await?;
    memories.wait_agreed().await;
    memories.swarm.partition(&[0], &[1]).await;
    let hour = Lifetime::For(Duration::from_secs(3600));
    for key in ["counted", "set", "expired"] {
        b.incr(key.as_bytes(), 5).await?;
        a.incr(key.as_bytes(), 1).await?;
        assert!(a.expire(key.as_bytes(), hour).await?, "{key}");
        a.incr(key.as_bytes(), 1).await?;
        assert!(b.expire(key.as_bytes(), hour).await?, "{key}");
    }
    b.set(b"both", "new".into(), None).await?;
    assert!(a.expire(b"both", hour).await?);
    memories.swarm.heal().await;
    for index in 0..2 {
        for (key, value) in [("counted", "17"), ("set", "17"), ("expired", "7"), ("both", "new")] {
            memories.wait_value(index, key, value).await;
        }
        assert_eq!(memories.space(index).entry(b"both").await?.unwrap().expires_ms, None);
        assert!(memories.space(index).entry(b"counted").await?.unwrap().expires_ms.is_some());
    }
    memories.wait_agreed().await;
    // It can be made to last again, and what was counted stays.
    assert!(a.expire(b"counted", Lifetime::Forever).await?);
    a.incr(b"counted", 1).await?;
    memories.wait_value(1, "counted", "18").await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_halves_of_a_partition_write_on_and_agree_when_it_heals() -> anyhow::Result<()> {
    let memories = Memories::start(3).await?;
    memories.space(0).set(b"k", "before".into(), None).await?;
    memories.wait_agreed().await;
    memories.swarm.partition(&[0, 1], &[2]).await;
    for i in 0..50 {
        memories.space(0).set(format!("left/{i}").as_bytes(), "x".into(), None).await?;
        memories.space(2).set(format!("right/{i}").as_bytes(), "x".into(), None).await?;
        memories.space(1).incr(b"n", 1).await?;
        memories.space(2).incr(b"n", 1).await?;
    }
    memories.space(0).set(b"k", "left".into(), None).await?;
    memories.space(2).set(b"k", "right".into(), None).await?;
    memories.wait_value(1, "k", "left").await;
    assert_eq!(memories.space(1).get(b"right/0").await?, None, "the cut holds");

    memories.swarm.heal().await;
    memories.wait_agreed().await;
    for index in 0..3 {
        let space = memories.space(index);
        assert_eq!(space.scan(b"left/", None, 100).await?.len(), 50);
        assert_eq!(space.scan(b"right/", None, 100).await?.len(), 50);
        assert_eq!(space.get(b"n").await?.unwrap(), "100");
        assert_eq!(space.get(b"k").await?.unwrap(), "right", "the later write wins");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_gets_ten_thousand_keys() -> anyhow::Result<()> {
    let mut memories = Memories::start(1).await?;
    for chunk in 0..10 {
        let mut batch = memories.space(0).batch();
        for i in 0..1000 {
            batch.put(format!("k{}", chunk * 1000 + i), "", vec![b'v'; 100]);
        }
        memories.nodes[0].memory.commit(batch).await?;
    }
    let newcomer = memories.swarm.add().await;
    memories.attach(newcomer).await?;
    memories.wait_agreed().await;
    assert_eq!(memories.space(newcomer).scan(b"", None, 20_000).await?.len(), 10_000);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_too_large_for_gossip_arrives_all_the_same() -> anyhow::Result<()> {
    let memories = Memories::start(2).await?;
    let value = "x".repeat(starfish_memory::MAX_VALUE);
    memories.space(0).set(b"large", value.clone().into(), None).await?;
    memories.wait_value(1, "large", &value).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_agree_exchange_less_than_200_bytes_a_round() -> anyhow::Result<()> {
    let memories = Memories::start(2).await?;
    memories.space(0).set(b"k", "v".into(), None).await?;
    memories.wait_value(1, "k", "v").await;
    memories.wait_agreed().await;
    // A round that began before the key arrived may still end.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let stats = |index: usize| memories.nodes[index].memory.stats();
    let before = [stats(0), stats(1)];
    let rounds =
        || (stats(0).sync_rounds - before[0].sync_rounds) + (stats(1).sync_rounds - before[1].sync_rounds);
    wait_until("three rounds", PATIENCE, || async { rounds() >= 3 }).await;
    let bytes = stats(0).sync_bytes_sent + stats(0).sync_bytes_received
        - before[0].sync_bytes_sent
        - before[0].sync_bytes_received;
    assert!(bytes / rounds() < 200, "{bytes} bytes in {} rounds", rounds());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memory_joins_one_network_at_a_time() -> anyhow::Result<()> {
    let memories = Memories::start(1).await?;
    let network = memories.swarm.network(0).clone();
    assert!(memories.nodes[0].memory.join(network).await.is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dead_do_not_come_back_with_a_node_that_was_away_for_longer_than_they_are_remembered()
-> anyhow::Result<()> {
    let horizon = Duration::from_secs(4);
    let mut memories = Memories::start_with(3, MemoryOptions { horizon, ..MemoryOptions::default() }).await?;
    for key in ["gone", "renewed", "kept"] {
        memories.space(0).set(key.as_bytes(), "old".into(), None).await?;
    }
    memories.space(0).set(b"brief", "old".into(), Some(Duration::from_millis(100))).await?;
    memories.wait_agreed().await;
    // Each is to know when it last agreed with each.
    wait_until("all have compared notes", PATIENCE, || async {
        memories.nodes.iter().all(|node| node.memory.stats().sync_rounds > 2)
    })
    .await;
    memories.swarm.partition(&[0, 1], &[2]).await;
    memories.space(0).delete(b"gone").await?;
    memories.space(0).delete(b"renewed").await?;
    memories.space(2).set(b"written while away", "new".into(), None).await?;
    wait_until("the dead to be forgotten", PATIENCE, || async {
        memories.nodes[..2]
            .iter()
            .all(|node| node.memory.stats().reaped >= 3 && node.memory.stats().tombstones == 0)
    })
    .await;
    memories.space(1).set(b"renewed", "new".into(), None).await?;

    memories.swarm.heal().await;
    for index in 0..3 {
        memories.wait_value(index, "renewed", "new").await;
        memories.wait_value(index, "written while away", "new").await;
    }
    let away = memories.space(2);
    wait_until("its death", PATIENCE, || async { away.get(b"gone").await.unwrap().is_none() }).await;
    memories.wait_agreed().await;
    // A newcomer has never agreed with anybody, and gets and brings everything.
    let newcomer = memories.swarm.add().await;
    memories.attach_with(newcomer, MemoryOptions { horizon, ..MemoryOptions::default() }).await?;
    for index in 0..4 {
        memories.wait_value(index, "kept", "old").await;
        assert_eq!(memories.space(index).get(b"gone").await?, None, "on node {index}");
    }
    Ok(())
}

/// How long it takes until all other nodes have a batch of so many keys, and how often one of them had a part of it.
async fn spread(memories: &Memories, round: usize, keys: usize, bytes: usize) -> (Duration, usize) {
    let space = memories.space(0);
    let mut batch = space.batch();
    for key in 0..keys {
        batch.put(format!("round-{round:03}/{key:05}"), "", vec![b'x'; bytes]);
    }
    memories.nodes[0].memory.commit(batch).await.unwrap();
    let begun = std::time::Instant::now();
    let (mut waiting, mut partial) = ((1..memories.nodes.len()).collect::<Vec<_>>(), 0);
    let prefix = format!("round-{round:03}/");
    while !waiting.is_empty() {
        assert!(begun.elapsed() < PATIENCE, "it never came");
        for node in std::mem::take(&mut waiting) {
            let seen = memories.space(node).scan(prefix.as_bytes(), None, keys + 1).await.unwrap().len();
            partial += usize::from(seen > 0 && seen < keys);
            if seen < keys {
                waiting.push(node);
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (begun.elapsed(), partial)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_too_large_for_gossip_are_never_seen_in_parts() -> anyhow::Result<()> {
    let memories = Memories::start(4).await?;
    memories.wait_agreed().await;
    for (round, keys, bytes) in [(1, 300, 100), (2, 1000, 100), (3, 4000, 100), (4, 200, 15_000)] {
        let (took, partial) = spread(&memories, round, keys, bytes).await;
        println!("{keys} keys of {bytes} bytes are everywhere after {took:?}");
        assert_eq!(partial, 0, "{keys} keys of {bytes} bytes");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_away_sees_no_batch_in_parts_either() -> anyhow::Result<()> {
    let mut memories = Memories::start(2).await?;
    let (space, keys) = (memories.space(0), 500);
    for round in 0..20 {
        let mut batch = space.batch();
        for key in 0..keys {
            batch.put(format!("{round:02}/{key:03}"), "", vec![b'x'; 50]);
        }
        // What was written over since is no part of its batch any more.
        for key in 0..keys / 2 {
            batch.put(format!("shared/{key:03}"), "", format!("{round}"));
        }
        memories.nodes[0].memory.commit(batch).await?;
    }
    memories.wait_agreed().await;
    let newcomer = memories.swarm.add().await;
    memories.attach(newcomer).await?;
    let space = memories.space(newcomer);
    let done = async || {
        let mut whole = 0;
        for round in 0..20 {
            let seen = space.scan(format!("{round:02}/").as_bytes(), None, keys + 1).await.unwrap().len();
            assert!(seen == 0 || seen == keys, "{seen} of {keys} keys of batch {round}");
            whole += usize::from(seen == keys);
        }
        whole == 20
    };
    wait_until("all batches", PATIENCE, done).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn how_soon_batches_are_everywhere() -> anyhow::Result<()> {
    let memories = Memories::start(5).await?;
    memories.wait_agreed().await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    for (keys, bytes) in [(10, 100), (100, 100), (1000, 100), (4000, 100), (4000, 900)] {
        for round in 0..4 {
            let (took, partial) = spread(&memories, round + keys + bytes * 100, keys, bytes).await;
            println!("{keys} keys of {bytes} bytes: {took:?}, seen in parts {partial} times");
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }
    Ok(())
}
