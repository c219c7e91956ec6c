//! The handle that everybody above holds: calls, streams, gossip, and who is there.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use libp2p::multiaddr::Protocol;
use libp2p::swarm::{Config as SwarmConfig, DialError};
use libp2p::{Multiaddr, PeerId, Swarm, relay};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};

use crate::behaviour::{Behaviour, SetupError};
use crate::config::NetworkConfig;
use crate::content::ContentError;
use crate::gossip::{MAX_MESSAGE, PublishError, Subscription};
use crate::identity::Identity;
use crate::membership::{Credentials, Revocations, Rights};
use crate::presence::{Beacon, Member, Presence};
use crate::records::Records;
use crate::rpc::{CallError, MAX_FRAME, MessageError, read_message, write_message};
use crate::streams::{AcceptError, Incoming, Open, OpenError, Protocols, Stream};
use crate::swarm::{Actor, Command};
use crate::transport;
use crate::transport::gate::{Farewell, Gate};

/// Commands that wait for the actor; callers beyond it wait themselves.
const COMMAND_QUEUE: usize = 256;
/// Events that a slow listener may lag behind before it misses some.
const EVENT_QUEUE: usize = 1_024;
/// How long a call may take, both messages together.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long opening a stream may take, a dial included.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Calls of one protocol that are answered at once; further ones wait.
const MAX_CONCURRENT_CALLS: usize = 128;
/// Dial failures that are remembered for `starfish up --join` to explain itself.
const MAX_DIAL_FAILURES: usize = 64;

/// A cheap handle of a running network. When the last handle is dropped, the network stops.
#[derive(Clone)]
pub struct Network {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

/// Something that happened to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkEvent {
    /// The first connection to a member is up.
    PeerConnected(PeerId),
    /// The last connection to a member is gone.
    PeerDisconnected(PeerId),
}

/// The connection to one peer.
#[derive(Clone, Debug)]
pub struct Link {
    /// The other end.
    pub address: Multiaddr,
    /// The latest round trip, once measured.
    pub round_trip: Option<Duration>,
}

impl Link {
    /// Whether the connection goes over another member.
    pub fn is_relayed(&self) -> bool {
        self.address.iter().any(|part| part == Protocol::P2pCircuit)
    }
}

/// The network has stopped.
#[derive(Debug, thiserror::Error)]
#[error("the network has stopped")]
pub struct NetworkStopped;

/// What the actor and its handles both see.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) local: PeerId,
    pub(crate) identity: Identity,
    pub(crate) gate: Gate,
    pub(crate) protocols: Protocols,
    pub(crate) presence: RwLock<Presence>,
    pub(crate) links: RwLock<HashMap<PeerId, Link>>,
    pub(crate) events: broadcast::Sender<NetworkEvent>,
    addresses: RwLock<Addresses>,
    dial_failures: RwLock<HashMap<PeerId, String>>,
    farewells: RwLock<HashMap<PeerId, Farewell>>,
    /// Whether another member ever passed the gate, now or before a restart.
    pub(crate) has_met: AtomicBool,
}

/// Where this node can be reached.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    listen: Vec<Multiaddr>,
    external: Vec<Multiaddr>,
}

impl Addresses {
    pub(crate) fn add_listen(&mut self, address: Multiaddr) {
        if !self.listen.contains(&address) {
            self.listen.push(address);
        }
    }

    pub(crate) fn remove_listen(&mut self, address: &Multiaddr) {
        self.listen.retain(|known| known != address);
    }

    pub(crate) fn add_external(&mut self, address: Multiaddr) {
        if !self.external.contains(&address) {
            self.external.push(address);
        }
    }

    pub(crate) fn remove_external(&mut self, address: &Multiaddr) {
        self.external.retain(|known| known != address);
    }
}

/// An address without the id of the peer that is there, which some say with it and some do not.
pub fn without_peer(mut address: Multiaddr, peer: &PeerId) -> Multiaddr {
    if address.iter().last() == Some(Protocol::P2p(*peer)) {
        address.pop();
    }
    address
}

