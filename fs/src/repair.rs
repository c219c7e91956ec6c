//! Keeping the promise when members come and go.
//!
//! Each file has a steward: the first of the living members in its rendezvous order, so that no two nodes mend the
//! same file for long. When the members change, a steward asks everybody what they hold of its files' segments,
//! decides ([`crate::mend`]) and has shards moved, made anew or dropped; the thinnest margin goes first, and all of it at
//! a bounded rate. A member that falls silent is waited for: until the grace time is over, only segments whose margin
//! is thin are mended.

mod work;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use starfish_dht::PeerId;

use crate::durable::{Job, Publisher};
use crate::gather::Segments;
use crate::hash::BlobHash;
use crate::holders::Holders;
use crate::manifest::Segment;
use crate::members::View;
use crate::path::VfsPath;
use crate::peers::Peers;
use crate::peers::serve::Desk;
use crate::peers::wire::Shortfall;
use crate::place::steward;
use crate::store::{Kind, Store};
use crate::tree::Inode;
use crate::tree::store::TreeStore;

/// How often the members are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Members must stay the same for so long before anything is moved: they often come several at once.
const SETTLE: Duration = Duration::from_secs(2);
/// Members must stay the same for so long, or for the grace time, before anything is dropped because it is too much for them: it may
/// be what the next ones need.
const STEADY: Duration = Duration::from_secs(30);
/// The pause after a pass that could not do all, and the first one after a pass that could.
const RETRY: Duration = Duration::from_secs(5);
/// All that was well is looked at again after so long, and then after ever longer pauses, each as many times the one
/// before: members do not see a change at one moment, so two may have taken themselves for the steward of one file, and
/// each have had dropped what the other relied on.
const LATER: u32 = 4;
/// Without any change, everything is looked at this often.
const EVERY: Duration = Duration::from_secs(3600);
/// Segments that are surveyed at once.
const BATCH: usize = 512;
/// Files that a pass remembers as not at full durability; beyond that it only counts.
const MAX_REASONS: usize = 32;

/// How repair goes about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// How long a silent member is waited for.
    pub(crate) grace: Duration,
    /// Bytes per second that are moved or made.
    pub(crate) rate: u64,
}

/// The worker. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Repair {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    peers: Peers,
    holders: Holders,
    segments: Segments,
    tree: TreeStore,
    publisher: Publisher,
    desk: Arc<dyn Desk>,
    pace: Pace,
    /// When this node may conclude from not having heard of a member that it is gone.
    knows_all_from: Instant,
    last: Mutex<Report>,
}

/// What the last pass found.
#[derive(Clone, Debug, Default)]
struct Report {
    below: u64,
    unreadable: u64,
    why: BTreeMap<String, u64>,
    is_complete: bool,
    /// Of these members, unless they have changed while it looked.
    of: Option<View>,
}

/// What a pass may do.
#[derive(Clone, Copy, Debug)]
struct Scope {
    /// It mends whatever the promise needs; otherwise only what is about to be lost, since somebody may come back.
    mends_all: bool,
    /// It drops what is too much.
    drops: bool,
}

impl std::fmt::Debug for Repair {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Repair").finish_non_exhaustive()
    }
}

impl Repair {
    pub(crate) fn new(
        (store, peers): (Store, Peers),
        segments: Segments,
        tree: TreeStore,
        publisher: Publisher,
        desk: Arc<dyn Desk>,
        pace: Pace,
    ) -> Self {
        // A node that holds nothing has just come, and nobody is missed yet.
        let is_new = store.holdings().kept == 0;
        let knows_all_from = Instant::now() + if is_new { Duration::ZERO } else { pace.grace };
        let last = Mutex::default();
        let holders = Holders::new(store.clone(), peers.clone());
        let inner =
            Inner { store, peers, holders, segments, tree, publisher, desk, pace, knows_all_from, last };
        Self { inner: Arc::new(inner) }
    }

    /// Files that this node looks after and found below full durability.
    pub(crate) fn shortfall(&self) -> Shortfall {
        let last = self.last();
        Shortfall {
            files: last.below,
            unreadable: last.unreadable,
            looking: u64::from(last.of.as_ref() != Some(&self.inner.desk.view())),
            why: last.why.iter().map(|(why, n)| (why.clone(), *n)).collect(),
        }
    }

