//! One Biscuit token: narrowing, sealing, checking.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use biscuit_auth::builder::{BlockBuilder, Term};
use biscuit_auth::{Algorithm, AuthorizerLimits, Biscuit, KeyPair, PublicKey, error};
use libp2p::PeerId;
use serde::{Deserialize, Serialize};

use super::revocation::Revocations;
use super::rights::{Right, Rights};

/// The longest token that is looked at, in bytes: an authority block and half a dozen narrowings.
const MAX_TOKEN_BYTES: usize = 4096;

/// Bounds for evaluating a stranger's Datalog. Facts and iterations bound the work itself; the time is
/// generous, because on a loaded machine a thread may simply not be scheduled for a while.
pub(super) const LIMITS: AuthorizerLimits =
    AuthorizerLimits { max_facts: 200, max_iterations: 20, max_time: Duration::from_secs(2) };

/// The name of a swarm: the public half of the key that signed its first token.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SwarmId([u8; 32]);

impl SwarmId {
    pub(super) fn of(root: &PublicKey) -> Option<Self> {
        Some(Self(root.to_bytes().try_into().ok()?))
    }

    fn root(&self) -> Result<PublicKey, Refusal> {
        PublicKey::from_bytes(&self.0, Algorithm::Ed25519).map_err(|_| Refusal::Malformed)
    }
}

impl fmt::Display for SwarmId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for SwarmId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A serialised token. Nothing is known about it until [`Token::verify`] says so.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token(Vec<u8>);

/// What a checked token allows its bearer.
#[derive(Clone, Debug)]
pub struct Verified {
    /// What the bearer may do.
    pub rights: Rights,
    /// One identifier for each block; revoking any of them revokes the token and all that was made from it.
    pub revocation_ids: Vec<Vec<u8>>,
}

/// Why somebody is not let in. It is logged here; a stranger is not told (see `transport/gate.rs`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No token, or bytes that are none.
    #[error("no valid token")]
    Malformed,
    /// Too many bytes.
    #[error("token of {0} bytes is too long")]
    TooLong(usize),
    /// Signed by another root, or changed since.
    #[error("token of another swarm, or tampered with")]
    BadSignature,
    /// Its time has passed.
    #[error("token has expired")]
    Expired,
    /// It was made for another peer.
    #[error("token was made for another peer than {0}")]
    NotYours(PeerId),
    /// It does not carry the right, or one of its checks fails in some other way.
    #[error("token does not allow {peer} to {operation}: {failed}")]
    NotAllowed {
        /// Who showed it.
        peer: PeerId,
        /// What for.
        operation: &'static str,
        /// The checks that failed.
        failed: String,
    },
    /// The token, one that it was made from, or the peer has been revoked.
    #[error("token or peer is revoked")]
    Revoked,
}

impl Token {
    /// Founds a swarm: a token with every right, and the name of the swarm. The root's secret half is dropped.
    pub(super) fn found() -> Result<(SwarmId, Self), error::Token> {
        let root = KeyPair::new_with_algorithm(Algorithm::Ed25519);
        let mut builder = Biscuit::builder();
        for right in Right::ALL {
            builder = builder.code(format!("right(\"{}\");", right.as_str()))?;
        }
        let token = builder.build(&root)?;
        let swarm = SwarmId::of(&root.public()).ok_or(error::Token::InternalError)?;
        Ok((swarm, Self(token.to_vec()?)))
    }

    /// The bytes of a token that came from elsewhere.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes to send.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// A token that allows `rights` at the most.
    pub(super) fn restrict_rights(&self, swarm: SwarmId, rights: Rights) -> Result<Self, error::Token> {
        let names: Vec<String> = rights.iter().map(|right| format!("\"{}\"", right.as_str())).collect();
        let check = format!("check if operation($op), [{}].contains($op);", names.join(", "));
        self.append(swarm, BlockBuilder::new().code(check)?)
    }

    /// A token that is worth nothing after `end`.
    pub(super) fn expire_at(&self, swarm: SwarmId, end: SystemTime) -> Result<Self, error::Token> {
        let seconds = end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let block = BlockBuilder::new().code_with_params(
            "check if time($time), $time < {end};",
            HashMap::from([("end".to_owned(), Term::Date(seconds))]),
            HashMap::new(),
        )?;
        self.append(swarm, block)
    }

