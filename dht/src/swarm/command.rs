//! What the actor can be told.

use libp2p::{Multiaddr, PeerId};
use tokio::sync::oneshot;

use super::Actor;
use crate::content::ContentError;
use crate::gossip::{PublishError, Subscription};
use crate::presence::Beacon;
use crate::streams::Open;

/// One command; those with a `reply` are answered, even if only by dropping it when the network stops.
#[derive(Debug)]
pub(crate) enum Command {
    Dial { addresses: Vec<Multiaddr> },
    Learn { peer: PeerId, beacon: Box<Beacon> },
    Forget { peer: PeerId },
    Open(Open),
    Publish { topic: &'static str, data: Vec<u8>, reply: oneshot::Sender<Result<(), PublishError>> },
    Subscribe { topic: &'static str, reply: oneshot::Sender<Subscription> },
    Provide { key: [u8; 32], reply: oneshot::Sender<Result<(), ContentError>> },
    StopProviding { key: [u8; 32] },
    Providers { key: [u8; 32], reply: oneshot::Sender<Vec<PeerId>> },
    Block { peer: PeerId },
    Unblock { peer: PeerId },
    EnforceRevocations,
    Stop { reply: oneshot::Sender<()> },
}

impl Actor {
    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::Dial { addresses } => self.dial_addresses(addresses),
            Command::Learn { peer, beacon } => self.learn(peer, *beacon),
            Command::Forget { peer } => self.forget(&peer),
            Command::Open(open) => self.open_stream(open),
            Command::Publish { topic, data, reply } => Self::reply(reply, self.publish(topic, data)),
            Command::Subscribe { topic, reply } => Self::reply(reply, self.subscribe(topic)),
            Command::Provide { key, reply } => self.provide(key, reply),
            Command::StopProviding { key } => self.stop_providing(key),
            Command::Providers { key, reply } => self.providers(key, reply),
            Command::Block { peer } => self.block(peer),
            Command::Unblock { peer } => self.unblock(peer),
            Command::EnforceRevocations => self.enforce_revocations(),
            // The loop in `run` takes this one itself.
            Command::Stop { reply } => Self::reply(reply, ()),
        }
    }

    /// A beacon told where a member can be reached.
    fn learn(&mut self, peer: PeerId, beacon: Beacon) {
        if peer == self.shared.local || self.shared.gate.revocations().is_peer_revoked(&peer) {
            return;
        }
        for address in &beacon.addresses {
            self.swarm.behaviour_mut().kademlia.add_address(&peer, address.clone());
        }
        self.book.learn(peer, beacon.addresses);
    }
}
