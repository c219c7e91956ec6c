//! Bits that flip on the disk of a node that runs, and journals that are cut while it does not.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use starfish_dht::{
    PeerId,
    testing::{PATIENCE, TestSwarm, wait_until},
};
use starfish_memory::{Memory, Space, StoreError};

/// More than the engine keeps in memory before it makes a file of it.
const KEYS: usize = 2500;
const VALUE: usize = 15_000;

fn value(key: usize) -> Bytes {
    // Not compressible, so that much is written.
    let seed = u64::try_from(key).unwrap().wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut state = seed | 1;
    let mut bytes = vec![0; VALUE];
    for byte in &mut bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = (state >> 32) as u8;
    }
    bytes.into()
}

async fn fill(space: &Space, memory: &Memory) {
    for keys in (0..KEYS).collect::<Vec<usize>>().chunks(50) {
        let mut batch = space.batch();
        for key in keys {
            batch.put(format!("k{key:04}"), "", value(*key));
        }
        memory.commit(batch).await.unwrap();
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The engine's large files.
fn tables(dir: &Path) -> Vec<PathBuf> {
    let is_large = |path: &PathBuf| fs::metadata(path).is_ok_and(|file| file.len() > 4 << 20);
    let is_table = |path: &PathBuf| path.components().any(|part| part.as_os_str() == "tables");
    files(dir).into_iter().filter(|path| is_table(path) && is_large(path)).collect()
}

/// The engine's journals.
fn journals(dir: &Path) -> Vec<PathBuf> {
    files(dir).into_iter().filter(|path| path.extension().is_some_and(|end| end == "jnl")).collect()
}

/// Where what was written to a file ends.
fn end_of(path: &Path) -> u64 {
    fs::read(path).unwrap().iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1)
}

/// Flips a bit in many places of what the file is there for; its end says where things are.
fn flip_bits(path: &Path) {
    use std::os::unix::fs::FileExt;

    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let len = file.metadata().unwrap().len();
    for at in (100_000..len * 9 / 10).step_by(400_000) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_damaged_under_a_node_that_runs_is_fetched_from_others_and_read() -> anyhow::Result<()> {
    let swarm = TestSwarm::start(2).await;
    let dirs = [tempfile::tempdir()?, tempfile::tempdir()?];
    let (mut memories, mut syncs) = (Vec::new(), Vec::new());
    for (index, dir) in dirs.iter().enumerate() {
        let network = swarm.network(index).clone();
        let memory = Memory::open(dir.path(), &network.local_peer())?;
        syncs.push(memory.join(network).await?);
        memories.push(memory);
    }
    let [sound, damaged] = &memories[..] else { unreachable!() };
    fill(&sound.space("app")?, sound).await;
    wait_until("both to agree", PATIENCE * 4, || async { sound.digest() == damaged.digest() }).await;
    wait_until("a file of cells", PATIENCE, || async { !tables(dirs[1].path()).is_empty() }).await;
    let digest = sound.digest();

    tables(dirs[1].path()).iter().for_each(|path| flip_bits(path));
    let space = damaged.space("app")?;
    for key in 0..KEYS {
        let name = format!("k{key:04}");
        // A machine that has much else to do may take longer than a read waits.
        wait_until(&name, PATIENCE * 4, || async {
            let read = space.get(name.as_bytes()).await;
            read.is_ok_and(|read| read.as_ref() == Some(&value(key)) || panic!("{name} is {read:?}"))
        })
        .await;
    }
    let all =
        |damaged: &Memory| damaged.digest() == digest && damaged.stats().lost == 0 && damaged.is_whole();
    wait_until("all to be back", PATIENCE, || async { all(damaged) }).await;
    assert!(damaged.stats().damaged > 0);
    assert_eq!(space.scan(b"", None, KEYS).await?.len(), KEYS, "scans come through again");
    assert_eq!(sound.digest(), digest, "it did not spread");
    assert_eq!((sound.stats().damaged, sound.stats().refused_malformed), (0, 0));

    // It is whole after a restart, too.
    let peer = swarm.network(1).local_peer();
    drop((space, syncs, memories));
    let open = || async { Memory::open(dirs[1].path(), &peer).is_ok_and(|memory| memory.digest() == digest) };
    wait_until("the store to open", PATIENCE, open).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_alone_saves_what_is_sound_and_never_says_that_the_rest_was_not_there() -> anyhow::Result<()> {
    let (dir, peer) = (tempfile::tempdir()?, PeerId::random());
    let memory = Memory::open(dir.path(), &peer)?;
    let space = memory.space("app")?;
    fill(&space, &memory).await;
    wait_until("a file of cells", PATIENCE, || async { !tables(dir.path()).is_empty() }).await;
    tables(dir.path()).iter().for_each(|path| flip_bits(path));
    assert!(space.scan(b"", None, KEYS).await.is_err(), "it is not passed over");
    wait_until("the damage to be told", PATIENCE, || async { memory.stats().lost > 0 }).await;
    assert!(!memory.is_whole());

    let (mut sound, mut lost) = (0, Vec::new());
    for key in 0..KEYS {
        // Those that are gone are waited for, and there is nobody to bring them.
        let name = format!("k{key:04}");
        match tokio::time::timeout(Duration::from_millis(5), space.get(name.as_bytes())).await {
            Ok(read) => {
                assert!(read?.is_some_and(|read| read == value(key)), "{name}");
                sound += 1;
            }
            Err(_) => lost.push(name),
        }
    }
    assert!(sound > KEYS / 2, "{sound} are left");
    assert!(lost.len() as u64 >= memory.stats().lost);
    // What is written anew is there again, and all else stays.
    for name in &lost {
        space.set(name.as_bytes(), "anew".into(), None).await?;
    }
    assert_eq!(memory.stats().lost, 0);
    assert_eq!(space.scan(b"", None, KEYS).await?.len(), KEYS);
    let digest = memory.digest();
    drop((space, memory));
    let memory = Memory::open(dir.path(), &peer)?;
    assert_eq!(memory.digest(), digest);
    assert!(memory.space("app")?.get(b"k0000").await?.is_some());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_is_cut_or_damaged_while_a_node_is_stopped_is_told_and_made_good() -> anyhow::Result<()>
{
    let damages: [fn(&Path); 2] = [
        |path| fs::File::options().write(true).open(path).unwrap().set_len(end_of(path) / 2).unwrap(),
        |path| {
            use std::os::unix::fs::FileExt;

            let file = fs::File::options().read(true).write(true).open(path).unwrap();
            let (at, mut byte) = (end_of(path) / 2, [0]);
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        },
    ];
    let swarm = TestSwarm::start(2).await;
    let peers = [0, 1].map(|index| swarm.network(index).local_peer());
    for damage in damages {
        let dirs = [tempfile::tempdir()?, tempfile::tempdir()?];
        let sound = Memory::open(dirs[0].path(), &peers[0])?;
        let sync = sound.join(swarm.network(0).clone()).await?;
        let damaged = Memory::open(dirs[1].path(), &peers[1])?;
        for key in 0..100 {
            damaged.space("app")?.set(format!("k{key:04}").as_bytes(), value(key), None).await?;
        }
        drop(damaged);
        let damaged = Memory::open(dirs[1].path(), &peers[1])?;
        assert!(damaged.is_whole(), "nothing has happened to it");
        let other = damaged.join(swarm.network(1).clone()).await?;
        wait_until("both to agree", PATIENCE, || async { sound.digest() == damaged.digest() }).await;
        let digest = sound.digest();
        drop((other, damaged));
        wait_until("the store to be closed", PATIENCE, || async {
            Memory::open(dirs[1].path(), &peers[1]).is_ok_and(|memory| memory.is_whole())
        })
        .await;

        journals(dirs[1].path()).iter().for_each(|path| damage(path));
        let damaged = Memory::open(dirs[1].path(), &peers[1])?;
        assert_ne!(damaged.digest(), digest, "some of it is gone");
        assert!(!damaged.is_whole());
        let other = damaged.join(swarm.network(1).clone()).await?;
        wait_until("all to be back", PATIENCE, || async { damaged.digest() == digest && damaged.is_whole() })
            .await;
        drop((other, damaged, sync, sound));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_whose_commits_are_all_gone_is_damaged_and_not_empty() -> anyhow::Result<()> {
    let (dir, peer) = (tempfile::tempdir()?, PeerId::random());
    let memory = Memory::open(dir.path(), &peer)?;
    memory.space("app")?.set(b"k", "v".into(), None).await?;
    drop(memory);
    let journals = journals(dir.path());
    let aside: Vec<PathBuf> = journals.iter().map(|path| path.with_extension("aside")).collect();
    journals.iter().zip(&aside).for_each(|(path, aside)| fs::rename(path, aside).unwrap());
    let refused = Memory::open(dir.path(), &peer);
    assert!(matches!(refused, Err(StoreError::Damaged { .. })), "{refused:?}");
    // Whoever has the file still can put it back.
    for path in self::journals(dir.path()) {
        fs::remove_file(path)?;
    }
    aside.iter().zip(&journals).for_each(|(aside, path)| fs::rename(aside, path).unwrap());
    let memory = Memory::open(dir.path(), &peer)?;
    assert_eq!(memory.space("app")?.get(b"k").await?.unwrap(), "v");
    assert!(memory.is_whole());
    Ok(())
}
