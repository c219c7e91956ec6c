//! From a ticket to lasting membership: a newcomer asks a member that may invite, and gets a token without an end.

use std::sync::{Arc, PoisonError, RwLock};

use libp2p::PeerId;
use serde::{Deserialize, Serialize};

use crate::membership::{Credentials, CredentialsError, Enrolment};
use crate::network::Network;
use crate::rpc::CallError;
use crate::streams::AcceptError;

const PROTOCOL: &str = "/starfish/enrol/1";

/// A node's credentials as shared between those who show, renew and hand them on.
pub type SharedCredentials = Arc<RwLock<Credentials>>;

/// What a member answers.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Welcome(Enrolment),
    Cannot(String),
}

/// Why a member did not enrol this node; another may.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// It could not be asked.
    #[error(transparent)]
    Call(#[from] CallError),
    /// It may not, or does not have the rights itself.
    #[error("{peer} cannot enrol this node: {reason}")]
    Cannot {
        /// Who was asked.
        peer: PeerId,
        /// Its answer.
        reason: String,
    },
    /// What it gave is not good enough.
    #[error("what {peer} gave is of no use")]
    Useless {
        /// Who was asked.
        peer: PeerId,
        /// Why.
        #[source]
        source: CredentialsError,
    },
}

/// Enrols newcomers that ask, with the rights that the gate saw in their ticket.
pub fn serve(network: &Network, credentials: &SharedCredentials) -> Result<(), AcceptError> {
    let (gate, credentials) = (network.clone(), credentials.clone());
    network.serve(PROTOCOL, move |peer, (): ()| {
        let rights = gate.rights_of(&peer);
        let enrolled = credentials.read().unwrap_or_else(PoisonError::into_inner).enrol(peer, rights);
        let answer = match enrolled {
            Ok(enrolment) => {
                tracing::info!(%peer, ?rights, "enrolled a new member");
                Answer::Welcome(enrolment)
            }
            Err(error) => Answer::Cannot(error.to_string()),
        };
        async move { answer }
    })
}

/// Asks `peer` for lasting membership, and shows it from then on. The caller keeps the credentials on disk.
pub async fn ask(network: &Network, peer: PeerId, credentials: &SharedCredentials) -> Result<(), EnrolError> {
    match network.call(peer, PROTOCOL, &()).await? {
        Answer::Welcome(enrolment) => {
            let mut credentials = credentials.write().unwrap_or_else(PoisonError::into_inner);
            credentials
                .accept(enrolment, network.local_peer())
                .map_err(|source| EnrolError::Useless { peer, source })?;
            network.renew(&credentials);
            Ok(())
        }
        Answer::Cannot(reason) => Err(EnrolError::Cannot { peer, reason }),
    }
}
