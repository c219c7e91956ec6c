//! Runs the tasks of a batch on one slot of this node, one after the other.
//!
//! What tasks have in common (the program, the granted folders, the worker process) is made ready once and kept for the
//! next, as long as nothing has been changed in it.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use starfish_fs::path::VfsPath;
use starfish_fs::vfs::{Kind, Parents, VfsError};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::capture::Captured;
use super::definition::{Definition, Kept, KeptInput};
use super::receipt::{MAX_INLINE, TaskResult};
use super::results::OutputStream;
use super::sealed::SealKey;
use super::service::Batches;
use super::slice::SliceItems;
use super::store::{BatchStoreError, output_name};
use crate::cache::PrepareError;
use crate::in_words;
use crate::order::{Folder, Order};
use crate::pool::{CompileError, RunEnd, Worker};
use crate::runner::order_of;
use crate::series::{Brief, Series};
use crate::staging::{self, LaidOut, StageError};
use crate::task::{Cost, Grant, JobId, Outcome, OutputFrame};

/// Pieces of input and output on their way.
const QUEUE: usize = 8;

/// What came of a task.
pub(super) enum Trial {
    /// It ended, well or not.
    Ended { result: Box<TaskResult>, elapsed_us: u64 },
    /// Its worker process is gone.
    Lost(String),
}

/// What a slot needs for the tasks of one batch.
pub(super) struct Bench {
    batches: Arc<Batches>,
    job: JobId,
    ready: Option<Ready>,
    place: Option<Place>,
}

/// What follows from the definition.
#[derive(Clone)]
struct Ready {
    definition: Arc<Definition>,
    artifact: Result<String, String>,
}

/// A worker process with the granted folders laid out for it.
struct Place {
    worker: Worker,
    laid_out: LaidOut,
}

/// Tasks that a worker process runs one after the other. Dropping it ends the process.
pub(super) struct InSeries {
    results: mpsc::Receiver<Vec<Brief>>,
    running: AbortOnDropHandle<Option<Place>>,
}

impl InSeries {
    /// What came of the next tasks; `None` at the end, however it came.
    pub(super) async fn next(&mut self) -> Option<Vec<Brief>> {
        self.results.recv().await
    }
}

/// One try.
enum Try {
    Ended(Outcome, Cost, Box<Captured>),
    Lost(String),
}

impl Bench {
    pub(super) fn new(batches: &Arc<Batches>, job: JobId) -> Self {
        Self { batches: Arc::clone(batches), job, ready: None, place: None }
    }

    /// Runs a task, as often as its batch says. An error says that it cannot be run here now. When the future is
    /// dropped, so is the worker process. With a `seal`, nobody can read what is kept of it until that is published.
    pub(super) async fn run(
        &mut self,
        generation: u32,
        task: u64,
        item: Option<String>,
        seal: Option<&SealKey>,
    ) -> Result<Trial, BatchStoreError> {
        let Ready { definition, artifact } = self.prepare().await?;
        let artifact = match artifact {
            Ok(artifact) => artifact,
            Err(why) => return Ok(impossible(why)),
        };
        for tries in 1.. {
            let (outcome, cost, captured) =
                match self.try_once(&definition, &artifact, task, item.as_deref()).await? {
                    Try::Ended(outcome, cost, captured) => (outcome, cost, captured),
                    Try::Lost(why) => return Ok(Trial::Lost(why)),
                };
            if tries <= definition.retries.allowed(&outcome) {
                continue;
            }
            let elapsed_ms = u32::try_from(cost.elapsed_us / 1000).unwrap_or(u32::MAX);
            let [stdout, stderr] =
                self.keep_output(generation, task, item.as_deref(), &definition, *captured, seal).await?;
            let result = Box::new(TaskResult { outcome, tries, elapsed_ms, stdout, stderr });
            return Ok(Trial::Ended { result, elapsed_us: cost.elapsed_us });
        }
        Ok(impossible("it was tried too often".to_owned()))
    }

    /// Runs tasks in a series, if they are of a kind that can be. What comes of them is told in order; those of which
    /// nothing was told are to be run one by one.
    pub(super) async fn run_series(
        &mut self,
        items: &SliceItems,
        at: u64,
    ) -> Result<Option<InSeries>, BatchStoreError> {
        let Ready { definition, artifact } = self.prepare().await?;
        let is_simple = definition.input == KeptInput::Empty
            && definition.out.is_none()
            && definition.call.is_pure()
            && !matches!(definition.items, Kept::Files { .. });
        let (Ok(artifact), true) = (artifact, is_simple) else { return Ok(None) };
        let Some(items) = items.series(at) else { return Ok(None) };
        let mut place = match self.place.take() {
            Some(place) => place,
            None => self.lay_out(&definition).await?,
        };
        let order = order_of(&definition.call, artifact, place.laid_out.staged());
        let series = Series { order, items, retries: definition.retries, said_bytes: MAX_INLINE as u64 };
        let (told, results) = mpsc::channel(QUEUE);
        let running = tokio::spawn(async move {
            let end = place.worker.run_series(series, &told).await;
            matches!(end, RunEnd::Ended(..)).then_some(place)
        });
        Ok(Some(InSeries { results, running: AbortOnDropHandle::new(running) }))
    }

