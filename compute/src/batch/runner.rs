//! The runner's end of a slice: asks the keeper for tasks, runs them, and writes down what came of them.
//!
//! What has ended is a receipt in memory before the keeper hears of it. When the keeper is lost the slice goes on, and
//! whoever keeps the batch next is told that it is taken.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use starfish_dht::PeerId;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tracing::debug;

use super::docket::Standing;
use super::pace::MAX_SPAN;
use super::receipt::{Collected, Said, TaskResult};
use super::sealed::{Pledge, SealKey};
use super::service::Batches;
use super::slice::{FromKeeper, FromRunner, SLICE_PROTOCOL, Slice};
use super::store::BatchStoreError;
use super::trial::{Bench, Trial};
use crate::in_words;
use crate::series::Brief;
use crate::task::JobId;
use crate::wire::{Chunk, Receiver, Sender, WireError};

/// How often the keeper hears from a runner.
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// How often a keeper is looked for, when the one that gave the slice is lost.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// How long a keeper may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// In memory between a keeper and a runner on the same node.
const PIPE_BYTES: usize = 64 << 10;
/// Tasks that are run one by one where a series broke off: it tells of what has ended a little late.
const AFTER_BREAK: u64 = 64;
/// What is to be told to the keeper.
const QUEUE: usize = 64;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A stream to a keeper.
struct Link {
    sender: Sender<WriteHalf<Box<dyn Stream>>>,
    receiver: Receiver<ReadHalf<Box<dyn Stream>>, FromKeeper>,
}

/// One slot of this node at work on a batch.
pub(super) struct Hand {
    batches: Arc<Batches>,
    job: JobId,
}

impl Hand {
    pub(super) fn new(batches: Arc<Batches>, job: JobId) -> Self {
        Self { batches, job }
    }

    /// Works for `keeper` as long as it has work, and nothing else is more urgent. Says whether there was any.
    pub(super) async fn work(&self, keeper: PeerId) -> bool {
        let mut found_work = false;
        let mut link = match self.link(keeper).await {
            Ok(link) => link,
            Err(error) => {
                debug!(job = %self.job, %keeper, %error, "cannot ask for work");
                return false;
            }
        };
        let mut bench = Bench::new(&self.batches, self.job);
        if let Some(tasks) = self.batches.near(self.job).await {
            let near = FromRunner::Near { job: self.job, tasks: tasks.to_vec() };
            if link.sender.send(&near).await.is_err() {
                return false;
            }
        }
        loop {
            let slice = match self.ask(&mut link).await {
                Ok(FromKeeper::Slice(slice)) => slice,
                Ok(FromKeeper::NotMine(Some(other))) if !found_work && other != keeper => {
                    match self.link(other).await {
                        Ok(other) => link = other,
                        Err(_) => return false,
                    }
                    match self.ask(&mut link).await {
                        Ok(FromKeeper::Slice(slice)) => slice,
                        _ => return false,
                    }
                }
                // The last slice may have been all there was.
                Ok(_) => return false,
                Err(error) => {
                    debug!(job = %self.job, %keeper, %error, "lost the keeper of a job");
                    return false;
                }
            };
            found_work = true;
            if !self.run(&slice, &mut link, &mut bench).await || !self.batches.should_go_on(&self.job) {
                return found_work;
            }
        }
    }

    async fn link(&self, keeper: PeerId) -> Result<Link, String> {
        let stream: Box<dyn Stream> = if keeper == self.batches.me() {
            let (mine, desk) = tokio::io::duplex(PIPE_BYTES);
            self.batches.service.spawn(Arc::clone(&self.batches).serve(keeper, desk));
            Box::new(mine)
        } else {
            let opened = self.batches.service.network.open(keeper, SLICE_PROTOCOL).await;
            Box::new(opened.map_err(|error| in_words(&error))?)
        };
        let (reading, writing) = tokio::io::split(stream);
        Ok(Link { sender: Sender::new(writing), receiver: Receiver::new(reading) })
    }

    async fn ask(&self, link: &mut Link) -> Result<FromKeeper, WireError> {
        link.sender.send(&FromRunner::Next(self.job)).await?;
        tokio::time::timeout(PATIENCE, link.receiver.expect()).await.unwrap_or(Err(WireError::Ended))
    }

