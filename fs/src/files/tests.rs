//! The swarm's files over real networks in one process.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use starfish_dht::testing::{TestSwarm, wait_until};
use starfish_memory::MemorySync;
use tempfile::TempDir;

use super::*;
use crate::conformance;
use crate::mem_vfs::MemVfs;
use crate::vfs::{collect, stream_of};

const SOON: Duration = Duration::from_secs(20);

/// A node of a swarm, as far as files need one.
pub(super) struct Node {
    pub(super) files: Files,
    memory: Memory,
    _sync: MemorySync,
    pub(super) dir: TempDir,
}

impl Node {
    pub(super) async fn start(network: Network) -> Self {
        Self::start_with(network, FilesOptions::default()).await
    }

    pub(super) async fn start_with(network: Network, options: FilesOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::open(&dir.path().join("memory"), &network.local_peer()).unwrap();
        let sync = memory.join(network.clone()).await.unwrap();
        let files = Files::open(&dir.path().join("blobs"), network, memory.clone(), options).await.unwrap();
        Self { files, memory, _sync: sync, dir }
    }

    pub(super) async fn sees(&self, path: &str) {
        wait_until("the file is in the tree", SOON, || async { self.files.stat(&at(path)).await.is_ok() })
            .await;
    }

    pub(super) async fn put(&self, path: &str, bytes: impl Into<Bytes>) -> Entry {
        self.files.write(&at(path), stream_of(bytes), Attributes::default()).await.unwrap()
    }

    pub(super) async fn get(&self, path: &str) -> Result<Bytes, VfsError> {
        collect(self.files.read(&at(path), 0..u64::MAX).await?, 1 << 30).await
    }

    pub(super) async fn names(&self, path: &str) -> Vec<String> {
        self.files.list(&at(path)).await.unwrap().into_iter().map(|entry| entry.name).collect()
    }
}

pub(super) fn at(path: &str) -> VfsPath {
    VfsPath::parse(path).unwrap()
}

