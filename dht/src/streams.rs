//! Byte streams between peers, by protocol name: a small libp2p behaviour.
//!
//! The published crate for this (`libp2p-stream`) hands inbound streams over one at a time and drops what comes
//! while the receiver is busy, and opens outbound streams one after another. A job that starts a hundred
//! transfers at once would lose most of them, so this behaviour has real queues: bounded, and long enough.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use futures::future::{Ready, ready};
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::core::{Endpoint, InboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
    NetworkBehaviour, NotifyHandler, StreamUpgradeError, SubstreamProtocol, THandlerInEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::FuturesAsyncReadCompatExt;

/// A stream of bytes to a peer: `AsyncRead` and `AsyncWrite` of tokio. Dropping it resets it; shut it down to end well.
pub type Stream = tokio_util::compat::Compat<libp2p::Stream>;

/// Inbound streams of one protocol that wait to be taken. Beyond it the newest is reset, and its peer sees that.
const INBOUND_QUEUE: usize = 512;
/// Streams that wait to be opened on one connection. Beyond it the caller is told that the peer is busy.
const OUTBOUND_QUEUE: usize = 1_024;

/// Why a stream could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no connection, and none could be made.
    #[error("{peer} cannot be reached")]
    Unreachable {
        /// Who was asked.
        peer: PeerId,
    },
    /// The peer runs, but does not serve this.
    #[error("{peer} does not serve {protocol}")]
    Unsupported {
        /// Who was asked.
        peer: PeerId,
        /// For what.
        protocol: &'static str,
    },
    /// Too many streams to this peer are being opened already.
    #[error("too many streams to {peer} are waiting to be opened")]
    Busy {
        /// Who was asked.
        peer: PeerId,
    },
    /// The connection broke, or the peer did not answer in time.
    #[error("cannot open a stream to {peer}")]
    Io {
        /// Who was asked.
        peer: PeerId,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The network has stopped.
    #[error("the network has stopped")]
    Stopped,
}

/// The protocol is served already.
#[derive(Debug, thiserror::Error)]
#[error("{0} is served already")]
pub struct AcceptError(pub &'static str);

/// Inbound streams of one protocol. Dropping it ends the service.
#[derive(Debug)]
pub struct Incoming {
    receiver: mpsc::Receiver<(PeerId, Stream)>,
}

impl Incoming {
    /// The next stream and who opened it; `None` when the network has stopped. Safe to cancel.
    pub async fn next(&mut self) -> Option<(PeerId, Stream)> {
        self.receiver.recv().await
    }
}

/// The protocols served here, shared with every connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Protocols(Arc<RwLock<HashMap<StreamProtocol, Served>>>);

/// Where the inbound streams of one protocol go.
type Served = mpsc::Sender<(PeerId, Stream)>;

impl Protocols {
    pub(crate) fn accept(&self, protocol: &'static str) -> Result<Incoming, AcceptError> {
        let mut served = self.0.write().unwrap_or_else(PoisonError::into_inner);
        served.retain(|_, sender| !sender.is_closed());
        let name = StreamProtocol::new(protocol);
        if served.contains_key(&name) {
            return Err(AcceptError(protocol));
        }
        let (sender, receiver) = mpsc::channel(INBOUND_QUEUE);
        served.insert(name, sender);
        Ok(Incoming { receiver })
    }

    /// Ends every service, so that those who wait for streams learn that the network has stopped.
    pub(crate) fn clear(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn names(&self) -> Vec<StreamProtocol> {
        let served = self.0.read().unwrap_or_else(PoisonError::into_inner);
        served.iter().filter(|(_, sender)| !sender.is_closed()).map(|(name, _)| name.clone()).collect()
    }

    fn deliver(&self, peer: PeerId, protocol: &StreamProtocol, stream: libp2p::Stream) {
        let served = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = served.get(protocol) else { return };
        if sender.try_send((peer, stream.compat())).is_err() {
            tracing::debug!(%peer, %protocol, "dropped an inbound stream: the queue is full");
        }
    }
}

/// A stream that somebody waits for.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) peer: PeerId,
    pub(crate) protocol: &'static str,
    pub(crate) reply: oneshot::Sender<Result<Stream, OpenError>>,
}

/// The behaviour: it only passes requests to connections.
#[derive(Debug, Default)]
pub(crate) struct Behaviour {
    protocols: Protocols,
    connections: HashMap<PeerId, usize>,
    events: VecDeque<ToSwarm<Infallible, Open>>,
    waker: Option<std::task::Waker>,
}

impl Behaviour {
    pub(crate) fn new(protocols: Protocols) -> Self {
        Self { protocols, ..Self::default() }
    }

    /// Opens a stream on any connection to the peer; without one the request fails.
    pub(crate) fn open(&mut self, open: Open) {
        let peer_id = open.peer;
        if !self.connections.contains_key(&peer_id) {
            let _ = open.reply.send(Err(OpenError::Unreachable { peer: peer_id }));
            return;
        }
        self.events.push_back(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::Any, event: open });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn handler(&self, peer: PeerId) -> Handler {
        Handler { peer, protocols: self.protocols.clone(), queue: VecDeque::new() }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                *self.connections.entry(established.peer_id).or_default() += 1;
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, remaining_established: 0, .. }) => {
                self.connections.remove(&peer_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: Infallible) {
        match event {}
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(event);
        }
        self.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

/// One connection's side: opens what was asked for, and delivers what arrives.
#[derive(Debug)]
pub(crate) struct Handler {
    peer: PeerId,
    protocols: Protocols,
    queue: VecDeque<Open>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = Infallible;
    type InboundProtocol = AnyServed;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Open;

    fn listen_protocol(&self) -> SubstreamProtocol<AnyServed> {
        SubstreamProtocol::new(AnyServed(self.protocols.names()), ())
    }

    fn on_behaviour_event(&mut self, open: Open) {
        if self.queue.len() < OUTBOUND_QUEUE {
            self.queue.push_back(open);
        } else {
            let _ = open.reply.send(Err(OpenError::Busy { peer: self.peer }));
        }
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<ReadyUpgrade<StreamProtocol>, Open, Infallible>> {
        // No waker: the swarm polls a handler after each of its events.
        match self.queue.pop_front() {
            Some(open) => {
                let upgrade = ReadyUpgrade::new(StreamProtocol::new(open.protocol));
                let protocol = SubstreamProtocol::new(upgrade, open);
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
            }
            None => Poll::Pending,
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, AnyServed, ReadyUpgrade<StreamProtocol>, (), Open>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, protocol),
                ..
            }) => self.protocols.deliver(self.peer, &protocol, stream),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, info }) => {
                let _ = info.reply.send(Ok(stream.compat()));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: open, error }) => {
                let peer = self.peer;
                let error = match error {
                    StreamUpgradeError::NegotiationFailed => {
                        OpenError::Unsupported { peer, protocol: open.protocol }
                    }
                    StreamUpgradeError::Timeout => {
                        OpenError::Io { peer, source: io::ErrorKind::TimedOut.into() }
                    }
                    StreamUpgradeError::Io(source) => OpenError::Io { peer, source },
                };
                let _ = open.reply.send(Err(error));
            }
            _ => {}
        }
    }
}

/// The inbound side of the negotiation: any protocol that is served now.
#[derive(Debug)]
pub(crate) struct AnyServed(Vec<StreamProtocol>);

impl UpgradeInfo for AnyServed {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<libp2p::Stream> for AnyServed {
    type Output = (libp2p::Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: libp2p::Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}