    /// Runs a slice. Says whether the keeper can be asked for another.
    async fn run(&self, slice: &Slice, link: &mut Link, bench: &mut Bench) -> bool {
        if self.has_had(slice) {
            // The keeper has not heard of it yet.
            return false;
        }
        let (events, to_tell) = mpsc::channel(QUEUE);
        let running = async {
            let ran = self.run_tasks(slice, bench, &events).await;
            drop(events);
            ran
        };
        let (ran, is_told) = tokio::join!(running, self.tell(slice, link, to_tell));
        if let Err(error) = &ran {
            debug!(job = %self.job, error = %in_words(error), "cannot go on with a slice");
            // What is missing may be on its way here; asking again at once would not help.
            tokio::time::sleep(LOOK_EVERY).await;
        }
        ran.is_ok_and(|go_on| go_on) && is_told
    }

    /// Whether this node has pledged itself for any of these tasks: it never does so twice.
    fn has_had(&self, slice: &Slice) -> bool {
        let range = slice.start..slice.start + slice.items.count();
        let docket = self.batches.docket();
        let jury = docket.get(&self.job).and_then(|known| known.jury.as_ref());
        jury.is_some_and(|jury| jury.has_had(self.batches.me(), slice.generation, &range))
    }

    /// Whether what several nodes find is compared.
    fn is_compared(&self) -> bool {
        self.batches.docket().get(&self.job).is_some_and(|known| known.jury.is_some())
    }

    /// Says whether to go on with other slices.
    async fn run_tasks(
        &self,
        slice: &Slice,
        bench: &mut Bench,
        events: &mpsc::Sender<FromRunner>,
    ) -> Result<bool, BatchStoreError> {
        let mut changes = self.batches.changes();
        let mut ledger = Ledger {
            hand: self,
            is_compared: self.is_compared(),
            slice,
            collected: Collected::new(slice.start),
            closed: Instant::now(),
            events,
        };
        tokio::select! {
            ran = ledger.run(bench) => ran.map(|()| true),
            () = self.called_off(&mut changes, slice.generation) => Ok(false),
        }
    }

    /// Returns when the batch is not to be run any more.
    async fn called_off(&self, changes: &mut tokio::sync::watch::Receiver<u64>, generation: u32) {
        loop {
            let is_wanted = {
                let docket = self.batches.docket();
                docket.get(&self.job).is_some_and(|known| known.generation == generation)
                    && docket.standing(&self.job, self.batches.unix_ms()) == Standing::Open
            };
            if !is_wanted {
                return;
            }
            if tokio::time::timeout(BEAT_EVERY, changes.changed()).await.is_ok_and(|changed| changed.is_err())
            {
                return;
            }
        }
    }

    /// Tells the keeper, whoever it is, how the slice goes. Says whether the keeper that gave it is there still.
    async fn tell(&self, slice: &Slice, link: &mut Link, mut events: mpsc::Receiver<FromRunner>) -> bool {
        let mut is_there = true;
        let mut left = slice.start..slice.start + slice.items.count();
        loop {
            let message = match tokio::time::timeout(BEAT_EVERY, events.recv()).await {
                Ok(Some(message)) => message,
                Ok(None) => return is_there,
                Err(_) => FromRunner::Beat,
            };
            match &message {
                FromRunner::Ended { range, .. } => left.start = range.end,
                FromRunner::Lost { task, .. } => left.start = task + 1,
                _ => {}
            }
            if link.sender.send(&message).await.is_err() || self.is_gone(link).await {
                is_there = false;
                self.find_another(slice.generation, &left, link, &mut events).await;
            }
        }
    }

    /// Whether the keeper has let go of the stream: it says nothing while a slice is at work.
    async fn is_gone(&self, link: &mut Link) -> bool {
        let silent = tokio::time::timeout(Duration::ZERO, link.receiver.next()).await.is_err();
        !silent
    }

