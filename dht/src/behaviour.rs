//! The libp2p behaviours of a node, and how each is set up.

use std::time::Duration;

use libp2p::allow_block_list::{self, BlockedPeers};
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::gossipsub::{
    self, ConfigBuilder, MessageAuthenticity, MessageId, PeerScoreParams, PeerScoreThresholds, ValidationMode,
};
use libp2p::kad::{self, BucketInserts, Mode};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{
    PeerId, StreamProtocol, autonat, dcutr, identify, mdns, memory_connection_limits, ping, relay, upnp,
};

use crate::config::NetworkConfig;
use crate::gossip::MAX_MESSAGE;
use crate::identity::Identity;
use crate::records::Records;
use crate::streams::{self, Protocols};

/// Our own name, so that a node never joins a public DHT.
const KADEMLIA: StreamProtocol = StreamProtocol::new("/starfish/kad/1");
const IDENTIFY: &str = "/starfish/1";
/// Connections that may be half set up at once. Above it newcomers are turned away at once, so that a crowd
/// that connects and stays silent (for the gate's five seconds) costs memory for this many and no more.
const MAX_PENDING_INCOMING: u32 = 1_024;
const MAX_PENDING_OUTGOING: u32 = 256;
/// Established connections: a swarm of some hundreds, each with at most two (QUIC and, for a moment, another).
const MAX_ESTABLISHED: u32 = 1_024;
const MAX_ESTABLISHED_PER_PEER: u32 = 4;
/// Above this share of the machine's memory, new connections are refused.
const MAX_MEMORY_SHARE: f64 = 0.5;
/// Bytes of a gossiped message's name: enough that no two are alike.
const ID_BYTES: usize = 16;
/// Names in one list. The list must fit into one transmission (libp2p takes lists of 16 KiB, and makes longer ones unless told
/// not to): one that does not closes the stream, and after five of them two nodes gossip no more until they are connected anew.
const MAX_IDS: usize = 800;
/// The most bytes of gossip that may wait to be read. libp2p holds all that has come of a stream against the limit of one
/// message (gossipsub 0.50, `validate_rpc_limits`): a message with its envelope and topic, and the step of 8 KiB in which it
/// reads on. With less, long messages that follow each other close the stream as lists that are too long do.
const MAX_TRANSMIT: usize = MAX_MESSAGE + 1024 + (8 << 10);
/// How often a connection is checked, and how long an answer may take.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(8);
/// What a member that relays gives to two others: libp2p's default is 128 KiB and two minutes, enough for
/// signalling only.
const RELAY_BYTES: u64 = 16 << 30;
const RELAY_TIME: Duration = Duration::from_secs(24 * 3600);

/// Everything that listens to the connections of one node.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) limits: connection_limits::Behaviour,
    pub(crate) memory_limits: memory_connection_limits::Behaviour,
    pub(crate) blocked: allow_block_list::Behaviour<BlockedPeers>,
    pub(crate) streams: streams::Behaviour,
    pub(crate) kademlia: kad::Behaviour<Records>,
    pub(crate) gossip: gossipsub::Behaviour,
    pub(crate) identify: identify::Behaviour,
    pub(crate) ping: ping::Behaviour,
    pub(crate) relay_client: relay::client::Behaviour,
    pub(crate) relay_server: Toggle<relay::Behaviour>,
    pub(crate) hole_punch: dcutr::Behaviour,
    pub(crate) reachability: autonat::v2::client::Behaviour,
    pub(crate) reachability_server: autonat::v2::server::Behaviour,
    pub(crate) lan: Toggle<mdns::tokio::Behaviour>,
    pub(crate) router: Toggle<upnp::tokio::Behaviour>,
}

/// A behaviour could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Gossipsub refused its configuration.
    #[error("cannot set up gossip: {0}")]
    Gossip(String),
    /// The LAN could not be listened to.
    #[error("cannot set up discovery on the local network; mdns = false turns it off")]
    Lan(#[source] std::io::Error),
    /// The folder for what is kept of peers could not be made.
    #[error("cannot make {path}")]
    Folder {
        /// The folder.
        path: std::path::PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Noise refused the key.
    #[error("cannot set up encryption: {0}")]
    Encryption(String),
    /// An address could not be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address.
        address: libp2p::Multiaddr,
        /// What the system said.
        reason: String,
    },
}

