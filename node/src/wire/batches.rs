//! What is asked for when a batch is submitted, and what is told of its tasks.

use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use starfish_compute::batch::{BatchSpec, Input, Items, Retries};
use starfish_compute::reach::Reach;
use starfish_compute::task::{Grant, JobId, Module, Outcome};
use starfish_dht::PeerId;
use starfish_fs::path::VfsPath;

use super::LimitsRequest;

/// `POST /api/v1/batches`: a batch, all but its name optional.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchRequest {
    /// What it is called in lists, and `argv[0]`.
    pub name: String,
    /// The program in the tree; if missing, it comes in frames behind this (see [`super::frame::submit`]).
    #[serde(default)]
    pub program: Option<VfsPath>,
    /// The arguments after `argv[0]`, before the item.
    #[serde(default)]
    pub args: Vec<String>,
    /// The environment.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// The parts of the tree that each task may use.
    #[serde(default)]
    pub grants: Vec<Grant>,
    /// What else each task may reach: `mem:SPACE[:ro]`, `http:HOST[:PORT]`, `fn:NAME`.
    #[serde(default)]
    pub reach: Vec<Reach>,
    /// What each task may consume.
    #[serde(default)]
    pub limits: LimitsRequest,
    /// The only node that may run it.
    #[serde(default)]
    pub on: Option<PeerId>,
    /// What it is run for.
    #[serde(default)]
    pub items: ItemsRequest,
    /// Where the standard input of its tasks comes from.
    #[serde(default)]
    pub input: InputRequest,
    /// A folder of the tree for the standard output of each task.
    #[serde(default)]
    pub out: Option<VfsPath>,
    /// Jobs that must have ended well before.
    #[serde(default)]
    pub after: Vec<JobId>,
    /// Higher goes first.
    #[serde(default)]
    pub priority: u8,
    /// Not later than this after now.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
    /// How often a task is tried again.
    #[serde(default)]
    pub retries: Retries,
    /// Hand its tasks out without regard to where their files lie.
    #[serde(default)]
    pub anywhere: bool,
    /// Run each task on so many nodes, more than half of which must find the same.
    #[serde(default)]
    pub verify: Option<u8>,
    /// How long results are kept after the end.
    #[serde(default)]
    pub keep_ms: Option<u64>,
    /// Whether to run it even where the results of the same batch are kept.
    #[serde(default)]
    pub no_cache: bool,
}

/// What a batch is run for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemsRequest {
    /// One task without an item.
    #[default]
    One,
    /// Each number from the first up to but not including the second.
    Range(u64, u64),
    /// Each of these texts.
    Lines(Vec<String>),
    /// Each line of the frames behind this.
    Frames,
    /// Each file that matches a pattern.
    Files(String),
}

/// Where the standard input of tasks comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputRequest {
    /// There is none.
    #[default]
    Empty,
    /// A file of the tree.
    File(VfsPath),
    /// What another batch prints.
    OutputOf(JobId),
}

/// A line of `GET /api/v1/jobs/{id}/tasks`: one task that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskLine {
    /// Which, from 0.
    pub task: u64,
    /// Its item, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// How often it was tried.
    pub tries: u32,
    /// Wall time of the last try.
    pub elapsed_ms: u32,
    /// Who ran it.
    pub by: PeerId,
    /// Bytes of its standard output.
    pub stdout_bytes: u64,
    /// Bytes of its standard error.
    pub stderr_bytes: u64,
    /// Its standard output, if it is short; what is not UTF-8 is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<String>,
    /// Its standard error, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
}

impl BatchRequest {
    /// A batch of one task without arguments, grants or input.
    pub fn new(name: impl Into<String>, program: Option<VfsPath>) -> Self {
        Self {
            name: name.into(),
            program,
            args: Vec::new(),
            env: Vec::new(),
            grants: Vec::new(),
            reach: Vec::new(),
            limits: LimitsRequest::default(),
            on: None,
            items: ItemsRequest::One,
            input: InputRequest::Empty,
            out: None,
            after: Vec::new(),
            priority: 0,
            deadline_ms: None,
            retries: Retries::default(),
            anywhere: false,
            verify: None,
            keep_ms: None,
            no_cache: false,
        }
    }

    /// What is to be run, with the program and the lines that came with it.
    pub(crate) fn into_spec(self, module: Module, lines: Vec<String>) -> BatchSpec {
        let default = BatchSpec::new(self.name, module);
        BatchSpec {
            args: self.args,
            env: self.env,
            grants: self.grants,
            reach: self.reach,
            limits: self.limits.into(),
            on: self.on,
            items: match self.items {
                ItemsRequest::One => Items::One,
                ItemsRequest::Range(start, end) => Items::Range(Range { start, end }),
                ItemsRequest::Lines(lines) => Items::Lines(lines),
                ItemsRequest::Frames => Items::Lines(lines),
                ItemsRequest::Files(pattern) => Items::Files(pattern),
            },
            input: match self.input {
                InputRequest::Empty => Input::Empty,
                InputRequest::File(path) => Input::File(path),
                InputRequest::OutputOf(job) => Input::OutputOf(job),
            },
            out: self.out,
            after: self.after,
            priority: self.priority,
            deadline: self.deadline_ms.map(Duration::from_millis),
            retries: self.retries,
            anywhere: self.anywhere,
            copies: self.verify.unwrap_or(1),
            cached: !self.no_cache,
            keep: self.keep_ms.map_or(default.keep, Duration::from_millis),
            ..default
        }
    }
}
