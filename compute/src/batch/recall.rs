//! Tasks that were run before. A pure task says the same again, so it need not be run again.
//!
//! A batch that is the same as another is that one (`Batches::submit`). What is found here are tasks of a new batch that a
//! batch with other numbers or lines has run, and run well: the new one begins with receipts for them, signed by who submits
//! it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use tracing::{debug, info};

use super::definition::{Kept, KeptInput};
use super::docket::Known;
use super::receipt::{Collected, Said, SliceReceipt, TaskResult};
use super::results::{Ended, OutputStream, Results, ResultsError};
use super::service::Batches;
use super::store::{BatchStoreError, output_name};
use super::submit::Prepared;
use crate::task::JobId;

/// Batches whose results are looked at, the latest first.
const MAX_BATCHES: usize = 4;
/// Tasks whose results are looked at: it must take less time than to run them.
const MAX_TASKS: u64 = 100_000;

/// The items of a new batch.
enum Wanted<'list> {
    Range(Range<u64>),
    Lines(HashMap<&'list str, Vec<u64>>),
}

impl Wanted<'_> {
    /// The tasks of the new batch that are the same as one of another.
    fn same_as(&self, ended: &Ended) -> Vec<u64> {
        let Some(item) = ended.item.as_deref() else { return Vec::new() };
        match self {
            Self::Range(range) => {
                let number = item.parse().ok().filter(|number| range.contains(number));
                number.map(|number: u64| number - range.start).into_iter().collect()
            }
            Self::Lines(lines) => lines.get(item).cloned().unwrap_or_default(),
        }
    }

    /// Which tasks of a batch with these items are worth a look.
    fn common(&self, items: &Kept) -> Range<u64> {
        match (self, items) {
            (Self::Range(wanted), Kept::Range(there)) => {
                let start = wanted.start.clamp(there.start, there.end);
                start - there.start..wanted.end.clamp(start, there.end) - there.start
            }
            (Self::Lines(_), Kept::Lines { count, .. }) => 0..*count,
            _ => 0..0,
        }
    }
}

impl Batches {
    /// What a new batch begins with.
    pub(super) async fn recall(self: &Arc<Self>, job: JobId, prepared: &Prepared) -> Vec<SliceReceipt> {
        let definition = &prepared.definition;
        let wanted = match &definition.items {
            // An input that is another's output is known only when that has ended.
            _ if !definition.is_pure() || definition.copies > 1 => return Vec::new(),
            _ if matches!(definition.input, KeptInput::OutputOf(_)) => return Vec::new(),
            Kept::Range(range) => Wanted::Range(range.clone()),
            Kept::Lines { .. } => {
                let mut lines = HashMap::<&str, Vec<u64>>::new();
                for (task, line) in (0..).zip(prepared.list()) {
                    lines.entry(line).or_default().push(task);
                }
                Wanted::Lines(lines)
            }
            Kept::One | Kept::Files { .. } => return Vec::new(),
        };
        let mut found = BTreeMap::new();
        for other in self.alike(prepared) {
            if let Err(error) = self.look_at(other, job, &wanted, &mut found).await {
                debug!(%other, %error, "what was run before cannot be read");
            }
        }
        if !found.is_empty() {
            info!(%job, tasks = found.len(), "tasks were run before");
        }
        self.receipts_of(job, found).unwrap_or_default()
    }

    /// Batches that differ in their items only, and have ended.
    fn alike(&self, prepared: &Prepared) -> Vec<JobId> {
        let docket = self.docket();
        let is_alike = |known: &Known| {
            known.end.is_some() && known.card.call == prepared.card.call && known.card.copies == 1
        };
        let mut alike: Vec<_> = docket.iter().filter(|(_, known)| is_alike(known)).collect();
        alike.sort_by_key(|(_, known)| std::cmp::Reverse(known.card.submitted_ms));
        alike.into_iter().take(MAX_BATCHES).map(|(job, _)| *job).collect()
    }

    async fn look_at(
        self: &Arc<Self>,
        other: JobId,
        job: JobId,
        wanted: &Wanted<'_>,
        found: &mut BTreeMap<u64, TaskResult>,
    ) -> Result<(), ResultsError> {
        let common = wanted.common(&self.definition(other).await?.items);
        let mut results = Results::open(Arc::clone(self), other).await?;
        results.skip_to(common.start);
        for _ in common.clone().take(usize::try_from(MAX_TASKS).unwrap_or(usize::MAX)) {
            let Some(ended) = results.next().await? else { break };
            if ended.task >= common.end {
                break;
            }
            if !ended.result.outcome.is_success() {
                continue;
            }
            for task in wanted.same_as(&ended) {
                if let Entry::Vacant(place) = found.entry(task) {
                    self.copy_outputs(&results, &ended, job, task).await?;
                    place.insert(ended.result.clone());
                }
            }
        }
        Ok(())
    }

    /// Long outputs are files, which go with their batch. (A copy in the tree shares their content.)
    async fn copy_outputs(
        &self,
        results: &Results,
        ended: &Ended,
        job: JobId,
        task: u64,
    ) -> Result<(), ResultsError> {
        let outputs = [
            (&ended.result.stdout, OutputStream::Stdout, "out"),
            (&ended.result.stderr, OutputStream::Stderr, "err"),
        ];
        for (said, stream, name) in outputs {
            if matches!(said, Said::Kept { .. }) {
                let content = results.said(ended, stream).await?;
                self.store().put_file(job, &output_name(0, task, name, None), content).await?;
            }
        }
        Ok(())
    }

    fn receipts_of(
        &self,
        job: JobId,
        found: BTreeMap<u64, TaskResult>,
    ) -> Result<Vec<SliceReceipt>, BatchStoreError> {
        let (identity, unix_ms) = (self.service.network.identity(), self.unix_ms());
        let (mut receipts, mut collected) = (Vec::new(), Collected::new(0));
        for (task, result) in found {
            if collected.is_full() || collected.next() != task {
                if !collected.is_empty() {
                    receipts.push(collected.close(&job, 0, unix_ms, identity)?);
                }
                collected = Collected::new(task);
            }
            collected.push(result, 0)?;
        }
        if !collected.is_empty() {
            receipts.push(collected.close(&job, 0, unix_ms, identity)?);
        }
        Ok(receipts)
    }
}
