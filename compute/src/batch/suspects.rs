//! Nodes that were outvoted: the swarm remembers them, and gives them no tasks of batches for a while.
//!
//! Each is a register of the swarm's memory, so every node knows of it, new ones too. It is written by the keeper of the
//! batch; everybody can work out the same from the batch's receipts.
//!
//! WIRE: the space, its keys (the bytes of a node's id) and its values (postcard behind one byte of version).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use starfish_dht::PeerId;
use starfish_memory::{Memory, Space};
use tracing::warn;

use super::ballot::Outvoted;
use super::definition::{decode, encode};
use super::store::BatchStoreError;
use crate::arrived::Arrived;
use crate::compute::StartError;
use crate::task::JobId;

/// The space of the swarm's memory.
const SPACE: &str = "suspects";
/// How long a node is remembered: long enough for somebody to look into it, and not for ever, since a machine may have been
/// mended.
const REMEMBER_FOR: Duration = Duration::from_secs(30 * 24 * 3600);
/// How soon memory is read again that could not be.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Why a node is not trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspect {
    /// The node.
    pub node: PeerId,
    /// The batch on which it found something else than what counted.
    pub job: JobId,
    /// On how many of its tasks.
    pub tasks: u64,
    /// One of them.
    pub example: u64,
    /// When that was seen, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Who saw it.
    pub by: PeerId,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Suspects {
    me: PeerId,
    space: Space,
    known: Mutex<BTreeMap<PeerId, Suspect>>,
    /// Of batches, the nodes that were written down for them.
    told: Mutex<BTreeSet<(JobId, PeerId)>>,
    cells: Arc<Arrived>,
}

impl Suspects {
    pub(crate) fn new(memory: &Memory, me: PeerId) -> Result<Self, StartError> {
        let space = memory.space(SPACE).map_err(|error| StartError::Memory(error.into()))?;
        let cells = Arrived::watch(memory, SPACE);
        Ok(Self { me, space, known: Mutex::default(), told: Mutex::default(), cells })
    }

    /// Keeps up with what memory says.
    pub(crate) async fn follow(&self) {
        loop {
            while let Err(error) = self.load().await {
                warn!(%error, "cannot read which nodes were outvoted");
                tokio::time::sleep(TRY_AGAIN_AFTER).await;
            }
            self.cells.come().await;
            let _ = self.cells.take();
        }
    }

    async fn load(&self) -> Result<(), BatchStoreError> {
        let (space, unix_ms) = (self.space.clone(), crate::runner::unix_ms());
        let read = move || {
            let mut known = BTreeMap::new();
            space.for_each_cell(&[], &mut |cell| {
                let node = PeerId::from_bytes(&cell.key).ok();
                let suspect = cell.live(unix_ms).and_then(|value| decode::<Suspect>(value));
                if let (Some(node), Some(suspect)) = (node, suspect)
                    && suspect.node == node
                {
                    known.insert(node, suspect);
                }
            })?;
            Ok(known)
        };
        let known = tokio::task::spawn_blocking(read).await.unwrap_or_else(|_| Ok(BTreeMap::new()));
        *self.lock() = known.map_err(BatchStoreError::Read)?;
        Ok(())
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Suspect> {
        self.lock().values().cloned().collect()
    }

    /// Whether a node is one.
    pub(crate) fn is_one(&self, node: &PeerId) -> bool {
        self.lock().contains_key(node)
    }

    /// A batch showed these up. Each is written down once.
    pub(crate) async fn remember(
        &self,
        job: JobId,
        outvoted: &BTreeMap<PeerId, Outvoted>,
        at_ms: u64,
    ) -> Result<(), BatchStoreError> {
        for (node, Outvoted { tasks, example }) in outvoted {
            if self.told().contains(&(job, *node)) {
                continue;
            }
            let (tasks, example, by) = (*tasks, *example, self.me);
            warn!(%node, %job, tasks, example, "a node found something else than the others");
            let suspect = Suspect { node: *node, job, tasks, example, at_ms, by };
            let value = encode(&suspect)?;
            self.space.set(&node.to_bytes(), value.into(), Some(REMEMBER_FOR)).await?;
            self.told().insert((job, *node));
        }
        Ok(())
    }

    /// Trusts a node again; says whether it was not trusted.
    pub(crate) async fn forgive(&self, node: &PeerId) -> Result<bool, BatchStoreError> {
        let was_one = self.lock().remove(node).is_some();
        self.space.delete(&node.to_bytes()).await?;
        Ok(was_one)
    }

    /// A batch is no longer kept.
    pub(crate) fn forget(&self, job: &JobId) {
        self.told().retain(|(of, _)| of != job);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerId, Suspect>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self) -> MutexGuard<'_, BTreeSet<(JobId, PeerId)>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
