//! Blobs between nodes, and peers that do not play fair.

use bytes::Bytes;
use iroh_blobs::protocol::{ChunkRanges, ChunkRangesSeq, ObserveRequest, PushRequest};
use starfish_dht::Network;
use starfish_dht::testing::TestSwarm;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

async fn store(network: &Network) -> (TempDir, BlobStore) {
    let dir = tempfile::tempdir().unwrap();
    let blobs = BlobStore::open(dir.path(), network.clone()).await.unwrap();
    (dir, blobs)
}

fn sample(len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes.into()
}

/// Answers every request with `answer`, then closes.
fn lie(network: &Network, answer: Vec<u8>) {
    let mut incoming = network.accept(protocol::NAME).unwrap();
    tokio::spawn(async move {
        while let Some((_, mut stream)) = incoming.next().await {
            let mut request = Vec::new();
            let _ = stream.read_to_end(&mut request).await;
            let _ = stream.write_all(&answer).await;
            let _ = stream.shutdown().await;
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_comes_from_the_peer_that_has_it() {
    let swarm = TestSwarm::start(3).await;
    swarm.wait_connected().await;
    let (_a_dir, a) = store(swarm.network(0)).await;
    let (_b_dir, b) = store(swarm.network(1)).await;
    let (_c_dir, c) = store(swarm.network(2)).await;
    let bytes = sample(3_000_000);
    let hash = a.add_bytes(bytes.clone()).await.unwrap();
    // `b` does not have it; it says so, and `a` is asked.
    let sources = Sources::peers([swarm.network(1).local_peer()]);
    c.ensure(hash, 4 << 20, &sources).await.unwrap();
    assert!(c.get_bytes(hash, 4 << 20).await.unwrap() == bytes);
    assert!(!b.has(hash).await.unwrap());
    let error = c.ensure(BlobHash::of(b"nowhere"), 100, &Sources::default()).await.unwrap_err();
    assert_eq!(error.asked, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn liars_are_passed_over() {
    let bytes = sample(100_000);
    let size = 100_000u64.to_le_bytes();
    let answers = [
        Vec::new(),
        b"short".to_vec(),
        [size.as_slice(), &[0xab; 200_000]].concat(),
        [u64::MAX.to_le_bytes().as_slice(), &bytes].concat(),
        [0u64.to_le_bytes().as_slice(), &bytes].concat(),
    ];
    for answer in answers {
        let swarm = TestSwarm::start(3).await;
        swarm.wait_connected().await;
        lie(swarm.network(1), answer);
        let (_a_dir, a) = store(swarm.network(0)).await;
        let (_c_dir, c) = store(swarm.network(2)).await;
        let hash = a.add_bytes(bytes.clone()).await.unwrap();
        let sources = Sources::peers([swarm.network(1).local_peer()]);
        c.ensure(hash, 100_000, &sources).await.unwrap();
        assert!(c.get_bytes(hash, 100_000).await.unwrap() == bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_longer_than_it_should_be_is_given_up() {
    let swarm = TestSwarm::start(2).await;
    swarm.wait_connected().await;
    let (_a_dir, a) = store(swarm.network(0)).await;
    let (_c_dir, c) = store(swarm.network(1)).await;
    let hash = a.add_bytes(sample(3_000_000)).await.unwrap();
    c.ensure(hash, 100_000, &Sources::default()).await.unwrap_err();
    assert!(!c.has(hash).await.unwrap());
    // What came of it is not asked for again.
    c.ensure(hash, 3_000_000, &Sources::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_can_get_and_nothing_else() {
    let swarm = TestSwarm::start(2).await;
    swarm.wait_connected().await;
    let (_dir, blobs) = store(swarm.network(0)).await;
    let bytes = sample(1000);
    let hash = BlobHash::of(&bytes);
    let ranges = ChunkRangesSeq::from_ranges([ChunkRanges::all()]);
    let push = postcard::to_stdvec(&PushRequest::new(local::iroh(hash), ranges)).unwrap();
    // Request type 8, its length, and the blob after it, as the protocol would have it.
    let push = [&[8, push.len() as u8][..], &push, &1000u64.to_le_bytes(), &bytes].concat();
    let observe = postcard::to_stdvec(&ObserveRequest::new(local::iroh(hash))).unwrap();
    for request in [push, [&[1], observe.as_slice()].concat(), vec![0xff; 50]] {
        let peer = swarm.network(0).local_peer();
        let mut stream = swarm.network(1).open(peer, protocol::NAME).await.unwrap();
        stream.write_all(&request).await.unwrap();
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty());
    }
    assert!(!blobs.has(hash).await.unwrap());
    assert_eq!(blobs.usage().await.unwrap().blobs, 0);
}
