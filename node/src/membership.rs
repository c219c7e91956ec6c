//! This node's place in its swarm: founded, joined with a ticket, or kept from before.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use starfish_dht::enrol::{self, SharedCredentials};
use starfish_dht::membership::{Credentials, CredentialsError, SwarmId};
use starfish_dht::ticket::Ticket;
use starfish_dht::{Network, PeerId};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// How often those who are connected are asked for lasting membership, until one gives it.
const ENROL_EVERY: Duration = Duration::from_millis(100);
/// After this long without success the log says so, and then again after as long.
const WARN_EVERY: Duration = Duration::from_secs(15);
/// Failed dials that one warning lists.
const MAX_FAILURES_SAID: usize = 4;

/// Why this node is in no swarm.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// The ticket leads to another swarm than the one that this node belongs to.
    #[error(
        "this node is a member of swarm {current:.8} already, the ticket is of swarm {wanted:.8}; to change, start it \
         without the ticket, and leave"
    )]
    OtherSwarm {
        /// Where it is.
        current: String,
        /// Where it was to go.
        wanted: String,
    },
    /// The membership could not be made, read or kept.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// The swarm that the membership in `path` was for, if a good ticket leads elsewhere and nothing holds the node there: it
/// has a ticket's word only, and never met anybody.
pub(crate) fn abandoned(
    path: &Path,
    peer: PeerId,
    ticket: Option<&Ticket>,
    has_met_others: bool,
) -> Result<Option<SwarmId>, MembershipError> {
    let (Some(kept), Some(ticket)) = (Credentials::load(path)?, ticket) else { return Ok(None) };
    if has_met_others || !kept.is_provisional() || kept.swarm() == ticket.swarm {
        return Ok(None);
    }
    from_ticket(ticket, peer)?;
    Ok(Some(kept.swarm()))
}

/// The membership kept in `path`; without one, that of the ticket; without a ticket, that of a new swarm.
pub(crate) fn enter(
    path: &Path,
    peer: PeerId,
    ticket: Option<&Ticket>,
) -> Result<Credentials, MembershipError> {
    let kept = Credentials::load(path)?;
    let credentials = match (kept, ticket) {
        (Some(kept), Some(ticket)) if kept.swarm() != ticket.swarm => {
            let (current, wanted) = (kept.swarm().to_string(), ticket.swarm.to_string());
            return Err(MembershipError::OtherSwarm { current, wanted });
        }
        // A ticket may run out before a member enrolled us: a fresh one helps.
        (Some(kept), Some(ticket)) if kept.is_provisional() => from_ticket(ticket, peer).unwrap_or(kept),
        (Some(kept), _) => return Ok(kept),
        (None, Some(ticket)) => from_ticket(ticket, peer)?,
        (None, None) => {
            let founded = Credentials::found(peer)?;
            info!(swarm = %founded.swarm(), "founded a new swarm");
            founded
        }
    };
    credentials.save(path)?;
    Ok(credentials)
}

fn from_ticket(ticket: &Ticket, peer: PeerId) -> Result<Credentials, CredentialsError> {
    Credentials::from_invite(ticket.swarm, &ticket.token, peer)
}

/// Asks members for lasting membership until one gives it, and keeps it. Ends then, or when the node stops.
pub(crate) async fn become_lasting(
    network: Network,
    credentials: SharedCredentials,
    path: PathBuf,
    stopping: CancellationToken,
) {
    let asked = async {
        let mut next_warning = tokio::time::Instant::now() + WARN_EVERY;
        while !ask_all(&network, &credentials).await {
            if tokio::time::Instant::now() >= next_warning {
                next_warning += WARN_EVERY;
                warn_of_failure(&network);
            }
            tokio::time::sleep(ENROL_EVERY).await;
        }
        let kept = credentials.read().unwrap_or_else(PoisonError::into_inner).save(&path);
        match kept {
            Ok(()) => info!("became a lasting member"),
            Err(error) => warn!(%error, "the membership was not kept and ends with the ticket"),
        }
    };
    let _ = stopping.run_until_cancelled(asked).await;
}

