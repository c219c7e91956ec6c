//! What can be asked of the node itself: who and how it is, who else is there, who may come and who must go.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use starfish_compute::Compute;
use starfish_dht::beacon::Beacons;
use starfish_dht::enrol::SharedCredentials;
use starfish_dht::membership::{CredentialsError, Role, UnknownRole};
use starfish_dht::ticket::{MAX_ADDRESSES, Ticket, TicketError};
use starfish_dht::{Multiaddr, Network, PeerId, without_peer};
use starfish_fs::{Files, HandoverError};
use starfish_memory::{Documents, Memory};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::data_dir::DataDir;
use crate::gateway;
use crate::membership::{is_provisional, swarm_of};
use crate::process::{Uptime, resident_bytes};
use crate::revocation::{Ledger, RevokeError, Revoked};
use crate::runtime::RuntimeInfo;
use crate::task::{Tasks, WorkerInfo};
use crate::wire::{Invitation, InviteRequest, NodeId, Peer, RevokeRequest, Status};

/// How long a ticket is good for when nobody says otherwise: long enough to carry it to another machine.
const TICKET_VALID: Duration = Duration::from_secs(24 * 3600);
/// Beyond this a ticket is a password: narrow it, or make a new one.
const TICKET_VALID_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long a node that leaves waits until others were told what they need not wait for.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// The running node, as the API sees it.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) dir: DataDir,
    pub(crate) zone: String,
    pub(crate) api: SocketAddr,
    pub(crate) port: u16,
    pub(crate) uptime: Uptime,
    pub(crate) network: Network,
    pub(crate) credentials: SharedCredentials,
    pub(crate) ledger: Ledger,
    pub(crate) beacons: Beacons,
    pub(crate) memory: Memory,
    pub(crate) documents: Documents,
    pub(crate) files: Files,
    pub(crate) compute: Compute,
    pub(crate) tasks: Tasks,
    pub(crate) end: End,
    /// All that it kept of the swarm's files was handed over.
    pub(crate) retired: AtomicBool,
}

/// How the node was asked to end, if it was.
#[derive(Debug, Default)]
pub(crate) struct End {
    asked: CancellationToken,
    leaving: AtomicBool,
}

impl End {
    /// Resolves when somebody asks for the end.
    pub(crate) async fn asked(&self) {
        self.asked.cancelled().await;
    }

    /// Whether the node is to leave its swarm for good.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }
}

