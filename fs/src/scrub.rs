//! Looking for what the disk has damaged or lost, before somebody needs it, and making it good.
//!
//! Everything that this node keeps is read and held against its hash now and then, at a rate that nobody notices. What
//! turns out to be damaged, here or in any other read, is removed by the store at once; its shards are then made anew of
//! those that others hold.

use std::io;
use std::time::Duration;

use crate::gather::Segments;
use crate::store::{Damage, Kind, Meta, Store, cut};

/// The pause between two looks whether something was found to be damaged.
const LOOK: Duration = Duration::from_secs(1);
/// Items whose names are read at once.
const PAGE: usize = 256;

/// How scrubbing goes about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// The least time from the beginning of one round to that of the next.
    pub(crate) every: Duration,
    /// Bytes read in a second.
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
    loop {
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
        for (hash, Meta { stored, .. }) in page {
            match kind {
                Kind::Whole => drop(store.get(hash).await?),
                Kind::Shards => drop(store.shards(hash).await?),
            }
            tokio::time::sleep(Duration::from_secs_f64(stored as f64 / rate.max(1) as f64)).await;
        }
    }
}