impl Shared {
    pub(crate) fn change_addresses(&self, change: impl FnOnce(&mut Addresses)) {
        change(&mut self.addresses.write().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn note_round_trip(&self, peer: PeerId, round_trip: Duration) {
        if let Some(link) = self.links.write().unwrap_or_else(PoisonError::into_inner).get_mut(&peer) {
            link.round_trip = Some(round_trip);
        }
    }

    pub(crate) fn note_dial_failure(&self, peer: PeerId, error: &DialError) {
        let mut failures = self.dial_failures.write().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= MAX_DIAL_FAILURES {
            failures.clear();
        }
        failures.insert(peer, error.to_string());
    }

    pub(crate) fn note_farewell(&self, peer: PeerId, farewell: Farewell) {
        let mut farewells = self.farewells.write().unwrap_or_else(PoisonError::into_inner);
        if farewells.len() < MAX_DIAL_FAILURES || farewells.contains_key(&peer) {
            farewells.insert(peer, farewell);
        }
    }

    pub(crate) fn forget_dial_failure(&self, peer: &PeerId) {
        self.dial_failures.write().unwrap_or_else(PoisonError::into_inner).remove(peer);
        self.farewells.write().unwrap_or_else(PoisonError::into_inner).remove(peer);
    }
}

impl Network {
    /// Starts listening and dialling. Whoever connects must be of the swarm that `credentials` belong to.
    pub fn start(
        identity: Identity,
        credentials: &Credentials,
        revocations: Revocations,
        config: &NetworkConfig,
    ) -> Result<Self, SetupError> {
        if let Some(data) = &config.data {
            std::fs::create_dir_all(data)
                .map_err(|source| SetupError::Folder { path: data.clone(), source })?;
        }
        let local = identity.peer_id();
        let gate = Gate::new(local, credentials, revocations);
        let (relay_transport, relay_client) = relay::client::new(local);
        let build = if config.in_memory { transport::memory } else { transport::network };
        let transport = build(&identity, relay_transport, gate.clone())
            .map_err(|error| SetupError::Encryption(error.to_string()))?;
        let records = Records::open(local, config.data.as_ref().map(|data| data.join("providers")));
        let protocols = Protocols::default();
        let behaviour = Behaviour::new(&identity, config, relay_client, records, protocols.clone())?;
        // Connections are kept by the streams behaviour; the idle timeout is only the time before it is asked.
        let swarm_config = SwarmConfig::with_tokio_executor().with_smart_dial();
        let mut swarm = Swarm::new(transport, behaviour, local, swarm_config);
        listen(&mut swarm, config)?;

        let (commands, receiver) = mpsc::channel(COMMAND_QUEUE);
        let shared = Arc::new(Shared {
            local,
            identity,
            gate,
            protocols,
            presence: RwLock::default(),
            links: RwLock::default(),
            events: broadcast::channel(EVENT_QUEUE).0,
            addresses: RwLock::default(),
            dial_failures: RwLock::default(),
            farewells: RwLock::default(),
            has_met: AtomicBool::new(false),
        });
        let book = config.data.as_ref().map(|data| data.join("peers"));
        tokio::spawn(Actor::new(swarm, shared.clone(), receiver, book).run());
        Ok(Self { shared, commands })
    }

    /// Closes all connections and ends every service; returns when that is done.
    pub async fn stop(&self) {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Stop { reply }).await.is_ok() {
            let _ = answer.await;
        }
    }

    /// This node's name.
    pub fn local_peer(&self) -> PeerId {
        self.shared.local
    }

    /// This node's key, to sign with.
    pub fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    /// Asks `peer` and waits for its answer, ten seconds at the most. Both messages fit [`MAX_FRAME`].
    pub async fn call<Q: Serialize, R: DeserializeOwned>(
        &self,
        peer: PeerId,
        protocol: &'static str,
        request: &Q,
    ) -> Result<R, CallError> {
        let failed = |source| CallError::Message { peer, protocol, source };
        let exchange = async {
            let mut stream = self.open(peer, protocol).await?;
            write_message(&mut stream, request).await.map_err(failed)?;
            stream.shutdown().await.map_err(MessageError::Io).map_err(failed)?;
            read_message(&mut stream, MAX_FRAME).await.map_err(failed)
        };
        let seconds = CALL_TIMEOUT.as_secs();
        tokio::time::timeout(CALL_TIMEOUT, exchange).await.unwrap_or(Err(CallError::TimedOut {
            peer,
            protocol,
            seconds,
        }))
    }

    /// Answers calls of `protocol` with `handler` until the network stops.
    pub fn serve<Q, R, F, Fut>(&self, protocol: &'static str, handler: F) -> Result<(), AcceptError>
    where
        Q: DeserializeOwned + Send,
        R: Serialize + Send + Sync,
        F: Fn(PeerId, Q) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = R> + Send + 'static,
    {
        let mut incoming = self.accept(protocol)?;
        let handler = Arc::new(handler);
        let slots = Arc::new(Semaphore::new(MAX_CONCURRENT_CALLS));
        tokio::spawn(async move {
            while let Some((peer, stream)) = incoming.next().await {
                let Ok(slot) = slots.clone().acquire_owned().await else { break };
                let handler = handler.clone();
                tokio::spawn(async move {
                    let answered = tokio::time::timeout(CALL_TIMEOUT, answer(peer, stream, &*handler)).await;
                    if !matches!(answered, Ok(Ok(()))) {
                        tracing::debug!(%peer, protocol, ?answered, "a call was not answered");
                    }
                    drop(slot);
                });
            }
        });
        Ok(())
    }

    /// Opens a stream to `peer`, dialling it first when needed.
    pub async fn open(&self, peer: PeerId, protocol: &'static str) -> Result<Stream, OpenError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Open(Open { peer, protocol, reply });
        self.commands.send(command).await.map_err(|_| OpenError::Stopped)?;
        match tokio::time::timeout(OPEN_TIMEOUT, answer).await {
            Ok(Ok(outcome)) => outcome,
            // Whoever drops the request without a word is a connection that closed.
            Ok(Err(_)) => Err(OpenError::Unreachable { peer }),
            Err(_) => Err(OpenError::Io { peer, source: std::io::ErrorKind::TimedOut.into() }),
        }
    }

    /// Takes over inbound streams of `protocol`.
    pub fn accept(&self, protocol: &'static str) -> Result<Incoming, AcceptError> {
        self.shared.protocols.accept(protocol)
    }

    /// Announces `data` to all who subscribed to `topic`. No promise of delivery; with nobody to tell it is fine too.
    pub async fn publish(&self, topic: &'static str, data: Vec<u8>) -> Result<(), PublishError> {
        if data.len() > MAX_MESSAGE {
            return Err(PublishError::TooLong(data.len()));
        }
        let (reply, answer) = oneshot::channel();
        let command = Command::Publish { topic, data, reply };
        self.commands.send(command).await.map_err(|_| PublishError::Stopped)?;
        answer.await.unwrap_or(Err(PublishError::Stopped))
    }

    /// Receives the announcements on `topic` from now on, this node's own excepted.
    pub async fn subscribe(&self, topic: &'static str) -> Result<Subscription, NetworkStopped> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Subscribe { topic, reply }).await.map_err(|_| NetworkStopped)?;
        answer.await.map_err(|_| NetworkStopped)
    }

    /// Tells the DHT that this node holds `key`, now and every twelve hours until [`Network::stop_providing`].
    pub async fn provide(&self, key: [u8; 32]) -> Result<(), ContentError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Provide { key, reply }).await.map_err(|_| ContentError::Stopped)?;
        answer.await.unwrap_or(Err(ContentError::Stopped))
    }

