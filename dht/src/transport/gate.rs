//! The gate: nobody passes without a valid token, on any transport.
//!
//! It stands between the encrypted, multiplexed connection (so the PeerId is proven) and the `Swarm`, which
//! hears of the connection only afterwards. The side that opened the connection shows its pass first; the
//! other answers with its own only when that pass is good. So a stranger that dials in learns nothing, not
//! even which swarm this is: its connection is closed, and a line in the log says why.
//!
//! Whoever shows a token that this swarm's root did sign, but that is good no more, is told so: it was let in once, and
//! would otherwise try for ever without knowing why.
//!
//! WIRE: each side sends one frame: version (1 byte), length (2 bytes, big endian), token. In place of its own frame,
//! the side that answers may send a farewell of three bytes: 0, the reason (see [`Farewell`]), 0.

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::Poll;
use std::time::{Duration, SystemTime};

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::PeerId;
use libp2p::core::ConnectedPoint;
use libp2p::core::Endpoint;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerExt, SubstreamBox};
use libp2p::core::transport::PortUse;
use libp2p::multiaddr::Protocol;

use crate::membership::{Credentials, Refusal, Revocations, Rights, SwarmId, Token};

/// How long both frames may take together. A member needs two round trips; longer only ties up a slot.
pub(crate) const GATE_TIMEOUT: Duration = Duration::from_secs(5);
const VERSION: u8 = 1;
/// In place of the version: no token follows, but the reason why not.
const FAREWELL: u8 = 0;
/// How long the other side may take to hear a farewell. Closing at once would throw it away on the way.
const FAREWELL_TIMEOUT: Duration = Duration::from_millis(500);
/// The longest frame that is read, in bytes.
const MAX_FRAME: u16 = 4096;
/// Peers whose rights are remembered; beyond the swarm's connection limit there can be none.
const MAX_REMEMBERED: usize = 4096;

/// What decides who is let in; shared by all transports and the swarm's actor.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    local: PeerId,
    swarm: SwarmId,
    pass: RwLock<Token>,
    revocations: Revocations,
    admitted: RwLock<HashMap<PeerId, Admitted>>,
    /// Who said farewell when this node dialled it last.
    farewells: RwLock<HashMap<PeerId, Farewell>>,
}

#[derive(Clone, Debug)]
struct Admitted {
    rights: Rights,
    revocation_ids: Vec<Vec<u8>>,
}

/// Why a member does not let somebody in whom it, or another, let in before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// Its token, the ticket that this was made from, or the node itself has been revoked.
    Revoked,
    /// The ticket that its token was made from has expired.
    Expired,
}

impl Farewell {
    /// What may be said of a refusal: nothing to a stranger.
    fn of(refusal: &Refusal) -> Option<Self> {
        match refusal {
            Refusal::Revoked => Some(Self::Revoked),
            Refusal::Expired => Some(Self::Expired),
            Refusal::Malformed
            | Refusal::TooLong(_)
            | Refusal::BadSignature
            | Refusal::NotYours(_)
            | Refusal::NotAllowed { .. } => None,
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Revoked => 1,
            Self::Expired => 2,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [Self::Revoked, Self::Expired].into_iter().find(|farewell| farewell.code() == code)
    }
}

impl fmt::Display for Farewell {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Revoked => "the ticket or this node has been revoked",
            Self::Expired => "the ticket has expired",
        })
    }
}

