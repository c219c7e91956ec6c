//! From what a user asks for to a batch that every node knows.

use starfish_dht::PeerId;
use starfish_fs::path::VfsPath;
use starfish_fs::vfs::{Vfs, VfsError, stream_of};

use super::ballot::{MAX_COPIES, MAX_VERIFIED};
use super::definition::{
    BatchSpec, Card, Definition, Input, Items, Kept, KeptInput, MAX_AFTER, MAX_ITEM_BYTES, MAX_LISTED,
    MAX_LISTED_BYTES, MAX_RANGE, MAX_RETRIES,
};
use super::glob::{self, GlobError};
use super::store::{self, BatchStoreError, Store};
use crate::cache::Programs;
use crate::millis;
use crate::notice::short_name;
use crate::submit::{self, SubmitError};
use crate::task::{Digest, JobId, TaskSpec};

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
    /// What nodes find could not be compared.
    #[error("what nodes find out cannot be compared: {0}")]
    Verify(&'static str),
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

/// A batch that was checked, and of which nothing has been written down.
pub(crate) struct Prepared {
    pub(crate) definition: Definition,
    pub(crate) digest: Digest,
    pub(crate) card: Card,
    list: Vec<String>,
    input: Input,
}

/// Checks a batch, and names all that it is by its content.
pub(crate) async fn prepare(
    spec: BatchSpec,
    me: PeerId,
    now_ms: u64,
    store: &Store,
    programs: &Programs,
) -> Result<Prepared, BatchError> {
    check(&spec)?;
    let task = TaskSpec {
        name: spec.name.clone(),
        module: spec.module,
        args: spec.args,
        env: spec.env,
        grants: spec.grants,
        reach: spec.reach,
        limits: spec.limits,
        on: spec.on,
    };
    let call = submit::prepare(&task, &*store.files, programs).await?;
    let (items, list) = name_items(spec.items, &*store.files).await?;
    let mut after = spec.after;
    let input = match &spec.input {
        Input::Empty => KeptInput::Empty,
        Input::File(path) => KeptInput::File(digest_of_file(path, &*store.files).await?),
        Input::Bytes(bytes) => KeptInput::File(Digest::of(bytes)),
        Input::OutputOf(of) => {
            after.push(*of);
            KeptInput::OutputOf(*of)
        }
    };
    after.sort_unstable();
    after.dedup();
    let tasks = items.count();
    let copies = spec.copies;
    let definition = Definition { call, items, input, out: spec.out, retries: spec.retries, copies };
    if copies > 1 {
        check_comparable(&definition, spec.on)?;
    }
    let digest = store::digest_of(&definition).map_err(BatchStoreError::from)?;
    let without_items = Definition { items: Kept::One, ..definition.clone() };
    let call = store::digest_of(&without_items).map_err(BatchStoreError::from)?;
    let card = Card {
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
        anywhere: spec.anywhere,
        copies,
        definition: digest,
        call,
    };
    Ok(Prepared { definition, digest, card, list, input: spec.input })
}

impl Prepared {
    /// The texts of its items, where they are a list.
    pub(crate) fn list(&self) -> &[String] {
        &self.list
    }

    /// Writes down what everybody needs for it, in the folder of `job`.
    pub(crate) async fn keep(
        &self,
        job: JobId,
        store: &Store,
        programs: &Programs,
    ) -> Result<(), BatchError> {
        if !self.list.is_empty() {
            store.put_items(job, &self.list).await?;
        }
        if let Input::File(path) = &self.input {
            let content = store.files.read(path, 0..u64::MAX).await.map_err(BatchError::Input)?;
            store.put_file(job, "stdin", content).await?;
        }
        if let Input::Bytes(bytes) = &self.input {
            store.put_file(job, "stdin", stream_of(bytes.clone())).await?;
        }
        let program = programs.get(self.definition.call.module).await;
        let program = program.map_err(|error| SubmitError::Disk(std::io::Error::other(error)))?;
        Ok(store.define(job, &self.definition, program).await?)
    }
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
    if spec.copies == 0 {
        return Err(BatchError::Verify("nobody would run a task"));
    }
    if spec.after.len() >= MAX_AFTER {
        return Err(BatchError::After);
    }
    if spec.retries.failed.max(spec.retries.limit) > MAX_RETRIES {
        return Err(BatchError::Retries);
    }
    Ok(())
}

/// Whether two nodes that run the same must find the same.
fn check_comparable(definition: &Definition, on: Option<PeerId>) -> Result<(), BatchError> {
    let why = if definition.copies > MAX_COPIES {
        "at most nine nodes run the same task"
    } else if definition.items.count() > MAX_VERIFIED {
        "there are more than 1000000 tasks"
    } else if on.is_some() {
        "the job may run on one node only"
    } else if definition.out.is_some() {
        "its tasks write files; read what they say from the job instead"
    } else if definition.call.grants().next().is_some() {
        "its tasks are granted folders, which each machine lists in an order of its own"
    } else if !definition.call.reach.is_empty() {
        "its tasks reach beyond what they are given"
    } else {
        return Ok(());
    };
    Err(BatchError::Verify(why))
}

/// What the items are, and the texts of a list.
async fn name_items(items: Items, files: &dyn Vfs) -> Result<(Kept, Vec<String>), BatchError> {
    Ok(match items {
        Items::One => (Kept::One, Vec::new()),
        Items::Range(range) => (Kept::Range(range), Vec::new()),
        Items::Lines(lines) => {
            let mut hasher = blake3::Hasher::new();
            for line in &lines {
                hasher.update(line.as_bytes()).update(b"\0");
            }
            let texts = Digest(*hasher.finalize().as_bytes());
            (Kept::Lines { count: lines.len() as u64, texts }, lines)
        }
        Items::Files(pattern) => {
            let (base, found) = glob::find(files, &pattern).await?;
            let mut hasher = blake3::Hasher::new();
            for (path, content) in &found {
                hasher.update(path.as_str().as_bytes()).update(b"\0");
                hasher.update(content.as_bytes()).update(b"\0");
            }
            let contents = Digest(*hasher.finalize().as_bytes());
            let paths: Vec<_> = found.iter().map(|(path, _)| path.to_string()).collect();
            if paths.iter().map(String::len).sum::<usize>() > MAX_LISTED_BYTES {
                return Err(BatchError::TooMany);
            }
            (Kept::Files { count: paths.len() as u64, base, contents }, paths)
        }
    })
}

async fn digest_of_file(path: &VfsPath, files: &dyn Vfs) -> Result<Digest, BatchError> {
    let entry = files.stat(path).await.map_err(BatchError::Input)?;
    // A link, or a tree that names no contents: then it is never the same as another.
    let content = entry.hash.unwrap_or_else(|| format!("{:?}", rand::random::<u128>()));
    Ok(Digest::of(content.as_bytes()))
}
