//! Files outlive nodes: whole swarms in one process, half of which is taken away.

use std::collections::BTreeMap;

use bytes::Bytes;
use starfish_dht::PeerId;
use starfish_dht::testing::{TestSwarm, wait_until};

use super::tests::{Node, at, sample, segment};
use super::*;
use crate::code::Code;
use crate::durable::Job;
use crate::manifest::Segment;
use crate::peers::serve::Desk;
use crate::peers::wire::{Kept, Want};
use crate::store::{Bundle, Kind};

const SOON: Duration = Duration::from_secs(60);

fn quick() -> FilesOptions {
    FilesOptions { repair_grace: Duration::from_secs(1), ..FilesOptions::default() }
}

/// A swarm with files open on every node.
struct Bench {
    swarm: TestSwarm,
    nodes: Vec<Option<Node>>,
}

impl Bench {
    async fn start(n: usize) -> Self {
        let swarm = TestSwarm::start(n).await;
        let mut nodes = Vec::new();
        for index in 0..n {
            nodes.push(Some(Node::start_with(swarm.network(index).clone(), quick()).await));
        }
        let bench = Self { swarm, nodes };
        bench.all_see(n).await;
        bench
    }

    async fn add(&mut self) {
        let index = self.swarm.add().await;
        self.swarm.wait_connected().await;
        self.nodes.push(Some(Node::start_with(self.swarm.network(index).clone(), quick()).await));
    }

    /// Waits until each living node sees `n` of them.
    async fn all_see(&self, n: usize) {
        wait_until("all to see all", SOON, || async {
            self.alive().all(|node| node.files.inner.desk.others().len() == n - 1)
        })
        .await;
    }

    fn node(&self, index: usize) -> &Node {
        self.nodes[index].as_ref().unwrap()
    }

    fn alive(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().flatten()
    }

    async fn kill(&mut self, index: usize) {
        self.swarm.stop(index).await;
        let node = self.nodes[index].take().unwrap();
        node.files.inner.stopping.cancel();
    }

    async fn durable(&self) {
        wait_until("full durability", SOON, || async {
            self.alive().all(|node| node.files.waiting(&at("/")).files == 0)
        })
        .await;
    }