/// Why the gate stayed shut.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GateError {
    /// The other side did not finish in time.
    #[error("nothing valid was shown within {} s", GATE_TIMEOUT.as_secs())]
    Silent,
    /// The other side closed, or broke the connection.
    #[error("the other side closed the connection at the gate")]
    Closed(#[source] io::Error),
    /// Its first bytes are not this protocol.
    #[error("it does not speak this protocol")]
    NotOurs,
    /// The address led to another node than the one it was dialled for: addresses change hands, and another machine's
    /// loopback address leads back here. One such address ends with this, and the peer's others are still tried.
    #[error("{0} answers there")]
    OtherPeer(PeerId),
    /// It does not let this node in, and says why.
    #[error("it lets this node in no more: {0}")]
    TurnedAway(Farewell),
    /// Its token is not good enough.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Gate {
    pub(crate) fn new(local: PeerId, credentials: &Credentials, revocations: Revocations) -> Self {
        Self(Arc::new(Inner {
            local,
            swarm: credentials.swarm(),
            pass: RwLock::new(credentials.pass().clone()),
            revocations,
            admitted: RwLock::default(),
            farewells: RwLock::default(),
        }))
    }

    /// Shows another pass from now on.
    pub(crate) fn set_pass(&self, pass: Token) {
        *self.0.pass.write().unwrap_or_else(PoisonError::into_inner) = pass;
    }

    pub(crate) fn revocations(&self) -> &Revocations {
        &self.0.revocations
    }

    /// What the peer's pass allowed when it was last let in.
    pub(crate) fn rights_of(&self, peer: &PeerId) -> Rights {
        let admitted = self.0.admitted.read().unwrap_or_else(PoisonError::into_inner);
        admitted.get(peer).map(|admitted| admitted.rights).unwrap_or_default()
    }

    /// The peers let in that would not be let in now.
    pub(crate) fn revoked_peers(&self) -> Vec<PeerId> {
        let admitted = self.0.admitted.read().unwrap_or_else(PoisonError::into_inner);
        let revoked = |(peer, admitted): (&PeerId, &Admitted)| {
            (self.0.revocations.is_peer_revoked(peer)
                || self.0.revocations.is_any_token_revoked(&admitted.revocation_ids))
            .then_some(*peer)
        };
        admitted.iter().filter_map(revoked).collect()
    }

    /// Why the peer turned this node away when it was dialled last, if it did.
    pub(crate) fn farewell(&self, peer: &PeerId) -> Option<Farewell> {
        self.0.farewells.read().unwrap_or_else(PoisonError::into_inner).get(peer).copied()
    }

    /// Forgets a peer that is gone.
    pub(crate) fn forget(&self, peer: &PeerId) {
        self.0.admitted.write().unwrap_or_else(PoisonError::into_inner).remove(peer);
    }

    /// Lets a fresh connection through or closes it; meant for `Transport::and_then`.
    pub(crate) async fn admit(
        self,
        (peer, mut muxer): (PeerId, StreamMuxerBox),
        endpoint: ConnectedPoint,
    ) -> Result<(PeerId, StreamMuxerBox), GateError> {
        if peer == self.0.local || dialled(&endpoint).is_some_and(|wanted| wanted != peer) {
            let address = endpoint.get_remote_address();
            tracing::debug!(%peer, %address, "not the peer this address was dialled for");
            return Err(GateError::OtherPeer(peer));
        }
        let outcome = tokio::time::timeout(GATE_TIMEOUT, self.shake_hands(peer, &mut muxer, &endpoint))
            .await
            .unwrap_or(Err(GateError::Silent));
        self.note_farewell(peer, &outcome);
        match outcome {
            Ok(()) => Ok((peer, muxer)),
            Err(error) => {
                let address = endpoint.get_remote_address();
                tracing::warn!(%peer, %address, reason = %error, "refused a connection");
                // Closing politely is best effort: the other side may be silent or gone.
                let _ = tokio::time::timeout(Duration::from_millis(200), muxer.close()).await;
                Err(error)
            }
        }
    }

    async fn shake_hands(
        &self,
        peer: PeerId,
        muxer: &mut StreamMuxerBox,
        endpoint: &ConnectedPoint,
    ) -> Result<(), GateError> {
        if speaks_first(endpoint) {
            let mut stream = open(muxer).await?;
            let exchange = async {
                self.show(&mut stream).await?;
                let verified = self.inspect(peer, &mut stream).await?;
                stream.close().await.map_err(GateError::Closed)?;
                Ok(verified)
            };
            let admitted = drive(muxer, exchange).await?;
            self.remember(peer, admitted);
        } else {
            let mut stream = accept(muxer).await?;
            let admitted = match drive(muxer, self.inspect(peer, &mut stream)).await {
                Err(GateError::Refused(refusal)) => {
                    // However that ends: what counts is why it was refused.
                    let _ = drive(muxer, say_farewell(&refusal, &mut stream)).await;
                    return Err(refusal.into());
                }
                inspected => inspected?,
            };
            let answer = async {
                self.show(&mut stream).await?;
                stream.close().await.map_err(GateError::Closed)
            };
            drive(muxer, answer).await?;
            self.remember(peer, admitted);
        }
        Ok(())
    }

    async fn show(&self, stream: &mut SubstreamBox) -> Result<(), GateError> {
        let pass = self.0.pass.read().unwrap_or_else(PoisonError::into_inner).clone();
        let bytes = pass.as_bytes();
        let length = u16::try_from(bytes.len()).map_err(|_| Refusal::TooLong(bytes.len()))?;
        let mut frame = vec![VERSION];
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(bytes);
        stream.write_all(&frame).await.map_err(GateError::Closed)?;
        stream.flush().await.map_err(GateError::Closed)
    }

    async fn inspect(&self, peer: PeerId, stream: &mut SubstreamBox) -> Result<Admitted, GateError> {
        let mut header = [0; 3];
        stream.read_exact(&mut header).await.map_err(GateError::Closed)?;
        let [version, high, low] = header;
        let length = u16::from_be_bytes([high, low]);
        if version == FAREWELL {
            return Err(Farewell::from_code(high).map_or(GateError::NotOurs, GateError::TurnedAway));
        }
        if version != VERSION {
            return Err(GateError::NotOurs);
        }
        if length > MAX_FRAME {
            return Err(Refusal::TooLong(length.into()).into());
        }
        let mut token = vec![0; length.into()];
        stream.read_exact(&mut token).await.map_err(GateError::Closed)?;
        let token = Token::from_bytes(token);
        let verified = token.verify(self.0.swarm, peer, SystemTime::now(), &self.0.revocations)?;
        Ok(Admitted { rights: verified.rights, revocation_ids: verified.revocation_ids })
    }

    fn note_farewell(&self, peer: PeerId, outcome: &Result<(), GateError>) {
        let mut farewells = self.0.farewells.write().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Err(GateError::TurnedAway(farewell)) if farewells.len() < MAX_REMEMBERED => {
                farewells.insert(peer, *farewell);
            }
            Ok(()) => {
                farewells.remove(&peer);
            }
            Err(_) => {}
        }
    }

    fn remember(&self, peer: PeerId, admitted: Admitted) {
        let mut map = self.0.admitted.write().unwrap_or_else(PoisonError::into_inner);
        if map.len() < MAX_REMEMBERED || map.contains_key(&peer) {
            map.insert(peer, admitted);
        }
    }
}

