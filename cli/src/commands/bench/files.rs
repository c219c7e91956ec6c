//! Files in and out, one large and many small ones, against plain copies on the same disk.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use blake3::Hash;
use futures::StreamExt as _;
use starfish_node::fs::VfsPath;
use starfish_node::fs::copying::{Summary, export_dir, export_file, import_dir, import_file};
use starfish_node::fs::vfs::Vfs;

use super::figure::{Figure, Value};
use super::swarm::Swarm;
use super::wire::{self, End, Transport};
use crate::output::human;

/// Small files, as many as a large source tree has.
const SMALL_FILES: usize = 10_000;
/// The size of each: that of many a source.
const SMALL_BYTES: u64 = 4 << 10;
/// How often it is looked whether a file is at full durability.
const LOOK: Duration = Duration::from_millis(5);
/// What is read or written of a large file at a time.
const STEP: usize = 1 << 20;
/// What is compared with the way of a file into or out of a node's store.
const COPY: &str = "copy, BLAKE3 and fsync of the same";
/// What is compared with the way of a file to and from other nodes. A blob that is neither checked nor kept is none.
const ONE_BLOB: &str = "one raw blob over QUIC: hashed, written";
const TWO_BLOBS: &str = "two raw blobs over QUIC: hashed, written, fsync";

/// One large file: put on the first node, got on the last, and got there again.
pub(super) async fn large(
    swarm: &Swarm,
    root: &Path,
    size: u64,
    figures: &mut Vec<Figure>,
) -> anyhow::Result<()> {
    let (source, got) = (root.join("large"), root.join("large.got"));
    let (here, there, at) = (swarm.client(0).files(), swarm.last().files(), VfsPath::parse("/large")?);
    let hash = blocking(&source, move |source| write_noise(source, 0, size)).await?;
    let rate = |elapsed| Value::bytes_per_second(size, elapsed);

    let start = Instant::now();
    import_file(&source, &here, &at, &ignore).await?;
    let put = start.elapsed();
    wait_durable(swarm, &at).await?;
    let durable = start.elapsed();
    let copy = rate(blocking(&source, |source| time_copy(&[source.to_owned()])).await?);
    figures.push(Figure::new(format!("put of {}", human::bytes(size)), rate(put)).against(COPY, copy));

    let over_quic = wire::stream(Transport::Quic, size).await?;
    let over_tcp = wire::stream(Transport::Tcp, size).await?;
    let blob = root.join("blob");
    let two = wire::blob(2 * size, End::SyncedFile(blob.clone())).await?.halved();
    figures.push(Figure::new("put of it, at full durability", rate(durable)).against(TWO_BLOBS, two));
    swarm.wait_in_sync().await?;
    let one = wire::blob(size, End::File(blob)).await?;
    for (what, limit_is, limit) in [("get on another node", ONE_BLOB, one), ("get there again", COPY, copy)] {
        let start = Instant::now();
        export_file(&there, &at, &got, &ignore).await?;
        figures.push(Figure::new(what, rate(start.elapsed())).against(limit_is, limit));
        let arrived = blocking(&got, hash_of).await?;
        anyhow::ensure!(arrived == hash, "what was got is not what was put");
        tokio::fs::remove_file(&got).await?;
    }
    let start = Instant::now();
    there.read(&at, 0..u64::MAX).await?.next().await.transpose()?;
    figures.push(Figure::new("first bytes of it, held there", Value::Time(start.elapsed())));
    figures.push(Figure::new("raw stream over QUIC", over_quic).against("the same over TCP", over_tcp));
    Ok(())
}

/// One more large file, got on the last node right after half of the nodes, its writer among them, were killed.
pub(super) async fn half_dead(
    swarm: &mut Swarm,
    root: &Path,
    size: u64,
    figures: &mut Vec<Figure>,
) -> anyhow::Result<()> {
    let (source, got) = (root.join("more"), root.join("more.got"));
    let at = VfsPath::parse("/more")?;
    let hash = blocking(&source, move |source| write_noise(source, u64::MAX, size)).await?;
    import_file(&source, &swarm.client(0).files(), &at, &ignore).await?;
    wait_durable(swarm, &at).await?;
    swarm.wait_in_sync().await?;
    let limit = wire::blob(size, End::File(root.join("blob"))).await?;
    swarm.kill_half();
    let there = swarm.last().files();
    let start = Instant::now();
    export_file(&there, &at, &got, &ignore).await?;
    let rate = Value::bytes_per_second(size, start.elapsed());
    figures.push(Figure::new("get, half of the nodes just killed", rate).against(ONE_BLOB, limit));
    anyhow::ensure!(blocking(&got, hash_of).await? == hash, "what was got is not what was put");
    Ok(())
}

