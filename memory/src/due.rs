//! What time ends: watchers hear of values whose time is over, and what has been dead for long is reaped.

use std::{
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::mpsc::Sender;

use crate::{
    clock::now_ms,
    codec,
    memory::Shared,
    writer::{Removal, Work},
};

/// How often it is looked. A watcher hears of an expiry so much later at the most; a read never sees an expired value.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Expired keys that are told of in one look; the others follow in the next.
const MAX_TOLD: usize = 4096;
/// Cells that are taken out in one commit.
const MAX_REAPED: usize = 4096;
/// How often it is tried to save what is sound of a damaged store.
const SALVAGE_EVERY: Duration = Duration::from_secs(10);

/// The thread that looks. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Due {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Due {
    pub(crate) fn start(shared: Arc<Shared>, writer: Sender<Work>) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new().name("memory-due".into()).spawn(move || {
            let mut told_ms = now_ms();
            let mut save_at = Instant::now();
            let mut reap_at = Instant::now() + shared.horizon.reap_every();
            while stopped.recv_timeout(LOOK_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
                told_ms = tell(&shared, told_ms);
                if shared.store.damage.is_found() && Instant::now() >= save_at {
                    // A writer that has much to do is asked again; what failed is tried again in a while.
                    if writer.try_send(Work::Salvage).is_ok() {
                        save_at = Instant::now() + SALVAGE_EVERY;
                    }
                }
                if shared.store.is_unsynced() {
                    // A writer that has much to do thinks of it by itself.
                    let _ = writer.try_send(Work::Sync);
                }
                if Instant::now() >= reap_at {
                    // While there is more, it goes on at once.
                    let has_more = reap(&shared, &writer);
                    reap_at =
                        Instant::now() + if has_more { Duration::ZERO } else { shared.horizon.reap_every() };
                    save(&shared);
                } else if shared.horizon.has_new() {
                    save(&shared);
                }
            }
            save(&shared);
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Due {
    fn drop(&mut self) {
        self.stop = None;
        let thread = self.thread.take().filter(|thread| thread.thread().id() != std::thread::current().id());
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that looks after what is due panicked");
        }
    }
}

/// Has the writer take out some of what has been dead for longer than the horizon; says whether there may be more.
fn reap(shared: &Shared, writer: &Sender<Work>) -> bool {
    let mut dead = Vec::new();
    let looked = shared.store.due(0, shared.horizon.reaped_before(now_ms()), |due, address| {
        // What cannot be told is looked at again in a while.
        if !shared.store.is_counted_upon(address).unwrap_or(true) {
            dead.push((address.to_vec(), due.digest));
        }
        dead.len() < MAX_REAPED
    });
    if let Err(error) = looked {
        tracing::warn!(%error, "cannot tell what is dead");
    }
    let has_more = dead.len() == MAX_REAPED;
    // A writer that has much to do is not kept from it.
    !dead.is_empty() && writer.try_send(Work::Purge(dead, Removal::Dead)).is_ok() && has_more
}

fn save(shared: &Shared) {
    if let Err(error) = shared.horizon.save() {
        tracing::warn!(%error, "cannot keep when this replica last agreed with others");
    }
}

/// Tells watchers of what has expired since `from_ms`; returns up to when all are told of.
fn tell(shared: &Shared, from_ms: u64) -> u64 {
    let now_ms = now_ms();
    // A clock that was set back finds nothing until it is where it was.
    if now_ms <= from_ms {
        return from_ms;
    }
    let (mut n_told, mut until_ms, mut last_ms) = (0, now_ms, 0);
    let looked = shared.store.due(from_ms, now_ms, |due, address| {
        if n_told >= MAX_TOLD && due.ms > last_ms {
            until_ms = due.ms;
            return false;
        }
        last_ms = due.ms;
        // Of a deletion watchers have heard when it was written.
        if !due.is_tombstone
            && let Ok((space, key, field)) = codec::split_address(address)
        {
            shared.watchers.note(&space, &key.into(), &Bytes::copy_from_slice(field));
            n_told += 1;
        }
        true
    });
    if let Err(error) = looked {
        tracing::warn!(%error, "cannot tell what is due");
    }
    until_ms
}
