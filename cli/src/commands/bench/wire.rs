//! The wire without Starfish on it: one stream between two networks of this process, over real sockets.

use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use starfish_node::dht::config::NetworkConfig;
use starfish_node::dht::membership::{Credentials, Revocations, Role};
use starfish_node::dht::{Identity, Multiaddr, Network};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::figure::Value;

const PROTOCOL: &str = "/starfish/bench/1";
/// What is written and read at a time: as much as fs reads of a blob.
const STEP: usize = 1 << 20;
/// The two need milliseconds to meet.
const PATIENCE: Duration = Duration::from_secs(30);
/// The guest's ticket lasts longer than any run.
const TICKET_LASTS: Duration = Duration::from_secs(3600);

/// Which transport a stream goes over.
#[derive(Clone, Copy, Debug)]
pub(super) enum Transport {
    /// What nodes use when they can.
    Quic,
    /// What they use where UDP is blocked.
    Tcp,
}

impl Transport {
    fn address(self) -> anyhow::Result<Multiaddr> {
        let text = match self {
            Self::Quic => "/ip4/127.0.0.1/udp/0/quic-v1",
            Self::Tcp => "/ip4/127.0.0.1/tcp/0",
        };
        Ok(text.parse()?)
    }
}

/// Sends `size` bytes over one stream.
pub(super) async fn stream(transport: Transport, size: u64) -> anyhow::Result<Value> {
    let identities = (Identity::generate(), Identity::generate());
    let host = Credentials::found(identities.0.peer_id())?;
    let ticket = host.invite(Role::Peer.rights(), SystemTime::now() + TICKET_LASTS, None)?;
    let guest = Credentials::from_invite(host.swarm(), &ticket, identities.1.peer_id())?;
    let config = NetworkConfig { listen: vec![transport.address()?], ..NetworkConfig::default() };
    let host = Network::start(identities.0, &host, Revocations::default(), &config)?;
    let guest = Network::start(identities.1, &guest, Revocations::default(), &config)?;
    let sent = async {
        tokio::time::timeout(PATIENCE, meet(&host, &guest)).await.context("two networks did not meet")?;
        send(&host, &guest, size).await
    };
    let sent = sent.await;
    guest.stop().await;
    host.stop().await;
    Ok(Value::bytes_per_second(size, sent?))
}

async fn meet(host: &Network, guest: &Network) {
    while host.addresses().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let peer = host.local_peer();
    let addresses = host.addresses().into_iter().filter_map(|address| address.with_p2p(peer).ok());
    guest.dial(addresses.collect()).await;
    while !(guest.is_connected(&peer) && host.is_connected(&guest.local_peer())) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn send(host: &Network, guest: &Network, size: u64) -> anyhow::Result<Duration> {
    let mut incoming = host.accept(PROTOCOL)?;
    let start = Instant::now();
    let receiving = tokio::spawn(async move {
        let (_, mut stream) = incoming.next().await.context("the network stopped")?;
        let mut buffer = vec![0; STEP];
        let mut received = 0;
        loop {
            match stream.read(&mut buffer).await? {
                0 => return anyhow::Ok(received),
                n => received += n as u64,
            }
        }
    });
    let mut stream = guest.open(host.local_peer(), PROTOCOL).await?;
    let step = vec![0x5a; STEP];
    let mut left = size;
    while left > 0 {
        let n = left.min(STEP as u64);
        stream.write_all(&step[..n as usize]).await?;
        left -= n;
    }
    stream.shutdown().await?;
    let received = receiving.await??;
    anyhow::ensure!(received == size, "{received} of {size} bytes arrived");
    Ok(start.elapsed())
}