    /// Mends, for as long as it is polled.
    pub(crate) async fn run(&self) {
        let mut seen = View::default();
        let mut changed = Instant::now();
        let mut due = Some(Instant::now());
        let mut pause = RETRY;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let view = self.inner.desk.view();
            if view != seen {
                if view.alive.len() > seen.alive.len() {
                    self.finish_alone().await;
                }
                seen = view;
                changed = Instant::now();
                pause = RETRY;
                due = Some(changed + SETTLE.min(self.inner.pace.grace));
            }
            // Who leaves hands over by itself.
            if due.is_none_or(|due| Instant::now() < due) || !seen.leaving.is_empty() {
                continue;
            }
            self.inner.peers.tidy();
            let steady_from = changed + STEADY.min(self.inner.pace.grace);
            let scope = Scope { mends_all: self.knows_all(&seen), drops: Instant::now() >= steady_from };
            let mut report = self.pass(&seen, scope).await;
            tracing::debug!(below = report.below, ?scope, after = ?changed.elapsed(), "looked after files");
            let is_done = report.is_complete && scope.mends_all;
            report.of = Some(seen.clone());
            *self.last() = report;
            if is_done && !scope.drops {
                due = Some(steady_from);
            } else if is_done {
                due = Some(Instant::now() + pause);
                pause = pause.saturating_mul(LATER).min(EVERY);
            } else {
                due = Some(Instant::now() + RETRY);
                pause = RETRY;
            }
        }
    }

    /// Whether nobody may come back who holds what seems to be missing.
    fn knows_all(&self, view: &View) -> bool {
        view.away.is_empty() && (Instant::now() >= self.inner.knows_all_from || self.are_all_there(view))
    }

    /// Whether all who have a replica of the tree are alive: then nobody can be missed, however short this node has run.
    fn are_all_there(&self, view: &View) -> bool {
        let replicas = self.inner.tree.replicas();
        let alive: HashSet<PeerId> = view.peers().chain(view.leaving.iter().copied()).collect();
        replicas
            .is_ok_and(|replicas| !replicas.is_empty() && replicas.iter().all(|peer| alive.contains(peer)))
    }

    /// What was written while this node was alone, or was not sent before it stopped, is sent once somebody is there.
    async fn finish_alone(&self) {
        let unfinished = self.unfinished().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot tell what is still to be sent");
            HashSet::new()
        });
        if unfinished.is_empty() {
            return;
        }
        for (inode, _) in self.all_files() {
            let Ok(Some(mut left)) = self.segments_of(inode).await else { continue };
            left.retain(|segment| unfinished.contains(&segment.hash));
            if !left.is_empty() {
                let names = self.inner.tree.read().chain(inode);
                self.inner.publisher.add(Job { path: VfsPath::root(), segments: left, names });
            }
        }
    }

    /// Segments that are whole here because they are not at full durability, and that nobody is about to send.
    async fn unfinished(&self) -> std::io::Result<HashSet<BlobHash>> {
        let (mut unfinished, mut after) = (HashSet::new(), None);
        loop {
            let page = self.inner.store.page(Kind::Whole, after, BATCH).await?;
            let Some((last, _)) = page.last() else { return Ok(unfinished) };
            after = Some(*last);
            let kept = page.iter().filter(|(_, meta)| !meta.is_cached).map(|(hash, _)| *hash);
            unfinished.extend(kept.filter(|hash| !self.inner.publisher.is_waiting(hash)));
        }
    }

    fn all_files(&self) -> Vec<(Inode, BlobHash)> {
        self.inner.tree.read().files().collect()
    }

    /// Looks at all files that are this node's to look after.
    async fn pass(&self, view: &View, scope: Scope) -> Report {
        let local = self.inner.peers.local();
        let alive: Vec<PeerId> = view.peers().collect();
        let mut report = Report { is_complete: true, ..Report::default() };
        let mut batch = Vec::new();
        let mut n_segments = 0;
        for (inode, hash) in self.all_files() {
            if steward(&hash, alive.iter()) != Some(&local) {
                continue;
            }
            match self.segments_of(inode).await {
                Ok(Some(segments)) => {
                    n_segments += segments.len();
                    batch.push(segments);
                }
                Ok(None) => {}
                Err(why) => report.note(why, true),
            }
            if n_segments >= BATCH {
                self.mend(std::mem::take(&mut batch), view, scope, &mut report).await;
                n_segments = 0;
            }
        }
        self.mend(batch, view, scope, &mut report).await;
        report
    }

    /// The segments of all that is kept of a file, manifests among them; `None` if there are none.
    async fn segments_of(&self, inode: Inode) -> Result<Option<Vec<Segment>>, String> {
        crate::files::all_segments_of(&self.inner.tree, inode, &self.inner.segments).await
    }

    fn last(&self) -> MutexGuard<'_, Report> {
        self.inner.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Report {
    fn note(&mut self, why: String, is_unreadable: bool) {
        self.below += 1;
        self.unreadable += u64::from(is_unreadable);
        self.is_complete = false;
        if self.why.len() < MAX_REASONS || self.why.contains_key(&why) {
            *self.why.entry(why).or_default() += 1;
        }
    }
}
