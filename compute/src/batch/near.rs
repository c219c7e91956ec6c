//! What a node has at hand of a batch over files: its keeper is told, so that the work comes to the data.

use std::ops::Range;
use std::sync::{Arc, PoisonError};

use starfish_fs::path::VfsPath;
use tracing::debug;

use super::definition::Kept;
use super::service::Batches;
use super::slice::{AtHand, MAX_NEAR};
use super::store::BatchStoreError;
use crate::task::JobId;

/// Files that are looked at; of a longer list, only so many from its beginning.
const MAX_LOOKED: u64 = 10_000;
/// Batches of which it is remembered what is at hand.
const MAX_REMEMBERED: usize = 16;

/// Tasks of which most of the file is here.
pub(super) type Near = Arc<[Range<u64>]>;

impl Batches {
    /// The tasks of a batch over files that this node has most of the bytes for, as it was when it first began with them.
    /// Nothing where that does not matter.
    pub(super) async fn near(&self, job: JobId) -> Option<Near> {
        let is_anywhere = self.docket().get(&job).is_none_or(|known| known.card.anywhere);
        if is_anywhere {
            return None;
        }
        let remembered = || self.near.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(near) = remembered().get(&job) {
            return near.clone();
        }
        let near = match self.look_near(job).await {
            Ok(near) => near,
            Err(error) => {
                // What cannot be seen yet is asked for as if it lay nowhere.
                debug!(%job, %error, "cannot see which files of a job are here");
                return None;
            }
        };
        let mut remembered = remembered();
        if remembered.len() >= MAX_REMEMBERED {
            remembered.pop_first();
        }
        remembered.insert(job, near.clone());
        near
    }

    async fn look_near(&self, job: JobId) -> Result<Option<Near>, BatchStoreError> {
        let definition = self.definition(job).await?;
        let Kept::Files { count, .. } = &definition.items else { return Ok(None) };
        let items = self.items_of(job, &definition).await?;
        let mut near: Vec<Range<u64>> = Vec::new();
        for task in 0..(*count).min(MAX_LOOKED) {
            if !self.is_near(&items, task).await {
                continue;
            }
            let n_runs = near.len();
            match near.last_mut() {
                Some(run) if run.end == task => run.end += 1,
                _ if n_runs == MAX_NEAR => break,
                _ => near.push(task..task + 1),
            }
        }
        Ok(Some(near.into()))
    }

    /// Whether more than half of the bytes of a task's file are here.
    async fn is_near(&self, items: &AtHand, task: u64) -> bool {
        let Some(path) = items.item(task).and_then(|path| VfsPath::parse(&path).ok()) else { return false };
        let files = &self.store().files;
        let (Ok(entry), Ok(here)) = (files.stat(&path).await, files.bytes_here(&path).await) else {
            return false;
        };
        entry.size > 0 && here > entry.size / 2
    }
}
