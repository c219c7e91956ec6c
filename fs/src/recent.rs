//! What is remembered of the latest segments.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use crate::hash::BlobHash;

/// Something about each of the latest `MAX` segments that were noted; the one that was noted first goes first.
#[derive(Debug)]
pub(crate) struct Recent<T, const MAX: usize> {
    known: HashMap<BlobHash, T>,
    order: VecDeque<BlobHash>,
}

impl<T, const MAX: usize> Default for Recent<T, MAX> {
    fn default() -> Self {
        Self { known: HashMap::new(), order: VecDeque::new() }
    }
}

impl<T, const MAX: usize> Recent<T, MAX> {
    /// What is known of a segment, while it is.
    pub(crate) fn get_mut(&mut self, segment: &BlobHash) -> Option<&mut T> {
        self.known.get_mut(segment)
    }

    /// Notes a segment, unless it is known; says whether it was not.
    pub(crate) fn note(&mut self, segment: BlobHash, what: T) -> bool {
        let Entry::Vacant(vacant) = self.known.entry(segment) else { return false };
        vacant.insert(what);
        self.order.push_back(segment);
        if self.order.len() > MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }
}