pub(super) fn sample(len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&len.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tree_does_what_every_file_system_does() {
    let swarm = TestSwarm::start(1).await;
    let node = Node::start(swarm.network(0).clone()).await;
    conformance::check(&node.files).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_has_changed_when_it_is_written_or_gets_to_where_it_is() {
    let swarm = TestSwarm::start(2).await;
    let (here, there) =
        (Node::start(swarm.network(0).clone()).await, Node::start(swarm.network(1).clone()).await);
    let changed = async |path: &str| here.files.changed(&at(path)).await.unwrap().unwrap();
    here.put("/a", "one").await;
    let written = changed("/a").await;
    here.files.set_attributes(&at("/a"), Attributes { mode: Some(0o600), mtime_ms: Some(5) }).await.unwrap();
    assert_eq!(changed("/a").await, written, "that is no change of it");
    there.sees("/a").await;
    assert_eq!(
        there.files.changed(&at("/a")).await.unwrap(),
        Some(written.clone()),
        "it is the same everywhere"
    );
    here.put("/a", "two").await;
    let replaced = changed("/a").await;
    assert!(replaced > written && replaced.at_ms >= written.at_ms);
    here.files.mkdir(&at("/d"), Parents::Create).await.unwrap();
    here.files.rename(&at("/a"), &at("/d/a")).await.unwrap();
    let moved = changed("/d/a").await;
    assert!(moved > replaced);
    here.files.rename(&at("/d"), &at("/e")).await.unwrap();
    assert!(changed("/e/a").await > moved, "a directory takes along what is in it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_put_on_one_node_is_read_on_one_that_joins_later() {
    let mut swarm = TestSwarm::start(2).await;
    swarm.wait_connected().await;
    let a = Node::start(swarm.network(0).clone()).await;
    let bytes = sample(64 << 20);
    let parts: Vec<_> = bytes.chunks(1 << 20).map(|part| Ok(bytes.slice_ref(part))).collect();
    a.files.write(&at("/big"), stream::iter(parts).boxed(), Attributes::default()).await.unwrap();
    a.put("/small", "in the cell").await;

    let late = swarm.add().await;
    swarm.wait_connected().await;
    let c = Node::start(swarm.network(late).clone()).await;
    c.sees("/small").await;
    assert_eq!(c.get("/small").await.unwrap(), "in the cell");
    c.sees("/big").await;
    let part = c.files.read(&at("/big"), 10_000_000..10_000_010).await.unwrap();
    assert_eq!(collect(part, 10).await.unwrap(), bytes.slice(10_000_000..10_000_010));
    assert!(c.get("/big").await.unwrap() == bytes, "byte for byte");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_readers_share_transfers_and_all_succeed() {
    let swarm = TestSwarm::start(2).await;
    swarm.wait_connected().await;
    let a = Node::start(swarm.network(0).clone()).await;
    let b = Node::start(swarm.network(1).clone()).await;
    let bytes = sample(12 << 20);
    a.put("/f", bytes.clone()).await;
    b.sees("/f").await;
    let reads = (0..8).map(|_| b.get("/f"));
    for read in futures::future::join_all(reads).await {
        assert!(read.unwrap() == bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_is_an_error_that_says_so() {
    let swarm = TestSwarm::start(2).await;
    swarm.wait_connected().await;
    let a = Node::start(swarm.network(0).clone()).await;
    let b = Node::start(swarm.network(1).clone()).await;
    a.put("/f", sample(100_000)).await;
    b.sees("/f").await;
    a.files.stop().await;
    b.files.inner.store.remove(crate::store::Kind::Shards, segment(&b, "/f").await).await.unwrap();
    let error = b.get("/f").await.unwrap_err();
    assert!(matches!(error, VfsError::Unavailable { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_outlive_the_node() {
    let swarm = TestSwarm::start(1).await;
    let network = swarm.network(0).clone();
    let node = Node::start(network.clone()).await;
    let bytes = sample(5 << 20);
    node.put("/kept", bytes.clone()).await;
    node.files.mkdir(&at("/d/e"), Parents::Create).await.unwrap();
    node.files.stop().await;
    let Node { files, memory, _sync: sync, dir } = node;
    drop(files);
    // The same memory: what is asked is whether the tree comes back from its cells and the bytes from disk.
    let options = FilesOptions::default();
    let files = Files::open(&dir.path().join("blobs"), network, memory, options).await.unwrap();
    assert_eq!(files.list(&at("/")).await.unwrap().len(), 2);
    let read = collect(files.read(&at("/kept"), 0..u64::MAX).await.unwrap(), 1 << 30).await.unwrap();
    assert!(read == bytes);
    drop(sync);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_halves_merge_and_nothing_is_lost() {
    let swarm = TestSwarm::start(2).await;
    swarm.wait_connected().await;
    let a = Node::start(swarm.network(0).clone()).await;
    let b = Node::start(swarm.network(1).clone()).await;
    a.put("/shared", "old").await;
    b.sees("/shared").await;
    swarm.partition(&[0], &[1]).await;
    for (node, name) in [(&a, "of-a"), (&b, "of-b")] {
        node.files.mkdir(&at("/d/e"), Parents::Create).await.unwrap();
        node.put(&format!("/d/e/{name}"), name.to_owned()).await;
        node.put("/d/same", name.to_owned()).await;
    }
    a.files.remove(&at("/shared"), Removal::Single).await.unwrap();
    b.put("/shared", "edited").await;
    swarm.heal().await;
    for node in [&a, &b] {
        // What one half wrote arrives in pages, so each part is waited for. An edit outlives a removal that did not
        // see it.
        wait_until("the halves have merged", SOON, || async {
            node.names("/d").await.len() == 3
                && node.names("/d/e").await == ["of-a", "of-b"]
                && node.get("/shared").await.is_ok_and(|content| content == "edited")
        })
        .await;
        let both = node.names("/d").await;
        assert!(both[0] == "e" && both[1] == "same" && both[2].starts_with("same (conflict of "), "{both:?}");
    }
    assert_eq!(a.get("/d/same").await.unwrap(), b.get("/d/same").await.unwrap());
    // Each of the two has a history of its own.
    let conflict = format!("/d/{}", a.names("/d").await[2]);
    for path in ["/d/same", &conflict] {
        let content = a.get(path).await.unwrap();
        assert_eq!(a.files.versions(&at(path)).await.unwrap().len(), 1);
        a.put(path, "later").await;
        let versions = a.files.versions(&at(path)).await.unwrap();
        assert_eq!(versions.len(), 2);
        a.files.restore(&at(path), &versions[1].id).await.unwrap();
        assert_eq!(a.get(path).await.unwrap(), content);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_edits_at_once_one_shows_and_the_other_is_a_version_everywhere() {
    let swarm = TestSwarm::start(2).await;
    swarm.wait_connected().await;
    let a = Node::start(swarm.network(0).clone()).await;
    let b = Node::start(swarm.network(1).clone()).await;
    let (short, long) = ("/short", "/long");
    for path in [short, long] {
        a.put(path, "base").await;
        b.sees(path).await;
    }
    swarm.partition(&[0], &[1]).await;
    // Of one half the last of two edits meets that of the other.
    a.put(short, "first of a").await;
    a.put(short, "last of a").await;
    b.put(short, "of b").await;
    b.put(long, sample(300 << 10)).await;
    a.put(long, sample(200 << 10)).await;
    swarm.heal().await;
    for node in [&a, &b] {
        for (path, sizes) in [(short, vec![4, 4, 9, 10]), (long, vec![4, 200 << 10, 300 << 10])] {
            wait_until("all that was written is kept", SOON, || async {
                let versions = node.files.versions(&at(path)).await.unwrap();
                let mut kept: Vec<u64> = versions.iter().map(|version| version.size).collect();
                kept.sort_unstable();
                kept == sizes && versions.iter().filter(|version| version.until_ms.is_none()).count() == 1
            })
            .await;
        }
    }
    for node in [&a, &b] {
        let versions = node.files.versions(&at(short)).await.unwrap();
        let lost = versions.iter().find(|version| version.size == 9).unwrap();
        node.files.restore(&at(short), &lost.id).await.unwrap();
        assert_eq!(node.get(short).await.unwrap(), "last of a");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_made_at_once_on_one_node_do_not_conflict() {
    let swarm = TestSwarm::start(1).await;
    let node = Node::start(swarm.network(0).clone()).await;
    let writes = (0..20).map(|number| node.put("/same", format!("{number}")));
    futures::future::join_all(writes).await;
    let dirs = (0..20).map(|number| {
        let path = at(&format!("/d/{number}"));
        let files = &node.files;
        async move { files.mkdir(&path, Parents::Create).await }
    });
    for made in futures::future::join_all(dirs).await {
        made.unwrap();
    }
    assert_eq!(node.names("/").await, ["d", "same"]);
    assert_eq!(node.names("/d").await.len(), 20);
}

/// Random operations on the tree and on its twin in memory must have the same effects and the same kinds of errors.
#[tokio::test(flavor = "multi_thread")]
async fn the_tree_and_its_twin_agree() {
    use rand::rngs::StdRng;
    use rand::seq::IndexedRandom;
    use rand::{Rng, SeedableRng};

    let swarm = TestSwarm::start(1).await;
    let node = Node::start(swarm.network(0).clone()).await;
    let (tree, twin): (&dyn Vfs, MemVfs) = (&node.files, MemVfs::new());
    // A seed that once failed can be put here.
    let seed = rand::random();
    let mut chance = StdRng::seed_from_u64(seed);
    let paths = ["/a", "/b", "/a/a", "/a/b", "/b/a", "/a/b/c", "/b/a/c/d"].map(at);
    for step in 0..300 {
        let (path, other) = (paths.choose(&mut chance).unwrap(), paths.choose(&mut chance).unwrap());
        let kind = chance.random_range(0..9);
        let (on_tree, on_twin) =
            tokio::join!(operate(tree, kind, path, other), operate(&twin, kind, path, other));
        let context = format!("seed {seed}, step {step}: operation {kind} of {path} and {other}");
        assert_eq!(on_tree, on_twin, "{context}");
        assert_eq!(walk(tree).await, walk(&twin).await, "{context}");
    }
}

async fn operate(vfs: &dyn Vfs, kind: u8, path: &VfsPath, other: &VfsPath) -> Result<(), String> {
    let done = match kind {
        0 | 1 => vfs.write(path, stream_of(other.to_string()), Attributes::default()).await.map(drop),
        2 => vfs.mkdir(path, Parents::MustExist).await.map(drop),
        3 => vfs.mkdir(path, Parents::Create).await.map(drop),
        4 => vfs.remove(path, Removal::Single).await,
        5 => vfs.remove(path, Removal::Recursive).await,
        6 => vfs.rename(path, other).await,
        7 => vfs.copy(path, other).await,
        _ => vfs.symlink(path, other.as_str()).await.map(drop),
    };
    done.map_err(|error| error.to_string())
}

async fn walk(vfs: &dyn Vfs) -> Vec<String> {
    let (mut open, mut seen) = (vec![VfsPath::root()], Vec::new());
    while let Some(dir) = open.pop() {
        for entry in vfs.list(&dir).await.unwrap() {
            let path = dir.join(&entry.name).unwrap();
            seen.push(format!(
                "{path} {:?} {:?} {:?} {:o}",
                entry.kind, entry.hash, entry.target, entry.mode
            ));
            if entry.kind == crate::vfs::Kind::Dir {
                open.push(path);
            }
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_use_of_a_write_does_not_follow_its_length() {
    let swarm = TestSwarm::start(1).await;
    let node = Node::start(swarm.network(0).clone()).await;
    let part = sample(1 << 20);
    let zeros = stream::repeat_with(move || Ok(part.clone())).take(192).boxed();
    let before = resident_bytes();
    node.files.write(&at("/long"), zeros, Attributes::default()).await.unwrap();
    let mut reading = node.files.read(&at("/long"), 0..u64::MAX).await.unwrap();
    let mut len = 0;
    while let Some(part) = reading.try_next().await.unwrap() {
        len += part.len();
    }
    assert_eq!(len, 192 << 20);
    let grown = resident_bytes().saturating_sub(before) >> 20;
    assert!(grown < 150, "{grown} MiB more than before a file of 192 MiB");
}

/// The name of the only segment of a file.
pub(super) async fn segment(node: &Node, path: &str) -> crate::BlobHash {
    let inode = node.files.find(&at(path)).unwrap().inode();
    let content = node.files.inner.tree.content(inode).await.unwrap();
    let segments = segments_of(content, &node.files.inner.segments).await.unwrap().unwrap();
    assert_eq!(segments.len(), 1);
    segments[0].hash
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: run it alone, with --ignored --nocapture"]
async fn five_thousand_small_files_go_in_and_out() {
    let swarm = TestSwarm::start(1).await;
    let node = Node::start(swarm.network(0).clone()).await;
    let host = tempfile::tempdir().unwrap();
    let (from, to) = (host.path().join("from"), host.path().join("to"));
    for number in 0..5000 {
        let dir = from.join(format!("{}", number / 50));
        std::fs::create_dir_all(&dir).unwrap();
        // Sizes as in source code: mostly a few KiB, some of them large.
        let len = if number % 50 == 0 { 100_000 } else { number * 37 % 9000 };
        std::fs::write(dir.join(format!("{number}.rs")), sample(len)).unwrap();
    }
    let start = std::time::Instant::now();
    crate::copying::import_dir(&from, &node.files, &at("/src"), &|_| {}).await.unwrap();
    let import = start.elapsed();
    crate::copying::export_dir(&node.files, &at("/src"), &to, &|_| {}).await.unwrap();
    println!("in: {import:?}, out: {:?}", start.elapsed() - import);
    let diff = std::process::Command::new("diff").arg("-r").args([&from, &to]).status().unwrap();
    assert!(diff.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_file_was_can_be_listed_and_restored_even_after_it_was_removed() {
    let swarm = TestSwarm::start(1).await;
    let node = Node::start(swarm.network(0).clone()).await;
    let files = &node.files;
    files.mkdir(&at("/d"), Parents::MustExist).await.unwrap();
    let drafts = [sample(5_000), sample(100_000), sample(10)];
    for draft in &drafts {
        node.put("/d/text", draft.clone()).await;
    }
    let versions = files.versions(&at("/d/text")).await.unwrap();
    assert_eq!(versions.iter().map(|version| version.size).collect::<Vec<_>>(), [10, 100_000, 5_000]);
    assert!(versions[0].until_ms.is_none() && versions[1].until_ms.is_some());

    files.restore(&at("/d/text"), &versions[2].id).await.unwrap();
    assert!(node.get("/d/text").await.unwrap() == drafts[0]);
    files.remove(&at("/d"), Removal::Recursive).await.unwrap();
    let versions = files.versions(&at("/d/text")).await.unwrap();
    assert!(versions.len() == 4 && versions.iter().all(|version| version.until_ms.is_some()));
    let longest = versions.iter().find(|version| version.size == 100_000).unwrap();
    files.restore(&at("/d/text"), &longest.id).await.unwrap();
    assert!(node.get("/d/text").await.unwrap() == drafts[1]);

    let missing = files.restore(&at("/d/text"), "ffffffffff").await.unwrap_err();
    assert!(matches!(missing, VfsError::Invalid { .. }), "{missing}");
    assert!(matches!(files.versions(&at("/nothing")).await.unwrap_err(), VfsError::NotFound { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_no_version_refers_to_is_freed() {
    let swarm = TestSwarm::start(1).await;
    let node = Node::start(swarm.network(0).clone()).await;
    let inner = &node.files.inner;
    node.put("/f", sample(100_000)).await;
    node.put("/f", sample(200_000)).await;
    let (orphan, bytes) = (sample(50_000), sample(50_000));
    inner.store.add(crate::BlobHash::of(&orphan), bytes, false).await.unwrap();
    let collect = || gc::collect(&inner.store, &inner.tree, &inner.segments, Duration::ZERO, u64::MAX);
    let freed = collect().await.unwrap();
    assert_eq!((freed.items, freed.bytes), (1, 50_000));
    assert_eq!(inner.store.holdings().kept_bytes, 300_000);
    assert_eq!(collect().await.unwrap(), gc::Freed::default());
    let oldest = node.files.versions(&at("/f")).await.unwrap().pop().unwrap();
    node.files.restore(&at("/f"), &oldest.id).await.unwrap();
    assert!(node.get("/f").await.unwrap() == sample(100_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_does_not_fit_or_breaks_off_leaves_nothing_behind() {
    let swarm = TestSwarm::start(1).await;
    let options = FilesOptions { quota: 12 << 20, ..FilesOptions::default() };
    let node = Node::start_with(swarm.network(0).clone(), options).await;
    let shared = sample(5 << 20);
    node.put("/kept", shared.clone()).await;
    let before = node.files.inner.store.holdings();
    // It begins with what is a file already.
    let long = [shared.clone(), sample(20 << 20)].map(Ok);
    let refused = node.files.write(&at("/long"), stream::iter(long).boxed(), Attributes::default()).await;
    assert!(matches!(refused, Err(VfsError::NoSpace { .. })), "{refused:?}");
    let broken = [Ok(sample(4 << 20)), Err(VfsError::NotFound { path: at("/source") })];
    node.files.write(&at("/long"), stream::iter(broken).boxed(), Attributes::default()).await.unwrap_err();
    wait_until("what was stored is gone", SOON, || async { node.files.inner.store.holdings() == before })
        .await;
    assert!(node.get("/kept").await.unwrap() == shared);
    assert!(node.files.stat(&at("/long")).await.is_err());
    node.put("/short", sample(3 << 20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_value_is_a_file_that_leaves_no_version() {
    let swarm = TestSwarm::start(2).await;
    swarm.wait_connected().await;
    let (a, b) = (Node::start(swarm.network(0).clone()).await, Node::start(swarm.network(1).clone()).await);
    let keep = |node: &Node| {
        let blobs: Arc<dyn starfish_memory::Blobs> = Arc::new(node.files.clone());
        node.memory.keep_large_values(&blobs);
        blobs
    };
    let (blobs, _theirs) = (keep(&a), keep(&b));
    let (ours, theirs) = (a.memory.space("app").unwrap(), b.memory.space("app").unwrap());
    ours.set(b"k", sample(300_000), None).await.unwrap();
    wait_until("the other has the key", SOON, || async { theirs.value(b"k").await.unwrap().is_some() }).await;
    assert!(theirs.get(b"k").await.unwrap().unwrap() == sample(300_000));

    let name = blobs.names().await.unwrap()[0];
    let second = starfish_memory::BlobName::parse(&"1".repeat(32)).unwrap();
    blobs.copy(name, second).await.unwrap();
    blobs.remove(name).await.unwrap();
    blobs.remove(name).await.unwrap();
    assert_eq!(blobs.names().await.unwrap(), [second]);
    let forged = blobs.fetch(second, &[0; 32]).await;
    assert!(
        matches!(forged, Err(starfish_memory::BlobError::Failed(_))),
        "it is held against the cell's hash"
    );
    blobs.remove(second).await.unwrap();
    let inner = &a.files.inner;
    gc::collect(&inner.store, &inner.tree, &inner.segments, Duration::ZERO, u64::MAX).await.unwrap();
    assert_eq!(inner.store.holdings().kept_bytes, 0, "nothing is kept to be restored");
}
