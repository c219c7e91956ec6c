//! Segments of writes under way: those of a write that fails are removed again, unless another write needs them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::hash::BlobHash;
use crate::store::{Kind, Store};

/// All writes under way on this node. A cheap handle.
#[derive(Clone, Debug, Default)]
pub(super) struct Flights(Arc<Mutex<HashMap<BlobHash, Flight>>>);

/// A segment that some writes have added.
#[derive(Debug, Default)]
struct Flight {
    writes: usize,
    /// It was here before the first of them.
    was_here: bool,
    /// One of them is a file by now.
    is_needed: bool,
    /// All of them have failed, and the segment is about to be removed: unless another write comes first.
    is_leaving: bool,
}

/// The segments of one write. Dropped before [`Landing::land`], they go.
#[derive(Debug)]
pub(super) struct Landing<'a> {
    flights: Flights,
    store: &'a Store,
    segments: HashSet<BlobHash>,
    has_landed: bool,
}

impl Flights {
    pub(super) fn begin<'a>(&'a self, store: &'a Store) -> Landing<'a> {
        Landing { flights: self.clone(), store, segments: HashSet::new(), has_landed: false }
    }

    /// Whether a segment that a failed write has left is to go still. If so, it is forgotten here.
    fn let_go(&self, segment: &BlobHash) -> bool {
        let mut flights = self.lock();
        let is_leaving = flights.get(segment).is_some_and(|flight| flight.is_leaving);
        if is_leaving {
            flights.remove(segment);
        }
        is_leaving
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<BlobHash, Flight>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Landing<'_> {
    /// The write is going to add this segment.
    pub(super) fn add(&mut self, segment: BlobHash) {
        if !self.segments.insert(segment) {
            return;
        }
        let mut flights = self.flights.lock();
        let flight = flights.entry(segment).or_default();
        if flight.writes == 0 && !flight.is_leaving {
            // A store that does not answer is better left alone.
            flight.was_here = self.store.has(&segment).unwrap_or(true);
        }
        flight.is_leaving = false;
        flight.writes += 1;
    }

    /// The write is a file by now.
    pub(super) fn land(mut self) {
        self.has_landed = true;
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let mut flights = self.flights.lock();
        let mut orphans = Vec::new();
        for segment in &self.segments {
            let Some(flight) = flights.get_mut(segment) else { continue };
            flight.is_needed |= self.has_landed;
            flight.writes -= 1;
            if flight.writes > 0 {
                continue;
            }
            if flight.is_needed || flight.was_here {
                flights.remove(segment);
            } else {
                flight.is_leaving = true;
                orphans.push(*segment);
            }
        }
        drop(flights);
        if orphans.is_empty() {
            return;
        }
        let (store, flights) = (self.store.clone(), self.flights.clone());
        tokio::spawn(async move {
            for orphan in orphans {
                // Asked at the moment of its removal: a write that has come since finds it here, and counts on it.
                let flights = flights.clone();
                let removed = store.remove_if(Kind::Whole, orphan, move |_| flights.let_go(&orphan)).await;
                if let Err(error) = removed {
                    tracing::debug!(segment = %orphan.short(), %error, "left for the collector");
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::store::Limits;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_failed_write_leaves_stays_if_another_write_has_come_to_need_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Limits { quota: u64::MAX, cache: 0 }).await.unwrap();
        let flights = Flights::default();
        for round in 0..200_u32 {
            let bytes = Bytes::from(round.to_le_bytes().repeat(1000));
            let segment = BlobHash::of(&bytes);
            let mut failing = flights.begin(&store);
            failing.add(segment);
            store.add(segment, bytes.clone(), false).await.unwrap();
            drop(failing);
            let mut again = flights.begin(&store);
            again.add(segment);
            store.add(segment, bytes, false).await.unwrap();
            again.land();
            tokio::task::yield_now().await;
            assert!(store.get(segment).await.unwrap().is_some(), "round {round}");
        }
        let mut failing = flights.begin(&store);
        let bytes = Bytes::from_static(b"of nobody else");
        let segment = BlobHash::of(&bytes);
        failing.add(segment);
        store.add(segment, bytes, false).await.unwrap();
        drop(failing);
        while store.has(&segment).unwrap() || !flights.lock().is_empty() {
            tokio::task::yield_now().await;
        }
    }
}
