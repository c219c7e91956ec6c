//! Ranges of files on a node that holds nothing of them.

use bytes::Bytes;
use starfish_dht::testing::{TestSwarm, wait_until};

use super::tests::{Node, at, sample};
use super::*;
use crate::vfs::collect;

const SOON: Duration = Duration::from_secs(60);
/// What a KiB may cost with all that proves it.
const LITTLE: u64 = 16 << 10;

/// Two nodes that hold a file of 64 MiB at full durability, and one that has no room for any of it.
async fn swarm() -> (TestSwarm, Vec<Node>, Bytes) {
    let swarm = TestSwarm::start(3).await;
    swarm.wait_connected().await;
    let mut nodes = Vec::new();
    for (index, quota) in [u64::MAX, u64::MAX, 0].into_iter().enumerate() {
        let options = FilesOptions { quota, ..FilesOptions::default() };
        nodes.push(Node::start_with(swarm.network(index).clone(), options).await);
    }
    wait_until("all to see all", SOON, || async {
        nodes.iter().all(|node| node.files.inner.desk.others().len() == 2)
    })
    .await;
    let bytes = sample(64 << 20);
    nodes[0].put("/big", bytes.clone()).await;
    wait_until("full durability", SOON, || async { nodes[0].files.waiting(&at("/")).files == 0 }).await;
    nodes[2].sees("/big").await;
    (swarm, nodes, bytes)
}

async fn check(node: &Node, bytes: &Bytes, range: Range<usize>) {
    let part = node.files.read(&at("/big"), range.start as u64..range.end as u64).await.unwrap();
    let part = collect(part, range.len()).await.unwrap();
    assert!(part == bytes.slice(range.clone()), "{range:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_fetches_little_more_than_itself() {
    let (_swarm, nodes, bytes) = swarm().await;
    let reader = &nodes[2];
    for at in [0, 12_345_678, 33_333_333, (64 << 20) - 1024] {
        let before = reader.files.fetched_bytes();
        check(reader, &bytes, at..at + 1024).await;
        let fetched = reader.files.fetched_bytes() - before;
        assert!((1024..LITTLE).contains(&fetched), "{fetched} bytes for 1 KiB at {at}");
    }
    // Who reads on soon has all that it reads, and each byte of it once.
    for at in (20_000_000..21_000_000).step_by(4096) {
        check(reader, &bytes, at..at + 4096).await;
    }
    let fetched = reader.files.fetched_bytes();
    assert!(fetched < 16 << 20, "{fetched} bytes for 1 MB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_is_read_whoever_of_those_that_hold_its_data_is_gone() {
    let (mut swarm, mut nodes, bytes) = swarm().await;
    swarm.stop(0).await;
    nodes[0].files.inner.stopping.cancel();
    let reader = nodes.pop().unwrap();
    for at in [5_000_000, 40_000_000] {
        check(&reader, &bytes, at..at + 1024).await;
    }
}
