//! The wire without Starfish on it: one stream between two networks of this process, over real sockets, and at the end
//! of it nothing, or a file.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use starfish_node::dht::config::NetworkConfig;
use starfish_node::dht::membership::{Credentials, Revocations, Role};
use starfish_node::dht::{Identity, Multiaddr, Network};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::figure::Value;

const PROTOCOL: &str = "/starfish/bench/1";
/// What is written and read at a time: as much as fs reads of a blob.
const STEP: usize = 1 << 20;
/// Steps that may wait for hash and disk.
const STEPS_AHEAD: usize = 4;
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

/// What becomes of the bytes that arrive.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// They are counted.
    Nothing,
    /// They are hashed and written to this file.
    File(PathBuf),
    /// The same, and the file outlives a crash.
    SyncedFile(PathBuf),
}

/// Sends `size` bytes over one stream.
pub(super) async fn stream(transport: Transport, size: u64) -> anyhow::Result<Value> {
    transfer(transport, size, End::Nothing).await
}

/// Sends a blob of `size` bytes over one QUIC stream: whoever receives it hashes it and writes it to a file, which is
/// removed again.
pub(super) async fn blob(size: u64, end: End) -> anyhow::Result<Value> {
    transfer(Transport::Quic, size, end).await
}

async fn transfer(transport: Transport, size: u64, end: End) -> anyhow::Result<Value> {
    let identities = (Identity::generate(), Identity::generate());
    let host = Credentials::found(identities.0.peer_id())?;
    let ticket = host.invite(Role::Peer.rights(), SystemTime::now() + TICKET_LASTS, None)?;
    let guest = Credentials::from_invite(host.swarm(), &ticket, identities.1.peer_id())?;
    let config = NetworkConfig { listen: vec![transport.address()?], ..NetworkConfig::default() };
    let host = Network::start(identities.0, &host, Revocations::default(), &config)?;
    let guest = Network::start(identities.1, &guest, Revocations::default(), &config)?;
    let sent = async {
        tokio::time::timeout(PATIENCE, meet(&host, &guest)).await.context("two networks did not meet")?;
        send(&host, &guest, size, end).await
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

async fn send(host: &Network, guest: &Network, size: u64, end: End) -> anyhow::Result<Duration> {
    let mut incoming = host.accept(PROTOCOL)?;
    let start = Instant::now();
    let (arrived, arriving) = mpsc::channel(STEPS_AHEAD);
    let kept = tokio::task::spawn_blocking(move || keep(arriving, &end));
    let receiving = tokio::spawn(async move {
        let (_, mut stream) = incoming.next().await.context("the network stopped")?;
        loop {
            let mut step = BytesMut::with_capacity(STEP);
            while step.len() < STEP && stream.read_buf(&mut step).await? > 0 {}
            if step.is_empty() {
                return anyhow::Ok(());
            }
            arrived.send(step.freeze()).await.context("nobody keeps what arrives")?;
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
    receiving.await??;
    let received = kept.await??;
    anyhow::ensure!(received == size, "{received} of {size} bytes arrived");
    Ok(start.elapsed())
}

fn keep(mut arriving: mpsc::Receiver<Bytes>, end: &End) -> io::Result<u64> {
    let mut received = 0;
    let (path, is_synced) = match end {
        End::Nothing => {
            while let Some(step) = arriving.blocking_recv() {
                received += step.len() as u64;
            }
            return Ok(received);
        }
        End::File(path) => (path, false),
        End::SyncedFile(path) => (path, true),
    };
    let (mut file, mut hasher) = (File::create(path)?, blake3::Hasher::new());
    while let Some(step) = arriving.blocking_recv() {
        received += step.len() as u64;
        hasher.update(&step);
        file.write_all(&step)?;
    }
    std::hint::black_box(hasher.finalize());
    if is_synced {
        file.sync_all()?;
    }
    std::fs::remove_file(path)?;
    Ok(received)
}
