//! Whole swarms in one process, for tests here and in every crate above.
//!
//! Real libp2p over its memory transport, with the real gate; only sockets are missing. Partitions are made by
//! blocking peers on both sides, so connections break and dials fail as they do when a cable is pulled.

#![expect(clippy::expect_used, reason = "in a test, what cannot be set up fails the test")]

use std::future::Future;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant, SystemTime};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

use crate::beacon::Beacons;
use crate::config::NetworkConfig;
use crate::enrol::{self, SharedCredentials};
use crate::identity::Identity;
use crate::membership::{Credentials, Revocations, Role};
use crate::network::Network;
use crate::presence::Capacity;

/// How long [`wait_until`] waits by default before a test counts as failed. Generous, since a loaded machine is slow
/// and a passing test never waits that long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Nodes of one swarm. Dropping it stops them.
#[derive(Debug, Default)]
pub struct TestSwarm {
    nodes: Vec<TestNode>,
}

#[derive(Debug)]
struct TestNode {
    network: Network,
    credentials: SharedCredentials,
    beacons: Option<Beacons>,
}

impl TestSwarm {
    /// Starts `n` nodes that all know each other soon; see [`TestSwarm::wait_connected`].
    pub async fn start(n: usize) -> Self {
        let mut swarm = Self::default();
        for _ in 0..n {
            swarm.add().await;
        }
        swarm.wait_connected().await;
        swarm
    }

    /// Adds a node, which joins through the first one; returns its index.
    pub async fn add(&mut self) -> usize {
        let identity = Identity::generate();
        let credentials = match self.nodes.first() {
            None => Credentials::found(identity.peer_id()).expect("a fresh swarm"),
            Some(first) => {
                let first = first.credentials.read().expect("no test panics while it writes");
                let end = SystemTime::now() + Duration::from_secs(3600);
                let invite = first.invite(Role::Peer.rights(), end, None).expect("the founder may invite");
                Credentials::from_invite(first.swarm(), &invite, identity.peer_id()).expect("a fresh ticket")
            }
        };
        let node = TestNode::start(identity, credentials).await;
        if let Some(first) = self.nodes.iter().find(|node| node.beacons.is_some()) {
            node.network.dial(vec![dialable(&first.network).await]).await;
        }
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// The network of node `index`.
    pub fn network(&self, index: usize) -> &Network {
        &self.nodes[index].network
    }

    /// The credentials of node `index`.
    pub fn credentials(&self, index: usize) -> &SharedCredentials {
        &self.nodes[index].credentials
    }

    /// Waits until every running node is connected to every other.
    pub async fn wait_connected(&self) {
        let running: Vec<&Network> = self.running().collect();
        let others = running.len().saturating_sub(1);
        wait_until("all nodes to be connected", PATIENCE, || async {
            running.iter().all(|network| network.connected().len() >= others)
        })
        .await;
    }

    /// Cuts every connection between the two groups, and keeps it cut.
    pub async fn partition(&self, left: &[usize], right: &[usize]) {
        for (near, far) in left.iter().flat_map(|near| right.iter().map(move |far| (*near, *far))) {
            let (near, far) = (self.network(near), self.network(far));
            near.block(far.local_peer()).await;
            far.block(near.local_peer()).await;
        }
        wait_until("the partition", PATIENCE, || async {
            left.iter().all(|near| {
                right.iter().all(|far| !self.network(*near).is_connected(&self.network(*far).local_peer()))
            })
        })
        .await;
    }

    /// Ends every partition and waits until all are connected again.
    pub async fn heal(&self) {
        let running: Vec<&Network> = self.running().collect();
        for network in &running {
            for other in &running {
                network.unblock(other.local_peer()).await;
            }
        }
        self.wait_connected().await;
    }

    /// Stops node `index` for good.
    pub async fn stop(&mut self, index: usize) {
        self.nodes[index].beacons = None;
        self.nodes[index].network.stop().await;
    }

    fn running(&self) -> impl Iterator<Item = &Network> {
        self.nodes.iter().filter(|node| node.beacons.is_some()).map(|node| &node.network)
    }
}

impl TestNode {
    async fn start(identity: Identity, credentials: Credentials) -> Self {
        let listen: Multiaddr = Protocol::Memory(0).into();
        let config = NetworkConfig { listen: vec![listen], in_memory: true, ..NetworkConfig::default() };
        let network = Network::start(identity, &credentials, Revocations::default(), &config)
            .expect("a network in memory needs nothing");
        let credentials = Arc::new(RwLock::new(credentials));
        enrol::serve(&network, &credentials).expect("served once");
        let beacons =
            Beacons::start(&network, String::new(), Arc::new(Capacity::default)).await.expect("started once");
        Self { network, credentials, beacons: Some(beacons) }
    }
}

/// An address of a running network that others can dial.
pub async fn dialable(network: &Network) -> Multiaddr {
    wait_until("an address", PATIENCE, || async { !network.addresses().is_empty() }).await;
    network.addresses().remove(0).with(Protocol::P2p(network.local_peer()))
}

/// Waits until `condition` holds. Panics, saying what was waited for, when it does not within `patience`.
pub async fn wait_until<F, Fut>(what: &str, patience: Duration, mut condition: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < patience, "waited {patience:?} in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
