//! Revocations: facts in the shared memory, so that they reach everybody and outlive their author.
//!
//! Everybody who may write memory could write such a fact; so each is an order, signed by a member whose own
//! pass shows that it may revoke, and a node obeys only those. An order is never taken back.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use starfish_dht::identity::verify;
use starfish_dht::membership::{Revocations, Right, SwarmId, Token};
use starfish_dht::{Network, PeerId};
use starfish_memory::{Event, Memory, ReadError, Space, SpaceError, Value, WriteError};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// What keys of revocations begin with, in the space `sys`.
const PREFIX: &[u8] = b"revoked/";
/// What is signed begins with this, so that no other signature can pass for an order.
const CONTEXT: &[u8] = b"starfish revocation 1";
/// How many orders are read at a time.
const PAGE: usize = 256;

/// The revocations of one swarm, as the memory knows them and as the gate obeys them.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    space: Space,
    swarm: SwarmId,
    obeyed: Revocations,
}

/// What is revoked. Its encoding is the key of the fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Revoked {
    Peer(PeerId),
    Token(Vec<u8>),
}

impl fmt::Display for Revoked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(peer) => write!(formatter, "node {peer}"),
            Self::Token(id) => {
                formatter.write_str("ticket or link ")?;
                id.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
            }
        }
    }
}

/// The value of the fact. WIRE: postcard.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    by: PeerId,
    /// Sealed to `by`, so a copy is of no use to others.
    pass: Token,
    signature: Vec<u8>,
}

/// Why nothing was revoked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RevokeError {
    #[error("this node's membership does not allow it to revoke")]
    MayNot,
    #[error("cannot encode the order")]
    Encode(#[from] postcard::Error),
    #[error("cannot keep the order")]
    Write(#[from] WriteError),
}

impl Ledger {
    pub(crate) fn open(memory: &Memory, swarm: SwarmId) -> Result<Self, SpaceError> {
        Ok(Self { space: memory.space("sys")?, swarm, obeyed: Revocations::default() })
    }

    /// The set that the gate asks.
    pub(crate) fn obeyed(&self) -> &Revocations {
        &self.obeyed
    }

    /// Obeys what this node knew when it stopped. To be done before it meets anybody.
    pub(crate) async fn load(&self) -> Result<(), ReadError> {
        let mut after: Option<Bytes> = None;
        loop {
            let page = self.space.scan(PREFIX, after.as_deref(), PAGE).await?;
            for fact in &page {
                self.obey(&fact.key, fact.value.inline().map_or(&[], Bytes::as_ref));
            }
            match page.last() {
                Some(last) => after = Some(last.key.clone()),
                None => return Ok(()),
            }
        }
    }

    /// Obeys what comes in, until the node stops.
    pub(crate) async fn follow(self, network: Network, stopping: CancellationToken) {
        let mut watch = self.space.watch(PREFIX);
        while let Some(Some(event)) = stopping.run_until_cancelled(watch.next()).await {
            // After a lag the watch shows everything again.
            if let Event::Value { key, value: Value::Inline(value) } = event
                && self.obey(&key, &value)
            {
                network.enforce_revocations().await;
            }
        }
    }

    /// Revokes, here at once and everywhere soon.
    pub(crate) async fn revoke(
        &self,
        what: &Revoked,
        network: &Network,
        pass: &Token,
    ) -> Result<(), RevokeError> {
        let key = [PREFIX, &postcard::to_stdvec(what)?].concat();
        let signature = network.identity().sign(&[CONTEXT, &key].concat());
        let order = Order { by: network.local_peer(), pass: pass.clone(), signature };
        let value = Bytes::from(postcard::to_stdvec(&order)?);
        if self.read(&key, &value).is_none() {
            return Err(RevokeError::MayNot);
        }
        self.space.set(&key, value.clone(), None).await?;
        self.obey(&key, &value);
        network.enforce_revocations().await;
        Ok(())
    }

    /// Says whether the fact is an order to obey.
    fn obey(&self, key: &[u8], value: &[u8]) -> bool {
        let Some((what, by)) = self.read(key, value) else {
            warn!("a revocation that nobody with the right to it has signed is ignored");
            return false;
        };
        info!(%what, %by, "revoked");
        match what {
            Revoked::Peer(peer) => self.obeyed.revoke_peer(peer),
            Revoked::Token(id) => self.obeyed.revoke_token(id),
        }
        true
    }

    /// What is revoked and by whom, if the order is right.
    fn read(&self, key: &[u8], value: &[u8]) -> Option<(Revoked, PeerId)> {
        let what = postcard::from_bytes(key.strip_prefix(PREFIX)?).ok()?;
        let Order { by, pass, signature } = postcard::from_bytes(value).ok()?;
        // A revoked member's orders stand: else whom it revoked would be back.
        let pass = pass.verify(self.swarm, by, std::time::SystemTime::now(), &Revocations::default()).ok()?;
        let may = pass.rights.contains(Right::Admin);
        (may && verify(&by, &[CONTEXT, key].concat(), &signature)).then_some((what, by))
    }
}