async fn ask_all(network: &Network, credentials: &SharedCredentials) -> bool {
    for peer in network.connected() {
        match enrol::ask(network, peer, credentials).await {
            Ok(()) => return true,
            Err(error) => debug!(%peer, %error, "did not enrol this node"),
        }
    }
    false
}

fn warn_of_failure(network: &Network) {
    let n_connected = network.connected().len();
    let failures: Vec<_> = network.dial_failures().into_iter().take(MAX_FAILURES_SAID).collect();
    warn!(n_connected, ?failures, "no member has let this node in yet, still trying");
}

/// The swarm of shared credentials.
pub(crate) fn swarm_of(credentials: &SharedCredentials) -> SwarmId {
    credentials.read().unwrap_or_else(PoisonError::into_inner).swarm()
}

/// Whether a member is still to be asked for lasting membership.
pub(crate) fn is_provisional(credentials: &SharedCredentials) -> bool {
    credentials.read().unwrap_or_else(PoisonError::into_inner).is_provisional()
}

/// Credentials to be shared.
pub(crate) fn shared(credentials: Credentials) -> SharedCredentials {
    Arc::new(std::sync::RwLock::new(credentials))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use starfish_dht::membership::Role;

    use super::*;

    fn ticket(founder: &Credentials, valid: Duration) -> Ticket {
        let token = founder.invite(Role::Peer.rights(), SystemTime::now() + valid, None).unwrap();
        Ticket { swarm: founder.swarm(), addresses: vec![], token }
    }

    #[test]
    fn a_node_founds_a_swarm_once_and_goes_nowhere_else_unasked() {
        let temp = tempfile::tempdir().unwrap();
        let (path, me) = (temp.path().join("membership"), PeerId::random());
        let founded = enter(&path, me, None).unwrap().swarm();
        assert_eq!(enter(&path, me, None).unwrap().swarm(), founded);
        let elsewhere = Credentials::found(PeerId::random()).unwrap();
        let refused = enter(&path, me, Some(&ticket(&elsewhere, Duration::from_secs(60))));
        assert!(matches!(refused, Err(MembershipError::OtherSwarm { .. })));
    }

    #[test]
    fn a_ticket_is_needed_once() {
        let temp = tempfile::tempdir().unwrap();
        let (path, me) = (temp.path().join("membership"), PeerId::random());
        let founder = Credentials::found(PeerId::random()).unwrap();
        let joined = enter(&path, me, Some(&ticket(&founder, Duration::from_secs(60)))).unwrap();
        assert!(joined.is_provisional());
        assert_eq!(enter(&path, me, None).unwrap().swarm(), founder.swarm());
    }

    #[test]
    fn a_ticket_whose_swarm_was_never_met_gives_way_to_another() {
        let temp = tempfile::tempdir().unwrap();
        let (path, me) = (temp.path().join("membership"), PeerId::random());
        let [dead, good] = [(); 2].map(|()| Credentials::found(PeerId::random()).unwrap());
        let good = ticket(&good, Duration::from_secs(60));
        assert_eq!(abandoned(&path, me, Some(&good), false).unwrap(), None, "there is nothing yet");
        enter(&path, me, Some(&ticket(&dead, Duration::from_secs(60)))).unwrap();
        assert_eq!(abandoned(&path, me, Some(&good), false).unwrap(), Some(dead.swarm()));
        assert_eq!(abandoned(&path, me, Some(&good), true).unwrap(), None, "it has met that swarm");
        assert_eq!(abandoned(&path, me, None, false).unwrap(), None);
        let expired = ticket(&Credentials::found(PeerId::random()).unwrap(), Duration::ZERO);
        assert!(abandoned(&path, me, Some(&expired), false).is_err(), "nothing is given up for a bad ticket");
    }

    #[test]
    fn an_expired_ticket_leaves_no_membership_behind() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("membership");
        let founder = Credentials::found(PeerId::random()).unwrap();
        let refused = enter(&path, PeerId::random(), Some(&ticket(&founder, Duration::ZERO)));
        assert!(matches!(refused, Err(MembershipError::Credentials(CredentialsError::BadTicket(_)))));
        assert!(!path.exists());
    }
}
