//! What the tasks of a batch said and how they ended, read from its receipts in the order of the tasks.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use starfish_dht::PeerId;
use starfish_fs::vfs::VfsError;
use tokio::sync::watch;

use super::ballot::{self, quorum};
use super::pace::MAX_SLICE;
use super::receipt::{Said, SliceReceipt, TaskResult};
use super::sealed::SealKey;
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
    /// Who ran it; of several who say the same, the first.
    pub by: PeerId,
    /// How it ended.
    pub result: TaskResult,
    generation: u32,
    /// What its long outputs are encrypted with.
    seal: Option<SealKey>,
}

/// Reads results, also of a batch that has not ended.
#[derive(Debug)]
pub struct Results {
    batches: Arc<Batches>,
    job: JobId,
    items: AtHand,
    next: u64,
    held: VecDeque<Held>,
    changed: watch::Receiver<u64>,
}

/// Where a receipt is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) start: u64,
    pub(crate) generation: u32,
    /// Whose it is, where several nodes run the same tasks.
    pub(crate) by: Option<PeerId>,
}

/// A receipt that was read.
#[derive(Debug)]
struct Held {
    place: Place,
    by: PeerId,
    results: Vec<TaskResult>,
    seal: Option<SealKey>,
}

/// What is next.
enum Next {
    /// Of so many nodes that ran it, how many must agree, and the receipts that tell of it.
    Task(usize, Vec<Place>),
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

    /// What comes next is this task, or the first one behind it that has ended.
    pub(super) fn skip_to(&mut self, task: u64) {
        self.next = task;
    }

    /// The next task in order, once it has ended; `None` after the last. Of a batch that was ended early, tasks that
    /// were not run are passed over. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Ended>, ResultsError> {
        loop {
            self.changed.mark_unchanged();
            match self.look()? {
                Next::Task(quorum, places) => {
                    let ended = self.read(quorum, &places).await?;
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
            Said::Kept { .. } => {
                let sealed_by = ended.seal.map(|_| ended.by);
                let name = output_name(ended.generation, ended.task, name, sealed_by);
                let content = self.batches.store().file(self.job, &name).await?;
                Ok(match ended.seal {
                    Some(seal) => seal.apply_stream(&name, content),
                    None => content,
                })
            }
        }
    }

    /// Receipts that tell of the next task that has ended.
    fn look(&mut self) -> Result<Next, ResultsError> {
        let docket = self.batches.docket();
        let known = docket.get(&self.job).ok_or(ResultsError::Gone(self.job))?;
        while self.next < known.card.tasks {
            if known.coverage.is_done(known.generation, self.next) {
                let first = Place { start: self.next.saturating_sub(MAX_SLICE), generation: 0, by: None };
                let last = Place { start: self.next + 1, generation: 0, by: None };
                let covering = known.receipts.range(first..last).filter(|(_, end)| **end > self.next);
                let quorum = known.jury.as_ref().map_or(1, |jury| quorum(jury.copies()));
                return Ok(Next::Task(quorum, covering.map(|(place, _)| *place).collect()));
            }
            if known.end.is_none() {
                return Ok(Next::Wait);
            }
            self.next += 1;
        }
        Ok(Next::End)
    }

    /// Of all that tell of the task, the one that counts: where it ended well, the first; else the latest. Where several
    /// nodes ran it, only what enough of them agree on counts, or that it could not be run.
    async fn read(&mut self, quorum: usize, places: &[Place]) -> Result<Ended, ResultsError> {
        let (mut told, mut missing) = (Vec::new(), None);
        for place in places {
            match self.result(*place).await {
                Ok(ended) => told.push((*place, ended)),
                // Others may do.
                Err(error) => missing = Some(error),
            }
        }
        let agree = |place: &Place, ended: &Ended| {
            let said = ballot::said(&ended.result);
            let same = told.iter().filter(|(other, told)| {
                other.generation == place.generation && ballot::said(&told.result) == said
            });
            same.count() >= quorum
        };
        let counts = |place: &Place, ended: &Ended| quorum == 1 || place.by.is_none() || agree(place, ended);
        let mut best: Option<(bool, &Place, &Ended)> = None;
        for (place, ended) in told.iter().filter(|(place, ended)| counts(place, ended)) {
            let is_well = ended.result.outcome.is_success();
            let is_better = best.is_none_or(|(was_well, other, _)| match (is_well, was_well) {
                (true, was_well) => !was_well,
                (false, was_well) => !was_well && place.generation > other.generation,
            });
            if is_better {
                best = Some((is_well, place, ended));
            }
        }
        let best = best.map(|(_, _, ended)| ended.clone());
        best.ok_or_else(|| missing.unwrap_or(ResultsError::Gone(self.job)))
    }

    async fn result(&mut self, place: Place) -> Result<Ended, ResultsError> {
        if !self.held.iter().any(|held| held.place == place) {
            let (receipt, results, seal) = self.read_receipt(place).await?;
            if self.held.len() >= HELD {
                self.held.pop_front();
            }
            self.held.push_back(Held { place, by: receipt.by, results, seal });
        }
        let (task, item) = (self.next, self.items.item(self.next));
        let found = self.held.iter().find(|held| held.place == place).and_then(|held| {
            let at = usize::try_from(task.checked_sub(place.start)?).ok()?;
            let result = held.results.get(at)?.clone();
            Some(Ended { task, item, by: held.by, result, generation: place.generation, seal: held.seal })
        });
        found.ok_or(ResultsError::Gone(self.job))
    }

    async fn read_receipt(
        &self,
        place: Place,
    ) -> Result<(SliceReceipt, Vec<TaskResult>, Option<SealKey>), ResultsError> {
        let store = self.batches.store();
        if place.by.is_none() {
            let (receipt, results) = store.read_receipt(self.job, place).await?;
            return Ok((receipt, results, None));
        }
        let opened = {
            let docket = self.batches.docket();
            docket.get(&self.job).and_then(|known| known.jury.as_ref()?.opened_with(&place))
        };
        let (digest, key) = opened.ok_or(ResultsError::Gone(self.job))?;
        let pledge = store.read_pledge(self.job, place, digest).await?;
        let opened = pledge.open(&self.job, &key).map_err(|_| BatchStoreError::Receipt(self.job))?;
        Ok((opened.0, opened.1, Some(key)))
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
