//! What is asked for when functions are to run by themselves, and what is told of that.

use serde::{Deserialize, Serialize};
use starfish_compute::function::version::FunctionName;
use starfish_compute::schedule::{CronStatus, Firing, Source, TriggerStatus};
use starfish_compute::task::JobId;
use starfish_compute::{Outcome, Phase};
use starfish_dht::PeerId;

/// `PUT /api/v1/cron/{name}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CronRequest {
    /// When, in UTC: minute, hour, day, month and weekday, with the second in front if there are six fields.
    pub schedule: String,
    /// The function to call.
    pub function: FunctionName,
    /// The arguments of each call.
    #[serde(default)]
    pub args: Vec<String>,
}

/// One of `GET /api/v1/cron`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CronEntry {
    /// Its name.
    pub name: FunctionName,
    /// When, as it was asked for.
    pub schedule: String,
    /// The function that it calls.
    pub function: FunctionName,
    /// The arguments of each call.
    pub args: Vec<String>,
    /// Where it was added.
    pub by: PeerId,
    /// When, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// When it fires next.
    pub next_ms: Option<u64>,
    /// When it was fired last, if it was.
    pub last: Option<FiringLine>,
}

/// `PUT /api/v1/on/{name}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TriggerRequest {
    /// What to listen to.
    pub source: Source,
    /// The function to call.
    pub function: FunctionName,
    /// The arguments of each call, before the path or key.
    #[serde(default)]
    pub args: Vec<String>,
    /// Whether the function may be one that can write to where it listens.
    #[serde(default)]
    pub allow_loop: bool,
}

/// One of `GET /api/v1/on`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggerEntry {
    /// Its name.
    pub name: FunctionName,
    /// What it listens to.
    pub source: Source,
    /// The function that it calls.
    pub function: FunctionName,
    /// The arguments of each call, before the path or key.
    pub args: Vec<String>,
    /// Whether the function may be one that can write to where it listens.
    pub allow_loop: bool,
    /// Where it was added.
    pub by: PeerId,
    /// When, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// When it was fired last, if it was.
    pub last: Option<FiringLine>,
}

/// One time that a function was run by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FiringLine {
    /// When it was due, in milliseconds since the Unix epoch.
    pub due_ms: u64,
    /// When it was fired.
    pub at_ms: u64,
    /// The node that fired it.
    pub by: PeerId,
    /// The job that runs it.
    pub job: Option<JobId>,
    /// Where that stands, as long as its results are kept.
    pub phase: Option<Phase>,
    /// How it ended, likewise; or why it could not be run.
    pub outcome: Option<Outcome>,
    /// The path or key that has changed, for a trigger.
    pub about: Option<String>,
}

impl From<CronStatus> for CronEntry {
    fn from(status: CronStatus) -> Self {
        let CronStatus { name, line, next_ms, last, job } = status;
        let last =
            last.map(|last| FiringLine::new(last, job.as_ref().map(|job| (job.phase, job.outcome.clone()))));
        Self {
            name,
            schedule: line.schedule,
            function: line.function,
            args: line.args,
            by: line.by,
            since_ms: line.since_ms,
            next_ms,
            last,
        }
    }
}

impl From<TriggerStatus> for TriggerEntry {
    fn from(status: TriggerStatus) -> Self {
        let TriggerStatus { name, trigger, last, job } = status;
        let last =
            last.map(|last| FiringLine::new(last, job.as_ref().map(|job| (job.phase, job.outcome.clone()))));
        Self {
            name,
            source: trigger.source,
            function: trigger.function,
            args: trigger.args,
            allow_loop: trigger.allow_loop,
            by: trigger.by,
            since_ms: trigger.since_ms,
            last,
        }
    }
}

impl FiringLine {
    fn new(firing: Firing, stands: Option<(Phase, Option<Outcome>)>) -> Self {
        let Firing { due_ms, at_ms, by, job, about } = firing;
        let (phase, outcome) = stands.map_or((None, None), |(phase, outcome)| (Some(phase), outcome));
        match job {
            Ok(job) => Self { due_ms, at_ms, by, job: Some(job), phase, outcome, about },
            Err(reason) => {
                let (phase, outcome) = (Some(Phase::Failed), Some(Outcome::Failed { reason }));
                Self { due_ms, at_ms, by, job: None, phase, outcome, about }
            }
        }
    }
}