async fn wait_durable(swarm: &Swarm, at: &VfsPath) -> anyhow::Result<()> {
    while swarm.client(0).waiting(at).await?.files > 0 {
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// A folder of many small files: put, listed elsewhere, got elsewhere.
pub(super) async fn small(swarm: &Swarm, root: &Path, figures: &mut Vec<Figure>) -> anyhow::Result<()> {
    let (source, got) = (root.join("small"), root.join("small.got"));
    let (here, there, at) = (swarm.client(0).files(), swarm.last().files(), VfsPath::parse("/small")?);
    let sources = blocking(&source, write_folder).await?;
    let rate = |elapsed| Value::per_second(SMALL_FILES, elapsed);

    let start = Instant::now();
    import_dir(&source, &here, &at, &ignore).await?;
    let put = start.elapsed();
    swarm.wait_in_sync().await?;
    let everywhere = start.elapsed();
    let copy = rate(blocking(&source, move |_| time_copy(&sources)).await?);
    let what = format!("put of {SMALL_FILES} files of {}", human::bytes(SMALL_BYTES));
    figures.push(Figure::new(what, rate(put)).against(COPY, copy));
    figures.push(
        Figure::new("until all nodes can list them", rate(everywhere)).against("the put alone", rate(put)),
    );

    let start = Instant::now();
    let n_listed = there.list(&at).await?.len();
    let listed = start.elapsed();
    anyhow::ensure!(n_listed == SMALL_FILES, "{n_listed} of {SMALL_FILES} files are listed");
    let limit = rate(blocking(&source, time_list).await?);
    figures.push(
        Figure::new("list on another node", rate(listed)).against("readdir and stat of the same", limit),
    );

    let start = Instant::now();
    let summary = export_dir(&there, &at, &got, &ignore).await?;
    figures.push(Figure::new("get on another node", rate(start.elapsed())).against(COPY, copy));
    anyhow::ensure!(summary.files == SMALL_FILES as u64, "{} files arrived", summary.files);
    Ok(())
}

fn ignore(_: &Summary) {}

/// Runs file work off the async threads.
async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let path = path.to_owned();
    Ok(tokio::task::spawn_blocking(move || work(&path)).await??)
}

/// Writes bytes that no two `seed`s share and that cannot be compressed; gives their hash.
fn write_noise(path: &Path, seed: u64, size: u64) -> io::Result<Hash> {
    let mut noise = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
    let (mut file, mut hasher) = (File::create(path)?, blake3::Hasher::new());
    let mut step = vec![0; STEP];
    let mut left = size;
    while left > 0 {
        let n = usize::try_from(left).unwrap_or(STEP).min(STEP);
        noise.fill(&mut step[..n]);
        hasher.update(&step[..n]);
        file.write_all(&step[..n])?;
        left -= n as u64;
    }
    Ok(hasher.finalize())
}

fn write_folder(folder: &Path) -> io::Result<Vec<PathBuf>> {
    fs::create_dir(folder)?;
    let paths: Vec<PathBuf> = (0..SMALL_FILES).map(|n| folder.join(format!("file-{n:04}"))).collect();
    for (seed, path) in (1..).zip(&paths) {
        write_noise(path, seed, SMALL_BYTES)?;
    }
    Ok(paths)
}

/// Copies files beside themselves and hashes them, one after the other in one thread, with one wait for the disk per
/// file; the copies are removed again.
fn time_copy(sources: &[PathBuf]) -> io::Result<Duration> {
    let start = Instant::now();
    let copies: Vec<PathBuf> = sources.iter().map(|source| source.with_extension("copy")).collect();
    for (source, copy) in sources.iter().zip(&copies) {
        fs::copy(source, copy)?;
        File::open(copy)?.sync_all()?;
        std::hint::black_box(hash_of(copy)?);
    }
    let elapsed = start.elapsed();
    copies.iter().try_for_each(fs::remove_file)?;
    Ok(elapsed)
}

fn time_list(folder: &Path) -> io::Result<Duration> {
    let start = Instant::now();
    for entry in fs::read_dir(folder)? {
        std::hint::black_box(entry?.metadata()?);
    }
    Ok(start.elapsed())
}

fn hash_of(path: &Path) -> io::Result<Hash> {
    let mut file = File::open(path)?;
    let (mut hasher, mut step) = (blake3::Hasher::new(), vec![0; STEP]);
    loop {
        match file.read(&mut step)? {
            0 => return Ok(hasher.finalize()),
            n => hasher.update(&step[..n]),
        };
    }
}
