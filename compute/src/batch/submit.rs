//! From what a user asks for to a batch that every node knows.

use starfish_dht::PeerId;
use starfish_fs::vfs::VfsError;

use super::definition::{
    BatchSpec, Card, Definition, Input, Items, Kept, KeptInput, MAX_AFTER, MAX_ITEM_BYTES, MAX_LISTED,
    MAX_LISTED_BYTES, MAX_RANGE, MAX_RETRIES,
};
use super::glob::{self, GlobError};
use super::store::{BatchStoreError, Store};
use crate::cache::Programs;
use crate::notice::short_name;
use crate::submit::{self, SubmitError};
use crate::task::{JobId, TaskSpec};

/// Why a batch was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// Its tasks would not be.
    #[error(transparent)]
    Task(#[from] SubmitError),
    /// Its files cannot be found.
    #[error(transparent)]
    Glob(#[from] GlobError),
    /// There is nothing to do.
    #[error("a job needs at least one item")]
    Empty,
    /// There is too much to do.
    #[error(
        "a range has at most {MAX_RANGE} numbers, and a list at most {MAX_LISTED} items of 64 MiB together"
    )]
    TooMany,
    /// An item that cannot be an argument.
    #[error("an item is longer than {} KiB, or holds a NUL byte", MAX_ITEM_BYTES >> 10)]
    Item,
    /// Too many others to wait for.
    #[error("a job waits for at most {MAX_AFTER} others")]
    After,
    /// Nobody knows it.
    #[error("no job {0} to wait for")]
    NotFound(JobId),
    /// More than makes sense.
    #[error("a task is tried again at most {MAX_RETRIES} times")]
    Retries,
    /// Its input cannot be read.
    #[error("cannot read the input")]
    Input(#[source] VfsError),
    /// This node knows of too many already.
    #[error("the swarm has {} jobs already whose results are kept", super::docket::MAX_BATCHES)]
    Full,
    /// It cannot be kept.
    #[error("cannot keep the job")]
    Store(#[from] BatchStoreError),
}

/// Checks a batch, writes down what it is, and returns its card.
pub(crate) async fn prepare(
    job: JobId,
    spec: BatchSpec,
    me: PeerId,
    now_ms: u64,
    store: &Store,
    programs: &Programs,
) -> Result<Card, BatchError> {
    check(&spec)?;
    let task = TaskSpec {
        name: spec.name.clone(),
        module: spec.module,
        args: spec.args,
        env: spec.env,
        grants: spec.grants,
        limits: spec.limits,
        on: spec.on,
    };
    let call = submit::prepare(&task, &*store.files, programs).await?;
    let program =
        programs.get(call.module).await.map_err(|error| SubmitError::Disk(std::io::Error::other(error)))?;
    let items = keep_items(job, spec.items, store).await?;
    let (mut after, input) = (spec.after, keep_input(job, &spec.input, store).await?);
    if let Input::OutputOf(of) = spec.input {
        after.push(of);
    }
    after.sort_unstable();
    after.dedup();
    let tasks = items.count();
    let definition = Definition { call, items, input, out: spec.out, retries: spec.retries };
    let definition = store.define(job, &definition, program).await?;
    let millis = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    Ok(Card {
        name: short_name(&spec.name),
        tasks,
        submitter: me,
        submitted_ms: now_ms,
        priority: spec.priority,
        deadline_ms: spec.deadline.map(|deadline| now_ms.saturating_add(millis(deadline))),
        on: spec.on,
        memory_bytes: spec.limits.memory_bytes,
        after,
        keep_ms: millis(spec.keep),
        definition,
    })
}

fn check(spec: &BatchSpec) -> Result<(), BatchError> {
    let is_item = |item: &String| item.len() <= MAX_ITEM_BYTES && !item.contains('\0');
    match &spec.items {
        Items::Range(range) if range.is_empty() => return Err(BatchError::Empty),
        Items::Range(range) if range.end - range.start > MAX_RANGE => return Err(BatchError::TooMany),
        Items::Lines(lines) if lines.is_empty() => return Err(BatchError::Empty),
        Items::Lines(lines) if lines.len() > MAX_LISTED => return Err(BatchError::TooMany),
        Items::Lines(lines) if lines.iter().map(String::len).sum::<usize>() > MAX_LISTED_BYTES => {
            return Err(BatchError::TooMany);
        }
        Items::Lines(lines) if !lines.iter().all(is_item) => return Err(BatchError::Item),
        _ => {}
    }
    if spec.after.len() >= MAX_AFTER {
        return Err(BatchError::After);
    }
    if spec.retries.failed.max(spec.retries.limit) > MAX_RETRIES {
        return Err(BatchError::Retries);
    }
    Ok(())
}

async fn keep_items(job: JobId, items: Items, store: &Store) -> Result<Kept, BatchError> {
    Ok(match items {
        Items::One => Kept::One,
        Items::Range(range) => Kept::Range(range),
        Items::Lines(lines) => {
            store.put_items(job, &lines).await?;
            Kept::Lines(lines.len() as u64)
        }
        Items::Files(pattern) => {
            let (base, files) = glob::find(&*store.files, &pattern).await?;
            let files: Vec<_> = files.iter().map(ToString::to_string).collect();
            if files.iter().map(String::len).sum::<usize>() > MAX_LISTED_BYTES {
                return Err(BatchError::TooMany);
            }
            store.put_items(job, &files).await?;
            Kept::Files { count: files.len() as u64, base }
        }
    })
}

async fn keep_input(job: JobId, input: &Input, store: &Store) -> Result<KeptInput, BatchError> {
    match input {
        Input::Empty => Ok(KeptInput::Empty),
        Input::File(path) => {
            let content = store.files.read(path, 0..u64::MAX).await.map_err(BatchError::Input)?;
            store.put_file(job, "stdin", content).await?;
            Ok(KeptInput::File)
        }
        Input::OutputOf(of) => Ok(KeptInput::OutputOf(*of)),
    }
}
