//! What a node does about batches by itself: looks after the desks of those it keeps, sets its free slots to work, and
//! frees what is no longer kept.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info, warn};

use super::definition::{End, Ending};
use super::desk::SETTLE_FOR;
use super::docket::{Known, Standing};
use super::keeper::KeptBatch;
use super::runner::Hand;
use super::service::Batches;
use crate::board::Millis;
use crate::task::JobId;

/// How often desks and slots are looked after when nothing happens.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// When all tasks have ended, but receipts are missing for so long, those tasks are run again.
const MISSING_AFTER: Millis = 3000;

impl Batches {
    pub(super) async fn look_after(self: Arc<Self>) {
        loop {
            self.see_who_is_there();
            self.reveal().await;
            self.look_after_desks();
            self.remember().await;
            self.forget_old().await;
            self.fill_slots();
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.woken.notified() => {}
                () = self.service.slots_freed.notified() => {}
            }
        }
    }

    fn see_who_is_there(&self) {
        let peers: BTreeSet<_> =
            self.service.board().peers().filter(|peer| self.service.may_compute(peer)).collect();
        let mut docket = self.docket();
        let known: Vec<_> = docket.living().iter().copied().filter(|peer| *peer != self.me()).collect();
        for peer in known.iter().filter(|peer| !peers.contains(peer)) {
            docket.lost(peer);
            self.desks.lock().values_mut().for_each(|kept| kept.desk.gone(*peer));
        }
        peers.into_iter().for_each(|peer| docket.met(peer));
    }

    fn look_after_desks(self: &Arc<Self>) {
        let (mine, now, unix_ms) = (self.docket().mine(), self.now(), self.unix_ms());
        self.leave_desks(&mine);
        for job in mine {
            let standing = self.docket().standing(&job, unix_ms);
            match standing {
                Standing::Ends(ending) => self.end(job, ending),
                Standing::Open => self.keep(job, now),
                Standing::Waits(_) | Standing::Ended => {}
            }
        }
    }

    /// Leaves the desks of batches that others keep now. Those of what has ended stay, without what is on them: when it is begun
    /// anew, this node knows that nobody is at work on it.
    fn leave_desks(&self, mine: &[JobId]) {
        let all: Vec<_> = self.desks.lock().keys().copied().collect();
        let (mut ended, mut left) = (BTreeSet::new(), BTreeSet::new());
        {
            // Not with the desks in hand: others take them after the docket.
            let docket = self.docket();
            for job in all {
                match docket.get(&job) {
                    Some(known) if known.end.is_some() => drop(ended.insert(job)),
                    Some(_) if !mine.contains(&job) => drop(left.insert(job)),
                    _ => {}
                }
            }
        }
        self.desks.lock().retain(|job, kept| {
            if ended.contains(job) {
                kept.clear();
            }
            kept.is_ending || !left.contains(job)
        });
    }

    pub(super) fn is_known(&self, job: &JobId) -> bool {
        self.docket().get(job).is_some()
    }

    /// Looks after the desk of a batch that this node keeps.
    fn keep(self: &Arc<Self>, job: JobId, now: Millis) {
        let docket = self.docket();
        let Some(known) = docket.get(&job) else { return };
        let mut desks = self.desks.lock();
        let kept = desks.entry(job).or_insert_with(|| {
            debug!(%job, "this node keeps a job now");
            KeptBatch::new(known, now + SETTLE_FOR)
        });
        if !kept.is_of(known) {
            *kept = kept.renewed(known, now);
        }
        kept.desk.tick(now);
        if let Some(jury) = &known.jury {
            let next = self.deliberate(known, jury, kept, now);
            drop(desks);
            drop(docket);
            return self.follow(job, next);
        }
        if !kept.desk.is_complete() {
            kept.complete_since = None;
            return;
        }
        let progress = known.progress();
        if progress.done == progress.tasks {
            drop(desks);
            drop(docket);
            return self.end(job, Ending::Complete { failed: progress.failed });
        }
        if *kept.complete_since.get_or_insert(now) + MISSING_AFTER <= now {
            warn!(%job, missing = progress.tasks - progress.done, "receipts are missing: their tasks are run again");
            *kept = KeptBatch::new(known, now);
        }
    }

    /// Writes down how a batch ended.
    pub(super) fn end(self: &Arc<Self>, job: JobId, ending: Ending) {
        let Some(generation) = self.docket().get(&job).map(|known| known.generation) else { return };
        {
            let mut desks = self.desks.lock();
            let kept = desks.entry(job).or_insert_with(|| KeptBatch::ending(generation));
            if std::mem::replace(&mut kept.is_ending, true) {
                return;
            }
        }
        let end = End { generation, ending, at_ms: self.unix_ms(), by: self.me() };
        let this = Arc::clone(self);
        self.service.spawn(async move {
            if let Err(error) = this.store.end(job, &end).await {
                warn!(%job, %error, "cannot write down that a job has ended");
            }
            // Its end is known by now; if it could not be written, this is tried again.
            this.desks.lock().insert(job, KeptBatch::ending(generation));
        });
    }

    /// Frees what belongs to batches that ended long ago. Nothing waits for them.
    async fn forget_old(&self) {
        let unix_ms = self.unix_ms();
        let old: Vec<_> = {
            let docket = self.docket();
            let is_old = |known: &Known| {
                known.end.as_ref().is_some_and(|end| end.at_ms.saturating_add(known.card.keep_ms) <= unix_ms)
            };
            let is_awaited = |job: &JobId| {
                docket.iter().any(|(_, other)| other.end.is_none() && other.card.after.contains(job))
            };
            let old =
                docket.iter().filter(|(job, known)| is_old(known) && docket.keeper(job) == Some(self.me()));
            old.filter(|(job, _)| !is_awaited(job)).map(|(job, _)| *job).collect()
        };
        for job in old {
            info!(%job, "the results of a job are no longer kept");
            if let Err(error) = self.store.forget(job).await {
                warn!(%job, %error, "cannot free what belongs to a job");
            }
        }
    }

    /// Sets every free slot to work.
    fn fill_slots(self: &Arc<Self>) {
        loop {
            let Some((job, keeper)) = self.docket().choose(self.now(), self.unix_ms()) else { return };
            if self.service.has_waiting_calls() || !self.service.board().lend() {
                return;
            }
            let this = Arc::clone(self);
            self.service.spawn(async move {
                let slot = Slot(Arc::clone(&this));
                let found_work = Hand::new(Arc::clone(&this), job).work(keeper).await;
                if found_work {
                    this.docket().found_work(&job);
                } else {
                    this.docket().pause(this.now(), &job);
                }
                drop(slot);
            });
        }
    }

    /// Whether a slot that is at work on `job` is to go on with it, as far as others are concerned.
    pub(super) fn should_go_on(&self, job: &JobId) -> bool {
        let is_first =
            self.docket().choose(self.now(), self.unix_ms()).is_none_or(|(first, _)| first == *job);
        is_first && !self.service.has_waiting_calls() && !self.service.board().has_waiting(self.now())
    }
}

/// A slot of this node, until it is dropped.
struct Slot(Arc<Batches>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.service.happen(|board, now| board.give_back(now));
        self.0.wake();
    }
}