    /// A series is over: what it was run with is of use for what comes next, if all went well.
    pub(super) async fn after(&mut self, series: InSeries) {
        drop(series.results);
        self.place = series.running.await.ok().flatten();
    }

    async fn prepare(&mut self) -> Result<Ready, BatchStoreError> {
        if let Some(ready) = &self.ready {
            return Ok(ready.clone());
        }
        let service = &self.batches.service;
        let definition = self.batches.definition(self.job).await?;
        let module = definition.call.module;
        let damaged = |error: PrepareError| VfsError::Io {
            what: "keeping the program".to_owned(),
            source: std::io::Error::other(error),
        };
        if !service.programs.has(module).await {
            let program = self.batches.store().program(self.job, module).await?;
            service.programs.put(module, program).await.map_err(damaged)?;
        }
        let artifact = match service.programs.artifact(module, &service.pool, definition.profile()).await {
            Ok(artifact) => Ok(artifact),
            Err(error @ PrepareError::Compile(CompileError::Rejected(_) | CompileError::TooSlow)) => {
                Err(error.to_string())
            }
            Err(error) => return Err(damaged(error).into()),
        };
        let ready = Ready { definition, artifact };
        self.ready = Some(ready.clone());
        Ok(ready)
    }

    async fn try_once(
        &mut self,
        definition: &Definition,
        artifact: &str,
        task: u64,
        item: Option<&str>,
    ) -> Result<Try, BatchStoreError> {
        let mut place = match self.place.take() {
            Some(place) => place,
            None => self.lay_out(definition).await?,
        };
        let mut order = order_of(&definition.call, artifact.to_owned(), place.laid_out.staged());
        order.args.extend(item.map(str::to_owned));
        let own = match (&definition.items, item) {
            (Kept::Files { .. }, Some(path)) => {
                self.lay_out_file(definition, place.laid_out.folder(), task, path).await?
            }
            _ => None,
        };
        order.folders.extend(own.clone());
        let (end, captured) = self.converse(&mut place.worker, &order, definition).await?;
        let (outcome, cost, is_reusable) = match end {
            RunEnd::Ended(outcome, cost) => (outcome, cost, true),
            RunEnd::Stopped(outcome) => {
                let elapsed_us = order.timeout_ms.saturating_mul(1000);
                (outcome, Cost { elapsed_us, memory_bytes: 0 }, false)
            }
            RunEnd::Lost(why) => return Ok(Try::Lost(why)),
            RunEnd::Unreadable(why) => {
                self.batches.service.programs.discard(artifact).await;
                self.ready = None;
                return Ok(Try::Lost(why));
            }
        };
        if definition.call.writes() {
            let committed = self.commit(place, &outcome).await;
            let outcome = committed.map_or_else(|reason| Outcome::Failed { reason }, |()| outcome);
            return Ok(Try::Ended(outcome, cost, Box::new(captured)));
        }
        let is_clean = match own {
            Some(own) => tokio::fs::remove_dir_all(&own.host).await.is_ok(),
            None => true,
        };
        if is_reusable && is_clean {
            self.place = Some(place);
        }
        Ok(Try::Ended(outcome, cost, Box::new(captured)))
    }

    /// A worker process, and what is granted to every task in folders of it.
    async fn lay_out(&self, definition: &Definition) -> Result<Place, BatchStoreError> {
        let service = &self.batches.service;
        let worker = service.pool.take(definition.profile()).await;
        let worker = worker.map_err(|error| io("starting a worker process", error))?;
        let laid_out = LaidOut::make(&*service.files, definition.call.grants(), worker.scratch()).await;
        let laid_out = laid_out.map_err(staging_error)?;
        Ok(Place { worker, laid_out })
    }

    /// The folder with the file that a task is run for, and nothing else in it, unless it is granted anyway.
    async fn lay_out_file(
        &self,
        definition: &Definition,
        folder: &Path,
        task: u64,
        path: &str,
    ) -> Result<Option<Folder>, BatchStoreError> {
        let path = VfsPath::parse(path)?;
        let Some(parent) = path.parent() else { return Ok(None) };
        if definition.call.grants().any(|grant: &Grant| parent.starts_with(&grant.path)) {
            return Ok(None);
        }
        let host = folder.join(format!("item-{task}"));
        tokio::fs::create_dir_all(&host).await.map_err(|error| io("making a folder", error))?;
        let target = host.join(path.name().unwrap_or_default());
        let entry = self.batches.store().files.stat(&path).await?;
        if entry.kind == Kind::File {
            staging::copy_out(&*self.batches.store().files, path.clone(), target, entry)
                .await
                .map_err(staging_error)?;
        }
        Ok(Some(Folder { host, guest: parent.to_string(), writable: false }))
    }

