//! What documents promise, on one node and on several.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use anyhow::Context as _;
use serde_json::{Value, json};
use starfish_dht::{
    PeerId,
    testing::{PATIENCE, TestSwarm, wait_until},
};
use starfish_memory::{Collection, DocumentError, Documents, Edit, MAX_DOCUMENT, Memory, MemorySync};
use tempfile::TempDir;

fn edits(json: Value) -> Vec<Edit> {
    serde_json::from_value(json).unwrap()
}

struct Node {
    documents: Documents,
    memory: Memory,
    dir: TempDir,
}

fn node() -> anyhow::Result<Node> {
    let dir = tempfile::tempdir()?;
    let memory = Memory::open(&dir.path().join("memory"), &PeerId::random())?;
    Ok(Node { documents: Documents::new(memory.clone()), memory, dir })
}

async fn read(collection: &Collection, id: &str) -> Option<Value> {
    collection.get(id).await.unwrap().map(|value| (*value).clone())
}

#[tokio::test]
async fn a_document_is_made_read_changed_and_deleted() -> anyhow::Result<()> {
    let node = node()?;
    let people = node.documents.collection("people")?;
    assert_eq!(read(&people, "ada").await, None);
    assert!(people.put("ada", json!({"name": "Ada", "langs": ["en"]})).await?.created);
    assert_eq!(read(&people, "ada").await, Some(json!({"name": "Ada", "langs": ["en"]})));

    assert!(!people.put("ada", json!({"name": "Ada", "langs": ["en", "fr"]})).await?.created);
    people.patch("ada", json!({"born": 1815, "langs": null})).await?;
    assert_eq!(read(&people, "ada").await, Some(json!({"name": "Ada", "born": 1815})));
    people
        .edit(
            "ada",
            edits(json!([
                {"op": "increment", "path": "/born", "by": 1},
                {"op": "splice-text", "path": "/name", "at": 3, "insert": " L"},
            ])),
        )
        .await?;
    assert_eq!(read(&people, "ada").await, Some(json!({"name": "Ada L", "born": 1816})));

    assert!(people.delete("ada").await?);
    assert_eq!(read(&people, "ada").await, None);
    assert!(!people.delete("ada").await?);
    assert!(people.put("ada", json!({"name": "Ada L", "born": 1816})).await?.created);
    assert_eq!(read(&people, "ada").await, Some(json!({"name": "Ada L", "born": 1816})));
    Ok(())
}

