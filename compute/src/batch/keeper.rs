//! The keeper's end of a slice: answers who asks for work, and listens while they work.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rangemap::RangeSet;
use starfish_dht::PeerId;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use super::definition::{Card, Definition, Kept};
use super::desk::{Answer, Seats};
use super::docket::Known;
use super::service::Batches;
use super::slice::{AtHand, FromKeeper, FromRunner, MAX_NEAR, Slice};
use super::store::BatchStoreError;
use crate::board::Millis;
use crate::task::JobId;
use crate::wire::{Receiver, Sender};

/// Who opened a stream says something within this time, and again and again while it works.
const SILENCE: Duration = Duration::from_secs(20);

/// The batches that this node keeps.
#[derive(Debug, Default)]
pub(super) struct Desks(Mutex<HashMap<JobId, KeptBatch>>);

/// One of them.
#[derive(Debug)]
pub(super) struct KeptBatch {
    pub(super) generation: u32,
    /// How often each task is to be run.
    copies: usize,
    pub(super) desk: Seats,
    items: Option<Arc<AtHand>>,
    /// Since when all seems done, while receipts are still on their way.
    pub(super) complete_since: Option<Millis>,
    /// Since when there are fewer nodes than are to run each task.
    pub(super) lonely_since: Option<Millis>,
    /// Its end is being written down.
    pub(super) is_ending: bool,
}

impl KeptBatch {
    /// One that is known, with all that was done of it; its desk hands out nothing before `settled`.
    pub(super) fn new(known: &Known, settled: Millis) -> Self {
        let (generation, jury) = (known.generation, known.jury.as_ref());
        let copies = jury.map_or(1, |jury| usize::from(jury.enough()));
        let mut desk = Seats::new(known.card.tasks, &known.coverage.done(generation), copies, settled);
        for (range, by) in jury.into_iter().flat_map(|jury| jury.pledges(generation)) {
            desk.ended(&range, 0, by);
        }
        for (range, by) in jury.into_iter().flat_map(|jury| jury.void_pledges(generation)) {
            desk.exclude(&range, by);
        }
        Self { copies, ..Self::of(generation, desk) }
    }

    /// The same begun anew: those at work go on.
    pub(super) fn renewed(&self, known: &Known, now: Millis) -> Self {
        let mut new = Self::new(known, now);
        if self.generation == known.generation {
            new.desk.take_over(&self.desk, now);
        }
        new
    }

    /// One that nobody can be at work on yet.
    pub(super) fn first(card: &Card) -> Self {
        let copies = usize::from(card.copies);
        Self { copies, ..Self::of(0, Seats::new(card.tasks, &RangeSet::new(), copies, 0)) }
    }

    /// One of which nothing is left to do but to write down its end.
    pub(super) fn ending(generation: u32) -> Self {
        Self::of(generation, Seats::new(0, &RangeSet::new(), 1, 0))
    }

    /// Lets go of what nobody asks for any more.
    pub(super) fn clear(&mut self) {
        self.items = None;
    }

    fn of(generation: u32, desk: Seats) -> Self {
        let (copies, items, complete_since, lonely_since) = (1, None, None, None);
        Self { generation, copies, desk, items, complete_since, lonely_since, is_ending: false }
    }

    /// Whether it is about what the batch is now.
    pub(super) fn is_of(&self, known: &Known) -> bool {
        let copies = known.jury.as_ref().map_or(1, |jury| usize::from(jury.enough()));
        self.generation == known.generation && self.copies == copies
    }
}

impl Desks {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<JobId, KeptBatch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Batches {
    /// Serves a node that works, or wants to, until it is gone.
    pub(super) async fn serve<S>(self: Arc<Self>, by: PeerId, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (reading, writing) = tokio::io::split(stream);
        let (mut runner, mut sender) = (Receiver::<_, FromRunner>::new(reading), Sender::new(writing));
        let mut at: Option<(JobId, u64)> = None;
        while let Ok(Ok(Some(message))) = tokio::time::timeout(SILENCE, runner.next()).await {
            match message {
                FromRunner::Next(job) => {
                    self.take_back(&mut at, by);
                    let answer = self.answer(job, by).await;
                    if let FromKeeper::Slice(slice) = &answer {
                        at = Some((job, slice.start));
                    }
                    if sender.send(&answer).await.is_err() {
                        break;
                    }
                }
                FromRunner::Near { job, tasks } if tasks.len() <= MAX_NEAR => {
                    let is_run = |run: &Range<u64>| run.start < run.end;
                    let tasks = tasks.into_iter().filter(is_run).collect();
                    self.on_desk(&job, |kept| kept.desk.note_near(by, tasks));
                }
                FromRunner::Resume { job, generation, range } => {
                    let adopts = |kept: &mut KeptBatch| {
                        kept.generation == generation && kept.desk.adopt(self.now(), &range, by)
                    };
                    if self.may_compute(&by) && self.on_desk(&job, adopts) == Some(true) {
                        at = Some((job, range.start));
                    }
                }
                other => {
                    // Who was given up may go on: its receipts count all the same.
                    if let Some((job, start)) = at {
                        self.heed(job, start, by, other).await;
                    }
                }
            }
        }
        self.take_back(&mut at, by);
    }