/// Why no ticket was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InviteError {
    #[error(transparent)]
    Role(#[from] UnknownRole),
    #[error("a ticket is good for a year at most")]
    TooLong,
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// Why nothing was revoked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RevocationError {
    #[error(transparent)]
    Ticket(#[from] TicketError),
    #[error("this is no share link")]
    Link,
    #[error("the ticket is not of this swarm")]
    OtherSwarm,
    #[error("a node cannot revoke itself: leave the swarm instead")]
    Oneself,
    #[error(transparent)]
    Revoke(#[from] RevokeError),
}

impl Control {
    pub(crate) fn id(&self) -> NodeId {
        NodeId { peer: self.network.local_peer(), swarm: swarm_of(&self.credentials).to_string() }
    }

    pub(crate) fn status(&self) -> Status {
        let (peers, capacity) = (self.peers(), self.compute.capacity());
        Status {
            id: self.id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_ms: self.uptime.millis(),
            resident_bytes: resident_bytes(),
            data_dir: self.dir.path().to_owned(),
            api: self.api,
            port: self.port,
            addrs: self.network.addresses(),
            zone: self.zone.clone(),
            memory_digest: self.memory.digest(),
            memory_cells: self.memory.stats().cells,
            memory_lost: self.memory.stats().lost,
            memory_is_whole: self.memory.is_whole(),
            slots: capacity.slots,
            slots_free: capacity.free,
            jail: self.compute.jail(),
            n_alive: peers.iter().filter(|peer| peer.alive).count(),
            n_known: peers.len(),
            has_met_others: self.network.has_met_others(),
            provisional: is_provisional(&self.credentials),
            turned_away: self.turned_away(),
        }
    }

    /// Who says that this node is let in no more, and why; it may have seen the order itself before it was put out.
    fn turned_away(&self) -> Option<String> {
        if self.ledger.obeyed().is_peer_revoked(&self.network.local_peer()) {
            return Some("this node has been revoked".to_owned());
        }
        let (peer, farewell) = self.network.farewells().pop()?;
        Some(format!("{farewell}, says {peer}"))
    }

    /// What `node.json` says.
    pub(crate) fn runtime_info(&self) -> RuntimeInfo {
        RuntimeInfo {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            peer: self.network.local_peer().to_string(),
            api: self.api,
            port: self.port,
        }
    }

    /// The other members, by PeerId.
    pub(crate) fn peers(&self) -> Vec<Peer> {
        let members = self.network.members().into_iter();
        members
            .map(|member| {
                let link = self.network.link(&member.peer);
                let addrs: BTreeSet<Multiaddr> = member
                    .beacon
                    .addresses
                    .into_iter()
                    .chain(link.iter().map(|link| link.address.clone()))
                    .map(|address| without_peer(address, &member.peer))
                    .collect();
                Peer {
                    id: member.peer,
                    addrs: addrs.into_iter().collect(),
                    alive: member.alive,
                    connected: member.connected,
                    relayed: link.as_ref().is_some_and(|link| link.is_relayed()),
                    rtt_ms: link.and_then(|link| link.round_trip).map(|rtt| rtt.as_secs_f64() * 1000.0),
                    silent_ms: u64::try_from(member.silent_for.as_millis()).unwrap_or(u64::MAX),
                    version: member.beacon.version,
                    zone: member.beacon.zone,
                }
            })
            .collect()
    }

    pub(crate) fn workers(&self) -> Vec<WorkerInfo> {
        self.tasks.list()
    }

    /// A ticket into this swarm, with the addresses of this node.
    pub(crate) fn invite(&self, request: &InviteRequest) -> Result<Invitation, InviteError> {
        let role: Role = request.role.as_deref().map(str::parse).transpose()?.unwrap_or_default();
        let valid = request.expires_s.map_or(TICKET_VALID, Duration::from_secs);
        if valid > TICKET_VALID_MAX {
            return Err(InviteError::TooLong);
        }
        let credentials = self.credentials.read().unwrap_or_else(PoisonError::into_inner);
        let token = credentials.invite(role.rights(), SystemTime::now() + valid, request.peer)?;
        let me = self.network.local_peer();
        let addresses = for_ticket(self.network.addresses());
        let addresses = addresses.into_iter().filter_map(|address| address.with_p2p(me).ok()).collect();
        let ticket = Ticket { swarm: credentials.swarm(), addresses, token };
        info!(?role, valid_s = valid.as_secs(), only = ?request.peer, "made a ticket");
        Ok(Invitation { ticket: ticket.to_string() })
    }

    pub(crate) async fn revoke(&self, request: RevokeRequest) -> Result<(), RevocationError> {
        let swarm = swarm_of(&self.credentials);
        let what = match request {
            RevokeRequest::Peer(peer) if peer == self.network.local_peer() => {
                return Err(RevocationError::Oneself);
            }
            RevokeRequest::Peer(peer) => Revoked::Peer(peer),
            RevokeRequest::Ticket(text) => {
                let ticket: Ticket = text.parse()?;
                let id = ticket.token.revocation_id(swarm).ok_or(RevocationError::OtherSwarm)?;
                Revoked::Token(id)
            }
            RevokeRequest::Link(text) => {
                let id = gateway::revocation_id(&text).ok_or(RevocationError::Link)?;
                Revoked::Token(id)
            }
        };
        let pass = self.credentials.read().unwrap_or_else(PoisonError::into_inner).pass().clone();
        self.ledger.revoke(&what, &self.network, &pass).await?;
        if let Revoked::Peer(peer) = what
            && let Err(error) = self.memory.discharge(&peer).await
        {
            tracing::debug!(%error, "what only a member may bring is kept for it until the horizon");
        }
        Ok(())
    }

    pub(crate) async fn block(&self, peer: PeerId) {
        info!(%peer, "blocked");
        self.network.block(peer).await;
    }

    pub(crate) async fn unblock(&self, peer: PeerId) {
        info!(%peer, "unblocked");
        self.network.unblock(peer).await;
    }

    pub(crate) fn stop(&self) {
        self.end.asked.cancel();
    }

    /// Gives others what this node keeps of the swarm's files. Dropping it breaks it off, with nothing lost.
    pub(crate) async fn hand_over(self: &Arc<Self>) -> Result<(), HandoverError> {
        if self.is_last_with_anything() {
            return Err(HandoverError::Alone);
        }
        self.beacons.say_retiring(true).await;
        let staying = Staying(Arc::clone(self));
        self.files.hand_over().await?;
        // It goes on to leave: whoever gave it something now would lose it.
        staying.0.retired.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether nobody else is there, and there is something to lose: files, or what was written into the memory.
    fn is_last_with_anything(&self) -> bool {
        let is_alone = !self.network.members().iter().any(|member| member.alive);
        let has_files = self.files.usage().is_ok_and(|usage| usage.files + usage.dirs > 0);
        // That this node is enlisted is one cell.
        is_alone && (has_files || self.memory.stats().cells > 1)
    }

    /// Says good-bye, and ends. What belongs to the swarm is put aside when all is closed.
    pub(crate) async fn leave(&self) {
        self.discharge().await;
        self.beacons.say_leaving().await;
        self.end.leaving.store(true, Ordering::Release);
        self.end.asked.cancel();
    }

    /// Tells the others that this node brings them nothing any more, and waits a moment until they are told.
    async fn discharge(&self) {
        let n_sent = self.memory.stats().gossip_sent;
        let told = async {
            if self.memory.discharge(&self.network.local_peer()).await.is_ok() {
                while self.memory.stats().gossip_sent == n_sent {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        };
        if tokio::time::timeout(TOLD_WITHIN, told).await.is_err() {
            tracing::debug!("others wait until the horizon for what this node may bring");
        }
    }
}

/// Takes the word that this node is going to leave back, unless it did hand over all.
struct Staying(Arc<Control>);

impl Drop for Staying {
    fn drop(&mut self) {
        if !self.0.retired.load(Ordering::Acquire) {
            let control = Arc::clone(&self.0);
            tokio::spawn(async move { control.beacons.say_retiring(false).await });
        }
    }
}

/// The few of a node's addresses that help a newcomer most: each reach in both ways, QUIC first, since UDP may be
/// blocked where the newcomer is; loopback last, for one on the same machine. Link-local ones mean nothing elsewhere.
fn for_ticket(addresses: Vec<Multiaddr>) -> Vec<Multiaddr> {
    let texts = addresses.into_iter().map(|address| (address.to_string(), address));
    let usable = texts.filter(|(text, _)| !text.starts_with("/ip6/fe80:"));
    let (loopback, far): (Vec<_>, Vec<_>) =
        usable.partition(|(text, _)| text.starts_with("/ip4/127.") || text.starts_with("/ip6/::1/"));
    let (quic, tcp): (Vec<_>, Vec<_>) = far.into_iter().partition(|(text, _)| text.contains("/udp/"));
    let n_quic = quic.len().min(MAX_ADDRESSES / 2);
    let chosen = quic.into_iter().take(n_quic);
    let chosen = chosen.chain(tcp.into_iter().take(MAX_ADDRESSES - 1 - n_quic));
    chosen.chain(loopback.into_iter().take(1)).map(|(_, address)| address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_leads_here_over_quic_tcp_and_loopback() {
        let ips =
            ["ip4/192.0.2.1", "ip6/fd00::2", "ip6/fe80::1", "ip4/10.0.0.1", "ip4/10.0.0.2", "ip4/10.0.0.3"];
        let loopback = ["ip4/127.0.0.1", "ip6/::1"];
        let all = ips.iter().chain(&loopback);
        let of = |end: &'static str| all.clone().map(move |ip| format!("/{ip}{end}").parse().unwrap());
        let chosen = for_ticket(of("/udp/7/quic-v1").chain(of("/tcp/7")).collect());
        let chosen: Vec<String> = chosen.iter().map(ToString::to_string).collect();
        assert_eq!(chosen.len(), MAX_ADDRESSES);
        assert_eq!(chosen[0], "/ip4/192.0.2.1/udp/7/quic-v1");
        assert_eq!(chosen[4], "/ip4/192.0.2.1/tcp/7");
        assert_eq!(chosen[7], "/ip4/127.0.0.1/udp/7/quic-v1");
        assert!(chosen.iter().all(|address| !address.contains("fe80")));
    }
}
