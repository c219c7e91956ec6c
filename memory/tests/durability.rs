//! What is on disk when it is acknowledged: after a clean end, after `kill -9`, and when files were damaged.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use starfish_dht::PeerId;
use starfish_memory::{Durability, Memory, StoreError};

const CHILD_DIR: &str = "STARFISH_MEMORY_TEST_DIR";
const CHILD_EARLY: &str = "STARFISH_MEMORY_TEST_EARLY";

#[tokio::test]
async fn everything_is_there_again_after_a_restart() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let author = PeerId::random();
    let (digest, stats, stamp) = {
        let memory = Memory::open(dir.path(), &author)?;
        let space = memory.space("app")?;
        for i in 0..500 {
            space.incr(format!("k{}", i % 100).as_bytes(), 1).await?;
        }
        space.delete(b"k7").await?;
        (memory.digest(), memory.stats(), space.set(b"last", "x".into(), None).await?)
    };
    let memory = Memory::open(dir.path(), &author)?;
    let space = memory.space("app")?;
    assert_eq!(space.get(b"k8").await?.unwrap(), "5");
    assert_eq!(space.get(b"k7").await?, None);
    assert_ne!(memory.digest(), digest, "`last` came after");
    assert_eq!(memory.stats().tombstones, stats.tombstones);
    assert_eq!(memory.stats().cells, stats.cells + 1);
    assert!(space.set(b"last", "y".into(), None).await? > stamp);
    Ok(())
}

#[tokio::test]
async fn a_store_in_use_says_so() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let author = PeerId::random();
    let first = Memory::open(dir.path(), &author)?;
    assert!(matches!(Memory::open(dir.path(), &author), Err(StoreError::InUse { .. })));
    drop(first);
    Memory::open(dir.path(), &author)?;
    Ok(())
}

/// Run by the test below in a process of its own: counts up on several keys and prints what was acknowledged.
#[tokio::test]
#[ignore = "the child of kill_9_loses_nothing_that_was_acknowledged"]
async fn child_that_writes_until_it_is_killed() -> anyhow::Result<()> {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return Ok(()) };
    let durability = match std::env::var_os(CHILD_EARLY) {
        Some(_) => Durability::EverySecond,
        None => Durability::OnDisk,
    };
    let memory = Memory::open(Path::new(&dir), &PeerId::random())?.with_durability(durability);
    let writers = (0..8).map(|writer| {
        let space = memory.space("app").unwrap();
        tokio::spawn(async move {
            for i in 0.. {
                space.set(format!("{writer}/{i}").as_bytes(), "x".into(), None).await.unwrap();
                let mut out = std::io::stdout().lock();
                writeln!(out, "acknowledged {writer}/{i}").and_then(|()| out.flush()).unwrap();
            }
        })
    });
    futures::future::join_all(writers).await;
    Ok(())
}

#[tokio::test]
async fn kill_9_loses_nothing_that_was_acknowledged() -> anyhow::Result<()> {
    kill_amid_writes(&[]).await
}

#[tokio::test]
async fn kill_9_loses_nothing_either_of_what_is_acknowledged_before_it_is_on_the_disk() -> anyhow::Result<()>
{
    kill_amid_writes(&[(CHILD_EARLY, "1")]).await
}

async fn kill_amid_writes(environment: &[(&str, &str)]) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    for round in 1..=3 {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--exact", "child_that_writes_until_it_is_killed", "--ignored", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let acknowledged = |line: String| line.split_once("acknowledged ").map(|(_, key)| key.to_owned());
        let mut keys = Vec::new();
        while keys.len() < 200 * round {
            let line = lines.next().expect("the child writes until it is killed")?;
            keys.extend(acknowledged(line));
        }
        child.kill()?;
        // What it still said before it died counts as well; a last line cut short does not.
        let rest: Vec<String> = lines.map_while(Result::ok).filter_map(acknowledged).collect();
        keys.extend(rest);
        keys.pop();
        child.wait()?;

        let memory = Memory::open(dir.path(), &PeerId::random())?;
        let space = memory.space("app")?;
        for key in &keys {
            assert!(space.get(key.as_bytes()).await?.is_some(), "{key} was acknowledged and is lost");
        }
    }
    Ok(())
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn a_damaged_store_ends_in_an_error_or_opens_and_never_panics() -> anyhow::Result<()> {
    let whole = tempfile::tempdir()?;
    {
        let memory = Memory::open(whole.path(), &PeerId::random())?;
        let space = memory.space("app")?;
        for i in 0..200 {
            space.set(format!("k{i}").as_bytes(), vec![b'v'; 100].into(), None).await?;
        }
    }
    let mut refused = 0;
    for file in files(whole.path()) {
        for damage in ["empty", "garbage", "flip"] {
            let copy = tempfile::tempdir()?;
            for other in files(whole.path()) {
                let to = copy.path().join(other.strip_prefix(whole.path())?);
                std::fs::create_dir_all(to.parent().unwrap())?;
                std::fs::copy(&other, &to)?;
            }
            let victim = copy.path().join(file.strip_prefix(whole.path())?);
            let mut bytes = std::fs::read(&victim)?;
            match damage {
                "empty" => bytes.clear(),
                "garbage" => bytes.iter_mut().for_each(|byte| *byte = byte.wrapping_mul(31).wrapping_add(7)),
                _ => {
                    let middle = bytes.len() / 2;
                    bytes.get_mut(middle).into_iter().for_each(|byte| *byte ^= 0x10);
                }
            }
            std::fs::write(&victim, bytes)?;
            match Memory::open(copy.path(), &PeerId::random()) {
                Ok(memory) => {
                    // Whatever it holds now can be read and written to.
                    let space = memory.space("app")?;
                    let _ = space.scan(b"", None, 1000).await;
                    let _ = space.set(b"new", "x".into(), None).await;
                }
                Err(StoreError::Damaged { .. }) => refused += 1,
                Err(other) => anyhow::bail!("{damage} {}: {other:?}", file.display()),
            }
        }
    }
    assert!(refused > 0, "no damage was ever noticed");
    Ok(())
}
