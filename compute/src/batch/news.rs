//! What memory tells of batches, on its way to the docket.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use starfish_memory::Cell;
use tracing::{info, warn};

use super::definition::MAX_GENERATIONS;
use super::service::Batches;
use super::store::{BatchStoreError, News, news_of};
use crate::task::JobId;

/// How soon memory is read again that could not be.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(250);

impl Batches {
    /// Reads what there is, which may be much, and only then decides anything: a keeper that has not seen all receipts
    /// would have tasks run twice.
    pub(super) async fn take_part(self: Arc<Self>) {
        while let Err(error) = self.load(None).await {
            warn!(%error, "cannot read what memory has of jobs");
            tokio::time::sleep(TRY_AGAIN_AFTER).await;
        }
        self.service.spawn(Arc::clone(&self).hear());
        self.changed.send_modify(|count| *count += 1);
        self.look_after().await;
    }

    /// Reads what memory has of one batch, or of all.
    async fn load(&self, job: Option<JobId>) -> Result<(), BatchStoreError> {
        let mut news = self.read(self.store.cells(job).await?).await;
        // What a batch is comes before what has become of it.
        news.sort_by_key(|(_, news)| !matches!(news, News::Card(_)));
        self.apply_all(news).await;
        Ok(())
    }

    /// Tells the docket, and opens what can be opened then.
    async fn apply_all(&self, news: Vec<(JobId, News)>) {
        let of_pledges = news.iter().filter(|(_, news)| news.is_of_pledges());
        let compared = of_pledges.map(|(job, _)| *job).collect();
        news.into_iter().for_each(|(job, news)| self.apply(job, news));
        self.open_pledges(compared).await;
    }

    /// What cells tell. Signatures are checked, which takes a while for many.
    async fn read(&self, cells: Vec<Cell>) -> Vec<(JobId, News)> {
        let unix_ms = self.unix_ms();
        let read = move || cells.iter().filter_map(|cell| news_of(cell, unix_ms)).collect();
        tokio::task::spawn_blocking(read).await.unwrap_or_default()
    }

    async fn hear(self: Arc<Self>) {
        loop {
            self.cells.come().await;
            let (cells, too_many) = self.cells.take();
            let news = self.read(cells).await;
            let is_new = |(job, news): &&(JobId, News)| {
                matches!(news, News::Card(_)) && self.docket().get(job).is_none()
            };
            let unknown: BTreeSet<_> = news.iter().filter(is_new).map(|(job, _)| *job).collect();
            self.apply_all(news).await;
            // What came before its card could not be understood.
            let again: Vec<_> = if too_many { vec![None] } else { unknown.into_iter().map(Some).collect() };
            for job in again {
                if let Err(error) = self.load(job).await {
                    warn!(%error, "cannot read what memory has of jobs");
                }
            }
            self.changed.send_modify(|count| *count += 1);
            self.wake();
        }
    }

    pub(super) fn apply(&self, job: JobId, news: News) {
        let mut docket = self.docket();
        match news {
            News::Card(card) => return docket.insert(job, card),
            News::Gone => {
                docket.remove(&job);
                self.desks.lock().remove(&job);
                self.definitions().remove(&job);
                self.suspects.forget(&job);
                self.pledged.lock().unwrap_or_else(PoisonError::into_inner).retain(|(of, _), _| *of != job);
                return;
            }
            _ => {}
        }
        let Some(known) = docket.news(&job) else { return };
        match news {
            News::Stopped => known.is_stopped = true,
            News::Again(generation) if generation > known.generation && generation <= MAX_GENERATIONS => {
                (known.generation, known.is_stopped) = (generation, false);
                known.end.take_if(|end| end.generation < generation);
            }
            News::End(end) if end.generation >= known.generation => {
                info!(%job, ending = ?end.ending, "a job has ended");
                known.end = Some(end);
            }
            News::Receipt(receipt, results) => {
                known.add(&receipt, &results);
                if let Some(kept) = self.desks.lock().get_mut(&job)
                    && kept.generation == receipt.generation
                {
                    kept.desk.ended(&receipt.range, receipt.elapsed_us, receipt.by);
                    if known.jury.is_some() {
                        kept.desk.settle(&receipt.range);
                    }
                }
            }
            News::Pledge(place, end, digest) if end <= known.card.tasks => {
                let Some(jury) = &mut known.jury else { return };
                jury.pledge(place, end, digest);
                if let (Some(by), Some(kept)) = (place.by, self.desks.lock().get_mut(&job))
                    && kept.generation == place.generation
                {
                    kept.desk.ended(&(place.start..end), 0, by);
                }
            }
            News::Key(place, key) => {
                if let Some(jury) = &mut known.jury {
                    jury.key(place, key);
                }
            }
            News::Enough(nodes) => {
                if let Some(jury) = &mut known.jury {
                    jury.lower(nodes);
                }
            }
            News::Again(_) | News::End(_) | News::Pledge(..) | News::Card(_) | News::Gone => {}
        }
    }
}
