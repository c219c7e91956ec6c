//! What a replica holds, as 256 numbers: so that two replicas can tell in one small message whether they agree.
//!
//! A shard's fingerprint is the sum of the digests of its cells, as four wrapping 64-bit lanes. A sum can be kept up
//! to date as cells come and go, in any order. It is no proof against a peer that forges digests on purpose; such a
//! peer only makes itself be compared more often, for what is then exchanged is checked cell by cell.

use serde::{Deserialize, Serialize};

use crate::codec::Digest;

/// Shards are told by the first byte of a digest. With a million cells a shard holds some four thousand.
pub(crate) const SHARDS: usize = 256;

/// The cells of one shard, summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shard {
    lanes: [u64; 4],
    /// How many cells there are. Tells an empty shard from one whose sum happens to be zero.
    pub(crate) cells: u32,
}

#[cfg(test)]
impl Shard {
    pub(crate) fn with_cells(cells: u32) -> Self {
        Self { cells, ..Self::default() }
    }
}

/// The fingerprints of all shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprints(Vec<Shard>);

impl Default for Fingerprints {
    fn default() -> Self {
        Self(vec![Shard::default(); SHARDS])
    }
}

impl Fingerprints {
    pub(crate) fn add(&mut self, digest: &Digest) {
        let shard = self.shard_mut(digest);
        shard.cells = shard.cells.wrapping_add(1);
        shard.lanes = combine(shard.lanes, digest, u64::wrapping_add);
    }

    pub(crate) fn remove(&mut self, digest: &Digest) {
        let shard = self.shard_mut(digest);
        shard.cells = shard.cells.wrapping_sub(1);
        shard.lanes = combine(shard.lanes, digest, u64::wrapping_sub);
    }

    /// Adds what others sum up.
    pub(crate) fn join(&mut self, others: &Self) {
        for (ours, theirs) in self.0.iter_mut().zip(&others.0) {
            ours.cells = ours.cells.wrapping_add(theirs.cells);
            for (lane, other) in ours.lanes.iter_mut().zip(theirs.lanes) {
                *lane = lane.wrapping_add(other);
            }
        }
    }

    /// One hash over everything: equal on replicas that hold the same cells.
    pub(crate) fn root(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for Shard { lanes, cells } in &self.0 {
            lanes.iter().for_each(|lane| {
                hasher.update(&lane.to_le_bytes());
            });
            hasher.update(&cells.to_le_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    pub(crate) fn shards(&self) -> &[Shard] {
        &self.0
    }

    pub(crate) fn cells(&self) -> u64 {
        self.0.iter().map(|shard| u64::from(shard.cells)).sum()
    }

    fn shard_mut(&mut self, digest: &Digest) -> &mut Shard {
        &mut self.0[usize::from(digest[0])]
    }
}

fn combine(mut lanes: [u64; 4], digest: &Digest, operation: fn(u64, u64) -> u64) -> [u64; 4] {
    for (lane, part) in lanes.iter_mut().zip(digest.as_chunks::<8>().0) {
        *lane = operation(*lane, u64::from_le_bytes(*part));
    }
    lanes
}

#[cfg(test)]
mod tests {
    use proptest::{array::uniform32, collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn the_order_of_arrival_does_not_matter_and_what_left_leaves_no_trace(
            kept in vec(uniform32(any::<u8>()), 0..20), gone in vec(uniform32(any::<u8>()), 0..20),
        ) {
            let (mut one, mut two) = (Fingerprints::default(), Fingerprints::default());
            kept.iter().for_each(|digest| one.add(digest));
            gone.iter().for_each(|digest| two.add(digest));
            kept.iter().rev().for_each(|digest| two.add(digest));
            gone.iter().for_each(|digest| two.remove(digest));
            prop_assert_eq!(one.root(), two.root());
            prop_assert_eq!(one.cells(), kept.len() as u64);
        }

        #[test]
        fn one_more_cell_changes_the_root(digests in vec(uniform32(any::<u8>()), 1..20)) {
            let mut all = Fingerprints::default();
            digests.iter().skip(1).for_each(|digest| all.add(digest));
            let before = all.root();
            all.add(&digests[0]);
            prop_assert_ne!(before, all.root());
        }
    }
}
