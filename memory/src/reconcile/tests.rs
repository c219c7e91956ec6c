//! Two stores and a pipe between them.

use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*};
use tempfile::TempDir;

use super::*;
use crate::{MemoryOptions, answer::answer, cell::Cell, cell::tests::any_cell, memory::Memory, space::Space};

/// The cells of these tests are older than any horizon.
const REMEMBERS: MemoryOptions =
    MemoryOptions { horizon: std::time::Duration::MAX, linger: std::time::Duration::ZERO };

struct Node {
    peer: PeerId,
    memory: Memory,
    _dir: TempDir,
}

fn node() -> Node {
    let (peer, dir) = (PeerId::random(), tempfile::tempdir().unwrap());
    Node { peer, memory: Memory::open_with(dir.path(), &peer, REMEMBERS).unwrap(), _dir: dir }
}

fn space(node: &Node) -> Space {
    node.memory.space("app").unwrap()
}

async fn fill(node: &Node, keys: std::ops::Range<usize>, size: usize) {
    let keys: Vec<usize> = keys.collect();
    for chunk in keys.chunks(200) {
        let mut batch = space(node).batch();
        for key in chunk {
            batch.put(format!("k{key}"), "", vec![b'v'; size]);
        }
        node.memory.commit(batch).await.unwrap();
    }
}

/// One comparison, over a pipe.
async fn sync(asking: &Node, asked: &Node) -> Outcome {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let answering = answer(&asked.memory, asking.peer, theirs);
    let (outcome, answered) = tokio::join!(compare(&asking.memory, asked.peer, ours), answering);
    answered.unwrap();
    outcome.unwrap()
}

fn agree(a: &Node, b: &Node) -> bool {
    a.memory.digest() == b.memory.digest()
}

fn traffic(node: &Node) -> u64 {
    let stats = node.memory.stats();
    stats.sync_bytes_sent + stats.sync_bytes_received
}

#[tokio::test]
async fn nothing_to_say_takes_less_than_200_bytes() {
    let (a, b) = (node(), node());
    fill(&a, 0..500, 10).await;
    assert_eq!(sync(&a, &b).await, Outcome::Exchanged);
    assert!(agree(&a, &b));
    let before = traffic(&a);
    assert_eq!(sync(&a, &b).await, Outcome::Agreed);
    assert!(traffic(&a) - before < 200, "{}", traffic(&a) - before);
}

#[tokio::test]
async fn both_sides_get_what_they_lack_whoever_begins() {
    let (a, b) = (node(), node());
    fill(&a, 0..600, 10).await;
    fill(&b, 400..1000, 10).await;
    sync(&a, &b).await;
    assert!(agree(&a, &b));
    assert_eq!(space(&a).scan(b"", None, 2000).await.unwrap().len(), 1000);
    space(&b).delete(b"k1").await.unwrap();
    space(&a).set(b"k2", "new".into(), None).await.unwrap();
    sync(&b, &a).await;
    assert!(agree(&a, &b));
    assert_eq!(space(&a).get(b"k1").await.unwrap(), None);
    assert_eq!(space(&b).get(b"k2").await.unwrap().unwrap(), "new");
}

