//! What this node tells others about its files, and how it sees the members.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use starfish_dht::Network;
use starfish_dht::presence::Member;

use crate::durable::Publisher;
use crate::members::View;
use crate::path::VfsPath;
use crate::peers::serve::Desk;
use crate::peers::wire::Shortfall;
use crate::place::Candidate;
use crate::repair::Repair;
use crate::tree::store::TreeStore;
use crate::tree::{Inode, Stamp};

/// The desk of a node whose files are open.
pub(super) struct OpenDesk {
    network: Network,
    tree: TreeStore,
    zone: String,
    grace: Duration,
    /// Set once the workers are made, which need the desk themselves, and until they end.
    workers: Mutex<Option<(Publisher, Repair)>>,
    /// This node is giving what it holds to others, and must not be given anything.
    retiring: AtomicBool,
}

impl OpenDesk {
    pub(super) fn new(network: Network, tree: TreeStore, zone: String, grace: Duration) -> Self {
        Self { network, tree, zone, grace, workers: Mutex::default(), retiring: AtomicBool::new(false) }
    }

    pub(super) fn set_workers(&self, workers: Option<(Publisher, Repair)>) {
        *self.workers.lock().unwrap_or_else(PoisonError::into_inner) = workers;
    }

    pub(super) fn set_retiring(&self, retiring: bool) {
        self.retiring.store(retiring, Ordering::Relaxed);
    }

    /// The other members that are alive.
    pub(super) fn others(&self) -> Vec<Candidate> {
        let local = self.network.local_peer();
        let mut alive = self.view().alive;
        alive.retain(|member| member.peer != local);
        alive
    }
}

impl Desk for OpenDesk {
    fn view(&self) -> View {
        let local = Candidate { peer: self.network.local_peer(), zone: self.zone.clone() };
        let mut view = View::of(local, &self.members(), self.grace);
        if self.retiring.load(Ordering::Relaxed) {
            view.leaving.push(self.network.local_peer());
        }
        view
    }

    fn members(&self) -> Vec<Member> {
        self.network.members()
    }

    fn knows(&self, inode: &Inode, stamp: Stamp) -> bool {
        self.tree.read().knows(*inode, stamp)
    }

    fn flush(&self) -> BoxFuture<'_, bool> {
        Box::pin(async {
            let flushed = self.tree.flush().await;
            flushed.inspect_err(|error| tracing::warn!(%error, "the tree is not on the disk")).is_ok()
        })
    }

    fn report(&self) -> Shortfall {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some((publisher, repair)) = workers else { return Shortfall::default() };
        let mut report = repair.shortfall();
        let waiting = publisher.waiting(&VfsPath::root());
        if waiting.files > 0 {
            report.files += waiting.files;
            report.why.push((waiting.why.unwrap_or_else(|| "being sent".to_owned()), waiting.files));
        }
        report
    }
}