#[tokio::test]
async fn a_document_is_there_after_a_restart() -> anyhow::Result<()> {
    let Node { documents, memory, dir } = node()?;
    let notes = documents.collection("notes")?;
    for i in 0..20 {
        notes.put("one", json!({ "i": i })).await?;
    }
    drop((notes, documents, memory));
    let memory = Memory::open(&dir.path().join("memory"), &PeerId::random())?;
    let notes = Documents::new(memory).collection("notes")?;
    assert_eq!(read(&notes, "one").await, Some(json!({"i": 19})));
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_and_leaves_the_document_as_it_was() -> anyhow::Result<()> {
    let node = node()?;
    let notes = node.documents.collection("notes")?;
    let missing = notes.patch("none", json!({"a": 1})).await;
    assert!(matches!(missing, Err(DocumentError::NotFound { .. })));
    assert!(matches!(notes.put("one", json!([1])).await, Err(DocumentError::NotAnObject)));
    assert!(matches!(notes.put("", json!({})).await, Err(DocumentError::Id { len: 0 })));
    let huge = json!({"a": "x".repeat(MAX_DOCUMENT)});
    assert!(matches!(notes.put("one", huge).await, Err(DocumentError::TooLarge { .. })));

    notes.put("one", json!({"a": 1})).await?;
    let half = edits(json!([{"op": "increment", "path": "/a"}, {"op": "push", "path": "/none", "value": 1}]));
    assert!(matches!(notes.edit("one", half).await, Err(DocumentError::Edit(_))));
    assert_eq!(read(&notes, "one").await, Some(json!({"a": 1})));
    notes.patch("one", json!({"b": 1})).await?;
    assert_eq!(read(&notes, "one").await, Some(json!({"a": 1, "b": 1})));
    Ok(())
}

#[tokio::test]
async fn no_write_makes_a_document_deeper_than_it_can_be_read() -> anyhow::Result<()> {
    let node = node()?;
    let notes = node.documents.collection("notes")?;
    let nested = |levels| (1..levels).fold(json!({}), |inner, _| json!({"a": inner}));
    notes.put("deep", nested(124)).await?;
    assert!(matches!(notes.put("deeper", nested(125)).await, Err(DocumentError::TooDeep)));
    assert!(matches!(notes.patch("deep", nested(125)).await, Err(DocumentError::TooDeep)));

    notes.put("one", nested(100)).await?;
    let place = "/a".repeat(99);
    let deeper = |levels| edits(json!([{"op": "set", "path": place, "value": nested(levels)}]));
    match notes.edit("one", deeper(26)).await {
        Err(DocumentError::Edit(error)) => assert_eq!(error.path.to_string(), place),
        other => panic!("{other:?}"),
    }
    notes.edit("one", deeper(25)).await?;
    assert_eq!(read(&notes, "one").await, Some(nested(124)));
    Ok(())
}

#[tokio::test]
async fn a_document_of_several_megabytes_is_kept_and_said_to_be_large() -> anyhow::Result<()> {
    let Node { documents, memory, dir } = node()?;
    let notes = documents.collection("notes")?;
    let large = json!({"a": "x".repeat(MAX_DOCUMENT - 100)});
    assert!(notes.put("large", large.clone()).await?.is_large());
    let stats = notes.stats("large").await?.unwrap();
    assert!(stats.history_bytes < stats.bytes + 32 * 1024);
    drop((notes, documents, memory));
    let memory = Memory::open(&dir.path().join("memory"), &PeerId::random())?;
    let notes = Documents::new(memory).collection("notes")?;
    assert_eq!(read(&notes, "large").await, Some(large));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edits_of_one_document_at_once_all_count() -> anyhow::Result<()> {
    let node = node()?;
    let notes = node.documents.collection("notes")?;
    notes.put("one", json!({"n": 0, "list": []})).await?;
    let both =
        edits(json!([{"op": "increment", "path": "/n"}, {"op": "push", "path": "/list", "value": "x"}]));
    let editing = (0..50).map(|_| notes.edit("one", both.clone()));
    for edited in futures::future::join_all(editing).await {
        edited?;
    }
    let value = read(&notes, "one").await.unwrap();
    assert_eq!(value["n"], 50);
    assert_eq!(value["list"].as_array().map(Vec::len), Some(50));
    Ok(())
}

#[tokio::test]
async fn an_edit_that_nobody_waits_for_any_more_does_not_tear_the_document() -> anyhow::Result<()> {
    let Node { documents, memory, dir } = node()?;
    let notes = documents.collection("notes")?;
    notes.put("one", json!({"n": 0})).await?;
    for i in 0..30 {
        let cut = notes.put("one", json!({ "n": i }));
        let _ = tokio::time::timeout(std::time::Duration::from_micros(i * 20), cut).await;
    }
    notes.put("one", json!({"n": "last"})).await?;
    assert_eq!(notes.stats("one").await?.unwrap().damaged, 0);
    drop((notes, documents, memory));
    // What was cut off ends by itself, and then the store can be opened.
    let path = dir.path().join("memory");
    let mut reopened = None;
    wait_until("the store to be closed", PATIENCE, || {
        reopened = Memory::open(&path, &PeerId::random()).ok();
        let closed = reopened.is_some();
        async move { closed }
    })
    .await;
    let notes = Documents::new(reopened.unwrap()).collection("notes")?;
    assert_eq!(read(&notes, "one").await, Some(json!({"n": "last"})));
    Ok(())
}

#[test]
fn readers_and_writers_of_one_document_do_not_wait_for_each_other_for_ever() -> anyhow::Result<()> {
    // With so few threads one that waits for another would be noticed.
    let runtime = tokio::runtime::Builder::new_multi_thread().max_blocking_threads(2).build()?;
    runtime.block_on(async {
        let node = node()?;
        let notes = node.documents.collection("notes")?;
        notes.put("one", json!({"n": 0})).await?;
        let increment = edits(json!([{"op": "increment", "path": "/n"}]));
        let writing = futures::future::join_all((0..50).map(|_| notes.edit("one", increment.clone())));
        let reading = futures::future::join_all((0..500).map(|_| notes.get("one")));
        let (written, read_back) = tokio::join!(writing, reading);
        assert!(written.iter().all(Result::is_ok) && read_back.iter().all(Result::is_ok));
        assert_eq!(read(&notes, "one").await, Some(json!({"n": 50})));
        Ok(())
    })
}

#[tokio::test]
async fn a_document_of_many_small_parts_is_written_as_a_whole() -> anyhow::Result<()> {
    let node = node()?;
    let notes = node.documents.collection("notes")?;
    let row = |i: u32| json!({"id": i, "name": format!("row number {i}"), "tags": ["a", "b"]});
    let rows: Vec<Value> = (0..20_000).map(row).collect();
    // One operation at a time, it would take minutes.
    tokio::time::timeout(PATIENCE, notes.put("one", json!({ "rows": rows }))).await??;
    let more = json!({"rows": (0..25_000).map(row).collect::<Vec<_>>()});
    tokio::time::timeout(PATIENCE, notes.put("one", more)).await??;
    assert_eq!(read(&notes, "one").await.unwrap()["rows"][24_999]["id"], 24_999);
    Ok(())
}

#[tokio::test]
async fn a_large_document_that_is_replaced_again_and_again_is_never_full() -> anyhow::Result<()> {
    let node = node()?;
    let notes = node.documents.collection("notes")?;
    let text = |i: usize| json!({"text": char::from(b'a' + (i % 26) as u8).to_string().repeat(200_000)});
    for i in 0..60 {
        notes.put("one", text(i)).await?;
    }
    assert_eq!(read(&notes, "one").await, Some(text(59)));
    wait_until("its history to be let go of", PATIENCE, || async {
        notes.stats("one").await.unwrap().unwrap().history_bytes < 10 * 200_000
    })
    .await;
    Ok(())
}

/// A swarm whose every node has documents.
struct Swarm {
    swarm: TestSwarm,
    nodes: Vec<(Documents, Memory, MemorySync, TempDir)>,
}

impl Swarm {
    async fn start(n: usize) -> anyhow::Result<Self> {
        let swarm = TestSwarm::start(n).await;
        let mut nodes = Vec::new();
        for index in 0..n {
            let network = swarm.network(index).clone();
            let dir = tempfile::tempdir()?;
            let memory = Memory::open(dir.path(), &network.local_peer())?;
            let sync = memory.join(network).await?;
            nodes.push((Documents::new(memory.clone()), memory, sync, dir));
        }
        Ok(Self { swarm, nodes })
    }

    fn collection(&self, index: usize) -> Collection {
        self.nodes[index].0.collection("notes").unwrap()
    }

    /// Ends a node and starts it again.
    async fn restart(&mut self, index: usize) -> anyhow::Result<()> {
        let (documents, memory, sync, dir) = self.nodes.remove(index);
        sync.stop().await;
        drop((documents, memory));
        let network = self.swarm.network(index).clone();
        let mut reopened = None;
        wait_until("the store to be closed", PATIENCE, || {
            reopened = Memory::open(dir.path(), &network.local_peer()).ok();
            let closed = reopened.is_some();
            async move { closed }
        })
        .await;
        let memory = reopened.context("it is there")?;
        let sync = memory.join(network).await?;
        self.nodes.insert(index, (Documents::new(memory.clone()), memory, sync, dir));
        Ok(())
    }

    async fn wait_agreed(&self) {
        wait_until("all nodes to agree", PATIENCE, || async {
            let digest = self.nodes[0].1.digest();
            self.nodes.iter().all(|(_, memory, ..)| memory.digest() == digest)
        })
        .await;
    }

    async fn history(&self, index: usize, id: &str) -> usize {
        self.collection(index).stats(id).await.unwrap().unwrap().history_bytes
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_halves_of_a_partition_edit_one_document_and_both_edits_stay() -> anyhow::Result<()> {
    let swarm = Swarm::start(3).await?;
    let (left, right) = (swarm.collection(0), swarm.collection(2));
    left.put("one", json!({"body": "middle", "list": ["x"], "n": 1, "kept": {}})).await?;
    left.put("gone", json!({"a": 1})).await?;
    swarm.wait_agreed().await;

    swarm.swarm.partition(&[0, 1], &[2]).await;
    left.edit(
        "one",
        edits(json!([
            {"op": "splice-text", "path": "/body", "at": 0, "insert": "front "},
            {"op": "push", "path": "/list", "value": "left"},
            {"op": "increment", "path": "/n", "by": 10},
        ])),
    )
    .await?;
    left.patch("one", json!({"kept": {"left": 1}, "new": {"left": 1}})).await?;
    right.patch("one", json!({"kept": {"right": 1}, "new": {"right": 1}})).await?;
    right
        .edit(
            "one",
            edits(json!([
                {"op": "splice-text", "path": "/body", "at": 6, "insert": " end"},
                {"op": "push", "path": "/list", "value": "right"},
                {"op": "increment", "path": "/n", "by": 100},
            ])),
        )
        .await?;
    left.delete("gone").await?;
    right.patch("gone", json!({"b": 2})).await?;

    swarm.swarm.heal().await;
    swarm.wait_agreed().await;
    let value = read(&left, "one").await.unwrap();
    assert_eq!(value["body"], "front middle end");
    assert_eq!(value["n"], 111);
    assert_eq!(value["kept"], json!({"left": 1, "right": 1}));
    assert_eq!(value["new"], json!({"left": 1, "right": 1}));
    let mut list: Vec<&str> = value["list"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    list.sort_unstable();
    assert_eq!(list, ["left", "right", "x"]);
    for index in 0..3 {
        assert_eq!(read(&swarm.collection(index), "one").await, Some(value.clone()));
        assert_eq!(read(&swarm.collection(index), "gone").await, Some(json!({"a": 1, "b": 2})));
    }
    Ok(())
}

/// A document of some ten kilobytes.
fn page() -> Value {
    let row = |i: u32| json!({"id": i, "name": format!("row number {i}"), "done": false});
    json!({"title": "a page", "body": "word ".repeat(1600), "n": 0, "rows": (0..40).map(row).collect::<Vec<_>>()})
}

/// One of many edits: of the text, of a row, of a counter.
fn one_of_many(i: usize) -> Vec<Edit> {
    edits(match i % 4 {
        0 => {
            let at = i.wrapping_mul(7919) % 8000;
            json!([{"op": "splice-text", "path": "/body", "at": at, "delete": 1, "insert": "e"}])
        }
        1 => {
            json!([{"op": "set", "path": format!("/rows/{}/name", i % 40), "value": format!("renamed {i}")}])
        }
        2 => json!([{"op": "set", "path": format!("/rows/{}/done", i % 40), "value": i % 8 < 4}]),
        _ => json!([{"op": "increment", "path": "/n", "by": 1}]),
    })
}

async fn edited_by_three_nodes(n_edits: usize) -> anyhow::Result<()> {
    let swarm = Swarm::start(3).await?;
    swarm.collection(0).put("page", page()).await?;
    swarm.wait_agreed().await;
    let editing = (0..3).map(|node| {
        let collection = swarm.collection(node);
        async move {
            for i in 0..n_edits / 3 {
                collection.edit("page", one_of_many(i)).await.unwrap();
            }
        }
    });
    futures::future::join_all(editing).await;
    swarm.wait_agreed().await;
    let value = read(&swarm.collection(0), "page").await.unwrap();
    let content = value.to_string().len();
    assert_eq!(value["n"], 3 * (0..n_edits / 3).filter(|i| i % 4 == 3).count());
    for node in 0..3 {
        assert_eq!(read(&swarm.collection(node), "page").await, Some(value.clone()));
        wait_until("the history to be let go of", PATIENCE, || async {
            swarm.history(node, "page").await < 10 * content
        })
        .await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_edited_often_by_three_nodes_stays_under_ten_times_its_content() -> anyhow::Result<()> {
    edited_by_three_nodes(1_500).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn a_document_edited_a_hundred_thousand_times_stays_under_ten_times_its_content() -> anyhow::Result<()>
{
    edited_by_three_nodes(100_000).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_while_the_history_was_let_go_of_merges_its_edits() -> anyhow::Result<()> {
    let swarm = Swarm::start(3).await?;
    swarm.collection(0).put("page", page()).await?;
    swarm.wait_agreed().await;

    swarm.swarm.partition(&[0, 1], &[2]).await;
    let away = swarm.collection(2);
    let insert = json!({"op": "splice-text", "path": "/body", "at": 10, "insert": "<away>"});
    let push = json!({"op": "push", "path": "/rows", "value": "away"});
    away.edit("page", edits(json!([insert, {"op": "increment", "path": "/n", "by": 1000}, push]))).await?;
    away.patch("page", json!({"away": {"a": 1}})).await?;
    let here = swarm.collection(0);
    let increment = edits(json!([{"op": "increment", "path": "/n"}]));
    let (mut n, mut changes) = (0, 0);
    // So many that an epoch is closed.
    loop {
        here.edit("page", increment.clone()).await?;
        n += 1;
        let now = here.stats("page").await?.unwrap().changes;
        if now < changes {
            break;
        }
        changes = now;
        assert!(n < 10_000, "the history is kept for ever");
    }
    let front = json!([{"op": "splice-text", "path": "/body", "at": 0, "insert": "<here>"}]);
    here.edit("page", edits(front)).await?;

    swarm.swarm.heal().await;
    swarm.wait_agreed().await;
    let value = read(&here, "page").await.unwrap();
    assert_eq!(value["n"], 1000 + n);
    assert_eq!(value["away"], json!({"a": 1}));
    assert_eq!(value["rows"].as_array().unwrap().last(), Some(&json!("away")));
    assert!(value["body"].as_str().unwrap().starts_with("<here>word word <away>word"));
    for node in 0..3 {
        assert_eq!(read(&swarm.collection(node), "page").await, Some(value.clone()));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_both_halves_of_a_partition_let_go_of_is_soon_one_history_again_though_nobody_edits()
-> anyhow::Result<()> {
    let mut swarm = Swarm::start(2).await?;
    for (node, (_, memory, ..)) in swarm.nodes.iter().enumerate() {
        memory.enlist(&swarm.swarm.network(node).local_peer()).await?;
    }
    swarm.collection(0).put("count", json!({"n": 0})).await?;
    swarm.wait_agreed().await;
    swarm.swarm.partition(&[0], &[1]).await;
    let increment = edits(json!([{"op": "increment", "path": "/n"}]));
    let (mut sum, enough) = (0, 150);
    for half in 0..2 {
        let collection = swarm.collection(half);
        let (mut changes, mut since_closed) = (0, None);
        // So many that an epoch is closed, and then some.
        while since_closed.is_none_or(|n| n < enough) {
            collection.edit("count", increment.clone()).await?;
            sum += 1;
            let now = collection.stats("count").await?.unwrap().changes;
            if now < changes || since_closed.is_some() {
                since_closed = Some(since_closed.unwrap_or(0) + 1);
            }
            changes = now;
            assert!(sum < 20_000, "the history is kept for ever");
        }
    }
    // Nobody remembers what was still to be done.
    for half in 0..2 {
        swarm.restart(half).await?;
    }
    swarm.swarm.heal().await;
    swarm.wait_agreed().await;
    for node in 0..2 {
        let collection = swarm.collection(node);
        wait_until("the document to begin anew", PATIENCE, || async {
            let stats = collection.stats("count").await.unwrap().unwrap();
            stats.changes < enough
        })
        .await;
        assert_eq!(read(&collection, "count").await, Some(json!({ "n": sum })));
    }
    Ok(())
}

#[tokio::test]
async fn a_document_is_there_with_little_history_after_a_restart() -> anyhow::Result<()> {
    let Node { documents, memory, dir } = node()?;
    let notes = documents.collection("notes")?;
    notes.put("one", json!({"n": 0})).await?;
    for _ in 0..1000 {
        notes.edit("one", edits(json!([{"op": "increment", "path": "/n"}]))).await?;
    }
    drop((notes, documents, memory));
    let path = dir.path().join("memory");
    let mut reopened = None;
    wait_until("the store to be closed", PATIENCE, || {
        reopened = Memory::open(&path, &PeerId::random()).ok();
        let closed = reopened.is_some();
        async move { closed }
    })
    .await;
    let notes = Documents::new(reopened.unwrap()).collection("notes")?;
    assert_eq!(read(&notes, "one").await, Some(json!({"n": 1000})));
    let stats = notes.stats("one").await?.unwrap();
    assert!(stats.history_bytes < 64 * 1024, "{stats:?}");
    Ok(())
}
