//! The job board: who keeps which job, who runs it, what is to be done next. A pure state machine.
//!
//! Every node has one. It holds the jobs that this node *keeps* (it decides their fate: here, those that were
//! submitted to it) and what it *heard* of jobs that others keep. Events and the time go in, [`Action`]s come
//! out; there is no clock, no socket and no task in here, so the code that runs in a node is the code that
//! the simulation in the tests runs with hundreds of boards.
//!
//! The rules:
//! - A keeper gives a pending job to whoever claims it first and may run it. So however often a claim is
//!   repeated or however many come, at most one attempt is current; what an older attempt says is ignored.
//! - An attempt whose node falls silent is lost, and the job is pending again. After [`MAX_LOST`] lost
//!   attempts the job is taken for poison and fails.
//! - Pending jobs are announced again and again, so a lost announcement costs a moment and nothing else.
//! - A node claims a job only while it has a free slot, and only what its memory can hold.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use starfish_dht::PeerId;

use self::kept::ANNOUNCE_EVERY;
pub use self::kept::{Kept, Refusal, State, Terms};
use crate::notice::{Bulletin, Capacity, Notice, Stage};
use crate::task::{JobId, Outcome};

mod kept;
mod reasons;
#[cfg(test)]
mod simulation;
mod slots;
#[cfg(test)]
mod tests;

/// Milliseconds of some clock that never goes back; only differences mean anything.
pub type Millis = u64;

/// Lost attempts after which a job is not tried again: a program that brings three nodes down is not given a fourth.
pub const MAX_LOST: usize = 3;
/// Jobs of one keeper that have not ended. Beyond this, submissions are refused.
pub const MAX_ACTIVE: usize = 4096;
/// Ended jobs that a keeper still answers for; the oldest goes first.
pub const MAX_ENDED: usize = 256;
/// Foreign jobs that a node remembers of one keeper; beyond this, news of further ones is ignored.
const MAX_HEARD_OF_ONE: usize = 4096;
/// Silence after which news of a foreign job is forgotten: several announcements in a row were missed.
const FORGET_AFTER: Millis = 60_000;
/// Silence of the node that runs a job after which the attempt is lost: five missed heartbeats.
pub const LOST_AFTER: Millis = 5000;
/// How long a node that lost an attempt, or declined it, is not given the same job again.
const PAUSE_AFTER_LOSS: Millis = 2000;
/// How long a node waits before it claims a job again that somebody else was faster to get.
const PAUSE_AFTER_REFUSAL: Millis = 1000;
/// How often a node says what it can take on, when nothing else makes it speak.
const CAPACITY_EVERY: Millis = 5000;

/// What the code around the board has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Gossip this.
    Publish(Bulletin),
    /// Ask the keeper for the job, and report the answer with [`Board::claim_over`].
    TryClaim {
        /// Whom to ask; it may be this node itself.
        keeper: PeerId,
        /// For what.
        job: JobId,
    },
    /// Stop listening to this attempt, and everything before it.
    Stop {
        /// Of which job.
        job: JobId,
        /// Up to which attempt.
        attempt: u32,
    },
    /// The job has reached its final state.
    Ended {
        /// Which.
        job: JobId,
    },
    /// The job is no longer answered for: free what belongs to it.
    Forget {
        /// Which.
        job: JobId,
    },
}

/// How an attempt ended, as its keeper sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttemptEnd {
    /// The task ended, and this is how.
    Finished(Outcome),
    /// The node or its worker process was lost; the attempt counts against the job.
    Lost(String),
    /// The node could not begin; the attempt counts for nothing.
    Declined(String),
}

/// How a claim of this node went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimEnd {
    /// The job was given, and the attempt is over, however it went.
    Ran,
    /// Somebody else was faster, or this node may not run it, or the keeper was not reached.
    Refused,
    /// The keeper does not know the job.
    Unknown,
}

/// Too many jobs are waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this node keeps {MAX_ACTIVE} unfinished jobs already")]
pub struct BoardFull;

/// News of a job that another node keeps.
#[derive(Clone, Debug)]
pub struct Heard {
    /// The newest news.
    pub notice: Notice,
    /// When the job was first heard of.
    pub first: Millis,
    last: Millis,
    not_before: Millis,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Board {
    me: PeerId,
    slots: u32,
    memory_bytes: u64,
    kept: BTreeMap<JobId, Kept>,
    ended: VecDeque<JobId>,
    heard: BTreeMap<(PeerId, JobId), Heard>,
    /// Those of `heard` that are pending, so that finding work does not cost a look at all that was ever heard.
    open: BTreeSet<(PeerId, JobId)>,
    peers: BTreeMap<PeerId, Option<Capacity>>,
    claims: BTreeSet<(PeerId, JobId)>,
    spoke: Option<(Millis, Capacity)>,
    /// Slots that are at work on something else than jobs of this board.
    lent: u32,
}

impl Board {
    /// The board of node `me`, which can run `slots` tasks at a time of up to `memory_bytes` each.
    pub fn new(me: PeerId, slots: u32, memory_bytes: u64) -> Self {
        Self {
            me,
            slots,
            memory_bytes,
            kept: BTreeMap::new(),
            ended: VecDeque::new(),
            heard: BTreeMap::new(),
            open: BTreeSet::new(),
            peers: BTreeMap::new(),
            claims: BTreeSet::new(),
            spoke: None,
            lent: 0,
        }
    }

