//! The one actor that owns the libp2p `Swarm`.
//!
//! Everybody else holds a [`Network`](crate::Network) and sends commands; a closed channel means that the network
//! has stopped. One task polls the swarm, takes commands, and every quarter of a second dials known peers that are due.
//! Nothing in here waits: what takes time is a query or dial whose answer is an event.

mod command;
mod events;
mod queries;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use libp2p::gossipsub::{self, IdentTopic, TopicHash};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId, Swarm};
use tokio::sync::{mpsc, oneshot};

pub(crate) use command::Command;
use queries::Queries;

use crate::behaviour::Behaviour;
use crate::gossip::{Gossip, PublishError, SUBSCRIPTION_QUEUE, Subscription};
use crate::network::Shared;
use crate::peer_book::PeerBook;
use crate::streams::{Open, OpenError};

/// How often known peers are looked through for one to dial.
const DIAL_TICK: Duration = Duration::from_millis(250);
/// How often files are written and old entries dropped.
const HOUSEKEEPING: Duration = Duration::from_secs(30);
/// Connections that are kept up for their own sake: a full mesh in a small swarm, and in a larger one enough for
/// gossip and Kademlia to hold together; further members are dialled on demand.
const KEPT_CONNECTIONS: usize = 64;
/// Dials that one tick starts.
const DIALS_PER_TICK: usize = 16;
/// Streams that wait for a dial to one peer.
const MAX_WAITING_OPENS: usize = 256;
/// How long open connections may take to close at the end.
const GOODBYE: Duration = Duration::from_millis(400);

/// The actor's state.
pub(crate) struct Actor {
    swarm: Swarm<Behaviour>,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    book: PeerBook,
    book_file: Option<PathBuf>,
    queries: Queries,
    subscribers: HashMap<TopicHash, Vec<mpsc::Sender<Gossip>>>,
    waiting: HashMap<PeerId, Vec<Open>>,
    blocked: HashSet<PeerId>,
    /// Inbound connections that came to nothing: when that was said last, and how many have not been told of since.
    strangers: (Option<Instant>, u64),
}

impl Actor {
    pub(crate) fn new(
        swarm: Swarm<Behaviour>,
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Command>,
        book_file: Option<PathBuf>,
    ) -> Self {
        let book = book_file.as_deref().map(PeerBook::load).unwrap_or_default();
        shared.has_met.store(book.has_members(), Ordering::Relaxed);
        Self {
            swarm,
            shared,
            commands,
            book,
            book_file,
            queries: Queries::default(),
            subscribers: HashMap::new(),
            waiting: HashMap::new(),
            blocked: HashSet::new(),
            strangers: (None, 0),
        }
    }

