//! Replication: the tasks that keep this replica and the others the same.
//!
//! Four tasks: deltas go out, deltas come in, peers that begin a comparison are answered, and this node begins
//! comparisons itself: with a peer that has just connected, with a few at once when something was too much for
//! gossip, and with one peer at random every few seconds. While there is news the rounds are short; between nodes
//! that agree they come every [`SLOWEST`] and take under 200 bytes.

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rand::{Rng, seq::IndexedRandom};
use starfish_dht::{AcceptError, Incoming, Network, NetworkEvent, NetworkStopped, OpenError, PeerId};
use tokio::{sync::broadcast, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    answer::answer,
    gossip::{self, Outbox},
    memory::Memory,
    reconcile::{self, Outcome, RoundError},
    wire::PROTOCOL,
};

/// Pause before the next round while there is news. Gossip carries news too, so this need not be shorter.
const FASTEST: Duration = Duration::from_millis(250);

/// A pause is at least this many times as long as the round before it: under a steady stream of writes two replicas
/// never quite agree, and comparing what is on its way by gossip anyway must not take the processor from it.
const REST: u32 = 10;

/// Pause between rounds when nobody has news. Each doubles the last one up to here.
const SLOWEST: Duration = Duration::from_secs(5);

/// Comparisons that this node has under way at once. Beyond this a new one is left to a later round.
const MAX_BEGUN: usize = 4;

/// Comparisons that this node answers at once, and of these a single peer's: one, and the fetching of a batch. Beyond
/// this, streams are dropped.
const MAX_ANSWERED: usize = 32;
const MAX_OF_A_PEER: usize = 2;

/// Peers that are asked at once when gossip could not carry everything.
const FANOUT: usize = 3;

/// How long stopping waits for what is under way.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// Why a memory cannot be replicated.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It is already joined to a network.
    #[error("the memory is already joined to a network")]
    AlreadyJoined,
    /// Comparisons cannot be answered.
    #[error("peers that compare notes cannot be answered")]
    Accept(#[from] AcceptError),
    /// Deltas cannot be heard.
    #[error("the network has stopped")]
    Stopped(#[from] NetworkStopped),
}

/// Replication under way. Ends when stopped or dropped.
#[derive(Debug)]
pub struct MemorySync {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl MemorySync {
    pub(crate) async fn start(memory: Memory, network: Network) -> Result<Self, JoinError> {
        let outbox = Outbox::open(&memory).ok_or(JoinError::AlreadyJoined)?;
        let incoming = network.accept(PROTOCOL)?;
        let deltas = network.subscribe(gossip::TOPIC).await?;

        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        spawn(&mut tasks, &stop, gossip::publish(outbox, network.clone()));
        spawn(&mut tasks, &stop, gossip::receive(memory.clone(), network.clone(), deltas));
        spawn(&mut tasks, &stop, serve(memory.clone(), incoming));
        spawn(&mut tasks, &stop, Rounds::new(memory, network).run());
        Ok(Self { stop, tasks })
    }

    /// Stops, and waits until the tasks have let go of the memory and the network.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_WITHIN, ended).await.is_err() {
            tracing::warn!("replication did not stop in time and was cut off");
        }
    }
}

fn spawn(tasks: &mut JoinSet<()>, stop: &CancellationToken, task: impl Future<Output = ()> + Send + 'static) {
    let stop = stop.clone();
    tasks.spawn(async move {
        stop.run_until_cancelled(task).await;
    });
}

/// Answers peers that begin a comparison, until the network stops.
async fn serve(memory: Memory, mut incoming: Incoming) {
    let places = Arc::new(Mutex::new(HashMap::new()));
    let mut answers = JoinSet::new();
    while let Some((peer, stream)) = incoming.next().await {
        while answers.try_join_next().is_some() {}
        let Some(place) = Place::take(&places, peer) else {
            tracing::debug!(%peer, "too many comparisons at once");
            continue;
        };
        let memory = memory.clone();
        answers.spawn(async move {
            if let Err(error) = answer(&memory, peer, stream).await {
                report(&peer, &error);
            }
            drop(place);
        });
    }
}

/// A peer's place among those who are answered, given back on drop.
struct Place {
    peer: PeerId,
    places: Places,
}

/// How many places each peer has taken.
type Places = Arc<Mutex<HashMap<PeerId, usize>>>;

