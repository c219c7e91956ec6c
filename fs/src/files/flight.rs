//! Segments of writes under way: those of a write that fails are removed again, unless another write needs them.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::hash::BlobHash;
use crate::store::{Kind, Store};

/// All writes under way on this node.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<BlobHash, Flight>>);

/// A segment that some writes have added.
#[derive(Debug, Default)]
struct Flight {
    writes: usize,
    /// It was here before the first of them.
    was_here: bool,
    /// One of them is a file by now.
    is_needed: bool,
}

/// The segments of one write. Dropped before [`Landing::land`], they go.
#[derive(Debug)]
pub(super) struct Landing<'a> {
    flights: &'a Flights,
    store: &'a Store,
    segments: HashSet<BlobHash>,
    has_landed: bool,
}

impl Flights {
    pub(super) fn begin<'a>(&'a self, store: &'a Store) -> Landing<'a> {
        Landing { flights: self, store, segments: HashSet::new(), has_landed: false }
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
        if flight.writes == 0 {
            // A store that does not answer is better left alone.
            flight.was_here = self.store.has(&segment).unwrap_or(true);
        }
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
            if flight.writes == 0 {
                if !flight.is_needed && !flight.was_here {
                    orphans.push(*segment);
                }
                flights.remove(segment);
            }
        }
        drop(flights);
        if orphans.is_empty() {
            return;
        }
        let store = self.store.clone();
        tokio::spawn(async move {
            for orphan in orphans {
                if let Err(error) = store.remove(Kind::Whole, orphan).await {
                    tracing::debug!(segment = %orphan.short(), %error, "left for the collector");
                }
            }
        });
    }
}
