//! What a user is told about batches.

use std::sync::Arc;

use starfish_dht::PeerId;
use tracing::debug;

use super::ballot::quorum;
use super::definition::Ending;
use super::docket::{Known, Standing};
use super::jury::Jury;
use super::service::Batches;
use crate::board::Board;
use crate::report::{JobReport, JobSummary, Phase, Verified};
use crate::task::{JobId, Mebibytes, Outcome, TaskId};

/// Asking the keeper of a batch what only it knows.
pub(crate) const BATCH_REPORT_PROTOCOL: &str = "/starfish/compute-batch-report/2";

impl Batches {
    /// A line for each batch.
    pub(crate) fn summaries(&self) -> Vec<JobSummary> {
        let docket = self.docket();
        let desks = self.desks().lock();
        let summary = |(id, known): (&JobId, &Known)| JobSummary {
            id: *id,
            name: known.card.name.clone(),
            keeper: docket.keeper(id).unwrap_or(known.card.submitter),
            phase: match desks.get(id) {
                Some(kept) if known.end.is_none() && !kept.desk.workers().is_empty() => Phase::Running,
                _ => phase(known),
            },
            by: None,
            submitted_ms: known.card.submitted_ms,
            progress: Some(known.progress()),
        };
        docket.iter().map(summary).collect()
    }

    /// All about a batch; from its keeper, where that answers.
    pub(crate) async fn report(self: &Arc<Self>, job: JobId) -> Option<JobReport> {
        let keeper = self.docket().keeper(&job)?;
        if keeper != self.me() {
            let asked: Result<Option<JobReport>, _> =
                self.service.network.call(keeper, BATCH_REPORT_PROTOCOL, &job).await;
            match asked {
                Ok(Some(report)) => return Some(report),
                Ok(None) => {}
                Err(error) => debug!(%job, %error, "the keeper of a job does not answer"),
            }
        }
        self.report_here(&job)
    }

    /// All that this node knows about a batch.
    pub(crate) fn report_here(&self, job: &JobId) -> Option<JobReport> {
        let docket = self.docket();
        let known = docket.get(job)?;
        let kept = self.desks().lock();
        let desk = kept.get(job).map(|kept| &kept.desk);
        let workers: Vec<_> = desk.map(|desk| desk.workers().into_iter().collect()).unwrap_or_default();
        let phase = if workers.is_empty() { phase(known) } else { phase(known).max(Phase::Running) };
        let lost = desk
            .into_iter()
            .flat_map(|desk| desk.losses().map(|(task, by, why)| (by, format!("task {task}: {why}"))));
        let ended = known.end.as_ref().map(|end| end.at_ms);
        let standing = docket.standing(job, self.unix_ms());
        Some(JobReport {
            id: *job,
            name: known.card.name.clone(),
            task: TaskId(known.card.definition.0),
            keeper: docket.keeper(job).unwrap_or(known.card.submitter),
            phase,
            why: self
                .too_few(known)
                .or_else(|| (phase == Phase::Pending).then(|| self.why(known, &standing))),
            outcome: known.end.as_ref().map(|end| outcome(&end.ending, known)),
            by: None,
            submitted_ms: known.card.submitted_ms,
            since_ms: ended.unwrap_or(known.card.submitted_ms),
            attempts: known.generation + 1,
            lost: lost.collect(),
            receipt: None,
            output_bytes: 0,
            progress: Some(known.progress()),
            workers,
            verified: known.jury.as_ref().map(verified),
        })
    }

    /// Why a batch whose tasks several nodes are to run does not come to its end.
    fn too_few(&self, known: &Known) -> Option<String> {
        let jury = known.jury.as_ref().filter(|_| known.end.is_none())?;
        let (able, copies) = (self.able(known).len(), usize::from(jury.copies()));
        let must = quorum(jury.copies());
        (able < usize::from(jury.enough())).then(|| match able < must {
            true => format!(
                "{copies} nodes are to run each task and {must} of them must agree; {able} can: the others are not there, have no \
                 slots or memory for it, or were outvoted"
            ),
            false => format!("{copies} nodes are to run each task, and only {able} can: it is waited for more for a moment"),
        })
    }

    /// Why a node cannot run tasks of a batch at all, if that is so.
    pub(super) fn inability(&self, known: &Known, node: &PeerId, board: &Board) -> Option<String> {
        let needed = known.card.memory_bytes;
        if known.card.on.is_some_and(|on| on != *node) {
            return Some("may not run it".to_owned());
        }
        if self.suspects.is_one(node) {
            return Some("was outvoted before, and is not trusted".to_owned());
        }
        match board.capacity_of(*node) {
            None => Some("has not said yet what it can take".to_owned()),
            Some(capacity) if capacity.memory_bytes < needed => Some(format!(
                "gives a task at most {}, and {} are needed",
                Mebibytes(capacity.memory_bytes),
                Mebibytes(needed)
            )),
            Some(capacity) if capacity.slots == 0 => Some("runs no tasks".to_owned()),
            Some(_) => None,
        }
    }

    /// Why nobody is at work on a batch.
    fn why(&self, known: &Known, standing: &Standing) -> String {
        if let Standing::Waits(before) = standing {
            return format!("it waits for job {before}");
        }
        let board = self.service.board();
        if let Some(on) =
            known.card.on.filter(|on| *on != self.me() && !board.peers().any(|peer| peer == *on))
        {
            return format!("it must run on {on}, which is not connected");
        }
        let nodes = std::iter::once(self.me()).chain(board.peers());
        let obstacle = |node: PeerId| {
            self.inability(known, &node, &board).unwrap_or_else(|| match board.capacity_of(node) {
                Some(capacity) if capacity.free == 0 => {
                    format!("all of its {} slots are busy", capacity.slots)
                }
                _ => "has a free slot, and is about to ask for it".to_owned(),
            })
        };
        let words: Vec<_> = nodes.map(|node| format!("{node}: {}", obstacle(node))).collect();
        format!("no node is at work on it yet ({})", words.join("; "))
    }
}

fn verified(jury: &Jury) -> Verified {
    let outvoted = jury.outvoted().iter().map(|(node, how)| (*node, *how));
    Verified { copies: jury.copies(), enough: jury.enough(), outvoted: outvoted.collect() }
}

fn phase(known: &Known) -> Phase {
    match known.end.as_ref().map(|end| &end.ending) {
        Some(Ending::Complete { failed: 0 }) => Phase::Done,
        Some(Ending::Complete { .. } | Ending::Failed { .. }) => Phase::Failed,
        Some(Ending::Killed) => Phase::Killed,
        None if !known.is_begun() => Phase::Pending,
        None => Phase::Running,
    }
}

fn outcome(ending: &Ending, known: &Known) -> Outcome {
    // What its only task exits with is what it exits with.
    if let (Ending::Complete { .. }, Some(outcome)) = (ending, &known.only) {
        return outcome.clone();
    }
    match ending {
        Ending::Complete { failed: 0 } => Outcome::Exited(0),
        Ending::Complete { failed } => {
            Outcome::Failed { reason: format!("{failed} of {} tasks failed", known.card.tasks) }
        }
        Ending::Killed => Outcome::Killed,
        Ending::Failed { reason } => Outcome::Failed { reason: reason.clone() },
    }
}