impl Place {
    fn take(places: &Places, peer: PeerId) -> Option<Self> {
        let mut taken = places.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = taken.values().sum::<usize>() >= MAX_ANSWERED;
        let of_peer = taken.entry(peer).or_default();
        if is_full || *of_peer >= MAX_OF_A_PEER {
            return None;
        }
        *of_peer += 1;
        Some(Self { peer, places: places.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_peer) = taken.get_mut(&self.peer) {
            *of_peer -= 1;
        }
        taken.retain(|_, of_peer| *of_peer > 0);
    }
}

/// The comparisons that this node begins.
struct Rounds {
    memory: Memory,
    network: Network,
    under_way: JoinSet<Ended>,
    busy: HashSet<PeerId>,
    pause: Duration,
}

/// A comparison that is over.
struct Ended {
    peer: PeerId,
    /// `None` if it ended early.
    outcome: Option<Outcome>,
    took: Duration,
}

impl Rounds {
    fn new(memory: Memory, network: Network) -> Self {
        Self { memory, network, under_way: JoinSet::new(), busy: HashSet::new(), pause: FASTEST }
    }

    async fn run(mut self) {
        let mut events = self.network.events();
        let shared = self.memory.shared().clone();
        self.begin_with_some(FANOUT);
        let mut next = Instant::now() + self.pause;
        loop {
            tokio::select! {
                Some(ended) = self.under_way.join_next() => self.ended(ended.ok()),
                event = events.recv() => match event {
                    Ok(NetworkEvent::PeerConnected(peer)) => self.connected(peer),
                    // What was missed, the periodic rounds make up for.
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => continue,
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                () = shared.outbox.fell_behind() => {
                    self.pause = FASTEST;
                    self.begin_with_some(FANOUT);
                }
                () = tokio::time::sleep_until(next) => {
                    self.begin_with_some(1);
                    self.pause = SLOWEST.min(self.pause * 2);
                    next = Instant::now() + jittered(self.pause);
                    continue;
                }
            }
            next = next.min(Instant::now() + jittered(self.pause));
        }
    }

    /// Of two peers that meet, one begins; should that fail, the rounds that follow soon do it.
    fn connected(&mut self, peer: PeerId) {
        self.pause = FASTEST;
        if self.network.local_peer() < peer {
            self.begin(peer);
        }
    }

    fn ended(&mut self, round: Option<Ended>) {
        let Some(Ended { peer, outcome, took }) = round else {
            // A round that panicked does not say whose it was.
            tracing::error!("a comparison panicked");
            self.busy.clear();
            return;
        };
        self.busy.remove(&peer);
        if outcome == Some(Outcome::Exchanged) {
            self.pause = (took * REST).clamp(FASTEST, SLOWEST);
        }
    }

    fn begin_with_some(&mut self, n: usize) {
        let idle: Vec<PeerId> =
            self.network.connected().into_iter().filter(|peer| !self.busy.contains(peer)).collect();
        let chosen: Vec<PeerId> = idle.choose_multiple(&mut rand::rng(), n).copied().collect();
        chosen.into_iter().for_each(|peer| self.begin(peer));
    }

    fn begin(&mut self, peer: PeerId) {
        if self.under_way.len() >= MAX_BEGUN || !self.busy.insert(peer) {
            return;
        }
        let (memory, network) = (self.memory.clone(), self.network.clone());
        self.under_way.spawn(async move {
            let counters = &memory.shared().counters;
            let started = Instant::now();
            let outcome = round(&memory, &network, peer).await;
            match &outcome {
                Ok(Outcome::Agreed) => counters.sync_rounds_agreed.add(1),
                Ok(Outcome::Exchanged) => {}
                Err(error) => {
                    counters.sync_rounds_failed.add(1);
                    report(&peer, error);
                }
            }
            counters.sync_rounds.add(u64::from(outcome.is_ok()));
            Ended { peer, outcome: outcome.ok(), took: started.elapsed() }
        });
    }
}

/// Why a round of this node ended early.
#[derive(Debug, thiserror::Error)]
enum BeginError {
    #[error("the peer cannot be reached")]
    Open(#[from] OpenError),
    #[error(transparent)]
    Round(#[from] RoundError),
}

async fn round(memory: &Memory, network: &Network, peer: PeerId) -> Result<Outcome, BeginError> {
    let stream = network.open(peer, PROTOCOL).await?;
    Ok(reconcile::compare(memory, peer, stream).await?)
}

fn report(peer: &PeerId, error: &(dyn std::error::Error + 'static)) {
    let cause = error.source().map(tracing::field::display);
    tracing::debug!(%peer, %error, cause, "a comparison ended early");
}

/// Between three quarters and five quarters of `pause`, so that nodes do not fall into step.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.75..1.25))
}
