//! Summing up all cells, at start and after damage: one thread reads them, one hashes them, and both put them in order.

use std::sync::mpsc;

use fjall::{UserKey, UserValue};

use super::{BATCH_PREFIX, BATCHES, CELLS, IndexEntry, ReadError, Store};
use crate::{
    addresses::Log,
    codec::{self, MalformedCell},
    commits,
    index::{Index, Known, Survey},
};

/// Cells that are read before they are summed up, beside the reading.
const AT_ONCE: usize = 1024;
/// So many times as many may wait.
const AHEAD: usize = 4;

impl Store {
    /// Sums up what it holds. Where addresses are told is of use only with the index that this gives.
    pub(crate) fn survey(&self) -> Result<Index, ReadError> {
        self.noted(self.sum_up())
    }

    fn sum_up(&self) -> Result<Index, ReadError> {
        let opened = self.engine.read()?;
        let (survey, log) = std::thread::scope(|scope| {
            let (sender, cells) = mpsc::sync_channel::<Vec<(UserKey, UserValue)>>(AHEAD);
            let summing = scope.spawn(|| {
                let (mut survey, mut log) = (Survey::default(), Log::begin(self.engine.path()));
                let noted = cells.into_iter().try_for_each(|cells| self.note(&mut survey, &mut log, &cells));
                noted.map(|()| (survey, log))
            });
            let (mut some, mut read) = (Vec::with_capacity(AT_ONCE), Ok(()));
            for guard in opened.keyspaces[CELLS].range(commits::BEHIND..) {
                match guard.into_inner() {
                    Ok(cell) => some.push(cell),
                    Err(error) => {
                        read = Err(ReadError::from(error));
                        break;
                    }
                }
                if some.len() == AT_ONCE && sender.send(std::mem::take(&mut some)).is_err() {
                    break;
                }
            }
            // Who does not take it has found a cell that is none, and says so.
            let _ = sender.send(some);
            drop(sender);
            let summed = summing.join().unwrap_or(Err(ReadError::Senseless));
            read.and(summed)
        })?;
        let index = survey.finish();
        self.addresses.become_like(log);
        for guard in opened.keyspaces[BATCHES].iter() {
            let key = guard.key()?;
            let address = key.get(BATCH_PREFIX..).ok_or(MalformedCell::Address)?;
            index.unplain(&codec::spot(address));
        }
        Ok(index)
    }

    /// What is to be known of these cells.
    fn note(
        &self,
        survey: &mut Survey,
        log: &mut Log,
        cells: &[(UserKey, UserValue)],
    ) -> Result<(), ReadError> {
        for (address, record) in cells {
            let summary = codec::summary(record)?;
            let digest = codec::digest(address, record);
            let known = Known::new(&IndexEntry::new(digest, &summary));
            survey.note(codec::split_digest(&digest).0, known.told_at(log.push(address)));
            self.beside.note(address);
        }
        Ok(())
    }
}