    /// Looks for the next keeper until there is one that knows of the slice, or the slice is over.
    async fn find_another(
        &self,
        generation: u32,
        left: &Range<u64>,
        link: &mut Link,
        events: &mut mpsc::Receiver<FromRunner>,
    ) {
        while !events.is_closed() || !events.is_empty() {
            let keeper = self.batches.docket().keeper(&self.job);
            if let Some(keeper) = keeper
                && let Ok(mut next) = self.link(keeper).await
            {
                let resume = FromRunner::Resume { job: self.job, generation, range: left.clone() };
                if next.sender.send(&resume).await.is_ok() {
                    *link = next;
                    return;
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// What came of the tasks of a slice, on its way into receipts.
struct Ledger<'slice> {
    hand: &'slice Hand,
    /// What is found is sealed until others have found something too.
    is_compared: bool,
    slice: &'slice Slice,
    collected: Collected,
    closed: Instant,
    events: &'slice mpsc::Sender<FromRunner>,
}

impl Ledger<'_> {
    /// Runs all tasks: in a series as far as that goes, else one by one.
    async fn run(&mut self, bench: &mut Bench) -> Result<(), BatchStoreError> {
        let (start, end) = (self.slice.start, self.slice.start + self.slice.items.count());
        // Where a series breaks off, somewhere behind what was told is a task that must be run by itself.
        let mut alone = 0;
        while self.collected.next() < end {
            let task = self.collected.next();
            if alone == 0 {
                alone = if self.run_series(bench, task - start).await? { AFTER_BREAK } else { u64::MAX };
                continue;
            }
            alone -= 1;
            let (item, seal) = (self.slice.items.get(task - start), self.seal());
            match bench.run(self.slice.generation, task, item, seal.as_ref()).await? {
                Trial::Ended { result, elapsed_us } => self.add(*result, elapsed_us).await?,
                Trial::Lost(why) => {
                    self.close().await?;
                    self.collected = Collected::new(task + 1);
                    let _ = self.events.send(FromRunner::Lost { task, why }).await;
                }
            }
        }
        self.close().await
    }

    /// Says whether these tasks can be run in a series at all.
    async fn run_series(&mut self, bench: &mut Bench, at: u64) -> Result<bool, BatchStoreError> {
        let Some(mut series) = bench.run_series(&self.slice.items, at).await? else { return Ok(false) };
        while let Some(briefs) = series.next().await {
            for brief in briefs {
                let Brief::Ended { outcome, tries, elapsed_us, stdout, stderr } = brief else { continue };
                let elapsed_ms = u32::try_from(elapsed_us / 1000).unwrap_or(u32::MAX);
                let [stdout, stderr] = [stdout, stderr].map(|Chunk(bytes)| Said::here(bytes));
                self.add(TaskResult { outcome, tries, elapsed_ms, stdout, stderr }, elapsed_us).await?;
            }
        }
        bench.after(series).await;
        Ok(true)
    }

    /// What seals the receipt that is being collected.
    fn seal(&self) -> Option<SealKey> {
        let identity = self.hand.batches.service.network.identity();
        let start = self.collected.start();
        self.is_compared.then(|| SealKey::new(identity, &self.hand.job, self.slice.generation, start))
    }

    async fn add(&mut self, result: TaskResult, elapsed_us: u64) -> Result<(), BatchStoreError> {
        self.collected.push(result, elapsed_us)?;
        if self.collected.is_full()
            || self.closed.elapsed() >= Duration::from_millis(self.slice.span.min(MAX_SPAN))
        {
            self.close().await?;
        }
        Ok(())
    }

    /// Writes down what has ended, and then tells the keeper.
    async fn close(&mut self) -> Result<(), BatchStoreError> {
        self.closed = Instant::now();
        if self.collected.is_empty() {
            return Ok(());
        }
        let (batches, job) = (&self.hand.batches, self.hand.job);
        let identity = batches.service.network.identity();
        let seal = self.seal();
        let receipt = self.collected.close(&job, self.slice.generation, batches.unix_ms(), identity)?;
        match seal {
            None => batches.store().receipt(job, &receipt).await?,
            Some(_) if !batches.may_pledge(job, receipt.generation, &receipt.range) => return Ok(()),
            Some(seal) => {
                let pledge = Pledge::seal(&receipt, &job, identity, &seal)?;
                batches.store().pledge(job, &pledge).await?;
            }
        }
        let ended = FromRunner::Ended { range: receipt.range, elapsed_us: receipt.elapsed_us };
        let _ = self.events.send(ended).await;
        Ok(())
    }
}
