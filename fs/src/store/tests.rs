//! The store on a real disk.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::code::Code;

const ROOMY: Limits = Limits { quota: u64::MAX, cache: 64 << 20 };

async fn store(limits: Limits) -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), limits).await.unwrap();
    (dir, store)
}

fn sample(len: usize, seed: u64) -> (BlobHash, Bytes) {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    (BlobHash::of(&bytes), bytes.into())
}

fn bundle(segment: &Bytes, indices: &[u16]) -> Bundle {
    let len = segment.len() as u64;
    let shards = Code::of(len).shards(segment, indices).unwrap();
    Bundle::new(len, indices.iter().copied().zip(shards).collect()).unwrap()
}

/// The one file in the store's folders.
fn only_file(dir: &TempDir) -> PathBuf {
    let folders = fs::read_dir(dir.path()).unwrap().flatten().filter(|folder| folder.file_name().len() == 2);
    let mut files = folders.flat_map(|folder| fs::read_dir(folder.path()).unwrap().flatten());
    let file = files.next().expect("a file").path();
    assert!(files.next().is_none());
    file
}

#[tokio::test]
async fn folders_that_somebody_removes_are_made_again() {
    let (dir, store) = store(ROOMY).await;
    for folder in fs::read_dir(dir.path()).unwrap().flatten() {
        if folder.file_name() != "index" && folder.file_type().unwrap().is_dir() {
            fs::remove_dir_all(folder.path()).unwrap();
        }
    }
    let (hash, bytes) = sample(1 << 20, 1);
    store.add(hash, bytes.clone(), false).await.unwrap();
    store.flush().await.unwrap();
    assert_eq!(store.get(hash).await.unwrap(), Some(bytes));
}

#[tokio::test]
async fn what_was_added_is_there_after_a_restart() {
    let (dir, store) = store(ROOMY).await;
    let (small, large) = (sample(100, 1), sample(1 << 20, 2));
    for (hash, bytes) in [small.clone(), large.clone()] {
        store.add(hash, bytes, false).await.unwrap();
    }
    store.add_shards(large.0, bundle(&large.1, &[0, 1, 300])).await.unwrap();
    store.add_shards(large.0, bundle(&large.1, &[1, 2])).await.unwrap();
    store.flush().await.unwrap();
    let before = store.holdings();
    drop(store);
    let store = Store::open(dir.path(), ROOMY).await.unwrap();
    assert_eq!(store.get(small.0).await.unwrap(), Some(small.1));
    assert_eq!(store.get(large.0).await.unwrap(), Some(large.1.clone()));
    assert_eq!(store.shards(large.0).await.unwrap(), Some(bundle(&large.1, &[0, 1, 2, 300])));
    assert_eq!(store.holdings(), before);
    store.drop_shards(large.0, [0, 300].into_iter().collect()).await.unwrap();
    assert_eq!(store.shards(large.0).await.unwrap(), Some(bundle(&large.1, &[1, 2])));
    store.drop_shards(large.0, [1, 2].into_iter().collect()).await.unwrap();
    assert_eq!(store.shards(large.0).await.unwrap(), None);
}

#[tokio::test]
async fn what_the_disk_changed_or_lost_is_noticed_and_never_given_out() {
    for damage in [
        |file: &Path| fs::write(file, b"nothing like it").unwrap(),
        |file: &Path| fs::remove_file(file).unwrap(),
        |file: &Path| {
            let mut bytes = fs::read(file).unwrap();
            bytes[5000] ^= 1;
            fs::write(file, bytes).unwrap();
        },
    ] {
        let (dir, store) = store(ROOMY).await;
        let (hash, bytes) = sample(1 << 20, 1);
        store.add(hash, bytes.clone(), false).await.unwrap();
        damage(&only_file(&dir));
        assert_eq!(store.get(hash).await.unwrap(), None);
        assert!(!store.has(&hash).unwrap());
        store.add_shards(hash, bundle(&bytes, &[1, 2, 3, 4, 5])).await.unwrap();
        damage(&only_file(&dir));
        assert_eq!(store.shards(hash).await.unwrap(), None);
        assert!(store.held(&hash).unwrap().is_empty());
        assert_eq!(store.holdings(), Holdings { damaged: 2, ..Holdings::default() });
    }
}

#[tokio::test]
async fn cached_items_go_before_anything_is_refused() {
    let (_dir, store) = store(Limits { quota: 2 << 20, cache: 1 << 20 }).await;
    let [a, b, c, d] = [1, 2, 3, 4].map(|seed| sample(600_000, seed));
    for (hash, bytes) in [a.clone(), b.clone()] {
        store.add(hash, bytes, true).await.unwrap();
    }
    assert!(!store.has(&a.0).unwrap() && store.has(&b.0).unwrap(), "the cache holds one of them");
    for (hash, bytes) in [a.clone(), c.clone(), d.clone()] {
        store.add(hash, bytes, false).await.unwrap();
    }
    let refused = store.add(b.0, b.1, false).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::QuotaExceeded);
    // Once others keep it, it makes room for others.
    store.release_all(vec![a.0]).await.unwrap();
    store.release_all(vec![c.0]).await.unwrap();
    assert!(!store.has(&a.0).unwrap() && store.has(&c.0).unwrap() && store.is_kept(&d.0).unwrap());
    assert_eq!(store.holdings().kept_bytes, 600_000);
}

#[tokio::test]
async fn all_items_can_be_walked_in_pages() {
    let (_dir, store) = store(ROOMY).await;
    let mut expected: Vec<BlobHash> = Vec::new();
    for seed in 0..25 {
        let (hash, bytes) = sample(100, seed);
        store.add(hash, bytes, seed % 2 == 0).await.unwrap();
        expected.push(hash);
    }
    expected.sort();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = store.page(Kind::Whole, after, 10).await.unwrap();
        let is_last = page.len() < 10;
        after = page.last().map(|(hash, _)| *hash);
        seen.extend(page.into_iter().map(|(hash, _)| hash));
        if is_last {
            break;
        }
    }
    assert_eq!(seen, expected);
    assert!(store.page(Kind::Shards, None, 10).await.unwrap().is_empty());
}
