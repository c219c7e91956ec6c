//! Carries [`presence`](crate::presence) over the network: beacons by gossip, and the whole table between two that meet.
//!
//! A beacon is signed by its author, so it can be passed on by anybody. Gossip may lose some; the exchange at every new
//! connection is what a newcomer learns the swarm from.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use libp2p::PeerId;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;

use crate::identity::verify;
use crate::network::{Network, NetworkEvent};
use crate::presence::{BEACON_EVERY, Beacon, Capacity, Heard, MAX_ADDRESSES};

const TOPIC: &str = "presence";
const EXCHANGE: &str = "/starfish/presence/1";
/// What the signature covers begins with this, so that no other signed message can pass as a beacon.
const CONTEXT: &[u8] = b"starfish presence 1";
/// Beacons taken from one exchange.
const MAX_EXCHANGED: usize = 4_096;

/// Tells what this node has to offer at the moment.
pub type CapacitySource = Arc<dyn Fn() -> Capacity + Send + Sync>;

/// Announces this node and listens to others until dropped.
#[derive(Debug)]
pub struct Beacons {
    network: Network,
    heard: Arc<Mutex<HashMap<PeerId, Signed>>>,
    author: Arc<Author>,
    tasks: JoinSet<()>,
}

/// A beacon as its author signed it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Signed {
    author: PeerId,
    beacon: Vec<u8>,
    signature: Vec<u8>,
}

struct Author {
    network: Network,
    zone: String,
    capacity: CapacitySource,
    sequence: Mutex<u64>,
    retiring: AtomicBool,
}

impl std::fmt::Debug for Author {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Author").field("zone", &self.zone).finish_non_exhaustive()
    }
}

impl Beacons {
    /// Starts announcing.
    pub async fn start(
        network: &Network,
        zone: String,
        capacity: CapacitySource,
    ) -> Result<Self, BeaconError> {
        let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let author = Arc::new(Author {
            network: network.clone(),
            zone,
            capacity,
            sequence: Mutex::new(u64::try_from(start).unwrap_or(u64::MAX / 2)),
            retiring: AtomicBool::new(false),
        });
        let mut beacons = Self {
            network: network.clone(),
            heard: Arc::default(),
            author: author.clone(),
            tasks: JoinSet::new(),
        };
        let table = beacons.listener();
        network.serve(EXCHANGE, move |_, theirs: Vec<Signed>| {
            let table = table.clone();
            async move {
                table.hear_all(theirs).await;
                table.all()
            }
        })?;
        beacons.announce();
        beacons.listen().await?;
        beacons.exchange_with_newcomers();
        Ok(beacons)
    }

    /// Tells everybody that this node leaves for good.
    pub async fn say_leaving(&self) {
        let signed = self.author.sign(true);
        let _ = self.network.publish(TOPIC, postcard::to_stdvec(&signed).unwrap_or_default()).await;
    }

    /// Tells everybody whether this node is going to leave.
    pub async fn say_retiring(&self, retiring: bool) {
        self.author.retiring.store(retiring, Ordering::Relaxed);
        let signed = self.author.sign(false);
        let _ = self.network.publish(TOPIC, postcard::to_stdvec(&signed).unwrap_or_default()).await;
    }

    fn announce(&mut self) {
        let author = self.author.clone();
        self.tasks.spawn(async move {
            let mut tick = tokio::time::interval(BEACON_EVERY);
            loop {
                tick.tick().await;
                let signed = author.sign(false);
                let published =
                    author.network.publish(TOPIC, postcard::to_stdvec(&signed).unwrap_or_default()).await;
                if let Err(error) = published {
                    tracing::debug!(%error, "beacon not sent");
                }
            }
        });
    }

    async fn listen(&mut self) -> Result<(), BeaconError> {
        let mut subscription = self.network.subscribe(TOPIC).await.map_err(|_| BeaconError::Stopped)?;
        let table = self.listener();
        self.tasks.spawn(async move {
            while let Some(gossip) = subscription.next().await {
                match postcard::from_bytes(&gossip.data) {
                    Ok(signed) => table.hear(signed).await,
                    Err(_) => tracing::debug!(author = %gossip.author, "malformed beacon"),
                }
            }
        });
        Ok(())
    }