    /// Waits until nobody finds anything below full durability, by a look of their own.
    async fn mended(&self) {
        let start = std::time::Instant::now();
        loop {
            let reports: Vec<_> = self
                .alive()
                .map(|node| (node.files.inner.desk.report(), node.files.inner.desk.view()))
                .collect();
            let is_well = reports.iter().all(|(report, _)| report.files == 0);
            if is_well && self.is_placed().await {
                return;
            }
            let words = || {
                let words = reports.iter().map(|(report, view)| {
                    let (alive, away, leaving) = (view.alive.len(), view.away.len(), view.leaving.len());
                    format!("{alive} alive, {away} away, {leaving} leaving: {report:?}")
                });
                words.collect::<Vec<_>>().join("\n")
            };
            assert!(
                start.elapsed() < SOON,
                "not mended in {SOON:?} (placed: {}):\n{}",
                self.is_placed().await,
                words()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Whether every segment of every file survives any half of those who are alive.
    async fn is_placed(&self) -> bool {
        let first = self.alive().next().unwrap();
        let files: Vec<_> = first.files.inner.tree.read().files().collect();
        for (inode, _) in files {
            let content = first.files.inner.tree.content(inode).await.unwrap();
            let Ok(segments) = segments_of(content, &first.files.inner.segments).await else { return false };
            for segment in segments.into_iter().flatten() {
                let held: Vec<_> =
                    self.alive().map(|node| node.files.inner.store.held(&segment.hash).unwrap()).collect();
                let alone = held.len() == 1 && first.files.inner.store.is_kept(&segment.hash).unwrap();
                if !alone && !crate::mend::health(Code::of(segment.len.into()).k(), &held).is_durable {
                    return false;
                }
            }
        }
        true
    }

    fn kept_bytes(&self) -> u64 {
        self.alive().map(|node| node.files.inner.store.holdings().kept_bytes).sum()
    }
}

/// Files of every kind of length: in the cell, of one shard, of some, of several segments.
fn contents() -> Vec<(String, Bytes)> {
    let lengths = [0, 100, 3_000, 50_000, 700_000, 5 << 20];
    lengths.iter().map(|len| (format!("/f{len}"), sample(*len))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn any_half_may_vanish_once_files_are_durable_and_each_survivor_reads_all() {
    for n in [2, 3, 5, 6] {
        let mut bench = Bench::start(n).await;
        for (index, (path, bytes)) in contents().into_iter().enumerate() {
            bench.node(index % n).put(&path, bytes).await;
        }
        bench.durable().await;
        // The writers of most files are among those who go.
        for index in 0..n / 2 {
            bench.kill(index).await;
        }
        for node in bench.alive() {
            for (path, bytes) in contents() {
                assert!(node.get(&path).await.unwrap() == bytes, "{path} with {n} nodes");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn durable_files_cost_twice_their_length() {
    for n in [2, 4, 7] {
        let bench = Bench::start(n).await;
        bench.node(0).put("/f", sample(20 << 20)).await;
        bench.durable().await;
        let overhead = bench.kept_bytes() as f64 / f64::from(20 << 20);
        assert!(overhead <= 2.1, "{overhead} with {n} nodes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swarm_that_grows_one_by_one_ends_with_every_file_at_the_promise() {
    let mut bench = Bench::start(1).await;
    for (path, bytes) in contents() {
        bench.node(0).put(&path, bytes).await;
    }
    for n in 2..=5 {
        bench.add().await;
        bench.all_see(n).await;
        bench.mended().await;
    }
    bench.kill(0).await;
    bench.kill(3).await;
    for node in bench.alive() {
        for (path, bytes) in contents() {
            assert!(node.get(&path).await.unwrap() == bytes, "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_half_of_the_swarm_took_with_it_is_mended_after_the_grace_time() {
    let mut bench = Bench::start(6).await;
    for (path, bytes) in contents() {
        bench.node(0).put(&path, bytes).await;
    }
    bench.durable().await;
    for index in [0, 2, 4] {
        bench.kill(index).await;
    }
    bench.all_see(3).await;
    bench.mended().await;
    // So another half may go.
    bench.kill(1).await;
    for node in bench.alive() {
        for (path, bytes) in contents() {
            assert!(node.get(&path).await.unwrap() == bytes, "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_hands_over_first_and_nothing_is_lost() {
    let mut bench = Bench::start(4).await;
    for (path, bytes) in contents() {
        bench.node(0).put(&path, bytes).await;
    }
    bench.durable().await;
    bench.node(0).files.hand_over().await.unwrap();
    let left = bench.node(0).files.inner.store.holdings().kept;
    bench.kill(0).await;
    assert!(bench.is_placed().await, "{left} items were left");
    for node in bench.alive() {
        for (path, bytes) in contents() {
            assert!(node.get(&path).await.unwrap() == bytes, "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_liar_is_found_by_the_hash_and_passed_over() {
    let bench = Bench::start(5).await;
    let bytes = sample(900_000);
    bench.node(0).put("/f", bytes.clone()).await;
    bench.durable().await;
    let segment = segment(bench.node(0), "/f").await;
    // Who holds the first data shard is asked by every reader. What it keeps was wrong when it came: its disk cannot tell.
    let holds_data = |index: &usize| bench.node(*index).files.inner.store.held(&segment).unwrap().contains(0);
    let liar = (0..5).find(holds_data).unwrap();
    let store = &bench.node(liar).files.inner.store;
    let honest = store.shards(segment).await.unwrap().unwrap();
    let wrong: BTreeMap<u16, Bytes> =
        honest.shards().iter().map(|(index, shard)| (*index, Bytes::from(vec![0xbb; shard.len()]))).collect();
    store.remove(Kind::Shards, segment).await.unwrap();
    store.add_shards(segment, Bundle::new(900_000, wrong).unwrap()).await.unwrap();
    let liar = bench.swarm.network(liar).local_peer();
    let mut named: Vec<PeerId> = Vec::new();
    for node in bench.alive().filter(|node| node.files.inner.peers.local() != liar) {
        // The writer may still have it whole.
        node.files.inner.store.remove(Kind::Whole, segment).await.unwrap();
        node.sees("/f").await;
        assert!(node.get("/f").await.unwrap() == bytes);
        named.extend(node.files.liars().into_iter().map(|(peer, _)| peer));
    }
    // Somebody may have had enough before the liar answered.
    assert!(!named.is_empty() && named.iter().all(|peer| *peer == liar), "{named:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_neither_here_nor_elsewhere_is_not_called_durable() {
    let bench = Bench::start(3).await;
    let node = bench.node(0);
    node.put("/f", sample(900_000)).await;
    bench.durable().await;
    let segment = segment(node, "/f").await;
    for node in bench.alive() {
        for kind in [Kind::Whole, Kind::Shards] {
            node.files.inner.store.remove(kind, segment).await.unwrap();
        }
    }
    let segments = vec![Segment { hash: segment, len: 900_000 }];
    let path = VfsPath::parse("/f").unwrap();
    node.files.inner.publisher.add(Job { path: path.clone(), segments, names: Vec::new() });
    wait_until("it is said to be lost", SOON, || async {
        node.files.waiting(&path).why.is_some_and(|why| why.contains("lost"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_stalls_or_trickles_is_not_waited_for() {
    let bench = Bench::start(5).await;
    let bytes = sample(8 << 20);
    bench.node(0).put("/f", bytes.clone()).await;
    bench.durable().await;
    // Two of five take every question from now on: one says nothing at all, one a byte now and then.
    for (index, trickles) in [(1, false), (2, true)] {
        bench.node(index).files.stop().await;
        let mut incoming = bench.swarm.network(index).accept(crate::peers::wire::NAME).unwrap();
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Some((_, mut stream)) = incoming.next().await {
                if !trickles {
                    held.push(stream);
                    continue;
                }
                tokio::spawn(async move {
                    while tokio::io::AsyncWriteExt::write_all(&mut stream, &[0]).await.is_ok() {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                });
            }
        });
    }
    for index in [3, 4] {
        bench.node(index).sees("/f").await;
        // A peer is given up only after 15 s, so this shows that nobody waited for that.
        let read = tokio::time::timeout(Duration::from_secs(10), bench.node(index).get("/f")).await;
        assert!(read.expect("in time").unwrap() == bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_or_emptied_disk_is_mended_from_the_others() {
    let bench = Bench::start(3).await;
    let bytes = sample(3 << 20);
    bench.node(0).put("/f", bytes.clone()).await;
    bench.durable().await;
    for folder in std::fs::read_dir(bench.node(1).dir.path().join("blobs")).unwrap().flatten() {
        if folder.file_name().len() == 2 {
            for file in std::fs::read_dir(folder.path()).unwrap().flatten() {
                std::fs::write(file.path(), "scratched").unwrap();
            }
        }
    }
    let scratched = &bench.node(1).files.inner.store;
    crate::scrub::sweep(scratched, Kind::Shards, u64::MAX).await.unwrap();
    assert!(bench.node(1).files.damaged() > 0);
    wait_until("what was scratched is made good", SOON, || async { bench.is_placed().await }).await;
    for node in bench.alive() {
        node.sees("/f").await;
        assert!(node.get("/f").await.unwrap() == bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_push_what_is_not_a_nodes_to_keep() {
    let bench = Bench::start(4).await;
    let bytes = sample(1 << 20);
    let (segment, code) = (crate::BlobHash::of(&bytes), Code::of(1 << 20));
    let target = bench.swarm.network(1).local_peer();
    let peers = &bench.node(0).files.inner.peers;
    let bundle = |indices: std::ops::Range<u16>| {
        let indices: Vec<u16> = indices.collect();
        let shards = code.shards(&bytes, &indices).unwrap();
        Bundle::new(1 << 20, indices.into_iter().zip(shards).collect()).unwrap()
    };
    let share = crate::place::loads(240, 4)[0];
    assert_eq!(peers.push(target, &[(segment, bundle(0..share))]).await.unwrap(), [Kept::Yes]);
    // Two of four would keep everything; nobody keeps much more.
    assert_eq!(peers.push(target, &[(segment, bundle(share..500))]).await.unwrap(), [Kept::NotMine]);
    let held = bench.node(1).files.inner.store.held(&segment).unwrap();
    assert_eq!(held.len(), usize::from(share));
    let want = Want {
        segment,
        len: 1 << 20,
        indices: crate::index_set::IndexSet::range(0..5),
        limit: 3,
        from_whole: false,
    };
    let (given, has_whole) = peers.fetch(target, want).await.unwrap();
    assert_eq!((given.shards().len(), has_whole), (3, false));
}

/// Nodes that come, leave and vanish while files are written and read. Seeded: what fails can be tried again.
async fn churn(seed: u64, most: usize, long: Duration) {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    let mut chance = StdRng::seed_from_u64(seed);
    let mut bench = Bench::start(most / 2).await;
    let mut written: Vec<(String, Bytes)> = Vec::new();
    let end = std::time::Instant::now() + long;
    let mut step = 0;
    while std::time::Instant::now() < end {
        let alive: Vec<usize> =
            (0..bench.nodes.len()).filter(|index| bench.nodes[*index].is_some()).collect();
        let someone = alive[chance.random_range(0..alive.len())];
        match chance.random_range(0..6) {
            0 if alive.len() < most => bench.add().await,
            1 if alive.len() > most / 3 => {
                bench.node(someone).files.hand_over().await.unwrap();
                bench.kill(someone).await;
            }
            2 if alive.len() > most / 3 => {
                // No more than half may vanish before the rest is made good; one is less than that everywhere.
                bench.mended().await;
                bench.kill(someone).await;
            }
            _ => {
                let path = format!("/{step}");
                let bytes = sample(chance.random_range(1..600_000));
                bench.node(someone).put(&path, bytes.clone()).await;
                let node = bench.node(someone);
                wait_until("full durability", SOON, || async { node.files.waiting(&at(&path)).files == 0 })
                    .await;
                written.push((path, bytes));
            }
        }
        step += 1;
        if let Some((path, bytes)) = written.get(chance.random_range(0..written.len().max(1))) {
            let reader = bench.alive().nth(chance.random_range(0..bench.alive().count())).unwrap();
            reader.sees(path).await;
            let read = tokio::time::timeout(SOON, reader.get(path)).await.expect("nothing gets stuck");
            assert!(read.unwrap() == *bytes, "{path} after step {step} of seed {seed}");
        }
    }
    bench.mended().await;
    for (path, bytes) in &written {
        let reader = bench.alive().nth(chance.random_range(0..bench.alive().count())).unwrap();
        reader.sees(path).await;
        assert!(reader.get(path).await.unwrap() == *bytes, "{path} of seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_read_and_written_while_nodes_come_and_go() {
    churn(1, 10, Duration::from_secs(20)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a soak of five minutes: run it alone, with --release and --ignored"]
async fn files_are_read_and_written_while_two_dozen_nodes_come_and_go_for_long() {
    let seed =
        std::env::var("STARFISH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("seed {seed}");
    churn(seed, 24, Duration::from_secs(300)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "64 nodes take a while to find each other: run it alone, with --ignored"]
async fn half_of_sixty_four_nodes_may_vanish() {
    let mut bench = Bench::start(64).await;
    for (index, (path, bytes)) in contents().into_iter().enumerate() {
        bench.node(index * 10).put(&path, bytes).await;
    }
    bench.durable().await;
    for index in 0..32 {
        bench.kill(index).await;
    }
    for node in bench.alive() {
        for (path, bytes) in contents() {
            assert!(node.get(&path).await.unwrap() == bytes, "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_was_here_before_becomes_durable_again_whatever_is_left_of_it() {
    let bench = Bench::start(3).await;
    let bytes = sample(1 << 20);
    bench.node(0).put("/f", bytes.clone()).await;
    bench.durable().await;
    // Everybody has more of it, and other shards of it, than a fresh placement would give.
    let (segment, code) = (segment(bench.node(0), "/f").await, Code::of(1 << 20));
    for (index, node) in bench.alive().enumerate() {
        let start = 500 + 150 * index as u16;
        let more: Vec<u16> = (start..start + 150).collect();
        let shards = code.shards(&bytes, &more).unwrap();
        let bundle = Bundle::new(1 << 20, more.into_iter().zip(shards).collect()).unwrap();
        node.files.inner.store.add_shards(segment, bundle).await.unwrap();
    }
    bench.node(1).put("/again", bytes.clone()).await;
    bench.durable().await;
    assert!(bench.node(2).files.inner.store.get(segment).await.unwrap().is_none());
    bench.node(2).sees("/again").await;
    assert!(bench.node(2).get("/again").await.unwrap() == bytes);
}
