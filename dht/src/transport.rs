//! How bytes reach a peer: QUIC, TCP with Noise and Yamux, circuits over a relay, or memory in tests.
//!
//! Whatever the way, a connection comes out of here only after the [`gate`].

pub(crate) mod gate;

use std::time::Duration;

use futures::future::Either;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, MemoryTransport, OrTransport};
use libp2p::core::upgrade::Version;
use libp2p::{PeerId, Transport, noise, quic, relay, tcp, yamux};

use crate::identity::Identity;
use gate::Gate;

/// How long setting up encryption and multiplexing may take over TCP and relays.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// Keep-alive and idle time of QUIC, in milliseconds: a peer that vanished without a word is noticed after six
/// seconds, for one small packet every two.
const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(2);
const QUIC_IDLE_MS: u32 = 6_000;
/// Streams that one peer may have open towards us, on QUIC and on Yamux.
const MAX_STREAMS: u16 = 1_024;

/// A connection that passed the gate.
pub(crate) type Admitted = Boxed<(PeerId, StreamMuxerBox)>;

/// The transports of a real node.
pub(crate) fn network(
    identity: &Identity,
    relay: relay::client::Transport,
    gate: Gate,
) -> Result<Admitted, noise::Error> {
    let keypair = identity.keypair();
    let mut quic_config = quic::Config::new(keypair);
    quic_config.keep_alive_interval = QUIC_KEEP_ALIVE;
    quic_config.max_idle_timeout = QUIC_IDLE_MS;
    quic_config.max_concurrent_stream_limit = MAX_STREAMS.into();
    let quic = quic::tokio::Transport::new(quic_config)
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));
    let tcp = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true))
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(keypair)?)
        .multiplex(yamux_config())
        .timeout(UPGRADE_TIMEOUT)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let relay = relay
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(keypair)?)
        .multiplex(yamux_config())
        .timeout(UPGRADE_TIMEOUT)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let any = OrTransport::new(relay, OrTransport::new(quic, tcp)).map(|output, _| match output {
        Either::Left(connection) | Either::Right(Either::Left(connection) | Either::Right(connection)) => {
            connection
        }
    });
    Ok(any.and_then(move |connection, endpoint| gate.admit(connection, endpoint)).boxed())
}

/// Connections inside one process, for tests: same encryption, same gate.
pub(crate) fn memory(
    identity: &Identity,
    relay: relay::client::Transport,
    gate: Gate,
) -> Result<Admitted, noise::Error> {
    let keypair = identity.keypair();
    let any = OrTransport::new(relay, MemoryTransport::default())
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(keypair)?)
        .multiplex(yamux_config())
        .timeout(UPGRADE_TIMEOUT)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    Ok(any.and_then(move |connection, endpoint| gate.admit(connection, endpoint)).boxed())
}

fn yamux_config() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(MAX_STREAMS.into());
    config
}