    /// Announces `key` no longer; records already out expire.
    pub async fn stop_providing(&self, key: [u8; 32]) {
        let _ = self.commands.send(Command::StopProviding { key }).await;
    }

    /// Who announced `key`, as far as the DHT can tell.
    pub async fn providers(&self, key: [u8; 32]) -> Result<Vec<PeerId>, ContentError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Providers { key, reply }).await.map_err(|_| ContentError::Stopped)?;
        answer.await.map_err(|_| ContentError::Stopped)
    }

    /// The members connected now.
    pub fn connected(&self) -> Vec<PeerId> {
        self.shared.links.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Whether `peer` is connected now.
    pub fn is_connected(&self, peer: &PeerId) -> bool {
        self.shared.links.read().unwrap_or_else(PoisonError::into_inner).contains_key(peer)
    }

    /// The connection to `peer`, if there is one.
    pub fn link(&self, peer: &PeerId) -> Option<Link> {
        self.shared.links.read().unwrap_or_else(PoisonError::into_inner).get(peer).cloned()
    }

    /// Connections coming and going from now on.
    pub fn events(&self) -> broadcast::Receiver<NetworkEvent> {
        self.shared.events.subscribe()
    }

    /// All other members known, alive or not.
    pub fn members(&self) -> Vec<Member> {
        self.shared.presence.read().unwrap_or_else(PoisonError::into_inner).members(Instant::now())
    }

    /// What `peer` was allowed when it was last let in; nothing if it never was.
    pub fn rights_of(&self, peer: &PeerId) -> Rights {
        self.shared.gate.rights_of(peer)
    }

    /// Where this node can be dialled, best first, without its PeerId.
    pub fn addresses(&self) -> Vec<Multiaddr> {
        let addresses = self.shared.addresses.read().unwrap_or_else(PoisonError::into_inner);
        let (loopback, others): (Vec<_>, Vec<_>) = addresses.listen.iter().cloned().partition(is_loopback);
        let mut all = addresses.external.clone();
        for address in others.into_iter().chain(loopback) {
            if !all.contains(&address) {
                all.push(address);
            }
        }
        all
    }

    /// Dials members at addresses that end in `/p2p/<PeerId>`, now and again until they answer.
    pub async fn dial(&self, addresses: Vec<Multiaddr>) {
        let _ = self.commands.send(Command::Dial { addresses }).await;
    }

    /// Why the last dial to `peer` failed, if it did.
    pub fn dial_failure(&self, peer: &PeerId) -> Option<String> {
        self.shared.dial_failures.read().unwrap_or_else(PoisonError::into_inner).get(peer).cloned()
    }

    /// Why the last dial failed, of every peer of whom it did, members or not.
    pub fn dial_failures(&self) -> Vec<(PeerId, String)> {
        let failures = self.shared.dial_failures.read().unwrap_or_else(PoisonError::into_inner);
        failures.iter().map(|(peer, error)| (*peer, error.clone())).collect()
    }

    /// Members that turned this node away when they were dialled last, and why they did. Only those are listed whose
    /// word counts: who was a member before, or is named by a ticket.
    pub fn farewells(&self) -> Vec<(PeerId, Farewell)> {
        let farewells = self.shared.farewells.read().unwrap_or_else(PoisonError::into_inner);
        farewells.iter().map(|(peer, farewell)| (*peer, *farewell)).collect()
    }

    /// Whether another member was ever reached, since the start or before it.
    pub fn has_met_others(&self) -> bool {
        self.shared.has_met.load(Ordering::Relaxed)
    }

    /// Shows another pass at the gate from now on.
    pub fn renew(&self, credentials: &Credentials) {
        self.shared.gate.set_pass(credentials.pass().clone());
    }

    /// The set that the gate asks; after adding to it call [`Network::enforce_revocations`].
    pub fn revocations(&self) -> &Revocations {
        self.shared.gate.revocations()
    }

    /// Disconnects whoever has been revoked since it was let in.
    pub async fn enforce_revocations(&self) {
        let _ = self.commands.send(Command::EnforceRevocations).await;
    }

    /// Refuses every connection with `peer` until it is unblocked; others go on talking to it.
    pub async fn block(&self, peer: PeerId) {
        let _ = self.commands.send(Command::Block { peer }).await;
    }

    /// Ends a [`Network::block`].
    pub async fn unblock(&self, peer: PeerId) {
        let _ = self.commands.send(Command::Unblock { peer }).await;
    }

    /// Forgets a member that left for good.
    pub async fn forget(&self, peer: PeerId) {
        let _ = self.commands.send(Command::Forget { peer }).await;
    }

    pub(crate) async fn learn(&self, peer: PeerId, beacon: Beacon) {
        let _ = self.commands.send(Command::Learn { peer, beacon: Box::new(beacon) }).await;
    }

    pub(crate) fn presence(&self) -> &RwLock<Presence> {
        &self.shared.presence
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Network").field("local", &self.shared.local).finish_non_exhaustive()
    }
}