    async fn heed(&self, job: JobId, start: u64, by: PeerId, message: FromRunner) {
        let now = self.now();
        self.on_desk(&job, |kept| kept.desk.beat(now, start, by));
        match message {
            FromRunner::Ended { range, elapsed_us } => {
                self.on_desk(&job, |kept| kept.desk.ended(&range, elapsed_us, by));
            }
            FromRunner::Lost { task, why } => {
                let lost = |kept: &mut KeptBatch| {
                    kept.desk.lost(now, task, start, by, &why).map(|poison| (kept.generation, poison))
                };
                if let Some((generation, poison)) = self.on_desk(&job, lost).flatten() {
                    self.give_up(job, generation, task, poison).await;
                }
            }
            FromRunner::Beat | FromRunner::Next(_) | FromRunner::Near { .. } | FromRunner::Resume { .. } => {}
        }
    }

    fn take_back(&self, at: &mut Option<(JobId, u64)>, by: PeerId) {
        if let Some((job, start)) = at.take() {
            self.on_desk(&job, |kept| kept.desk.give_back(start, by));
            self.wake();
        }
    }

    async fn answer(&self, job: JobId, by: PeerId) -> FromKeeper {
        if !self.may_compute(&by) || self.suspects.is_one(&by) {
            return FromKeeper::NotMine(None);
        }
        let now = self.now();
        let claimed =
            self.on_desk(&job, |kept| (kept.generation, kept.desk.claim(now, by), kept.items.clone()));
        let Some((generation, answer, items)) = claimed else {
            return self.instead(&job);
        };
        let slice = match answer {
            Answer::Over => return FromKeeper::Over,
            Answer::Later => return FromKeeper::Later,
            Answer::Slice(slice) => slice,
        };
        let items = match items {
            Some(items) => items,
            None => match self.load_items(job).await {
                Ok(items) => items,
                Err(error) => {
                    debug!(%job, %error, "the items of a job cannot be read yet");
                    self.on_desk(&job, |kept| kept.desk.give_back(slice.start, by));
                    return FromKeeper::Later;
                }
            },
        };
        let some = items.of(&slice);
        let span = self.on_desk(&job, |kept| {
            kept.desk.shorten(slice.start, slice.start + some.count(), by);
            kept.desk.span(now)
        });
        let span = span.unwrap_or_default();
        FromKeeper::Slice(Slice { generation, start: slice.start, items: some, span })
    }

    /// What to tell who asks for a batch that is not kept here.
    fn instead(&self, job: &JobId) -> FromKeeper {
        let docket = self.docket();
        match docket.get(job) {
            Some(known) if known.end.is_some() => FromKeeper::Over,
            Some(_) => match docket.keeper(job) {
                // It is about to be kept here.
                Some(keeper) if keeper == self.me() => FromKeeper::Later,
                keeper => FromKeeper::NotMine(keeper),
            },
            None => FromKeeper::NotMine(None),
        }
    }

    async fn load_items(&self, job: JobId) -> Result<Arc<AtHand>, BatchStoreError> {
        let definition = self.definition(job).await?;
        let items = Arc::new(self.items_of(job, &definition).await?);
        self.on_desk(&job, |kept| kept.items = Some(Arc::clone(&items)));
        Ok(items)
    }

    /// The items of a batch.
    pub(super) async fn items_of(
        &self,
        job: JobId,
        definition: &Definition,
    ) -> Result<AtHand, BatchStoreError> {
        let file = match definition.items {
            Kept::One | Kept::Range(_) => Bytes::new(),
            Kept::Lines { .. } | Kept::Files { .. } => self.store().items(job).await?,
        };
        AtHand::new(&definition.items, file).ok_or(BatchStoreError::Items(job))
    }

    pub(super) fn on_desk<T>(&self, job: &JobId, act: impl FnOnce(&mut KeptBatch) -> T) -> Option<T> {
        self.desks().lock().get_mut(job).map(act)
    }
}
