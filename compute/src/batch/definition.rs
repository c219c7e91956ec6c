//! What a batch is, as it is asked for and as it is kept.
//!
//! WIRE: definitions, cards and ends are kept as postcard behind one byte of version.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use starfish_dht::PeerId;
use starfish_fs::path::VfsPath;

use super::ballot::{MAX_COPIES, MAX_VERIFIED};
use crate::notice::MAX_NAME_BYTES;
use crate::profile::Profile;
use crate::reach::Reach;
use crate::task::{Call, Digest, Grant, JobId, Limits, Module, Outcome};

/// The most tasks of a range. What a batch costs the swarm's memory follows its slices, not its tasks.
pub const MAX_RANGE: u64 = 100_000_000;
/// The most items of a list: the keeper holds them in memory.
pub const MAX_LISTED: usize = 1_000_000;
/// All items of a list together.
pub const MAX_LISTED_BYTES: usize = 64 << 20;
/// The longest item: an argument like any other.
pub const MAX_ITEM_BYTES: usize = 16 << 10;
/// Batches that one can wait for.
pub const MAX_AFTER: usize = 16;
/// The most tries of a task, whatever went wrong.
pub const MAX_RETRIES: u32 = 100;
/// How often the failed tasks of a batch can be begun again.
pub const MAX_GENERATIONS: u32 = 32;
/// How long results are kept unless somebody says otherwise.
pub const KEEP_FOR: Duration = Duration::from_secs(24 * 3600);

const VERSION: u8 = 3;

/// What to run, and for what.
#[derive(Clone, Debug)]
pub struct BatchSpec {
    /// How the batch is called in lists, and what the program sees as `argv[0]`.
    pub name: String,
    /// The program.
    pub module: Module,
    /// The arguments of every task, before its item.
    pub args: Vec<String>,
    /// The environment of every task.
    pub env: Vec<(String, String)>,
    /// The parts of the tree that every task may use.
    pub grants: Vec<Grant>,
    /// What else every task may reach.
    pub reach: Vec<Reach>,
    /// What each task may consume.
    pub limits: Limits,
    /// The only node that may run it, if one was asked for.
    pub on: Option<PeerId>,
    /// One task an item.
    pub items: Items,
    /// The standard input of its tasks.
    pub input: Input,
    /// Where each task's standard output goes as a file, if it is to.
    pub out: Option<VfsPath>,
    /// Batches that must have ended well before it begins, besides the one that it reads.
    pub after: Vec<JobId>,
    /// Higher goes first.
    pub priority: u8,
    /// Not later than this after it was submitted.
    pub deadline: Option<Duration>,
    /// How often a task is tried again.
    pub retries: Retries,
    /// How long results are kept after the end.
    pub keep: Duration,
    /// Whether its tasks are handed out without regard to where their files lie.
    pub anywhere: bool,
    /// How many nodes run each task, to be held against each other; 1 if none of that.
    pub copies: u8,
    /// Whether the results of the same batch that ended well will do, where they are kept. Tasks are taken for pure:
    /// the same program on the same input says the same.
    pub cached: bool,
}

impl BatchSpec {
    /// A batch of one task without arguments, grants or input.
    pub fn new(name: impl Into<String>, module: Module) -> Self {
        Self {
            name: name.into(),
            module,
            args: Vec::new(),
            env: Vec::new(),
            grants: Vec::new(),
            reach: Vec::new(),
            limits: Limits::default(),
            on: None,
            items: Items::One,
            input: Input::Empty,
            out: None,
            after: Vec::new(),
            priority: 0,
            deadline: None,
            retries: Retries::default(),
            keep: KEEP_FOR,
            anywhere: false,
            copies: 1,
            cached: true,
        }
    }
}

/// What a batch is run for. The item of a task is its last argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Items {
    /// One task, without an item.
    One,
    /// The numbers of a range.
    Range(Range<u64>),
    /// Any texts, such as the lines of a file.
    Lines(Vec<String>),
    /// The files of the tree that match a pattern such as `/data/**/*.log`. Each task may read its own.
    Files(String),
}

/// Where the standard input of tasks comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Input {
    /// There is none.
    #[default]
    Empty,
    /// A file of the tree, as it is when the batch is submitted.
    File(VfsPath),
    /// These bytes.
    Bytes(Bytes),
    /// What another batch prints, all of its tasks in order. It begins when that one has ended well.
    OutputOf(JobId),
}

/// How often a task is tried again, by what went wrong. (A task that was lost with its node or its worker process is
/// tried [`MAX_LOST`](crate::board::MAX_LOST) times in all, whatever is said here.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retries {
    /// When the program failed: it exited with another code than 0, or trapped.
    pub failed: u32,
    /// When it reached a limit.
    pub limit: u32,
}

