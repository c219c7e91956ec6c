//! What the swarm tells, and what follows.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use libp2p::gossipsub::{self, MessageAcceptance};
use libp2p::swarm::{ConnectionError, DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, identify, kad, mdns, ping};

use super::Actor;
use crate::behaviour::BehaviourEvent;
use crate::gossip::{Gossip, MAX_MESSAGE};
use crate::network::{Link, NetworkEvent};

/// How often it is said that strangers came.
const STRANGERS_EVERY: Duration = Duration::from_secs(1);

impl Actor {
    pub(super) fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            SwarmEvent::ConnectionEstablished { peer_id, endpoint, num_established, .. } => {
                self.on_connected(peer_id, endpoint.get_remote_address().clone(), num_established.get() == 1);
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, cause, .. } => {
                self.on_disconnected(peer_id, cause);
            }
            SwarmEvent::ConnectionClosed { peer_id, cause: Some(cause), .. } if fell_silent(&cause) => {
                self.begin_anew(peer_id);
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                tracing::info!(%address, "listening");
                self.shared.change_addresses(|addresses| addresses.add_listen(address));
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.shared.change_addresses(|addresses| addresses.remove_listen(&address));
            }
            SwarmEvent::ExternalAddrConfirmed { address } => {
                tracing::info!(%address, "reachable from outside");
                self.shared.change_addresses(|addresses| addresses.add_external(address));
            }
            SwarmEvent::ExternalAddrExpired { address } => {
                self.shared.change_addresses(|addresses| addresses.remove_external(&address));
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
                self.on_dial_failed(peer, &error);
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                self.on_stranger(&send_back_addr, &error);
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "a listener failed"),
            _ => {}
        }
    }

    /// Somebody came and was not let in, or did not get as far as the gate. Whoever knocks all the time fills no log.
    fn on_stranger(&mut self, address: &Multiaddr, error: &dyn std::error::Error) {
        let (said, n) = &mut self.strangers;
        *n += 1;
        if said.is_none_or(|said| said.elapsed() >= STRANGERS_EVERY) {
            let n = std::mem::take(n);
            *said = Some(Instant::now());
            tracing::info!(%address, reason = %error, n, "an inbound connection came to nothing");
        }
    }

    /// One of several connections to a peer fell silent: the peer was killed, started again, and made the other ones.
    /// Gossip greets a peer with the topics that this node hears on the first connection only, and for it those were not
    /// the first. So all are closed, and the next one is.
    fn begin_anew(&mut self, peer: PeerId) {
        tracing::info!(%peer, "was started again: connecting anew");
        let _ = self.swarm.disconnect_peer_id(peer);
    }

    fn on_connected(&mut self, peer: PeerId, address: Multiaddr, first: bool) {
        if self.book.connected(peer) {
            // Whoever crashes now finds its first friends again.
            self.keep_book();
        }
        self.shared.forget_dial_failure(&peer);
        self.shared.has_met.store(true, Ordering::Relaxed);
        let link = Link { address, round_trip: None };
        self.shared.links.write().unwrap_or_else(PoisonError::into_inner).insert(peer, link);
        self.shared.presence.write().unwrap_or_else(PoisonError::into_inner).connected(peer, Instant::now());
        if first {
            tracing::info!(%peer, "connected");
            let _ = self.shared.events.send(NetworkEvent::PeerConnected(peer));
        }
        for open in self.waiting.remove(&peer).into_iter().flatten() {
            self.swarm.behaviour_mut().streams.open(open);
        }
    }

    fn on_disconnected(&mut self, peer: PeerId, cause: Option<ConnectionError>) {
        let now = Instant::now();
        self.book.disconnected(&peer, now);
        self.shared.links.write().unwrap_or_else(PoisonError::into_inner).remove(&peer);
        self.shared.presence.write().unwrap_or_else(PoisonError::into_inner).disconnected(&peer, now);
        let cause = cause.map(|cause| cause.to_string());
        tracing::info!(%peer, cause, "disconnected");
        let _ = self.shared.events.send(NetworkEvent::PeerDisconnected(peer));
    }

    fn on_dial_failed(&mut self, peer: PeerId, error: &DialError) {
        // These two say that somebody else's dial or connection is as good.
        if matches!(error, DialError::DialPeerConditionFalse(_)) {
            return;
        }
        tracing::debug!(%peer, %error, "cannot be dialled");
        self.shared.note_dial_failure(peer, error);
        if self.book.is_trusted(&peer)
            && let Some(farewell) = self.shared.gate.farewell(&peer)
        {
            self.shared.note_farewell(peer, farewell);
        }
        self.book.failed(&peer, Instant::now());
        if !self.swarm.is_connected(&peer) {
            self.fail_waiting(&peer);
        }
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Gossip(gossipsub::Event::Message { propagation_source, message_id, message }) => {
                let acceptance = self.on_gossip(message);
                self.swarm.behaviour_mut().gossip.report_message_validation_result(
                    &message_id,
                    &propagation_source,
                    acceptance,
                );
            }
            BehaviourEvent::Kademlia(kad::Event::OutboundQueryProgressed { id, result, step, .. }) => {
                self.on_query(id, result, step.last);
            }
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                for address in &info.listen_addrs {
                    self.swarm.behaviour_mut().kademlia.add_address(&peer_id, address.clone());
                }
                self.book.learn(peer_id, info.listen_addrs);
            }
            BehaviourEvent::Ping(ping::Event { peer, connection, result }) => match result {
                Ok(round_trip) => self.shared.note_round_trip(peer, round_trip),
                Err(ping::Failure::Unsupported) => {}
                Err(error) => {
                    tracing::info!(%peer, %error, "closed a dead connection");
                    self.swarm.close_connection(connection);
                }
            },
            BehaviourEvent::Lan(mdns::Event::Discovered(found)) => {
                for (peer, address) in found {
                    // Only candidates: whether they belong to this swarm is found out at the gate.
                    self.book.learn(peer, [address]);
                }
            }
            _ => {}
        }
    }

    fn on_gossip(&mut self, message: gossipsub::Message) -> MessageAcceptance {
        let Some(author) = message.source else { return MessageAcceptance::Reject };
        if message.data.len() > MAX_MESSAGE || self.shared.gate.revocations().is_peer_revoked(&author) {
            return MessageAcceptance::Reject;
        }
        let gossip = Gossip { author, data: message.data.into() };
        for subscriber in self.subscribers.get(&message.topic).into_iter().flatten() {
            if subscriber.try_send(gossip.clone()).is_err() {
                tracing::debug!(topic = %message.topic, "a slow subscriber missed an announcement");
            }
        }
        MessageAcceptance::Accept
    }
}

/// Whether a connection ended since nothing came over it any more, and not because somebody closed it.
fn fell_silent(cause: &ConnectionError) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(cause);
    while let Some(error) = next {
        if error.to_string().ends_with("timed out") {
            return true;
        }
        next = error.source();
    }
    false
}