/// Tells the other side why it is not let in, if it may know, and waits for it to close.
async fn say_farewell(refusal: &Refusal, stream: &mut SubstreamBox) -> Result<(), GateError> {
    let Some(farewell) = Farewell::of(refusal) else { return Ok(()) };
    let said = async {
        stream.write_all(&[FAREWELL, farewell.code(), 0]).await?;
        stream.close().await?;
        stream.read(&mut [0]).await
    };
    let said = tokio::time::timeout(FAREWELL_TIMEOUT, said).await;
    said.map_err(|_| GateError::Silent)?.map(drop).map_err(GateError::Closed)
}

/// The peer that an address was dialled for.
fn dialled(endpoint: &ConnectedPoint) -> Option<PeerId> {
    let ConnectedPoint::Dialer { address, .. } = endpoint else { return None };
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

/// Both ends of a hole-punched connection dialled; the override says which of them acts as the dialler.
fn speaks_first(endpoint: &ConnectedPoint) -> bool {
    match endpoint {
        ConnectedPoint::Dialer {
            role_override: Endpoint::Dialer,
            port_use: PortUse::Reuse | PortUse::New,
            ..
        } => true,
        ConnectedPoint::Dialer { role_override: Endpoint::Listener, .. }
        | ConnectedPoint::Listener { .. } => false,
    }
}

async fn open(muxer: &mut StreamMuxerBox) -> Result<SubstreamBox, GateError> {
    poll_fn(|context| {
        if let Poll::Ready(stream) = muxer.poll_outbound_unpin(context) {
            return Poll::Ready(stream);
        }
        poll_muxer(muxer, context)
    })
    .await
    .map_err(GateError::Closed)
}

async fn accept(muxer: &mut StreamMuxerBox) -> Result<SubstreamBox, GateError> {
    poll_fn(|context| {
        if let Poll::Ready(stream) = muxer.poll_inbound_unpin(context) {
            return Poll::Ready(stream);
        }
        poll_muxer(muxer, context)
    })
    .await
    .map_err(GateError::Closed)
}

/// Runs `exchange` on a stream while the connection under it is kept moving.
async fn drive<T>(
    muxer: &mut StreamMuxerBox,
    exchange: impl Future<Output = Result<T, GateError>>,
) -> Result<T, GateError> {
    let mut exchange = pin!(exchange);
    poll_fn(|context| {
        if let Poll::Ready(outcome) = exchange.as_mut().poll(context) {
            return Poll::Ready(outcome);
        }
        poll_muxer::<()>(muxer, context).map(|outcome| match outcome {
            Err(error) => Err(GateError::Closed(error)),
            Ok(()) => Err(GateError::NotOurs),
        })
    })
    .await
}

/// Ready only with an error: address changes are of no interest here.
fn poll_muxer<T>(muxer: &mut StreamMuxerBox, context: &mut std::task::Context<'_>) -> Poll<io::Result<T>> {
    while let Poll::Ready(event) = muxer.poll_unpin(context) {
        event?;
    }
    Poll::Pending
}

/// The boxed muxer's error is an `io::Error` already; this keeps that assumption in one place.
const _: fn() = || {
    fn is_io<M: StreamMuxer<Error = io::Error>>() {}
    is_io::<StreamMuxerBox>();
};