    /// A token for one peer only.
    pub(super) fn restrict_peer(&self, swarm: SwarmId, peer: PeerId) -> Result<Self, error::Token> {
        // A PeerId in base58 holds no character that could end the string.
        self.append(swarm, BlockBuilder::new().code(format!("check if peer(\"{peer}\");"))?)
    }

    /// A token that can be narrowed no further.
    pub(super) fn seal(&self, swarm: SwarmId) -> Result<Self, error::Token> {
        Ok(Self(self.parse(swarm)?.seal()?.to_vec()?))
    }

    /// Checks size, signatures, revocations and then meaning, for `peer` at `now`. A token that does not allow
    /// to join allows nothing.
    pub fn verify(
        &self,
        swarm: SwarmId,
        peer: PeerId,
        now: SystemTime,
        revocations: &Revocations,
    ) -> Result<Verified, Refusal> {
        if self.0.len() > MAX_TOKEN_BYTES {
            return Err(Refusal::TooLong(self.0.len()));
        }
        let root = swarm.root()?;
        let biscuit = Biscuit::from(&self.0, root).map_err(|error| match error {
            error::Token::Format(error::Format::Signature(_)) => Refusal::BadSignature,
            _ => Refusal::Malformed,
        })?;
        let revocation_ids = biscuit.revocation_identifiers();
        if revocations.is_peer_revoked(&peer) || revocations.is_any_token_revoked(&revocation_ids) {
            return Err(Refusal::Revoked);
        }
        allows(&biscuit, peer, Right::Join, now)?;
        let rights =
            Right::ALL.into_iter().filter(|right| allows(&biscuit, peer, *right, now).is_ok()).collect();
        Ok(Verified { rights, revocation_ids })
    }

    /// The identifier by which this very token (and whatever is made from it) is revoked.
    pub fn revocation_id(&self, swarm: SwarmId) -> Option<Vec<u8>> {
        self.parse(swarm).ok()?.revocation_identifiers().pop()
    }

    fn append(&self, swarm: SwarmId, block: BlockBuilder) -> Result<Self, error::Token> {
        Ok(Self(self.parse(swarm)?.append(block)?.to_vec()?))
    }

    fn parse(&self, swarm: SwarmId) -> Result<Biscuit, error::Token> {
        let root = PublicKey::from_bytes(&swarm.0, Algorithm::Ed25519).map_err(error::Token::Format)?;
        Biscuit::from(&self.0, root)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A bearer token is a secret.
        write!(formatter, "Token({} bytes)", self.0.len())
    }
}

impl FromStr for SwarmId {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|_| Refusal::Malformed)?;
        Ok(Self(bytes.try_into().map_err(|_| Refusal::Malformed)?))
    }
}

fn allows(biscuit: &Biscuit, peer: PeerId, right: Right, now: SystemTime) -> Result<(), Refusal> {
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let refused = |error: error::Token| {
        let failed = describe(&error);
        // These two are narrowings that we make, and what people run into.
        match failed.as_str() {
            text if text.starts_with("check if time(") => Refusal::Expired,
            text if text.starts_with("check if peer(") => Refusal::NotYours(peer),
            _ => Refusal::NotAllowed { peer, operation: right.as_str(), failed },
        }
    };
    let mut authorizer = biscuit_auth::builder::AuthorizerBuilder::new()
        .code_with_params(
            "peer({peer}); operation({operation}); time({now}); allow if operation($op), right($op);",
            HashMap::from([
                ("peer".to_owned(), Term::Str(peer.to_string())),
                ("operation".to_owned(), Term::Str(right.as_str().to_owned())),
                ("now".to_owned(), Term::Date(seconds)),
            ]),
            HashMap::new(),
        )
        .and_then(|builder| builder.set_limits(LIMITS).build(biscuit))
        .map_err(refused)?;
    authorizer.authorize_with_limits(LIMITS).map(drop).map_err(refused)
}

/// The failed checks in one line, without the library's wrapping.
pub(super) fn describe(error: &error::Token) -> String {
    let error::Token::FailedLogic(
        error::Logic::Unauthorized { checks, .. } | error::Logic::NoMatchingPolicy { checks },
    ) = error
    else {
        return error.to_string();
    };
    let rules = checks.iter().map(|check| match check {
        error::FailedCheck::Block(block) => block.rule.as_str(),
        error::FailedCheck::Authorizer(authorizer) => authorizer.rule.as_str(),
    });
    rules.collect::<Vec<_>>().join("; ")
}