    async fn converse(
        &self,
        worker: &mut Worker,
        order: &Order,
        definition: &Definition,
    ) -> Result<(RunEnd, Captured), BatchStoreError> {
        let (stdin, from_here) = mpsc::channel(QUEUE);
        let (output, from_worker) = mpsc::channel::<OutputFrame>(QUEUE);
        let running = async {
            let end = worker.run(order, from_here, &output).await;
            drop(output);
            end
        };
        let feeding = self.feed(definition.input, stdin);
        let capturing = Captured::capture(from_worker, &self.batches.service.jobs_dir);
        let both = async { tokio::join!(running, capturing) };
        tokio::pin!(both, feeding);
        // A task need not read its input to the end.
        let (end, captured) = tokio::select! {
            ended = &mut both => ended,
            fed = &mut feeding => { fed?; both.await }
        };
        Ok((end, captured.map_err(|error| io("keeping what a task says", error))?))
    }

    /// Feeds a task its input, and lets go of it at the end.
    async fn feed(&self, input: KeptInput, stdin: mpsc::Sender<Bytes>) -> Result<(), BatchStoreError> {
        match input {
            KeptInput::Empty => {}
            KeptInput::File(_) => {
                pour(self.batches.store().file(self.job, "stdin").await?, &stdin).await?;
            }
            KeptInput::OutputOf(job) => {
                let gone = |error: super::ResultsError| io("reading the output of another job", error);
                let mut results = self.batches.results(job).await.map_err(gone)?;
                while let Some(ended) = results.next().await.map_err(gone)? {
                    let said = results.said(&ended, OutputStream::Stdout).await.map_err(gone)?;
                    if !pour(said, &stdin).await? {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes the changes that a task left, if it ended well. The process that could write there is gone before.
    async fn commit(&self, mut place: Place, outcome: &Outcome) -> Result<(), String> {
        place.worker.kill().await.map_err(|error| in_words(&error))?;
        if outcome.is_success() {
            place.laid_out.commit(&*self.batches.service.files).await?;
        }
        Ok(())
    }

    async fn keep_output(
        &self,
        generation: u32,
        task: u64,
        item: Option<&str>,
        definition: &Definition,
        captured: Captured,
        seal: Option<&SealKey>,
    ) -> Result<[super::receipt::Said; 2], BatchStoreError> {
        let store = self.batches.store();
        let Captured { mut stdout, mut stderr } = captured;
        let io_error = |error| io("reading what a task said", error);
        if let Some(out) = &definition.out {
            let path = output_path(out, &definition.items, task, item)?;
            if let Some(parent) = path.parent() {
                store.files.mkdir(&parent, Parents::Create).await?;
            }
            store.write(&path, stdout.stream().await.map_err(io_error)?).await?;
        }
        for (said, name) in [(&mut stdout, "out"), (&mut stderr, "err")] {
            if said.is_long() {
                let content = said.stream().await.map_err(io_error)?;
                let name = output_name(generation, task, name, seal.map(|_| self.batches.me()));
                let content = match seal {
                    Some(seal) => seal.apply_stream(&name, content),
                    None => content,
                };
                store.put_file(self.job, &name, content).await?;
            }
        }
        Ok([stdout.into_said(), stderr.into_said()])
    }
}

/// The outcome of a task that cannot be run anywhere.
fn impossible(reason: String) -> Trial {
    Trial::Ended { result: Box::new(TaskResult::failed(reason, 1)), elapsed_us: 0 }
}

/// Where the output of a task goes: the number or the place in the list, or, below the folder that all files of a
/// pattern are in, the name of its own.
fn output_path(
    out: &VfsPath,
    items: &Kept,
    task: u64,
    item: Option<&str>,
) -> Result<VfsPath, BatchStoreError> {
    let mut path = out.clone();
    match (items, item) {
        (Kept::Files { base, .. }, Some(item)) => {
            for name in VfsPath::parse(item)?.names().skip(base.names().count()) {
                path = path.join(name)?;
            }
        }
        (Kept::Range(_), Some(number)) => path = path.join(number)?,
        _ => path = path.join(&task.to_string())?,
    }
    Ok(path)
}

/// Passes a stream on; says whether anybody takes it.
async fn pour(
    mut from: BoxStream<'static, Result<Bytes, VfsError>>,
    to: &mpsc::Sender<Bytes>,
) -> Result<bool, BatchStoreError> {
    while let Some(bytes) = from.next().await {
        let mut bytes = bytes?;
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(crate::wire::CHUNK));
            if to.send(part).await.is_err() {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn staging_error(error: StageError) -> BatchStoreError {
    match error {
        StageError::Tree(error) => error.into(),
        other => io("laying out the granted folders", other),
    }
}

fn io(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> BatchStoreError {
    VfsError::Io { what: what.to_owned(), source: std::io::Error::other(error) }.into()
}
