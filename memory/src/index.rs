//! Which version of each cell this replica holds: in memory, sorted by digest, for comparing notes and for the writer.
//!
//! Some 70 bytes a cell, summed up from the disk at start and kept up to date by the writer's thread, after each commit: so
//! it cannot disagree with the disk for long, and a write needs no search on the disk to learn that there is nothing to
//! write over.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::Bound,
    panic::resume_unwind,
    sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use crate::{
    addresses::Place,
    codec::{self, Digest, Mark, Spot},
    fingerprint::{Fingerprints, SHARDS},
    store::IndexEntry,
};

/// What is known of the current version of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    mark: Mark,
    pub(crate) time: u64,
    pub(crate) is_tombstone: bool,
    /// It is a value that lasts, lies in the cell and was written by itself. To write over another one it must be read.
    pub(crate) is_plain: bool,
    /// Where the cell's address is told.
    pub(crate) place: Place,
}

impl Known {
    /// Of a version that was written by itself, for all that is known, whose value may lie elsewhere, and whose address is told
    /// nowhere else.
    pub(crate) fn new(entry: &IndexEntry) -> Self {
        let (_, mark) = codec::split_digest(&entry.digest);
        // A tombstone is due from the beginning.
        let is_plain = entry.due_ms == 0 && !entry.tombstone && !entry.must_be_read;
        Self { mark, time: entry.time, is_tombstone: entry.tombstone, is_plain, place: Place::NOWHERE }
    }

    /// The same, with the address told there.
    pub(crate) fn told_at(self, place: Place) -> Self {
        Self { place, ..self }
    }

    /// The digest of this version of the cell at `spot`.
    pub(crate) fn digest(&self, spot: &Spot) -> Digest {
        codec::join_digest(spot, &self.mark)
    }
}

/// What all cells come to.
#[derive(Clone, Debug, Default)]
struct Tally {
    fingerprints: Fingerprints,
    tombstones: u64,
    newest: u64,
}

type Shard = BTreeMap<Spot, Known>;

/// The index of one replica.
#[derive(Debug)]
pub(crate) struct Index {
    shards: Vec<RwLock<Shard>>,
    tally: Mutex<Tally>,
}

impl Default for Index {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| RwLock::default()).collect(), tally: Mutex::default() }
    }
}

impl Index {
    /// What is known of the cell at `spot`.
    pub(crate) fn at(&self, spot: &Spot) -> Option<Known> {
        self.read(spot[0]).get(spot).copied()
    }

    /// What is known of the version with this digest, while it is the current one.
    pub(crate) fn version(&self, digest: &Digest) -> Option<Known> {
        let (spot, mark) = codec::split_digest(digest);
        self.at(&spot).filter(|known| known.mark == mark)
    }

    /// Up to `max` current versions of a shard behind `after`, in the order of digests.
    pub(crate) fn after(&self, shard: u8, after: Option<Digest>, max: usize) -> Vec<(Digest, Known)> {
        let start = match after {
            Some(digest) => Bound::Excluded(codec::split_digest(&digest).0),
            None => Bound::Unbounded,
        };
        let shard = self.read(shard);
        let behind = shard.range((start, Bound::Unbounded)).take(max);
        behind.map(|(spot, known)| (known.digest(spot), *known)).collect()
    }

    /// All cells.
    pub(crate) fn spots(&self) -> Vec<Spot> {
        (0..=u8::MAX).flat_map(|shard| self.read(shard).keys().copied().collect::<Vec<Spot>>()).collect()
    }

    /// Takes note of what the disk holds now in place of what it held. The address of a cell that was there stays told where it was.
    pub(crate) fn put(&self, versions: impl IntoIterator<Item = (Spot, Known)>) {
        let mut tally = self.tally();
        for (spot, known) in versions {
            tally.add(&known.digest(&spot), &known);
            match self.write(spot[0]).entry(spot) {
                Entry::Vacant(vacant) => _ = vacant.insert(known),
                Entry::Occupied(mut occupied) => {
                    let place =
                        if known.place == Place::NOWHERE { occupied.get().place } else { known.place };
                    let old = occupied.insert(known.told_at(place));
                    tally.remove(&old.digest(&spot), &old);
                }
            }
        }
    }

    /// Forgets cells.
    pub(crate) fn forget(&self, spots: impl IntoIterator<Item = Spot>) {
        let mut tally = self.tally();
        for spot in spots {
            if let Some(old) = self.write(spot[0]).remove(&spot) {
                tally.remove(&old.digest(&spot), &old);
            }
        }
    }

    /// Says of cells that to be written over they must be read.
    pub(crate) fn unplain(&self, spot: &Spot) {
        if let Some(known) = self.write(spot[0]).get_mut(spot) {
            known.is_plain = false;
        }
    }

    /// Becomes what another one is.
    pub(crate) fn become_like(&self, other: Self) {
        let mut tally = self.tally();
        for (ours, theirs) in self.shards.iter().zip(other.shards) {
            *ours.write().unwrap_or_else(PoisonError::into_inner) =
                theirs.into_inner().unwrap_or_else(PoisonError::into_inner);
        }
        *tally = other.tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    }

    pub(crate) fn fingerprints(&self) -> Fingerprints {
        self.tally().fingerprints.clone()
    }