    fn exchange_with_newcomers(&mut self) {
        let table = self.listener();
        let mut events = self.network.events();
        self.tasks.spawn(async move {
            loop {
                match events.recv().await {
                    Ok(NetworkEvent::PeerConnected(peer)) => {
                        let table = table.clone();
                        tokio::spawn(async move { table.exchange(peer).await });
                    }
                    Ok(NetworkEvent::PeerDisconnected(_)) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => break,
                }
            }
        });
    }

    fn listener(&self) -> Listener {
        Listener { network: self.network.clone(), heard: self.heard.clone(), author: self.author.clone() }
    }
}

/// The service could not be started.
#[derive(Debug, thiserror::Error)]
pub enum BeaconError {
    /// It runs already.
    #[error(transparent)]
    Accept(#[from] crate::streams::AcceptError),
    /// The network has stopped.
    #[error("the network has stopped")]
    Stopped,
}

#[derive(Clone)]
struct Listener {
    network: Network,
    heard: Arc<Mutex<HashMap<PeerId, Signed>>>,
    author: Arc<Author>,
}

impl Listener {
    async fn hear(&self, signed: Signed) {
        let Signed { author, beacon: bytes, signature } = &signed;
        let author = *author;
        if author == self.network.local_peer() || self.network.revocations().is_peer_revoked(&author) {
            return;
        }
        let Ok(beacon) = postcard::from_bytes::<Beacon>(bytes) else { return };
        if !verify(&author, &[CONTEXT, bytes].concat(), signature) {
            tracing::debug!(%author, "beacon with a wrong signature");
            return;
        }
        let leaving = beacon.leaving;
        let heard = self.network.presence().write().unwrap_or_else(PoisonError::into_inner).hear(
            author,
            beacon.clone(),
            Instant::now(),
        );
        if heard == Heard::Stale {
            return;
        }
        if leaving {
            tracing::info!(peer = %author, "left the swarm");
            self.heard.lock().unwrap_or_else(PoisonError::into_inner).remove(&author);
            self.network.forget(author).await;
            return;
        }
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(author, signed);
        self.network.learn(author, beacon).await;
    }

    async fn hear_all(&self, beacons: Vec<Signed>) {
        for signed in beacons.into_iter().take(MAX_EXCHANGED) {
            self.hear(signed).await;
        }
    }

    /// What this node says to one that it meets: itself, and everybody it has heard of and holds alive.
    fn all(&self) -> Vec<Signed> {
        let alive =
            self.network.members().into_iter().filter(|member| member.alive).map(|member| member.peer);
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let others = alive.filter_map(|peer| heard.get(&peer).cloned());
        std::iter::once(self.author.sign(false)).chain(others).take(MAX_EXCHANGED).collect()
    }

    async fn exchange(&self, peer: PeerId) {
        match self.network.call::<_, Vec<Signed>>(peer, EXCHANGE, &self.all()).await {
            Ok(theirs) => self.hear_all(theirs).await,
            Err(error) => tracing::debug!(%peer, %error, "no exchange of who is there"),
        }
    }
}

impl Author {
    fn sign(&self, leaving: bool) -> Signed {
        let sequence = {
            let mut sequence = self.sequence.lock().unwrap_or_else(PoisonError::into_inner);
            *sequence = sequence.saturating_add(1);
            *sequence
        };
        let mut addresses = self.network.addresses();
        addresses.truncate(MAX_ADDRESSES);
        let beacon = Beacon {
            sequence,
            addresses,
            capacity: (self.capacity)(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            zone: self.zone.clone(),
            leaving,
            retiring: self.retiring.load(Ordering::Relaxed),
        };
        let beacon = postcard::to_stdvec(&beacon).unwrap_or_default();
        let signature = self.network.identity().sign(&[CONTEXT, &beacon].concat());
        Signed { author: self.network.local_peer(), beacon, signature }
    }
}
