//! The libp2p behaviours of a node, and how each is set up.

use std::time::Duration;

use libp2p::allow_block_list::{self, BlockedPeers};
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::gossipsub::{
    self, ConfigBuilder, MessageAuthenticity, PeerScoreParams, PeerScoreThresholds, ValidationMode,
};
use libp2p::kad::{self, BucketInserts, Mode};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{StreamProtocol, autonat, dcutr, identify, mdns, memory_connection_limits, ping, relay, upnp};

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

fn gossip(identity: &Identity) -> Result<gossipsub::Behaviour, SetupError> {
    let failed = |error: &dyn std::fmt::Display| SetupError::Gossip(error.to_string());
    let config = ConfigBuilder::default()
        .validation_mode(ValidationMode::Strict)
        .validate_messages()
        .max_transmit_size(MAX_MESSAGE + 1024)
        .heartbeat_initial_delay(Duration::from_millis(100))
        .flood_publish(true)
        .build()
        .map_err(|error| failed(&error))?;
    let mut gossip =
        gossipsub::Behaviour::new(MessageAuthenticity::Signed(identity.keypair().clone()), config)
            .map_err(|error| failed(&error))?;
    // Members of a small swarm often share one address (a home's router, one machine), which is no sign of an attack.
    let scores = PeerScoreParams { ip_colocation_factor_weight: 0.0, ..PeerScoreParams::default() };
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
