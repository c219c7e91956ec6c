//! A node is its ed25519 key: the PeerId follows from it, and it signs what the node says.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use libp2p::PeerId;
use libp2p::identity::{Keypair, ed25519};
use libp2p::multihash::Multihash;

/// The multihash code `identity`: the PeerId of an ed25519 key holds the key itself.
const IDENTITY_HASH: u64 = 0;

/// The key pair of one node.
#[derive(Clone)]
pub struct Identity {
    keypair: Keypair,
    peer: PeerId,
}

/// Why a node's key could not be loaded or kept.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file could not be read or written.
    #[error("cannot {action} the identity in {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The key's file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file holds no ed25519 key.
    #[error(
        "{path} holds no valid ed25519 key; restore it from a backup, or move it away to become a new node"
    )]
    Damaged {
        /// The key's file.
        path: PathBuf,
    },
    /// Others may read the key.
    #[error("{path} is readable by others (mode {mode:o}); run: chmod 600 {path}")]
    Exposed {
        /// The key's file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl Identity {
    /// A fresh key from the system's randomness.
    pub fn generate() -> Self {
        Self::from_keypair(Keypair::generate_ed25519())
    }

    /// The key kept in `path`, made (with mode 0600) when there is none.
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        let failed = |action| move |source| IdentityError::File { action, path: path.to_owned(), source };
        match fs::read(path) {
            Ok(bytes) => {
                let mode = fs::metadata(path).map_err(failed("inspect"))?.permissions().mode() & 0o777;
                if mode & 0o077 != 0 {
                    return Err(IdentityError::Exposed { path: path.to_owned(), mode });
                }
                let keypair = Keypair::from_protobuf_encoding(&bytes)
                    .map_err(|_| IdentityError::Damaged { path: path.to_owned() })?;
                Ok(Self::from_keypair(keypair))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let identity = Self::generate();
                identity.write_new(path).map_err(failed("create"))?;
                Ok(identity)
            }
            Err(error) => Err(failed("read")(error)),
        }
    }

    /// The name that follows from the key.
    pub fn peer_id(&self) -> PeerId {
        self.peer
    }

    /// An ed25519 signature (64 bytes) over `message`; check it with [`verify`].
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        // Signing fails for RSA keys only, and this is never one.
        self.keypair.sign(message).unwrap_or_default()
    }

    /// The key's secret half, for those in this crate who sign in a form of their own.
    pub(crate) fn secret(&self) -> Option<ed25519::SecretKey> {
        Some(self.keypair.clone().try_into_ed25519().ok()?.secret())
    }

    pub(crate) fn keypair(&self) -> &Keypair {
        &self.keypair
    }

    fn from_keypair(keypair: Keypair) -> Self {
        let peer = keypair.public().to_peer_id();
        Self { keypair, peer }
    }

    fn write_new(&self, path: &Path) -> io::Result<()> {
        let bytes = self.keypair.to_protobuf_encoding().map_err(io::Error::other)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(&bytes)?;
        file.sync_all()
    }
}

/// Whether `signature` over `message` was made by `peer`'s key.
pub fn verify(peer: &PeerId, message: &[u8], signature: &[u8]) -> bool {
    let multihash: &Multihash<64> = peer.as_ref();
    multihash.code() == IDENTITY_HASH
        && libp2p::identity::PublicKey::try_decode_protobuf(multihash.digest())
            .is_ok_and(|key| key.verify(message, signature))
}

/// The public key that `peer` is the name of.
pub(crate) fn key_of(peer: &PeerId) -> Option<[u8; 32]> {
    let multihash: &Multihash<64> = peer.as_ref();
    if multihash.code() != IDENTITY_HASH {
        return None;
    }
    let key = libp2p::identity::PublicKey::try_decode_protobuf(multihash.digest()).ok()?;
    Some(key.try_into_ed25519().ok()?.to_bytes())
}

/// Whose public key this is.
pub(crate) fn peer_of(key: &[u8]) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(key).ok()?;
    Some(libp2p::identity::PublicKey::from(key).to_peer_id())
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The secret half never reaches a log.
        formatter.debug_struct("Identity").field("peer", &self.peer).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_keeps_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.key");
        let first = Identity::load_or_create(&path).unwrap();
        let second = Identity::load_or_create(&path).unwrap();
        assert_eq!(first.peer_id(), second.peer_id());
    }

    #[test]
    fn a_damaged_or_exposed_key_is_an_error_not_a_new_node() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.key");
        Identity::load_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Identity::load_or_create(&path), Err(IdentityError::Exposed { mode: 0o644, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, b"garbage").unwrap();
        assert!(matches!(Identity::load_or_create(&path), Err(IdentityError::Damaged { .. })));
    }

    #[test]
    fn a_name_and_its_public_key_lead_to_each_other() {
        let peer = Identity::generate().peer_id();
        assert_eq!(peer_of(&key_of(&peer).unwrap()), Some(peer));
        assert_eq!(key_of(&PeerId::random()), None);
        assert_eq!(peer_of(b"short"), None);
    }

    #[test]
    fn signatures_belong_to_one_peer_and_one_message() {
        let (ada, bob) = (Identity::generate(), Identity::generate());
        let signature = ada.sign(b"hello");
        assert!(verify(&ada.peer_id(), b"hello", &signature));
        assert!(!verify(&ada.peer_id(), b"hullo", &signature));
        assert!(!verify(&bob.peer_id(), b"hello", &signature));
    }
}