    /// The jobs that this node keeps.
    pub fn kept(&self) -> impl Iterator<Item = (&JobId, &Kept)> {
        self.kept.iter()
    }

    /// One of them.
    pub fn job(&self, job: &JobId) -> Option<&Kept> {
        self.kept.get(job)
    }

    /// What was heard of jobs that others keep, with their keepers.
    pub fn heard(&self) -> impl Iterator<Item = (&(PeerId, JobId), &Heard)> {
        self.heard.iter()
    }

    /// The nodes that can be reached.
    pub fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.peers.keys().copied()
    }

    /// A new job to keep.
    pub fn submit(&mut self, now: Millis, job: JobId, terms: Terms) -> Result<Vec<Action>, BoardFull> {
        if self.kept.len() - self.ended.len() >= MAX_ACTIVE {
            return Err(BoardFull);
        }
        self.kept.insert(job, Kept::new(terms, now));
        let mut actions = self.dispatch(now);
        actions.extend(self.announce(now));
        Ok(actions)
    }

    /// Node `by` (perhaps this one) asks for `job`. Gives it the number of its attempt.
    pub fn claim(&mut self, now: Millis, job: JobId, by: PeerId) -> Result<u32, Refusal> {
        self.kept.get_mut(&job).ok_or(Refusal::Unknown)?.give_to(by, now)
    }

    /// The node of a current attempt gave a sign of life. Says whether the attempt is still current.
    pub fn beat(&mut self, now: Millis, job: &JobId, attempt: u32) -> bool {
        match self.kept.get_mut(job).map(|kept| &mut kept.state) {
            Some(State::Running { attempt: current, heard, .. }) if *current == attempt => {
                *heard = now;
                true
            }
            _ => false,
        }
    }

    /// An attempt is over. Ignored unless it is the current one.
    pub fn attempt_ended(&mut self, now: Millis, job: JobId, attempt: u32, end: AttemptEnd) -> Vec<Action> {
        let Some(kept) = self.kept.get_mut(&job) else { return Vec::new() };
        let State::Running { by, attempt: current, .. } = kept.state else { return Vec::new() };
        if attempt != current {
            return Vec::new();
        }
        match end {
            AttemptEnd::Finished(outcome) => return self.end(now, job, outcome, Some(by)),
            AttemptEnd::Declined(why) => kept.declined = Some((by, why)),
            AttemptEnd::Lost(why) => kept.lost.push((by, why)),
        }
        if kept.lost.len() >= MAX_LOST {
            let outcome = Outcome::Failed { reason: kept.poison() };
            return self.end(now, job, outcome, Some(by));
        }
        kept.paused.insert(by, now + PAUSE_AFTER_LOSS);
        kept.change(State::Pending { since: now });
        let mut actions = vec![Action::Stop { job, attempt }];
        actions.extend(self.dispatch(now));
        actions.extend(self.announce(now));
        actions
    }

    /// Ends a job before its time, with `outcome`. Says nothing if it has ended already or is not kept here.
    pub fn stop(&mut self, now: Millis, job: JobId, outcome: Outcome) -> Vec<Action> {
        let Some(kept) = self.kept.get(&job) else { return Vec::new() };
        let (attempt, by) = match kept.state {
            State::Ended { .. } => return Vec::new(),
            State::Pending { .. } => (kept.attempts, None),
            State::Running { by, attempt, .. } => (attempt, Some(by)),
        };
        let mut actions = vec![Action::Stop { job, attempt }];
        actions.extend(self.end(now, job, outcome, by));
        actions
    }

    /// Gossip came in. `author` is who signed it, so nobody can speak about another's jobs.
    pub fn hear(&mut self, now: Millis, author: PeerId, bulletin: Bulletin) -> Vec<Action> {
        if author == self.me {
            return Vec::new();
        }
        let Bulletin { capacity, notices } = bulletin;
        if let Some(known) = self.peers.get_mut(&author) {
            *known = Some(capacity);
        }
        for notice in notices {
            self.hear_of(now, author, notice);
        }
        self.dispatch(now)
    }

