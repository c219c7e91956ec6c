//! What the tasks of a batch said and how they ended, read from its receipts in the order of the tasks.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use starfish_dht::PeerId;
use starfish_fs::vfs::VfsError;
use tokio::sync::watch;

use super::pace::MAX_SLICE;
use super::receipt::{Said, TaskResult};
use super::service::Batches;
use super::slice::AtHand;
use super::store::{BatchStoreError, output_name};
use crate::task::JobId;

/// Receipts that are held while their tasks are read.
const HELD: usize = 8;

/// Why results cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// The job is not known any more.
    #[error("job {0} is no longer kept")]
    Gone(JobId),
    /// They are not there.
    #[error(transparent)]
    Store(#[from] BatchStoreError),
}

/// One task that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub task: u64,
    /// Its item, where it has one.
    pub item: Option<String>,
    /// Who ran it.
    pub by: PeerId,
    /// How it ended.
    pub result: TaskResult,
    generation: u32,
}

/// Reads results, also of a batch that has not ended.
#[derive(Debug)]
pub struct Results {
    batches: Arc<Batches>,
    job: JobId,
    items: AtHand,
    next: u64,
    held: VecDeque<(Place, PeerId, Vec<TaskResult>)>,
    changed: watch::Receiver<u64>,
}

/// Where a receipt is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) start: u64,
    pub(crate) generation: u32,
}

/// What is next.
enum Next {
    Task(Vec<Place>),
    Wait,
    End,
}

impl Results {
    pub(super) async fn open(batches: Arc<Batches>, job: JobId) -> Result<Self, ResultsError> {
        let changed = batches.changes();
        let definition = batches.definition(job).await?;
        let items = batches.items_of(job, &definition).await?;
        Ok(Self { batches, job, items, next: 0, held: VecDeque::new(), changed })
    }

    /// The next task in order, once it has ended; `None` after the last. Of a batch that was ended early, tasks that
    /// were not run are passed over. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Ended>, ResultsError> {
        loop {
            self.changed.mark_unchanged();
            match self.look()? {
                Next::Task(places) => {
                    let ended = self.read(&places).await?;
                    self.next += 1;
                    return Ok(Some(ended));
                }
                Next::End => return Ok(None),
                Next::Wait => {
                    if self.changed.changed().await.is_err() {
                        return Err(ResultsError::Gone(self.job));
                    }
                }
            }
        }
    }

    /// All that a task said on one of its streams.
    pub async fn said(
        &self,
        ended: &Ended,
        stream: OutputStream,
    ) -> Result<BoxStream<'static, Result<Bytes, VfsError>>, ResultsError> {
        let (said, name) = match stream {
            OutputStream::Stdout => (&ended.result.stdout, "out"),
            OutputStream::Stderr => (&ended.result.stderr, "err"),
        };
        match said {
            Said::Here(text) => Ok(stream::iter([Ok(text.bytes().clone())]).boxed()),
            Said::Kept(_) => {
                let name = output_name(ended.generation, ended.task, name);
                Ok(self.batches.store().file(self.job, &name).await?)
            }
        }
    }

    /// Receipts that tell of the next task that has ended.
    fn look(&mut self) -> Result<Next, ResultsError> {
        let docket = self.batches.docket();
        let known = docket.get(&self.job).ok_or(ResultsError::Gone(self.job))?;
        while self.next < known.card.tasks {
            if known.coverage.is_done(known.generation, self.next) {
                let first = Place { start: self.next.saturating_sub(MAX_SLICE), generation: 0 };
                let last = Place { start: self.next, generation: u32::MAX };
                let covering = known.receipts.range(first..=last).filter(|(_, end)| **end > self.next);
                return Ok(Next::Task(covering.map(|(place, _)| *place).collect()));
            }
            if known.end.is_none() {
                return Ok(Next::Wait);
            }
            self.next += 1;
        }
        Ok(Next::End)
    }

    /// Of all that tell of the task, the one that counts: where it ended well, the first; else the latest.
    async fn read(&mut self, places: &[Place]) -> Result<Ended, ResultsError> {
        let mut best: Option<(bool, Place, Ended)> = None;
        for place in places {
            let (by, result) = self.result(*place).await?;
            let is_well = result.outcome.is_success();
            let is_better = best.as_ref().is_none_or(|(was_well, other, _)| match (is_well, was_well) {
                (true, was_well) => !was_well,
                (false, was_well) => !was_well && place.generation > other.generation,
            });
            if is_better {
                let (task, item, generation) = (self.next, self.items.item(self.next), place.generation);
                best = Some((is_well, *place, Ended { task, item, by, result, generation }));
            }
        }
        best.map(|(_, _, ended)| ended).ok_or(ResultsError::Gone(self.job))
    }

    async fn result(&mut self, place: Place) -> Result<(PeerId, TaskResult), ResultsError> {
        if !self.held.iter().any(|(held, ..)| *held == place) {
            let (receipt, results) = self.batches.store().read_receipt(self.job, place).await?;
            if self.held.len() >= HELD {
                self.held.pop_front();
            }
            self.held.push_back((place, receipt.by, results));
        }
        let found = self.held.iter().find(|(held, ..)| *held == place).and_then(|(_, by, results)| {
            let at = usize::try_from(self.next.checked_sub(place.start)?).ok()?;
            Some((*by, results.get(at)?.clone()))
        });
        found.ok_or(ResultsError::Gone(self.job))
    }
}

/// One of the two streams that a task writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}