    /// How many cells there are, and how many of them are tombstones.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let tally = self.tally();
        (tally.fingerprints.cells(), tally.tombstones)
    }

    /// The time of the newest stamp there ever was.
    pub(crate) fn newest(&self) -> u64 {
        self.tally().newest
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, shard: u8) -> RwLockReadGuard<'_, Shard> {
        self.shards[usize::from(shard)].read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, shard: u8) -> RwLockWriteGuard<'_, Shard> {
        self.shards[usize::from(shard)].write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All cells of a store on their way to an index: to put them in order once takes a fraction of finding a place for each
/// as it comes.
#[derive(Debug)]
pub(crate) struct Survey(Vec<Vec<(Spot, Known)>>);

impl Default for Survey {
    fn default() -> Self {
        Self(vec![Vec::new(); SHARDS])
    }
}

impl Survey {
    /// One cell, which is not told of twice.
    pub(crate) fn note(&mut self, spot: Spot, known: Known) {
        self.0[usize::from(spot[0])].push((spot, known));
    }

    /// The index of them. Takes two threads.
    pub(crate) fn finish(mut self) -> Index {
        let second = self.0.split_off(SHARDS / 2);
        let ((mut shards, mut tally), (others, other)) = std::thread::scope(|scope| {
            let second = scope.spawn(|| in_order(second));
            let first = in_order(self.0);
            (first, second.join().unwrap_or_else(|panic| resume_unwind(panic)))
        });
        shards.extend(others);
        tally.join(&other);
        Index { shards, tally: Mutex::new(tally) }
    }
}

fn in_order(shards: Vec<Vec<(Spot, Known)>>) -> (Vec<RwLock<Shard>>, Tally) {
    let mut tally = Tally::default();
    let shards = shards.into_iter().map(|versions| {
        let shard: Shard = versions.into_iter().collect();
        shard.iter().for_each(|(spot, known)| tally.add(&known.digest(spot), known));
        RwLock::new(shard)
    });
    (shards.collect(), tally)
}

impl Tally {
    /// Of other shards.
    fn join(&mut self, other: &Self) {
        self.fingerprints.join(&other.fingerprints);
        self.tombstones += other.tombstones;
        self.newest = self.newest.max(other.newest);
    }

    fn add(&mut self, digest: &Digest, known: &Known) {
        self.fingerprints.add(digest);
        self.tombstones += u64::from(known.is_tombstone);
        self.newest = self.newest.max(known.time);
    }

    fn remove(&mut self, digest: &Digest, known: &Known) {
        self.fingerprints.remove(digest);
        self.tombstones = self.tombstones.saturating_sub(u64::from(known.is_tombstone));
    }
}

#[cfg(test)]
mod tests {
    use proptest::{array::uniform16, collection::vec, prelude::*};

    use super::*;

    fn known(mark: u8, time: u64, is_tombstone: bool) -> Known {
        Known { mark: [mark; 16], time, is_tombstone, is_plain: true, place: Place::NOWHERE }
    }

    proptest! {
        #[test]
        fn what_was_replaced_or_forgotten_leaves_no_trace(
            spots in vec((uniform16(0u8..2), any::<u8>(), any::<bool>()), 0..40), gone in vec(uniform16(0u8..2), 0..10),
        ) {
            let (index, mut last) = (Index::default(), BTreeMap::new());
            for (spot, mark, is_tombstone) in spots {
                let known = known(mark, 1, is_tombstone);
                index.put([(spot, known)]);
                last.insert(spot, known);
            }
            index.forget(gone.iter().copied());
            gone.iter().for_each(|spot| {
                last.remove(spot);
            });
            let plain = Index::default();
            plain.put(last.clone());
            prop_assert_eq!(index.fingerprints(), plain.fingerprints());
            prop_assert_eq!(index.counts(), plain.counts());
            let mut survey = Survey::default();
            last.iter().rev().for_each(|(spot, known)| survey.note(*spot, *known));
            let surveyed = survey.finish();
            prop_assert_eq!(surveyed.fingerprints(), plain.fingerprints());
            prop_assert_eq!((surveyed.counts(), surveyed.newest()), (plain.counts(), plain.newest()));
            prop_assert_eq!(surveyed.spots(), plain.spots());
            for shard in 0..2 {
                let all = index.after(shard, None, usize::MAX);
                let expected: Vec<_> = last.iter().filter(|(spot, _)| spot[0] == shard).collect();
                prop_assert_eq!(all.len(), expected.len());
                prop_assert!(all.is_sorted_by_key(|(digest, _)| *digest));
                // Page by page it is the same.
                let (mut paged, mut after) = (Vec::new(), None);
                while let Some(one) = index.after(shard, after, 1).pop() {
                    after = Some(one.0);
                    paged.push(one);
                }
                prop_assert_eq!(paged, all);
            }
        }
    }

    #[test]
    fn only_the_current_version_of_a_cell_is_found() {
        let index = Index::default();
        let (old, new) = (known(1, 5, false), known(2, 6, false));
        index.put([([7; 16], old)]);
        index.put([([7; 16], new)]);
        assert_eq!(index.version(&old.digest(&[7; 16])), None);
        assert_eq!(index.version(&new.digest(&[7; 16])), Some(new));
        assert_eq!((index.newest(), index.counts()), (6, (1, 0)));
    }
}
