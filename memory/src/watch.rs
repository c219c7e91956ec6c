//! Watching keys: what is there, then what changes.
//!
//! The writer only notes *which* key, field or member has changed; the watcher reads what it is now when it gets there. So
//! a watcher never sees values go backwards, several quick changes may show as one, and a slow watcher costs a bounded queue. What has changed lately stays in a log for all ([`crate::changes`]): from there a watcher goes on that was
//! too slow or away for a while. What is older than the log begins is missed: the watcher is told so
//! ([`Event::Lagged`]) and starts over from a new snapshot.

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
    cell::SpaceName,
    changes::{Changed, Cursor, Place},
    space::{Space, told::SnapshotPlace, told::place_of},
    store::ReadError,
    value::Value,
};

/// Changes that wait for a watcher, before it goes on from the log.
const MAX_BEHIND: usize = 1024;

/// Events of the snapshot that are made at once.
const SNAPSHOT_PAGE: usize = 256;

/// What a watcher sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The key has this value now.
    Value {
        /// The key.
        key: Bytes,
        /// What it is worth.
        value: Value,
    },
    /// The key has no value any more: it was deleted, or its time is over. Its fields and members are told one by one.
    Deleted {
        /// The key.
        key: Bytes,
    },
    /// The key's field has this value now.
    Field {
        /// The key.
        key: Bytes,
        /// The field.
        field: Bytes,
        /// Its value.
        value: Value,
    },
    /// The key has no such field any more.
    FieldDeleted {
        /// The key.
        key: Bytes,
        /// The field.
        field: Bytes,
    },
    /// The key has this member now.
    Member {
        /// The key.
        key: Bytes,
        /// The member.
        member: Bytes,
    },
    /// The key does not have this member any more.
    MemberRemoved {
        /// The key.
        key: Bytes,
        /// The member.
        member: Bytes,
    },
    /// The snapshot is complete; what follows are changes.
    Live,
    /// Changes were missed. A new snapshot follows: what is not in it is gone.
    Lagged,
}

/// Follows the keys with a prefix. See [`Space::watch`].
#[derive(Debug)]
pub struct Watch {
    space: Space,
    prefix: Bytes,
    changed: mpsc::Receiver<(u64, Place)>,
    overflowed: Arc<AtomicBool>,
    /// Changes that the log has told, and that are still to be seen.
    recalled: VecDeque<(u64, Place)>,
    snapshot: Option<Snapshot>,
    is_lagged: bool,
    /// All changes up to here have been seen.
    cursor: Cursor,
}

/// How far the snapshot has been handed out.
#[derive(Debug)]
struct Snapshot {
    page: VecDeque<Event>,
    /// Where the next page begins; `None` at the end.
    next: Option<SnapshotPlace>,
}

impl Snapshot {
    fn begin() -> Self {
        Self { page: VecDeque::new(), next: Some(SnapshotPlace::default()) }
    }
}

impl Watch {
    pub(crate) fn new(space: Space, prefix: Bytes) -> Self {
        let (changed, overflowed, cursor) = register(&space, &prefix);
        let (recalled, snapshot) = (VecDeque::new(), Some(Snapshot::begin()));
        Self { space, prefix, changed, overflowed, recalled, snapshot, is_lagged: false, cursor }
    }

    pub(crate) fn resume(space: Space, prefix: Bytes, cursor: Cursor) -> Self {
        // First the changes to come, then those of the log: some are seen twice rather than not at all.
        let (changed, overflowed, _) = register(&space, &prefix);
        let (recalled, snapshot) = (VecDeque::new(), None);
        let mut watch =
            Self { space, prefix, changed, overflowed, recalled, snapshot, is_lagged: false, cursor };
        watch.recall();
        watch
    }

    /// Where to go on with [`Space::watch_from`] after the events seen so far; `None` while the snapshot lasts.
    pub fn cursor(&self) -> Option<Cursor> {
        (self.snapshot.is_none() && !self.is_lagged).then_some(self.cursor)
    }

    /// The next event. Nothing is lost if the future is dropped before it is ready. `None` ends the watch: the store
    /// cannot be read.
    pub async fn next(&mut self) -> Option<Event> {
        self.step().await.inspect_err(|error| tracing::error!(%error, "a watch ends")).ok()
    }