impl Retries {
    /// How often a task that ended like this is tried again.
    pub(crate) fn allowed(&self, outcome: &Outcome) -> u32 {
        match outcome {
            Outcome::Exited(0) | Outcome::Failed { .. } | Outcome::Killed => 0,
            Outcome::Exited(_) | Outcome::Trapped { .. } => self.failed,
            Outcome::LimitReached { .. } => self.limit,
        }
    }
}

/// What everybody needs to know to run a batch: a file of the tree. All that decides what its tasks do is in it, by hash
/// if it is long: so two batches with the same definition are the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Definition {
    /// What each task calls, without its item.
    pub(crate) call: Call,
    pub(crate) items: Kept,
    pub(crate) input: KeptInput,
    pub(crate) out: Option<VfsPath>,
    pub(crate) retries: Retries,
    /// How many nodes run each task. More than one do so under the deterministic profile.
    pub(crate) copies: u8,
}

impl Definition {
    /// Whether all that a task leaves is what it says.
    pub(crate) fn is_pure(&self) -> bool {
        self.out.is_none() && self.call.is_pure()
    }

    /// How its tasks are run.
    pub(crate) fn profile(&self) -> Profile {
        if self.copies > 1 { Profile::Deterministic } else { Profile::Usual }
    }
}

/// The items as they are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kept {
    One,
    Range(Range<u64>),
    /// So many texts in a file beside the definition.
    Lines {
        count: u64,
        texts: Digest,
    },
    /// So many paths in a file beside the definition; `base` is the folder that all of them are in.
    Files {
        count: u64,
        base: VfsPath,
        /// Of the paths and of what the files held when the batch was submitted.
        contents: Digest,
    },
}

impl Kept {
    pub(crate) fn count(&self) -> u64 {
        match self {
            Self::One => 1,
            Self::Range(range) => range.end.saturating_sub(range.start),
            Self::Lines { count, .. } | Self::Files { count, .. } => *count,
        }
    }
}

/// Where the input of the tasks is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum KeptInput {
    Empty,
    /// In a file beside the definition, with this content.
    File(Digest),
    OutputOf(JobId),
}

/// What every node knows of a batch: a cell of memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Its name in lists.
    pub name: String,
    /// How many tasks it has.
    pub tasks: u64,
    /// Where it was submitted.
    pub submitter: PeerId,
    /// When, in milliseconds since the Unix epoch by the submitter's clock.
    pub submitted_ms: u64,
    /// Higher goes first.
    pub priority: u8,
    /// When it is too late, likewise.
    pub deadline_ms: Option<u64>,
    /// The only node that may run it, if any.
    pub on: Option<PeerId>,
    /// Linear memory that each of its tasks may use.
    pub memory_bytes: u64,
    /// The batches that must have ended well before.
    pub after: Vec<JobId>,
    /// How long results are kept after the end, in milliseconds.
    pub keep_ms: u64,
    /// Whether tasks are handed out without regard to where their files lie.
    pub anywhere: bool,
    /// How many nodes run each task.
    pub copies: u8,
    /// The hash of its definition, so that nobody can put another in its place.
    pub definition: Digest,
    /// The hash of its definition without its items: tasks of two batches that have this in common differ in their items
    /// only.
    pub call: Digest,
}

impl Card {
    /// Whether it is within its bounds: it may come from anybody.
    pub(crate) fn is_sound(&self) -> bool {
        (1..=MAX_RANGE).contains(&self.tasks)
            && self.after.len() <= MAX_AFTER
            && self.name.len() <= MAX_NAME_BYTES
            && (1..=MAX_COPIES).contains(&self.copies)
            && (self.copies == 1 || self.tasks <= MAX_VERIFIED)
    }
}

/// How a batch ended: a cell of memory, written by its keeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Which time it was begun: 0, and one more for each `retry`.
    pub generation: u32,
    /// How.
    pub ending: Ending,
    /// When, in milliseconds since the Unix epoch by the keeper's clock.
    pub at_ms: u64,
    /// Who says so.
    pub by: PeerId,
}

/// See [`End`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Every task has a receipt.
    Complete {
        /// Tasks that did not end well.
        failed: u64,
    },
    /// Somebody ended it.
    Killed,
    /// It could not be run to its end.
    Failed {
        /// Why.
        reason: String,
    },
}

impl Ending {
    /// Whether every task ended well.
    pub fn is_well(&self) -> bool {
        matches!(self, Self::Complete { failed: 0 })
    }
}

/// How far a batch is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Tasks in all.
    pub tasks: u64,
    /// Those that have ended, well or not.
    pub done: u64,
    /// Those of them that did not end well.
    pub failed: u64,
}

pub(crate) fn encode(what: &impl Serialize) -> Result<Vec<u8>, postcard::Error> {
    postcard::to_extend(what, vec![VERSION])
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (version, rest) = bytes.split_first()?;
    if *version == VERSION { postcard::from_bytes(rest).ok() } else { None }
}
