//! From "on this disk" to "at full durability": the segments that this node wrote are cut, coded and given to others.
//!
//! A file is at full durability when any half of the members that are alive may vanish, and its segments can still
//! be decoded ([`crate::place`]) and every member that is left has its name. Until then this node keeps its segments
//! whole; what was not finished is found again after a restart by that alone.
//!
//! [`queue`] is what waits (pure), [`round`] sends some segments, this file runs them.

mod queue;
mod round;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use starfish_dht::PeerId;
use tokio::sync::Notify;

pub(crate) use queue::Job;
use queue::Queue;
pub use queue::Waiting;
use round::{Round, Sent};

use crate::hash::BlobHash;
use crate::holders::Holders;
use crate::manifest::Segment;
use crate::members::{View, faltering, may_be_cut_off};
use crate::path::VfsPath;
use crate::peers::Peers;
use crate::peers::serve::Desk;
use crate::store::Store;
use crate::tree::{Inode, Stamp};

/// Rounds on their way at once: while one is sent, the next is coded.
const ROUNDS: usize = 2;
/// The pause before what could not be placed is tried again.
const RETRY: Duration = Duration::from_millis(300);
/// The pause between two questions whether everybody has seen a file's name.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// After this long, a member that has not seen a name does not hold the rest up, if most have.
const NAME_PATIENCE: Duration = Duration::from_secs(3);
/// How long a member that had no room is not asked.
const FULL_FOR: Duration = Duration::from_secs(30);
/// Names that are asked about at once.
const MAX_NAMES: usize = 1024;

/// Gives what this node wrote to others. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Publisher {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    peers: Peers,
    holders: Holders,
    desk: Arc<dyn Desk>,
    queue: Mutex<Queue>,
    work: Notify,
    full: Mutex<HashMap<PeerId, Instant>>,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Publisher").finish_non_exhaustive()
    }
}

impl Publisher {
    pub(crate) fn new(store: Store, peers: Peers, desk: Arc<dyn Desk>) -> Self {
        let holders = Holders::new(store.clone(), peers.clone());
        let (queue, work, full) = (Mutex::default(), Notify::new(), Mutex::default());
        Self { inner: Arc::new(Inner { store, peers, holders, desk, queue, work, full }) }
    }

    /// A file was written here.
    pub(crate) fn add(&self, job: Job) {
        self.queue().add(job);
        self.inner.work.notify_one();
    }

    /// What is not at full durability yet of this node's writes, at or below a path.
    pub(crate) fn waiting(&self, path: &VfsPath) -> Waiting {
        self.queue().waiting(path)
    }

    /// Sends what waits, for as long as it is polled.
    pub(crate) async fn run(&self) {
        let mut rounds = FuturesUnordered::new();
        loop {
            let view = self.inner.desk.view();
            // What would be durable for who is left would not be for those who are back in a moment.
            if rounds.is_empty() && may_be_cut_off(&self.inner.desk.members()) {
                tokio::time::sleep(RETRY).await;
                continue;
            }
            while rounds.len() < ROUNDS {
                // Short files come one by one. While some are on their way others are gathered: a round costs every
                // holder a wait for its disk, however little it carries.
                let segments = match rounds.is_empty() {
                    true => self.queue().take_round(),
                    false => self.queue().take_full_round(),
                };
                if segments.is_empty() {
                    break;
                }
                rounds.push(self.send(segments, view.clone()));
            }
            if rounds.is_empty() {
                if self.confirm(&view).await {
                    continue;
                }
                self.inner.work.notified().await;
                continue;
            }
            tokio::select! {
                Some(()) = rounds.next() => {}
                () = self.inner.work.notified() => {}
            }
        }
    }

    /// Sends some segments and notes what became of them.
    async fn send(&self, segments: Vec<Segment>, view: View) {
        // Alone there is nobody to give anything to: it is as durable as can be, and stays whole.
        if view.alive.len() == 1 {
            return self.queue().sent(&segments, None);
        }
        let round =
            Round { store: &self.inner.store, holders: &self.inner.holders, view: &view, full: self.full() };
        let outcome = round.send(&segments).await;
        let failed: Vec<&Sent> = outcome.iter().filter(|sent| sent.why.is_some()).collect();
        let why = failed.first().and_then(|sent| sent.why.clone());
        let done: Vec<Segment> =
            outcome.iter().filter(|sent| sent.why.is_none()).map(|sent| sent.segment).collect();
        self.queue().sent(&done, None);
        for sent in &outcome {
            self.note_full(&sent.full);
        }
        if let Some(why) = why {
            tracing::debug!(segments = failed.len(), %why, "not at full durability yet");
            let failed: Vec<Segment> = failed.iter().map(|sent| sent.segment).collect();
            tokio::time::sleep(RETRY).await;
            self.queue().sent(&failed, Some(why));
        }
    }

    /// Asks everybody whether they have the names of the files whose segments are all placed. Whether anything was to
    /// be asked.
    async fn confirm(&self, view: &View) -> bool {
        let (jobs, since) = self.queue().unconfirmed(MAX_NAMES);
        if jobs.is_empty() {
            return false;
        }
        // Files of one directory share the names above them.
        let names: Vec<(Inode, Stamp)> = jobs
            .iter()
            .flat_map(|(_, names)| names.iter().copied())
            .collect::<HashSet<_>>()
            .into_iter()
            .collect();
        let mut others: Vec<PeerId> = view.peers().filter(|peer| *peer != self.inner.peers.local()).collect();
        // Who fell silent just now may be back before the name is.
        others.extend(faltering(&self.inner.desk.members()));
        let asked = others.iter().map(async |peer| {
            let asked = self.inner.peers.known(*peer, &names);
            tokio::time::timeout(NAME_PATIENCE, asked).await.ok()?.ok()
        });
        let answers = futures::future::join_all(asked).await;
        let is_late = since.elapsed() > NAME_PATIENCE;
        let is_known = |position: usize| {
            let n = answers.iter().flatten().filter(|known| known[position]).count();
            n == others.len() || (n >= view.alive.len() / 2 && is_late)
        };
        let known: HashSet<(Inode, Stamp)> = names
            .iter()
            .enumerate()
            .filter(|(position, _)| is_known(*position))
            .map(|(_, name)| *name)
            .collect();
        let is_done = |names: &[(Inode, Stamp)]| names.iter().all(|name| known.contains(name));
        let done: Vec<u64> = jobs.iter().filter(|(_, names)| is_done(names)).map(|(job, _)| *job).collect();
        self.queue().confirmed(&done);
        if done.len() < jobs.len() {
            tokio::time::sleep(ASK_AGAIN).await;
        }
        true
    }

    /// Members that had no room a short while ago.
    fn full(&self) -> Vec<PeerId> {
        let mut full = self.inner.full.lock().unwrap_or_else(PoisonError::into_inner);
        full.retain(|_, since| since.elapsed() < FULL_FOR);
        full.keys().copied().collect()
    }

    fn note_full(&self, peers: &[PeerId]) {
        let mut full = self.inner.full.lock().unwrap_or_else(PoisonError::into_inner);
        full.extend(peers.iter().map(|peer| (*peer, Instant::now())));
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.inner.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a segment waits to be sent from here.
    pub(crate) fn is_waiting(&self, segment: &BlobHash) -> bool {
        self.queue().is_waiting(segment)
    }
}