#[tokio::test]
async fn pages_carry_more_than_a_frame_can_hold() {
    let (a, b) = (node(), node());
    fill(&a, 0..600, 15_000).await;
    sync(&b, &a).await;
    assert!(agree(&a, &b));
    fill(&a, 0..300, 15_001).await;
    sync(&b, &a).await;
    assert!(agree(&a, &b));
    fill(&b, 300..600, 15_002).await;
    sync(&b, &a).await;
    assert!(agree(&a, &b));
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        match entry.path() {
            path if path.is_dir() => copy(&path, &to.join(entry.file_name())),
            path => {
                std::fs::copy(path, to.join(entry.file_name())).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_node_that_was_killed_before_it_wrote_where_its_cells_lie_still_sends_them() {
    let (a, b, dir) = (node(), node(), tempfile::tempdir().unwrap());
    fill(&a, 0..300, 10).await;
    // What is on the disk now is what a kill would leave.
    let left = dir.path().join("memory");
    copy(a._dir.path(), &left);
    let memory = Memory::open_with(&left, &a.peer, REMEMBERS).unwrap();
    let killed = Node { peer: a.peer, memory, _dir: dir };
    sync(&b, &killed).await;
    assert!(agree(&a, &b));
    // And those of which it has noted it, after a good end.
    drop(killed.memory);
    let again = Node { memory: Memory::open_with(&left, &a.peer, REMEMBERS).unwrap(), ..killed };
    let c = node();
    fill(&again, 200..400, 10).await;
    sync(&c, &again).await;
    assert!(agree(&again, &c));
}

#[tokio::test]
async fn a_few_differences_among_many_cells_cost_a_few_bytes() {
    let (a, b) = (node(), node());
    fill(&a, 0..10_000, 10).await;
    sync(&b, &a).await;
    fill(&a, 0..20, 10).await;
    let before = traffic(&b);
    sync(&b, &a).await;
    assert!(agree(&a, &b));
    // The fingerprints of all shards are 11 KiB of it.
    assert!(traffic(&b) - before < 32 * 1024, "{}", traffic(&b) - before);
}

#[tokio::test]
async fn a_peer_that_talks_nonsense_is_left_alone() {
    use tokio::io::AsyncWriteExt;

    let node = node();
    fill(&node, 0..10, 10).await;
    for noise in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xFF; 64], &[0, 0, 0, 3, 9, 9, 9]] {
        let (mut ours, theirs) = tokio::io::duplex(1024);
        ours.write_all(noise).await.unwrap();
        ours.shutdown().await.unwrap();
        assert!(answer(&node.memory, PeerId::random(), theirs).await.is_err(), "{noise:?}");
    }
}

#[tokio::test]
async fn malformed_and_future_cells_are_refused_counted_and_named() {
    let (a, b) = (node(), node());
    let mut future = any_value(&a);
    future.stamp.time += 3600 << 32;
    let good = any_value(&a);
    let mut page = crate::page::Page::new(&[], 4096);
    for cell in [&future, &good] {
        page.push(&crate::codec::encode(cell).unwrap());
    }
    let mut page = page.into_bytes();
    page.extend_from_slice(&[3, b'?', 0, 0, 0]);
    let admitted = intake::admit(b.memory.shared(), &page, &a.peer, Authorship::Anybody);
    assert_eq!(admitted, std::slice::from_ref(&good));
    let stats = b.memory.stats();
    assert_eq!((stats.refused_future, stats.refused_malformed), (1, 1));
    assert_eq!(stats.offenders[0].author, a.memory.author());

    let stranger = PeerId::random();
    let mut page = crate::page::Page::new(&[], 4096);
    page.push(&crate::codec::encode(&good).unwrap());
    assert!(intake::admit(b.memory.shared(), &page.into_bytes(), &stranger, Authorship::Own).is_empty());
    assert_eq!(b.memory.stats().refused_author, 1);
}

fn any_value(author: &Node) -> Cell {
    Cell {
        space: crate::SpaceName::new("app").unwrap(),
        key: "k".into(),
        field: "".into(),
        stamp: crate::Stamp { time: author.memory.shared().clock.tick(), author: author.memory.author() },
        content: crate::Content::Value("v".into()),
        expires_ms: None,
        renews: None,
    }
}

fn held(node: &Node) -> BTreeSet<(Vec<u8>, Vec<u8>)> {
    let mut all = BTreeSet::new();
    for name in ["a", "b"] {
        let visit = &mut |cell: &Cell| {
            let encoded = crate::codec::encode(cell).unwrap();
            all.insert((encoded.address, encoded.record));
        };
        node.memory.space(name).unwrap().for_each_cell(b"", visit).unwrap();
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// The reference model: a map from address to the greatest version.
    #[test]
    fn replicas_agree_with_the_model_whatever_arrived_in_whatever_order(
        first in vec(vec(any_cell(), 0..5), 0..6), second in vec(vec(any_cell(), 0..5), 0..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (a, b) = (node(), node());
            let mut model = std::collections::BTreeMap::<Vec<u8>, Cell>::new();
            for (node, batches) in [(&a, &first), (&b, &second)] {
                for batch in batches {
                    node.memory.merge(batch.clone()).await.unwrap();
                }
                // Duplicates and old news change nothing.
                for batch in batches.iter().rev() {
                    node.memory.merge(batch.clone()).await.unwrap();
                }
            }
            for cell in first.iter().chain(&second).flatten() {
                let address = crate::codec::encode(cell).unwrap().address;
                if model.get(&address).is_none_or(|held| cell.supersedes(held)) {
                    model.insert(address, cell.clone());
                }
            }
            sync(&a, &b).await;
            let model: BTreeSet<_> = model
                .iter()
                .map(|(address, cell)| (address.clone(), crate::codec::encode(cell).unwrap().record))
                .collect();
            assert_eq!(held(&a), model);
            assert_eq!(held(&b), model);
            assert!(agree(&a, &b));
        });
    }
}

#[test]
fn large_shards_are_compared_a_few_at_a_time() {
    let ours = vec![Shard::with_cells(30_000); SHARDS];
    let mut theirs = vec![Shard::with_cells(30_001); SHARDS];
    theirs[7].cells = 0;
    let plan = plan(&ours, &theirs);
    assert_eq!(plan.give, [7]);
    assert!(plan.pull.is_empty());
    assert_eq!(plan.reconcile.iter().map(Vec::len).max(), Some(2));
    assert_eq!(plan.reconcile.concat().len(), SHARDS - 1);
}
