//! Whether memory has news of a space that were not read yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use starfish_memory::{Cell, Memory, Observer};

/// Set by every commit that touches a space, wherever it was made.
#[derive(Debug)]
pub(crate) struct Unread {
    space: &'static str,
    is_unread: AtomicBool,
}

impl Observer for Unread {
    fn applied(&self, cells: &[Cell]) {
        if cells.iter().any(|cell| &*cell.space == self.space) {
            self.again();
        }
    }
}

impl Unread {
    /// Watches a space from now on; what is in it already is news, too.
    pub(crate) fn watch(memory: &Memory, space: &'static str) -> Arc<Self> {
        let unread = Arc::new(Self { space, is_unread: AtomicBool::new(true) });
        memory.observe(Arc::clone(&unread) as Arc<dyn Observer>);
        unread
    }

    /// Whether there are news. To be taken before memory is read, so that what is written meanwhile is read the next time.
    pub(crate) fn take(&self) -> bool {
        self.is_unread.swap(false, Ordering::AcqRel)
    }

    /// What was taken could not be read.
    pub(crate) fn again(&self) {
        self.is_unread.store(true, Ordering::Release);
    }
}