    /// Runs until it is told to stop, or until nobody can tell it anything any more.
    pub(crate) async fn run(mut self) {
        let mut dial_tick = tokio::time::interval(DIAL_TICK);
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        let stopped = loop {
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Stop { reply }) => break Some(reply),
                    Some(command) => self.obey(command),
                    None => break None,
                },
                event = self.swarm.select_next_some() => self.on_event(event),
                _ = dial_tick.tick() => self.dial_due(),
                _ = housekeeping.tick() => self.keep_house(),
            }
        };
        self.keep_house();
        self.say_goodbye().await;
        self.shared.protocols.clear();
        if let Some(reply) = stopped {
            let _ = reply.send(());
        }
    }

    fn dial_due(&mut self) {
        let connected = self.swarm.network_info().num_peers();
        let budget = KEPT_CONNECTIONS.saturating_sub(connected).min(DIALS_PER_TICK);
        for (peer, addresses) in self.book.due(Instant::now(), budget) {
            if !self.blocked.contains(&peer) {
                self.dial(peer, addresses);
            }
        }
    }

    fn dial(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        if peer == self.shared.local {
            self.book.remove(&peer);
            return;
        }
        let options = DialOpts::peer_id(peer)
            .addresses(addresses)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .extend_addresses_through_behaviour()
            .build();
        if let Err(error) = self.swarm.dial(options) {
            tracing::debug!(%peer, %error, "not dialled");
        }
    }

    /// Dials addresses that end in `/p2p/<PeerId>`; others are ignored, since nobody could be recognised there.
    fn dial_addresses(&mut self, addresses: Vec<Multiaddr>) {
        let mut by_peer: HashMap<PeerId, Vec<Multiaddr>> = HashMap::new();
        for address in addresses {
            if let Some(Protocol::P2p(peer)) = address.iter().last() {
                by_peer.entry(peer).or_default().push(address);
            }
        }
        for (peer, addresses) in by_peer {
            self.book.invited(peer, addresses.clone());
            self.dial(peer, addresses);
        }
    }

    fn open_stream(&mut self, open: Open) {
        let peer = open.peer;
        if self.swarm.is_connected(&peer) {
            self.swarm.behaviour_mut().streams.open(open);
            return;
        }
        if peer == self.shared.local || self.blocked.contains(&peer) {
            let _ = open.reply.send(Err(OpenError::Unreachable { peer }));
            return;
        }
        let waiting = self.waiting.entry(peer).or_default();
        if waiting.len() >= MAX_WAITING_OPENS {
            let _ = open.reply.send(Err(OpenError::Busy { peer }));
            return;
        }
        waiting.push(open);
        let addresses = self.book.addresses(&peer);
        self.dial(peer, addresses);
        // Without any address the dial fails at once, and no event would tell.
        if !self.swarm.is_connected(&peer) && self.book.addresses(&peer).is_empty() {
            self.fail_waiting(&peer);
        }
    }

    fn fail_waiting(&mut self, peer: &PeerId) {
        for open in self.waiting.remove(peer).into_iter().flatten() {
            let _ = open.reply.send(Err(OpenError::Unreachable { peer: *peer }));
        }
    }

    fn publish(&mut self, topic: &'static str, data: Vec<u8>) -> Result<(), PublishError> {
        match self.swarm.behaviour_mut().gossip.publish(IdentTopic::new(topic), data) {
            Ok(_)
            | Err(gossipsub::PublishError::NoPeersSubscribedToTopic | gossipsub::PublishError::Duplicate) => {
                Ok(())
            }
            Err(gossipsub::PublishError::AllQueuesFull(_)) => Err(PublishError::Busy),
            Err(error) => {
                tracing::warn!(topic, %error, "announcement not sent");
                Err(PublishError::Busy)
            }
        }
    }

    fn subscribe(&mut self, topic: &'static str) -> Subscription {
        let (sender, receiver) = mpsc::channel(SUBSCRIPTION_QUEUE);
        let topic = IdentTopic::new(topic);
        if let Err(error) = self.swarm.behaviour_mut().gossip.subscribe(&topic) {
            tracing::warn!(%topic, ?error, "cannot subscribe");
        }
        self.subscribers.entry(topic.hash()).or_default().push(sender);
        Subscription { receiver }
    }

    fn block(&mut self, peer: PeerId) {
        self.blocked.insert(peer);
        self.swarm.behaviour_mut().blocked.block_peer(peer);
        let _ = self.swarm.disconnect_peer_id(peer);
    }

    fn unblock(&mut self, peer: PeerId) {
        self.blocked.remove(&peer);
        self.swarm.behaviour_mut().blocked.unblock_peer(peer);
        let addresses = self.book.addresses(&peer);
        self.dial(peer, addresses);
    }

    /// Cuts off whoever is connected and has been revoked since.
    fn enforce_revocations(&mut self) {
        for peer in self.shared.gate.revoked_peers() {
            tracing::warn!(%peer, "disconnected: revoked");
            self.shared.gate.forget(&peer);
            self.forget(&peer);
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    fn forget(&mut self, peer: &PeerId) {
        self.book.remove(peer);
        self.swarm.behaviour_mut().kademlia.remove_peer(peer);
        self.shared.presence.write().unwrap_or_else(PoisonError::into_inner).remove(peer);
    }

    fn keep_house(&mut self) {
        let now = Instant::now();
        self.shared.presence.write().unwrap_or_else(PoisonError::into_inner).tick(now);
        self.subscribers.values_mut().for_each(|senders| senders.retain(|sender| !sender.is_closed()));
        let records = self.swarm.behaviour_mut().kademlia.store_mut();
        records.expire(now);
        if let Err(error) = records.save() {
            tracing::warn!(%error, "cannot keep the records of others");
        }
        self.keep_book();
    }

    fn keep_book(&mut self) {
        if let Some(file) = &self.book_file
            && let Err(error) = self.book.save(file)
        {
            tracing::warn!(%error, "cannot keep what is known of peers");
        }
    }

    /// Closes every connection, so that others notice at once instead of after a time-out.
    async fn say_goodbye(&mut self) {
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closing = async {
            while self.swarm.network_info().num_peers() > 0 {
                self.swarm.select_next_some().await;
            }
        };
        let _ = tokio::time::timeout(GOODBYE, closing).await;
    }

    fn reply<T>(reply: oneshot::Sender<T>, answer: T) {
        // Whoever asked may have given up, which is fine.
        let _ = reply.send(answer);
    }
}