    async fn step(&mut self) -> Result<Event, ReadError> {
        loop {
            if self.overflowed.swap(false, Ordering::AcqRel) {
                while self.changed.try_recv().is_ok() {}
                if self.snapshot.is_none() {
                    self.recall();
                } else {
                    self.is_lagged = true;
                }
            }
            if std::mem::take(&mut self.is_lagged) {
                self.recalled.clear();
                self.cursor = self.space.memory().shared().watchers.now();
                self.snapshot = Some(Snapshot::begin());
                return Ok(Event::Lagged);
            }
            if let Some(event) = self.step_snapshot().await? {
                return Ok(event);
            }
            let next = match self.recalled.pop_front() {
                Some(next) => Some(next),
                // The writer, which holds the other end, lives as long as the space in `self`.
                None => self.changed.recv().await,
            };
            let Some((number, place)) = next else { return std::future::pending().await };
            // The log may have told it already.
            if number <= self.cursor.number {
                continue;
            }
            self.cursor.number = number;
            return self.space.now_at(place).await;
        }
    }

    /// Takes from the log what has changed since the cursor.
    fn recall(&mut self) {
        let since = self.space.memory().shared().watchers.since(self.space.name(), &self.prefix, self.cursor);
        match since {
            Some(changes) => self.recalled = changes,
            None => self.is_lagged = true,
        }
    }

    async fn step_snapshot(&mut self) -> Result<Option<Event>, ReadError> {
        let Some(snapshot) = &mut self.snapshot else { return Ok(None) };
        // A page may hold nothing but what was deleted.
        while snapshot.page.is_empty()
            && let Some(place) = snapshot.next.clone()
        {
            let (page, next) = self.space.told_from(&self.prefix, place, SNAPSHOT_PAGE).await?;
            (snapshot.page, snapshot.next) = (page.into(), next);
        }
        let event = snapshot.page.pop_front();
        if event.is_none() {
            self.snapshot = None;
        }
        Ok(Some(event.unwrap_or(Event::Live)))
    }
}

type Registered = (mpsc::Receiver<(u64, Place)>, Arc<AtomicBool>, Cursor);

/// First the changes, then the snapshot: what happens in between is seen twice rather than not at all.
fn register(space: &Space, prefix: &Bytes) -> Registered {
    let (sender, changed) = mpsc::channel(MAX_BEHIND);
    let overflowed = Arc::new(AtomicBool::new(false));
    let watcher = Watcher {
        space: space.name().clone(),
        prefix: prefix.clone(),
        sender,
        overflowed: overflowed.clone(),
    };
    let cursor = space.memory().shared().watchers.add(watcher);
    (changed, overflowed, cursor)
}

/// Everybody who watches, and what has changed lately.
#[derive(Debug, Default)]
pub(crate) struct Watchers(Mutex<Room>);

#[derive(Debug, Default)]
struct Room {
    watchers: Vec<Watcher>,
    log: Changed,
}

#[derive(Debug)]
struct Watcher {
    space: SpaceName,
    prefix: Bytes,
    sender: mpsc::Sender<(u64, Place)>,
    overflowed: Arc<AtomicBool>,
}

impl Watchers {
    /// Returns the place in the log from which the watcher is told.
    fn add(&self, watcher: Watcher) -> Cursor {
        let mut room = self.room();
        room.watchers.push(watcher);
        room.log.now()
    }

    fn now(&self) -> Cursor {
        self.room().log.now()
    }

    fn since(&self, space: &SpaceName, prefix: &[u8], cursor: Cursor) -> Option<VecDeque<(u64, Place)>> {
        self.room().log.since(space, prefix, cursor)
    }

    /// Notes that a cell has changed. Never waits for a watcher.
    pub(crate) fn note(&self, space: &SpaceName, key: &Bytes, field: &Bytes) {
        let Some(place) = place_of(key, field) else { return };
        let mut room = self.room();
        let number = room.log.note(space, &place);
        room.watchers.retain(|watcher| {
            let concerns = watcher.space == *space && key.starts_with(&watcher.prefix);
            if concerns { watcher.note(number, &place) } else { !watcher.sender.is_closed() }
        });
    }

    fn room(&self) -> std::sync::MutexGuard<'_, Room> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watcher {
    /// Returns whether anybody still listens.
    fn note(&self, number: u64, place: &Place) -> bool {
        match self.sender.try_send((number, place.clone())) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.overflowed.store(true, Ordering::Release);
                true
            }
            Err(TrySendError::Closed(_)) => false,
        }
    }
}