    /// A connection to `peer` is there.
    pub fn peer_connected(&mut self, now: Millis, peer: PeerId) -> Vec<Action> {
        self.peers.entry(peer).or_default();
        self.dispatch(now)
    }

    /// The last connection to `peer` is gone. Whatever it was running is lost, and what it keeps is out of reach.
    pub fn peer_gone(&mut self, now: Millis, peer: PeerId) -> Vec<Action> {
        self.peers.remove(&peer);
        self.heard.retain(|(keeper, _), _| *keeper != peer);
        self.lose(now, |by, _| by == peer, "the connection to it was lost")
    }

    /// A claim that [`Action::TryClaim`] asked for is over.
    pub fn claim_over(&mut self, now: Millis, keeper: PeerId, job: JobId, end: ClaimEnd) -> Vec<Action> {
        self.claims.remove(&(keeper, job));
        match end {
            ClaimEnd::Unknown => {
                self.heard.remove(&(keeper, job));
            }
            ClaimEnd::Refused | ClaimEnd::Ran => {
                if let Some(heard) = self.heard.get_mut(&(keeper, job)) {
                    heard.not_before = now + PAUSE_AFTER_REFUSAL;
                }
            }
        }
        self.dispatch(now)
    }

    /// Time passes: call this a few times a second.
    pub fn tick(&mut self, now: Millis) -> Vec<Action> {
        self.heard.retain(|_, heard| heard.last + FORGET_AFTER > now);
        self.open.retain(|key| self.heard.contains_key(key));
        let mut actions = self.lose(now, |_, heard| heard + LOST_AFTER <= now, "it has fallen silent");
        actions.extend(self.dispatch(now));
        actions.extend(self.announce(now));
        actions
    }

    /// All that this node has to say, for a peer that has just come: anti-entropy behind the gossip.
    pub fn bulletin(&self) -> Bulletin {
        let notices = self.kept.iter().map(|(job, kept)| kept.notice(*job)).collect();
        Bulletin { capacity: self.capacity(), notices }
    }

    fn lose(&mut self, now: Millis, is_lost: impl Fn(PeerId, Millis) -> bool, why: &str) -> Vec<Action> {
        let lost = self.kept.iter().filter_map(|(job, kept)| match kept.state {
            State::Running { by, attempt, heard, .. } if by != self.me && is_lost(by, heard) => {
                Some((*job, attempt))
            }
            _ => None,
        });
        let lost: Vec<_> = lost.collect();
        let end = || AttemptEnd::Lost(why.to_owned());
        lost.into_iter().flat_map(|(job, attempt)| self.attempt_ended(now, job, attempt, end())).collect()
    }

    fn end(&mut self, now: Millis, job: JobId, outcome: Outcome, by: Option<PeerId>) -> Vec<Action> {
        let Some(kept) = self.kept.get_mut(&job) else { return Vec::new() };
        kept.change(State::Ended { outcome, by, at: now });
        kept.paused.clear();
        self.ended.push_back(job);
        let mut actions = vec![Action::Ended { job }];
        while self.ended.len() > MAX_ENDED {
            let Some(job) = self.ended.pop_front() else { break };
            self.kept.remove(&job);
            actions.push(Action::Forget { job });
        }
        actions.extend(self.announce(now));
        actions
    }

    fn hear_of(&mut self, now: Millis, keeper: PeerId, notice: Notice) {
        let (key, pending) = ((keeper, notice.job), matches!(notice.stage, Stage::Pending));
        if let Some(heard) = self.heard.get_mut(&key) {
            heard.last = now;
            if notice.revision <= heard.notice.revision {
                return;
            }
            heard.notice = notice;
            heard.not_before = now;
        } else {
            let of_keeper = (keeper, JobId([0; 16]))..=(keeper, JobId([0xff; 16]));
            if self.heard.range(of_keeper).count() >= MAX_HEARD_OF_ONE {
                return;
            }
            self.heard.insert(key, Heard { notice, first: now, last: now, not_before: now });
        }
        if pending {
            self.open.insert(key)
        } else {
            self.open.remove(&key)
        };
    }

    /// Says what is due to be said, in as many bulletins as it takes.
    fn announce(&mut self, now: Millis) -> Vec<Action> {
        let due = self.kept.iter_mut().filter(|(_, kept)| kept.is_due(now));
        let notices: Vec<_> = due.map(|(job, kept)| kept.tell(*job, now)).collect();
        let capacity = self.capacity();
        let speak = match self.spoke {
            None => true,
            Some((at, said)) => {
                at + CAPACITY_EVERY <= now || (said != capacity && at + ANNOUNCE_EVERY <= now)
            }
        };
        if notices.is_empty() && !speak {
            return Vec::new();
        }
        self.spoke = Some((now, capacity));
        Bulletin::split(capacity, notices).into_iter().map(Action::Publish).collect()
    }
}