impl Behaviour {
    pub(crate) fn new(
        identity: &Identity,
        config: &NetworkConfig,
        relay_client: relay::client::Behaviour,
        records: Records,
        protocols: Protocols,
    ) -> Result<Self, SetupError> {
        let peer = identity.peer_id();
        let lan = config
            .mdns
            .then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), peer))
            .transpose()
            .map_err(SetupError::Lan)?;
        Ok(Self {
            limits: connection_limits::Behaviour::new(connection_limits()),
            memory_limits: memory_connection_limits::Behaviour::with_max_percentage(MAX_MEMORY_SHARE),
            blocked: allow_block_list::Behaviour::default(),
            streams: streams::Behaviour::new(protocols),
            kademlia: kademlia(identity, records),
            gossip: gossip(identity)?,
            identify: identify::Behaviour::new(
                identify::Config::new(IDENTIFY.to_owned(), identity.keypair().public())
                    .with_agent_version(concat!("starfish/", env!("CARGO_PKG_VERSION")).to_owned())
                    .with_push_listen_addr_updates(true),
            ),
            ping: ping::Behaviour::new(
                ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIMEOUT),
            ),
            relay_client,
            relay_server: config.relay_server.then(|| relay::Behaviour::new(peer, relay_config())).into(),
            hole_punch: dcutr::Behaviour::new(peer),
            reachability: autonat::v2::client::Behaviour::default(),
            reachability_server: autonat::v2::server::Behaviour::default(),
            lan: lan.into(),
            router: config.upnp.then(upnp::tokio::Behaviour::default).into(),
        })
    }
}

fn connection_limits() -> ConnectionLimits {
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(MAX_PENDING_INCOMING))
        .with_max_pending_outgoing(Some(MAX_PENDING_OUTGOING))
        .with_max_established(Some(MAX_ESTABLISHED))
        .with_max_established_per_peer(Some(MAX_ESTABLISHED_PER_PEER))
}

fn kademlia(identity: &Identity, records: Records) -> kad::Behaviour<Records> {
    let mut config = kad::Config::new(KADEMLIA);
    config.set_kbucket_inserts(BucketInserts::OnConnected);
    config.set_query_timeout(Duration::from_secs(10));
    let mut kademlia = kad::Behaviour::with_config(identity.peer_id(), records, config);
    // Left alone it stays a client until some address is confirmed from outside, which on a LAN is never.
    kademlia.set_mode(Some(Mode::Server));
    kademlia
}

/// Names a message by who said it and when. Short, since lists of names are what is sent where messages were missed.
fn message_id(message: &gossipsub::Message) -> MessageId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&message.source.map(PeerId::to_bytes).unwrap_or_default());
    hasher.update(&message.sequence_number.unwrap_or_default().to_be_bytes());
    MessageId::new(&hasher.finalize().as_bytes()[..ID_BYTES])
}

fn gossip_config() -> Result<gossipsub::Config, gossipsub::ConfigBuilderError> {
    ConfigBuilder::default()
        .validation_mode(ValidationMode::Strict)
        .validate_messages()
        .max_transmit_size(MAX_TRANSMIT)
        .message_id_fn(message_id)
        .max_control_messages_sent(MAX_IDS)
        .heartbeat_initial_delay(Duration::from_millis(100))
        .flood_publish(true)
        .build()
}

fn gossip(identity: &Identity) -> Result<gossipsub::Behaviour, SetupError> {
    let failed = |error: &dyn std::fmt::Display| SetupError::Gossip(error.to_string());
    let config = gossip_config().map_err(|error| failed(&error))?;
    let mut gossip =
        gossipsub::Behaviour::new(MessageAuthenticity::Signed(identity.keypair().clone()), config)
            .map_err(|error| failed(&error))?;
    // Members of a small swarm often share one address (a home's router, one machine), which is no sign of an attack.
    // Nor is it one to be slower than somebody who writes much: it would be sent nothing for a minute.
    let scores = PeerScoreParams {
        ip_colocation_factor_weight: 0.0,
        slow_peer_weight: 0.0,
        ..PeerScoreParams::default()
    };
    gossip.with_peer_score(scores, PeerScoreThresholds::default()).map_err(|error| failed(&error))?;
    Ok(gossip)
}

fn relay_config() -> relay::Config {
    relay::Config {
        max_circuit_bytes: RELAY_BYTES,
        max_circuit_duration: RELAY_TIME,
        ..relay::Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_list_of_names_fits_into_one_transmission() {
        let config = gossip_config().unwrap();
        let message = gossipsub::Message {
            source: Some(PeerId::random()),
            data: Vec::new(),
            sequence_number: Some(u64::MAX),
            topic: gossipsub::IdentTopic::new("topic").hash(),
        };
        // Two bytes go in front of each, and the longest topic in front of all.
        let each = config.message_id(&message).0.len() + 2;
        let list = config.max_control_messages_sent() * each + 1024;
        assert!(list <= config.max_control_message_size(), "{list}");
        assert!(list <= config.max_transmit_size(), "{list}");
    }
}
