//! What a user is told about jobs.

use serde::{Deserialize, Serialize};
use starfish_dht::PeerId;

use crate::batch::{Outvoted, Progress};
use crate::board::{Heard, Kept, State};
use crate::notice::Stage;
use crate::task::{JobId, Outcome, Receipt, TaskId};

/// Where a job stands, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Waits for a node.
    Pending,
    /// A node runs it.
    Running,
    /// It exited with code 0.
    Done,
    /// It ended in any other way.
    Failed,
    /// Somebody ended it.
    Killed,
}

impl From<&Outcome> for Phase {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Exited(0) => Self::Done,
            Outcome::Killed => Self::Killed,
            _ => Self::Failed,
        }
    }
}

/// A line of `starfish jobs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSummary {
    /// Its id.
    pub id: JobId,
    /// Its name.
    pub name: String,
    /// The node that keeps it.
    pub keeper: PeerId,
    /// Where it stands.
    pub phase: Phase,
    /// Who runs it, or ran it last.
    pub by: Option<PeerId>,
    /// When it was submitted, in milliseconds since the Unix epoch; of what another node keeps, when it was first heard
    /// of.
    #[serde(default)]
    pub submitted_ms: u64,
    /// How far it is, if it is a batch.
    #[serde(default)]
    pub progress: Option<Progress>,
}

/// All that there is to say about a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobReport {
    /// Its id.
    pub id: JobId,
    /// Its name.
    pub name: String,
    /// The hash of what is called.
    pub task: TaskId,
    /// The node that keeps it.
    pub keeper: PeerId,
    /// Where it stands.
    pub phase: Phase,
    /// Why it is pending, if it is.
    pub why: Option<String>,
    /// How it ended, if it has.
    pub outcome: Option<Outcome>,
    /// Who runs it, or ran it last.
    pub by: Option<PeerId>,
    /// When it was submitted, in milliseconds since the Unix epoch, by the keeper's clock.
    pub submitted_ms: u64,
    /// Since when it stands where it stands, likewise.
    pub since_ms: u64,
    /// How often it was given to a node.
    pub attempts: u32,
    /// The attempts that were lost: on which node, and why.
    pub lost: Vec<(PeerId, String)>,
    /// What the node that ran it asserts.
    pub receipt: Option<Receipt>,
    /// Bytes of output that the keeper holds.
    pub output_bytes: u64,
    /// How far it is, if it is a batch.
    #[serde(default)]
    pub progress: Option<Progress>,
    /// The nodes that are at work on it, as far as its keeper knows.
    #[serde(default)]
    pub workers: Vec<PeerId>,
    /// Where several nodes run each of its tasks: what came of comparing them.
    #[serde(default)]
    pub verified: Option<Verified>,
}

/// What came of running tasks on several nodes each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// How many nodes were to run each task; more than half must find the same.
    pub copies: u8,
    /// How many had to do, since there were no more.
    pub enough: u8,
    /// Who found something else than what counts.
    pub outvoted: Vec<(PeerId, Outvoted)>,
}

/// Phase, node and time of a state.
pub(crate) fn standing(kept: &Kept) -> (Phase, Option<PeerId>, u64) {
    match &kept.state {
        State::Pending { since } => (Phase::Pending, None, *since),
        State::Running { by, since, .. } => (Phase::Running, Some(*by), *since),
        State::Ended { outcome, by, at } => (outcome.into(), *by, *at),
    }
}

/// A job that this node keeps.
pub(crate) fn summary_of_kept(keeper: PeerId, id: JobId, kept: &Kept, began_ms: u64) -> JobSummary {
    let (phase, by, _) = standing(kept);
    let submitted_ms = began_ms + kept.submitted;
    JobSummary { id, name: kept.terms.name.clone(), keeper, phase, by, submitted_ms, progress: None }
}

/// A job that another node keeps, as far as it was heard of.
pub(crate) fn summary_of_heard(keeper: PeerId, id: JobId, heard: &Heard, began_ms: u64) -> JobSummary {
    let (phase, by) = match heard.notice.stage {
        Stage::Pending => (Phase::Pending, None),
        Stage::Running { by } => (Phase::Running, Some(by)),
        Stage::Ended { well: true } => (Phase::Done, None),
        Stage::Ended { well: false } => (Phase::Failed, None),
    };
    let submitted_ms = began_ms + heard.first;
    JobSummary { id, name: heard.notice.terms.name.clone(), keeper, phase, by, submitted_ms, progress: None }
}
