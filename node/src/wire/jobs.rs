//! What is asked for when a task is submitted. What is told about jobs are `compute`'s own reports.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use starfish_compute::reach::Reach;
use starfish_compute::task::{Grant, JobId, Limits};
use starfish_dht::PeerId;
use starfish_fs::path::VfsPath;

/// `POST /api/v1/jobs`: a task, all but its name optional.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskRequest {
    /// What the job is called in lists, and `argv[0]`.
    pub name: String,
    /// The program in the tree; if missing, it comes in frames behind this (see [`super::frame::submit`]).
    #[serde(default)]
    pub program: Option<VfsPath>,
    /// The arguments after `argv[0]`.
    #[serde(default)]
    pub args: Vec<String>,
    /// The environment.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// The parts of the tree that it may use.
    #[serde(default)]
    pub grants: Vec<Grant>,
    /// What else it may reach: `mem:SPACE[:ro]`, `http:HOST[:PORT]`, `fn:NAME`.
    #[serde(default)]
    pub reach: Vec<Reach>,
    /// What it may consume.
    #[serde(default)]
    pub limits: LimitsRequest,
    /// The only node that may run it.
    #[serde(default)]
    pub on: Option<PeerId>,
    /// Where its standard input comes from.
    #[serde(default)]
    pub stdin: StdinSource,
}

/// Limits; what is missing has `compute`'s default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsRequest {
    /// Wall time of one attempt.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Linear memory.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// Standard output and error together.
    #[serde(default)]
    pub output_bytes: Option<u64>,
}

/// Where a task's standard input comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StdinSource {
    /// It has none.
    #[default]
    Empty,
    /// `PUT /api/v1/jobs/{id}/stdin`, which must come, since the task waits for its end.
    Stream,
}

/// The answer: the job that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// Its id.
    pub id: JobId,
    /// Whether it is an earlier one, which was the same and ended well.
    #[serde(default)]
    pub cached: bool,
}

impl From<LimitsRequest> for Limits {
    fn from(request: LimitsRequest) -> Self {
        let LimitsRequest { timeout_ms, memory_bytes, output_bytes } = request;
        let default = Self::default();
        Self {
            timeout: timeout_ms.map_or(default.timeout, Duration::from_millis),
            memory_bytes: memory_bytes.unwrap_or(default.memory_bytes),
            output_bytes: output_bytes.unwrap_or(default.output_bytes),
        }
    }
}

impl From<Limits> for LimitsRequest {
    fn from(limits: Limits) -> Self {
        let Limits { timeout, memory_bytes, output_bytes } = limits;
        Self {
            timeout_ms: u64::try_from(timeout.as_millis()).ok(),
            memory_bytes: Some(memory_bytes),
            output_bytes: Some(output_bytes),
        }
    }
}

impl TaskRequest {
    /// A task without arguments, grants or input.
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
            stdin: StdinSource::default(),
        }
    }
}
