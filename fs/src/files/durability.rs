//! What is safe by now, and leaving.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use starfish_dht::PeerId;

use super::Files;
use super::desk::OpenDesk;
use crate::durable::Waiting;
use crate::handover::{self, HandoverError};
use crate::holders::Holders;
use crate::members::View;
use crate::path::VfsPath;
use crate::peers::serve::Desk;
use crate::peers::wire::Shortfall;

/// How long other members may take to say what they know.
const ASK_PATIENCE: Duration = Duration::from_secs(1);
/// The pause between two looks whether all that was written here has been sent.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How long what others refuse is offered to them again, ...
const HANDOVER_PATIENCE: Duration = Duration::from_secs(30);
/// ... and the pause in between.
const HANDOVER_RETRY: Duration = Duration::from_secs(1);

/// How far leaving is, in bytes of what this node keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// To be handed over.
    pub total: u64,
    /// Handed over, or not needed by the others.
    pub done: u64,
}

/// This node takes part again when its leaving is broken off.
struct Retiring<'a>(&'a OpenDesk);

impl Drop for Retiring<'_> {
    fn drop(&mut self) {
        self.0.set_retiring(false);
    }
}

impl Files {
    /// What of this node's own writes at or below `path` is not at full durability yet.
    pub fn waiting(&self, path: &VfsPath) -> Waiting {
        self.inner.publisher.waiting(path)
    }

    /// How many files of the whole swarm are below full durability, as far as the members that answer know.
    pub async fn shortfall(&self) -> Shortfall {
        let mut all = self.inner.desk.report();
        let mut asked: FuturesUnordered<_> = self
            .inner
            .desk
            .others()
            .into_iter()
            .map(|member| async move {
                tokio::time::timeout(ASK_PATIENCE, self.inner.peers.report(member.peer)).await
            })
            .collect();
        while let Some(answer) = asked.next().await {
            let Ok(Ok(report)) = answer else {
                all.looking += 1;
                continue;
            };
            all.looking = all.looking.saturating_add(report.looking);
            all.files = all.files.saturating_add(report.files);
            all.unreadable = all.unreadable.saturating_add(report.unreadable);
            for (why, files) in report.why {
                match all.why.iter_mut().find(|(known, _)| *known == why) {
                    Some((_, sum)) => *sum = sum.saturating_add(files),
                    None => all.why.push((why, files)),
                }
            }
        }
        all.why.sort_by_key(|(_, files)| std::cmp::Reverse(*files));
        all
    }

    /// Gives the others all that they need of what this node keeps, so that it can leave. Dropping the future stops it
    /// with nothing lost.
    pub async fn hand_over(&self) -> Result<(), HandoverError> {
        while self.waiting(&VfsPath::root()).files > 0 {
            if self.inner.desk.others().is_empty() {
                return Err(HandoverError::Alone);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        self.inner.desk.set_retiring(true);
        let _guard = Retiring(&self.inner.desk);
        let holders = Holders::new(self.inner.store.clone(), self.inner.peers.clone());
        let begun = Instant::now();
        loop {
            let others = View { alive: self.inner.desk.others(), ..View::default() };
            match handover::hand_over(&self.inner.store, &holders, &others, &self.inner.leaving).await {
                // Members that came or went a moment ago are not yet seen alike by all.
                Err(HandoverError::Refused { .. }) if begun.elapsed() < HANDOVER_PATIENCE => {
                    tokio::time::sleep(HANDOVER_RETRY).await;
                }
                ended => return ended,
            }
        }
    }

    /// How far [`Files::hand_over`] is.
    pub fn handover(&self) -> Handover {
        let load = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        Handover { total: load(&self.inner.leaving.total), done: load(&self.inner.leaving.done) }
    }

    /// Bytes that this node may still keep.
    pub fn room(&self) -> std::io::Result<u64> {
        self.inner.store.room()
    }

    /// Bytes that this node keeps, without what is only cached.
    pub fn kept_bytes(&self) -> u64 {
        self.inner.store.holdings().kept_bytes
    }

    /// Members that gave wrong bytes since the start, and how often.
    pub fn liars(&self) -> Vec<(PeerId, u32)> {
        self.inner.peers.scores().liars().collect()
    }

    /// Items that the disk was found to have damaged since the start.
    pub fn damaged(&self) -> u64 {
        self.inner.store.holdings().damaged
    }
}
