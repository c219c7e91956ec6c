//! Watching keys: what is there, then what changes.
//!
//! The writer only notes *which* key has changed; the watcher reads the value when it gets there. So a watcher never
//! sees values go backwards, several quick changes of a key may show as one, and a slow watcher costs a bounded queue
//! of keys. When that is full the watcher is told so ([`Event::Lagged`]) and starts over from a new snapshot.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::{
    cell::{Cell, SpaceName},
    counter,
    space::{KeyValue, Space},
    store::ReadError,
};

/// Changed keys that wait for a watcher, before it has to start over.
const MAX_BEHIND: usize = 1024;

/// Keys of the snapshot that are read at once.
const SNAPSHOT_PAGE: usize = 256;

/// What a watcher sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The key has this value now.
    Value {
        /// The key.
        key: Bytes,
        /// What it is worth.
        value: Bytes,
    },
    /// The key has no value any more. (A value whose time is over goes without an event.)
    Deleted {
        /// The key.
        key: Bytes,
    },
    /// Changes were missed. A new snapshot follows: what is not in it is gone.
    Lagged,
}

/// Follows the keys with a prefix. See [`Space::watch`].
#[derive(Debug)]
pub struct Watch {
    space: Space,
    prefix: Bytes,
    changed: mpsc::Receiver<Bytes>,
    lagged: Arc<AtomicBool>,
    snapshot: Option<Snapshot>,
}

/// How far the snapshot has been handed out.
#[derive(Debug, Default)]
struct Snapshot {
    page: VecDeque<KeyValue>,
    after: Option<Bytes>,
    /// The page is the last one.
    ends: bool,
}

impl Watch {
    pub(crate) fn new(space: Space, prefix: Bytes) -> Self {
        // First the changes, then the snapshot: what happens in between is seen twice rather than not at all.
        let (sender, changed) = mpsc::channel(MAX_BEHIND);
        let lagged = Arc::new(AtomicBool::new(false));
        let entry =
            Watcher { space: space.name().clone(), prefix: prefix.clone(), sender, lagged: lagged.clone() };
        space.memory().shared().watchers.add(entry);
        Self { space, prefix, changed, lagged, snapshot: Some(Snapshot::default()) }
    }

    /// The next event. Nothing is lost if the future is dropped before it is ready. `None` ends the watch: the store
    /// cannot be read.
    pub async fn next(&mut self) -> Option<Event> {
        self.step().await.inspect_err(|error| tracing::error!(%error, "a watch ends")).ok()
    }

    async fn step(&mut self) -> Result<Event, ReadError> {
        if self.lagged.swap(false, Ordering::AcqRel) {
            while self.changed.try_recv().is_ok() {}
            self.snapshot = Some(Snapshot::default());
            return Ok(Event::Lagged);
        }
        if let Some(event) = self.step_snapshot().await? {
            return Ok(event);
        }
        // The writer, which holds the other end, lives as long as the space in `self`.
        let Some(key) = self.changed.recv().await else { return std::future::pending().await };
        Ok(match self.space.read(&key)? {
            Some(value) => Event::Value { key, value },
            None => Event::Deleted { key },
        })
    }

    async fn step_snapshot(&mut self) -> Result<Option<Event>, ReadError> {
        let Some(snapshot) = &mut self.snapshot else { return Ok(None) };
        if snapshot.page.is_empty() && !snapshot.ends {
            let page = self.space.scan(&self.prefix, snapshot.after.as_deref(), SNAPSHOT_PAGE).await?;
            snapshot.ends = page.len() < SNAPSHOT_PAGE;
            snapshot.page = page.into();
        }
        let Some(KeyValue { key, value }) = snapshot.page.pop_front() else {
            self.snapshot = None;
            return Ok(None);
        };
        snapshot.after = Some(key.clone());
        Ok(Some(Event::Value { key, value }))
    }
}

/// Everybody who watches.
#[derive(Debug, Default)]
pub(crate) struct Watchers(Mutex<Vec<Watcher>>);

#[derive(Debug)]
struct Watcher {
    space: SpaceName,
    prefix: Bytes,
    sender: mpsc::Sender<Bytes>,
    lagged: Arc<AtomicBool>,
}

impl Watchers {
    fn add(&self, watcher: Watcher) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(watcher);
    }

    /// Notes the keys whose worth may have changed. Never waits for a watcher.
    pub(crate) fn notify(&self, cells: &[Cell]) {
        let mut watchers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.retain(|watcher| {
            let concerns = |cell: &&Cell| {
                counter::decides_value(&cell.field)
                    && cell.space == watcher.space
                    && cell.key.starts_with(&watcher.prefix)
            };
            cells.iter().filter(concerns).all(|cell| watcher.note(&cell.key)) && !watcher.sender.is_closed()
        });
    }
}

impl Watcher {
    /// Returns whether anybody still listens.
    fn note(&self, key: &Bytes) -> bool {
        match self.sender.try_send(key.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.lagged.store(true, Ordering::Release);
                true
            }
            Err(TrySendError::Closed(_)) => false,
        }
    }
}
