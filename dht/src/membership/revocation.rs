//! What is revoked. The facts themselves live in `memory`; this is the set that the gate asks.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use libp2p::PeerId;

/// Revoked tokens and peers; a cheap handle of one shared set. It only ever grows: a revocation is for good.
#[derive(Clone, Debug, Default)]
pub struct Revocations(Arc<RwLock<Revoked>>);

#[derive(Debug, Default)]
struct Revoked {
    tokens: HashSet<Vec<u8>>,
    peers: HashSet<PeerId>,
}

impl Revocations {
    /// Revokes a token (and all made from it) by the identifier of its last block.
    pub fn revoke_token(&self, revocation_id: Vec<u8>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).tokens.insert(revocation_id);
    }

    /// Revokes a peer, whatever token it shows.
    pub fn revoke_peer(&self, peer: PeerId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).peers.insert(peer);
    }

    /// Whether the peer was revoked.
    pub fn is_peer_revoked(&self, peer: &PeerId) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).peers.contains(peer)
    }

    /// Whether any of a token's blocks was revoked.
    pub fn is_any_token_revoked(&self, revocation_ids: &[Vec<u8>]) -> bool {
        let revoked = self.0.read().unwrap_or_else(PoisonError::into_inner);
        revocation_ids.iter().any(|id| revoked.tokens.contains(id))
    }
}
