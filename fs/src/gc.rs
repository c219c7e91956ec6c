//! Freeing what no file refers to: shards and segments that this node keeps, in small steps.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use crate::files::{now_ms, segments_of_all};
use crate::gather::Segments;
use crate::hash::BlobHash;
use crate::store::{Kind, Store};
use crate::tree::store::{Edits, TreeStore};
use crate::tree::{Inode, Stamp};
use crate::vfs::VfsError;

/// What is younger than this stays: its name may still be on its way.
const MIN_AGE: Duration = Duration::from_secs(3600);
/// Items looked at in one step.
pub(crate) const STEP: usize = 512;

/// How collecting goes about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// The time between two runs; zero never runs.
    pub(crate) every: Duration,
    /// Items that are looked at in a second; 0 never runs.
    pub(crate) rate: u64,
}

/// What a run freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Freed {
    pub(crate) items: u64,
    pub(crate) bytes: u64,
}

/// Removes, time and again, what no file of the tree refers to and is older than a while, for as long as it is polled.
pub(crate) async fn run(store: &Store, tree: &TreeStore, segments: &Segments, pace: Pace) {
    while !pace.every.is_zero() && pace.rate > 0 {
        tokio::time::sleep(pace.every).await;
        match collect(store, tree, segments, MIN_AGE, pace.rate).await {
            Ok(freed) => tracing::debug!(items = freed.items, bytes = freed.bytes, "freed"),
            Err(error) => tracing::debug!(%error, "nothing is freed for now"),
        }
    }
}

/// Removes it once, looking at so many items per second. If the segments of even one file cannot be told, or the tree
/// itself is not whole, nothing is removed.
pub(crate) async fn collect(
    store: &Store,
    tree: &TreeStore,
    segments: &Segments,
    min_age: Duration,
    rate: u64,
) -> io::Result<Freed> {
    if !tree.is_whole() {
        return Ok(Freed::default());
    }
    let before = Duration::from_millis(now_ms()).saturating_sub(min_age).as_secs();
    let live = live(tree, segments).await?;
    let mut freed = Freed::default();
    for kind in [Kind::Whole, Kind::Shards] {
        let mut after = None;
        loop {
            let page = store.page(kind, after, STEP).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            let dead = page.iter().filter(|(hash, meta)| !live.contains(hash) && meta.since <= before);
            for (hash, meta) in dead {
                // It may have been added anew since it was looked at.
                if store.remove_if(kind, *hash, move |meta| meta.since <= before).await? {
                    freed.items += 1;
                    freed.bytes += meta.stored;
                }
            }
            tokio::time::sleep(Duration::from_secs_f64(page.len() as f64 / rate.max(1) as f64)).await;
        }
    }
    Ok(freed)
}

/// All that some file refers to, in what it is or in what it was not too long ago. Old contents whose time is over are
/// forgotten on the way.
async fn live(tree: &TreeStore, segments: &Segments) -> io::Result<HashSet<BlobHash>> {
    let files: Vec<_> = tree.read().files().collect();
    let mut live = HashSet::new();
    let retention = tree.retention().await.map_err(io::Error::other)?;
    for (inode, _) in files {
        let (kept, gone) = tree.retained(inode, now_ms(), retention).await.map_err(io::Error::other)?;
        forget(tree, inode, &gone).await.map_err(io::Error::other)?;
        let of_file = segments_of_all(kept, segments).await.map_err(io::Error::other)?;
        live.extend(of_file.into_iter().flatten().map(|segment| segment.hash));
    }
    Ok(live)
}

async fn forget(tree: &TreeStore, inode: Inode, gone: &[Stamp]) -> Result<(), VfsError> {
    if gone.is_empty() {
        return Ok(());
    }
    let mut edits = Edits::default();
    edits.forget(inode, gone);
    tree.commit(edits).await
}
