//! Looking for what the disk has damaged or lost, before somebody needs it, and making it good.
//!
//! Everything that this node keeps is read and held against its hash now and then, at a rate that nobody notices. What
//! turns out to be damaged, here or in any other read, is removed by the store at once; its shards are then made anew of
//! those that others hold.

use std::io;
use std::time::Duration;

use crate::gather::Segments;
use crate::hash::BlobHash;
use crate::store::{Damage, Kind, Meta, Store, cut};

/// The pause between two looks whether something was found to be damaged.
const LOOK: Duration = Duration::from_secs(1);
/// Items that are read between two pauses, ...
const PAGE: usize = 64;
/// ... and about how many bytes.
const BATCH: u64 = 1 << 20;
/// A short item counts as one of this length: finding it takes longer than reading it.
const LEAST: u64 = 64 << 10;

/// How scrubbing goes about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// The least time from the beginning of one round to that of the next; zero never begins one.
    pub(crate) every: Duration,
    /// Bytes read in a second; 0 never begins a round.
    pub(crate) rate: u64,
}

/// Restores what is found damaged, for as long as it is polled.
pub(crate) async fn restore(store: &Store, segments: &Segments) {
    let mut left: Vec<Damage> = Vec::new();
    loop {
        left.extend(store.take_damaged());
        let mut still = Vec::new();
        for damage in left {
            match restore_one(store, segments, &damage).await {
                Ok(()) => tracing::info!(segment = %damage.segment, "what the disk had damaged is made good"),
                Err(error) => {
                    tracing::debug!(segment = %damage.segment, %error, "not made good yet");
                    still.push(damage);
                }
            }
        }
        left = still;
        tokio::time::sleep(LOOK).await;
    }
}

async fn restore_one(store: &Store, segments: &Segments, damage: &Damage) -> io::Result<()> {
    let bytes = segments.get(damage.segment, damage.len).await?;
    let cut = cut(bytes, vec![((), damage.indices)]).await.unwrap_or_default();
    let (_, bundle) = cut.into_iter().next().ok_or(io::ErrorKind::InvalidData)?;
    store.add_shards(damage.segment, bundle).await?;
    store.flush().await
}

/// Reads all that is kept, again and again, for as long as it is polled.
pub(crate) async fn run(store: &Store, pace: Pace) {
    while !pace.every.is_zero() && pace.rate > 0 {
        let begun = tokio::time::Instant::now();
        for kind in [Kind::Shards, Kind::Whole] {
            if let Err(error) = sweep(store, kind, pace.rate).await {
                tracing::warn!(%error, "cannot look for damage");
            }
        }
        tokio::time::sleep_until(begun + pace.every).await;
    }
}

/// Reads every item of one kind once, at so many bytes per second.
pub(crate) async fn sweep(store: &Store, kind: Kind, rate: u64) -> io::Result<()> {
    let mut after = None;
    loop {
        let page = store.page(kind, after, PAGE).await?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(*last);
        let mut left = page.as_slice();
        while !left.is_empty() {
            let (batch, bytes) = batch(left);
            left = &left[batch.len()..];
            store.check(kind, batch.iter().map(|(hash, _)| *hash).collect()).await?;
            tokio::time::sleep(Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64)).await;
        }
    }
}

/// The first of some items that are about as much as is read between two pauses, and how much they count.
fn batch(items: &[(BlobHash, Meta)]) -> (&[(BlobHash, Meta)], u64) {
    let mut bytes = 0;
    let is_more = |(_, meta): &&(BlobHash, Meta)| {
        let is_room = bytes < BATCH;
        bytes += if is_room { meta.stored.max(LEAST) } else { 0 };
        is_room
    };
    let n = items.iter().take_while(is_more).count();
    (&items[..n], bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index_set::IndexSet;
    use crate::store::Limits;

    #[tokio::test]
    async fn with_zero_for_either_nothing_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Limits { quota: u64::MAX, cache: 0 }).await.unwrap();
        run(&store, Pace { every: Duration::ZERO, rate: 1 }).await;
        run(&store, Pace { every: Duration::from_secs(1), rate: 0 }).await;
    }

    #[test]
    fn a_step_is_one_long_item_or_some_short_ones() {
        let item = |stored: u64| {
            let meta = Meta { len: stored, stored, since: 0, is_cached: false, indices: IndexSet::default() };
            (BlobHash::of(&stored.to_le_bytes()), meta)
        };
        let short = vec![item(100); 1000];
        assert_eq!(batch(&short), (&short[..16], BATCH));
        let mixed = [item(100), item(3 << 20), item(100)];
        assert_eq!(batch(&mixed), (&mixed[..2], LEAST + (3 << 20)));
        assert_eq!(batch(&mixed[..1]), (&mixed[..1], LEAST));
    }
}
