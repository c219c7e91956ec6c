//! Cells of a space that memory has applied, on their way to what is made of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use starfish_memory::{Cell, Memory, Observer};
use tokio::sync::Notify;

/// Cells that wait to be read. Beyond this they are let go of, and all are to be read anew.
const MAX_WAITING: usize = 100_000;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Arrived {
    space: &'static str,
    waiting: Mutex<Waiting>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    cells: Vec<Cell>,
    too_many: bool,
}

impl Observer for Arrived {
    fn applied(&self, cells: &[Cell]) {
        // Most commits are of other spaces, and should not wait for whoever reads this one.
        let mut ours = cells.iter().filter(|cell| &*cell.space == self.space).peekable();
        if ours.peek().is_none() {
            return;
        }
        let mut waiting = self.lock();
        waiting.cells.extend(ours.cloned());
        if waiting.cells.len() > MAX_WAITING {
            waiting.cells.clear();
            waiting.too_many = true;
        }
        self.notify.notify_one();
    }
}

impl Arrived {
    /// Watches a space from now on.
    pub(crate) fn watch(memory: &Memory, space: &'static str) -> Arc<Self> {
        let arrived = Arc::new(Self { space, waiting: Mutex::default(), notify: Notify::new() });
        memory.observe(Arc::clone(&arrived) as Arc<dyn Observer>);
        arrived
    }

    /// All that has come since the last time; and whether it was too much, so that memory is to be read anew.
    pub(crate) fn take(&self) -> (Vec<Cell>, bool) {
        let Waiting { cells, too_many } = std::mem::take(&mut *self.lock());
        (cells, too_many)
    }

    /// Returns when something has come, or [`wake`](Self::wake) was called.
    pub(crate) async fn come(&self) {
        self.notify.notified().await;
    }

    /// Whoever waits should look.
    pub(crate) fn wake(&self) {
        self.notify.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