fn listen(swarm: &mut Swarm<Behaviour>, config: &NetworkConfig) -> Result<(), SetupError> {
    for address in config.listen.iter().chain(&config.relays) {
        let mut address = address.clone();
        if config.relays.contains(&address) {
            address.push(Protocol::P2pCircuit);
        }
        swarm
            .listen_on(address.clone())
            .map_err(|error| SetupError::Listen { address, reason: reason(&error) })?;
    }
    for address in &config.external {
        swarm.add_external_address(address.clone());
    }
    Ok(())
}

/// The errors of a chain that say something: the outermost of libp2p says nothing.
fn reason(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    let mut said: Vec<String> = chain.map(ToString::to_string).filter(|text| !text.is_empty()).collect();
    said.dedup();
    said.join(": ")
}

async fn answer<Q, R, F, Fut>(peer: PeerId, mut stream: Stream, handler: &F) -> Result<(), MessageError>
where
    Q: DeserializeOwned,
    R: Serialize,
    F: Fn(PeerId, Q) -> Fut,
    Fut: Future<Output = R>,
{
    let request = read_message(&mut stream, MAX_FRAME).await?;
    let response = handler(peer, request).await;
    write_message(&mut stream, &response).await?;
    Ok(stream.shutdown().await?)
}

fn is_loopback(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_loopback(),
        Some(Protocol::Ip6(ip)) => ip.is_loopback(),
        _ => false,
    }
}
