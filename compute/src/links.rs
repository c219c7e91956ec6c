//! The service's side of the network: gossip in and out, peers that come and go, and what others ask.

use std::sync::Arc;
use std::time::Duration;

use starfish_dht::{AcceptError, Network, NetworkEvent, NetworkStopped, PeerId};
use tokio::sync::{broadcast, mpsc};
use tracing::{debug, warn};

use crate::notice::Bulletin;
use crate::protocol::{BOARD_PROTOCOL, JOBS_TOPIC, KILL_PROTOCOL, REPORT_PROTOCOL, TASK_PROTOCOL};
use crate::report::JobReport;
use crate::service::Service;
use crate::task::{JobId, Outcome};

/// How often the board is told the time. A lost node or a due announcement is noticed this much late.
const TICK_EVERY: Duration = Duration::from_millis(250);
/// Notices taken from one peer's whole bulletin: what a board keeps, with some room.
const MAX_NOTICES: usize = 5000;

/// Why a service cannot talk to the network.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Somebody else serves its protocol.
    #[error("cannot serve")]
    Accept(#[from] AcceptError),
    /// The network has stopped.
    #[error(transparent)]
    Stopped(#[from] NetworkStopped),
}

/// Starts all of it; it ends with the service.
pub(crate) async fn start(service: &Arc<Service>, unsaid: mpsc::Receiver<Bulletin>) -> Result<(), LinkError> {
    let network = service.network.clone();
    answer_questions(service, &network)?;
    let mut claims = network.accept(TASK_PROTOCOL)?;
    let mut heard = network.subscribe(JOBS_TOPIC).await?;
    service.spawn(say(network.clone(), unsaid));
    let this = Arc::clone(service);
    service.spawn(async move {
        while let Some((peer, stream)) = claims.next().await {
            let serving = Arc::clone(&this);
            this.spawn(serving.serve(peer, stream));
        }
    });
    let this = Arc::clone(service);
    service.spawn(async move {
        while let Some(gossip) = heard.next().await {
            match Bulletin::decode(&gossip.data) {
                Some(_) if !this.may_compute(&gossip.author) => {
                    debug!(author = %gossip.author, "jobs of a node that may not compute");
                }
                Some(bulletin) => this.happen(|board, now| board.hear(now, gossip.author, bulletin)),
                None => debug!(author = %gossip.author, "gossip about jobs that makes no sense"),
            }
        }
    });
    let this = Arc::clone(service);
    service.spawn(follow_peers(this, network.events()));
    let this = Arc::clone(service);
    service.spawn(async move {
        let mut ticks = tokio::time::interval(TICK_EVERY);
        loop {
            ticks.tick().await;
            this.happen(|board, now| board.tick(now));
            this.pool.end_idle();
        }
    });
    Ok(())
}

/// What other nodes may ask a keeper: its bulletin, about a job, to end a job.
fn answer_questions(service: &Arc<Service>, network: &Network) -> Result<(), AcceptError> {
    let this = Arc::downgrade(service);
    network.serve(BOARD_PROTOCOL, move |_, (): ()| {
        let bulletin = this.upgrade().map(|service| service.board().bulletin());
        async move { bulletin }
    })?;
    let this = Arc::downgrade(service);
    network.serve(REPORT_PROTOCOL, move |_, id: JobId| {
        let report = this.upgrade().and_then(|service| service.report(&id));
        async move { report }
    })?;
    let this = Arc::downgrade(service);
    network.serve(KILL_PROTOCOL, move |peer, id: JobId| {
        let known = this.upgrade().is_some_and(|service| {
            debug!(%peer, job = %id, "a peer asks for the end of a job");
            service.may_compute(&peer) && service.kill(id)
        });
        async move { known }
    })
}

impl Service {
    /// Ends a job that this node keeps; says whether there is one.
    pub(crate) fn kill(self: &Arc<Self>, id: JobId) -> bool {
        self.happen(|board, now| board.stop(now, id, Outcome::Killed));
        self.board().job(&id).is_some()
    }

    /// All about a job that another node keeps.
    pub(crate) async fn ask_about(
        &self,
        keeper: PeerId,
        id: JobId,
    ) -> Result<Option<JobReport>, starfish_dht::CallError> {
        self.network.call(keeper, REPORT_PROTOCOL, &id).await
    }

    /// Asks another node to end a job that it keeps; says whether it knows it.
    pub(crate) async fn ask_to_kill(
        &self,
        keeper: PeerId,
        id: JobId,
    ) -> Result<bool, starfish_dht::CallError> {
        self.network.call(keeper, KILL_PROTOCOL, &id).await
    }
}

async fn say(network: Network, mut unsaid: mpsc::Receiver<Bulletin>) {
    while let Some(bulletin) = unsaid.recv().await {
        let Ok(message) = bulletin.encode() else { continue };
        if let Err(error) = network.publish(JOBS_TOPIC, message).await {
            debug!(%error, "an announcement was not sent");
        }
    }
}

/// Tells the board who is there, and asks newcomers what they keep.
async fn follow_peers(service: Arc<Service>, mut events: broadcast::Receiver<NetworkEvent>) {
    for peer in service.network.connected() {
        meet(&service, peer);
    }
    let mut known: Vec<PeerId> = Vec::new();
    loop {
        match events.recv().await {
            Ok(NetworkEvent::PeerConnected(peer)) => meet(&service, peer),
            Ok(NetworkEvent::PeerDisconnected(peer)) => {
                service.happen(|board, now| board.peer_gone(now, peer))
            }
            Err(broadcast::error::RecvError::Closed) => return,
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                warn!(missed, "missed news of peers, looking again");
                let connected = service.network.connected();
                for peer in known.iter().filter(|peer| !connected.contains(peer)) {
                    service.happen(|board, now| board.peer_gone(now, *peer));
                }
                connected.into_iter().for_each(|peer| meet(&service, peer));
            }
        }
        known = service.board().peers().collect();
    }
}

fn meet(service: &Arc<Service>, peer: PeerId) {
    service.happen(|board, now| board.peer_connected(now, peer));
    let this = Arc::clone(service);
    service.spawn(async move {
        let bulletin: Result<Option<Bulletin>, _> = this.network.call(peer, BOARD_PROTOCOL, &()).await;
        match bulletin {
            Ok(Some(bulletin)) if bulletin.notices.len() <= MAX_NOTICES && this.may_compute(&peer) => {
                this.happen(|board, now| board.hear(now, peer, bulletin));
            }
            Ok(_) => {}
            Err(error) => debug!(%peer, %error, "a new peer does not say what it keeps"),
        }
    });
}
