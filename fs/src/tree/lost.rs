//! Contents that lost against others, written by somebody who did not know of them: they become versions.
//!
//! Whoever replaces a content that he knows keeps it in the same batch, in a field named by its stamp. So where a content
//! loses and there is no such field, two have edited the file at once. Every node that held the loser sees that; after a
//! moment, in which the field may arrive after all, one of them writes it, and all have it then.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::Rng;
use tokio::sync::Notify;

use super::store::{Edits, TreeStore};
use super::version::Old;
use super::{Content, Inode, Stamp};
use crate::files::now_ms;
use crate::vfs::VfsError;

/// How long a node waits at the least before it keeps what lost; and at the most, so that not all do it at once.
const WAITS: std::ops::Range<Duration> = Duration::from_secs(1)..Duration::from_secs(4);
/// After a failure it is tried again so much later.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// Losers that wait. More are only met when two large swarms that were apart have edited more files than this, both.
const MAX_WAITING: usize = 100_000;

/// A content that lost.
#[derive(Clone, Debug)]
pub(crate) struct Loser {
    pub(crate) inode: Inode,
    pub(crate) stamp: Stamp,
    pub(crate) content: Content,
}

/// Those that wait, in the order in which they lost.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    waiting: Mutex<VecDeque<(Instant, Loser)>>,
    noted: Notify,
}

impl Lost {
    /// Takes note of one. Never waits.
    pub(crate) fn note(&self, loser: Loser) {
        let mut waiting = self.waiting();
        if waiting.len() >= MAX_WAITING {
            tracing::error!(inode = %loser.inode, "too many files were edited at once: a version of this one is not kept");
            return;
        }
        waiting.push_back((Instant::now() + rand::rng().random_range(WAITS), loser));
        self.noted.notify_one();
    }

    /// Whether there are any.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting().is_empty()
    }

    fn first(&self) -> Option<(Instant, Loser)> {
        self.waiting().front().cloned()
    }

    fn done(&self) {
        self.waiting().pop_front();
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<(Instant, Loser)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps what lost, for as long as it is polled.
pub(crate) async fn keep(tree: &TreeStore) {
    loop {
        let Some((at, loser)) = tree.lost().first() else {
            tree.lost().noted.notified().await;
            continue;
        };
        tokio::time::sleep_until(at.into()).await;
        match keep_one(tree, &loser).await {
            Ok(()) => tree.lost().done(),
            Err(error) => {
                tracing::warn!(%error, inode = %loser.inode, "a version of a file cannot be kept yet");
                tokio::time::sleep(TRY_AGAIN).await;
            }
        }
    }
}

async fn keep_one(tree: &TreeStore, loser: &Loser) -> Result<(), VfsError> {
    let Loser { inode, stamp, content } = loser;
    if tree.old(*inode).await?.iter().any(|(kept, _)| kept == stamp) {
        return Ok(());
    }
    let mode = tree.read().mode(*inode);
    let old = Old { content: content.clone(), mode, until_ms: now_ms() };
    let mut edits = Edits::default();
    edits.keep(*inode, *stamp, &old)?;
    tree.commit(edits).await?;
    tracing::info!(%inode, "two edited a file at once: the content that does not hold is kept as a version");
    Ok(())
}
