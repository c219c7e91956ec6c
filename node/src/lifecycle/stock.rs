//! What this node has to offer, for its beacons and metrics: looked up now and then, since asking the disk takes
//! time and the answer is wanted at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use starfish_compute::Compute;
use starfish_dht::beacon::CapacitySource;
use starfish_dht::presence::Capacity;
use starfish_fs::Files;
use tracing::debug;

use crate::task::Tasks;

/// How often the disk is asked: as often as a beacon goes out.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The latest answers.
#[derive(Clone, Debug)]
pub(super) struct Stock {
    compute: Compute,
    disk: Arc<Disk>,
}

#[derive(Debug, Default)]
struct Disk {
    free: AtomicU64,
    used: AtomicU64,
}

impl Stock {
    /// Begins to look.
    pub(super) fn start(files: &Files, compute: &Compute, tasks: &Tasks) -> Self {
        let stock = Self { compute: compute.clone(), disk: Arc::default() };
        let (files, disk, stopping) = (files.clone(), stock.disk.clone(), tasks.stopping().clone());
        tasks.spawn("stock", async move {
            let _ = stopping.run_until_cancelled(watch(&files, &disk)).await;
        });
        stock
    }

    /// A function that tells what this node has to offer now.
    pub(super) fn source(&self) -> CapacitySource {
        let Self { compute, disk } = self.clone();
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let small = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        Arc::new(move || {
            let slots = compute.capacity();
            Capacity {
                cores: u16::try_from(cores).unwrap_or(u16::MAX),
                slots: small(slots.slots),
                busy_slots: small(slots.slots.saturating_sub(slots.free)),
                free_bytes: disk.free.load(Ordering::Relaxed),
                used_bytes: disk.used.load(Ordering::Relaxed),
            }
        })
    }
}

async fn watch(files: &Files, disk: &Disk) {
    let mut tick = tokio::time::interval(LOOK_EVERY);
    loop {
        tick.tick().await;
        disk.used.store(files.kept_bytes(), Ordering::Relaxed);
        match files.room() {
            Ok(room) => disk.free.store(room, Ordering::Relaxed),
            Err(error) => debug!(%error, "cannot tell how much space is left"),
        }
    }
}
