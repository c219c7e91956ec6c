//! One job as its keeper sees it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use starfish_dht::PeerId;

use super::Millis;
use crate::notice::{Notice, Stage};
use crate::task::{JobId, Outcome};

/// A pending job is announced this often. Gossip promises nothing, so this is how soon a loss is mended.
pub(super) const ANNOUNCE_EVERY: Millis = 1500;
/// A running job is announced this often, for the lists of others only.
const REFRESH_EVERY: Millis = 10_000;

/// What matters about a job to those who might run it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Its name in lists.
    pub name: String,
    /// The only node that may run it, if any.
    pub on: Option<PeerId>,
    /// Linear memory that it may use.
    pub memory_bytes: u64,
}

/// Where a job stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Waits for a node.
    Pending {
        /// Since when.
        since: Millis,
    },
    /// A node runs it.
    Running {
        /// Which.
        by: PeerId,
        /// Since when.
        since: Millis,
        /// Which try this is, from 1.
        attempt: u32,
        /// When the node last gave a sign of life.
        heard: Millis,
    },
    /// It is over.
    Ended {
        /// How.
        outcome: Outcome,
        /// Who ran it last, if anybody did.
        by: Option<PeerId>,
        /// When.
        at: Millis,
    },
}

/// Why a claim is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such job.
    #[error("no such job")]
    Unknown,
    /// Somebody has it, or it is over.
    #[error("the job is taken")]
    Taken,
    /// It is for another node.
    #[error("the job is for another node")]
    NotYours,
    /// This node lost or declined it a moment ago.
    #[error("not again so soon")]
    TooSoon,
}

/// A job that this node keeps.
#[derive(Clone, Debug)]
pub struct Kept {
    /// What it asks for.
    pub terms: Terms,
    /// Where it stands.
    pub state: State,
    /// When it was submitted.
    pub submitted: Millis,
    /// Attempts so far.
    pub attempts: u32,
    /// The attempts that were lost: who, and why.
    pub lost: Vec<(PeerId, String)>,
    /// Why the last node declined, if one did.
    pub declined: Option<(PeerId, String)>,
    pub(super) paused: BTreeMap<PeerId, Millis>,
    revision: u64,
    announced: Option<Millis>,
}

impl Kept {
    pub(super) fn new(terms: Terms, now: Millis) -> Self {
        Self {
            terms,
            state: State::Pending { since: now },
            submitted: now,
            attempts: 0,
            lost: Vec::new(),
            declined: None,
            paused: BTreeMap::new(),
            revision: 0,
            announced: None,
        }
    }

    /// Gives the job to a node that asked for it, if it may have it.
    pub(super) fn give_to(&mut self, by: PeerId, now: Millis) -> Result<u32, Refusal> {
        if !matches!(self.state, State::Pending { .. }) {
            return Err(Refusal::Taken);
        }
        if self.terms.on.is_some_and(|on| on != by) {
            return Err(Refusal::NotYours);
        }
        if self.is_paused(by, now) {
            return Err(Refusal::TooSoon);
        }
        self.attempts += 1;
        self.change(State::Running { by, since: now, attempt: self.attempts, heard: now });
        Ok(self.attempts)
    }

    /// Whether `node` lost or declined the job a moment ago.
    pub(super) fn is_paused(&self, node: PeerId, now: Millis) -> bool {
        self.paused.get(&node).is_some_and(|until| *until > now)
    }

    /// This news is being told.
    pub(super) fn tell(&mut self, job: JobId, now: Millis) -> Notice {
        self.announced = Some(now);
        self.notice(job)
    }

    pub(super) fn change(&mut self, state: State) {
        self.state = state;
        self.revision += 1;
        self.announced = None;
    }

    pub(super) fn is_open_to(&self, node: PeerId, now: Millis) -> bool {
        matches!(self.state, State::Pending { .. }) && !self.is_paused(node, now)
    }

    pub(super) fn is_due(&self, now: Millis) -> bool {
        let Some(announced) = self.announced else { return true };
        match self.state {
            State::Pending { .. } => announced + ANNOUNCE_EVERY <= now,
            State::Running { .. } => announced + REFRESH_EVERY <= now,
            State::Ended { .. } => false,
        }
    }

    pub(super) fn notice(&self, job: JobId) -> Notice {
        let stage = match &self.state {
            State::Pending { .. } => Stage::Pending,
            State::Running { by, .. } => Stage::Running { by: *by },
            State::Ended { outcome, .. } => Stage::Ended { well: outcome.is_success() },
        };
        Notice { job, revision: self.revision, terms: self.terms.clone(), stage }
    }

    pub(super) fn poison(&self) -> String {
        let lost: Vec<_> = self.lost.iter().map(|(by, why)| format!("{by}: {why}")).collect();
        format!("{} nodes were lost while running it ({})", lost.len(), lost.join("; "))
    }
}
