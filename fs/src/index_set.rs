//! A set of shard numbers.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::code::MAX_SHARDS;

const WORDS: usize = MAX_SHARDS as usize / 64;
/// Runs in an encoded set: alternating numbers are the worst.
const MAX_RUNS: usize = MAX_SHARDS as usize / 2;

/// Numbers below [`MAX_SHARDS`]. Encoded as runs (start, length), since nodes hold long ones.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct IndexSet([u64; WORDS]);

impl IndexSet {
    /// The numbers of a range; what is beyond the bound is left out.
    pub(crate) fn range(range: std::ops::Range<u16>) -> Self {
        range.into_iter().take_while(|index| *index < MAX_SHARDS).collect()
    }

    pub(crate) fn insert(&mut self, index: u16) {
        if let Some(word) = self.0.get_mut(usize::from(index / 64)) {
            *word |= 1 << (index % 64);
        }
    }

    pub(crate) fn remove(&mut self, index: u16) {
        if let Some(word) = self.0.get_mut(usize::from(index / 64)) {
            *word &= !(1 << (index % 64));
        }
    }

    pub(crate) fn contains(&self, index: u16) -> bool {
        self.0.get(usize::from(index / 64)).is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0 == [0; WORDS]
    }

    /// The numbers in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        // Most words of most sets are empty.
        (0..).step_by(64).zip(self.0).flat_map(|(start, mut word)| {
            std::iter::from_fn(move || {
                let index = start + word.trailing_zeros() as u16;
                let is_left = word != 0;
                word &= word.wrapping_sub(1);
                is_left.then_some(index)
            })
        })
    }

    pub(crate) fn union(&self, other: &Self) -> Self {
        self.zip(other, |mine, theirs| mine | theirs)
    }

    pub(crate) fn intersection(&self, other: &Self) -> Self {
        self.zip(other, |mine, theirs| mine & theirs)
    }

    pub(crate) fn minus(&self, other: &Self) -> Self {
        self.zip(other, |mine, theirs| mine & !theirs)
    }

    /// The first `n` of them.
    pub(crate) fn first(&self, n: usize) -> Self {
        self.iter().take(n).collect()
    }

    fn zip(&self, other: &Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self(std::array::from_fn(|at| with(self.0[at], other.0[at])))
    }

    fn runs(&self) -> Vec<(u16, u16)> {
        let mut runs: Vec<(u16, u16)> = Vec::new();
        for index in self.iter() {
            match runs.last_mut() {
                Some((start, len)) if *start + *len == index => *len += 1,
                _ => runs.push((index, 1)),
            }
        }
        runs
    }

    fn from_runs(runs: &[(u16, u16)]) -> Option<Self> {
        let mut set = Self::default();
        for (start, len) in runs {
            let end = start.checked_add(*len).filter(|end| *end <= MAX_SHARDS)?;
            (*start..end).for_each(|index| set.insert(index));
        }
        Some(set)
    }
}

impl FromIterator<u16> for IndexSet {
    fn from_iter<I: IntoIterator<Item = u16>>(indices: I) -> Self {
        let mut set = Self::default();
        indices.into_iter().for_each(|index| set.insert(index));
        set
    }
}

impl fmt::Debug for IndexSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = self.runs();
        formatter.debug_list().entries(runs.iter().map(|(start, len)| *start..*start + *len)).finish()
    }
}

impl Serialize for IndexSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.runs().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for IndexSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let runs = Vec::<(u16, u16)>::deserialize(deserializer)?;
        let set = (runs.len() <= MAX_RUNS).then(|| Self::from_runs(&runs)).flatten();
        set.ok_or_else(|| de::Error::custom("numbers beyond the bound"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_out_of_bounds_does_not_decode() {
        for runs in
            [vec![(MAX_SHARDS, 1)], vec![(0, MAX_SHARDS + 1)], vec![(u16::MAX, 5)], vec![(0, 1); 5000]]
        {
            assert!(postcard::from_bytes::<IndexSet>(&postcard::to_stdvec(&runs).unwrap()).is_err());
        }
    }

    proptest! {
        #[test]
        fn it_is_the_set_that_the_standard_library_has(
            left in prop::collection::btree_set(0..MAX_SHARDS, 0..200),
            right in prop::collection::btree_set(0..MAX_SHARDS, 0..200),
        ) {
            let (a, b): (IndexSet, IndexSet) = (left.iter().copied().collect(), right.iter().copied().collect());
            let same = |set: IndexSet, expected: Vec<u16>| set.iter().collect::<Vec<_>>() == expected;
            prop_assert!(same(a.union(&b), left.union(&right).copied().collect()));
            prop_assert!(same(a.minus(&b), left.difference(&right).copied().collect()));
            prop_assert!(same(a.intersection(&b), left.intersection(&right).copied().collect()));
            prop_assert!(same(a.first(7), left.iter().copied().take(7).collect()));
            prop_assert_eq!(a.len(), left.len());
            prop_assert_eq!(postcard::from_bytes::<IndexSet>(&postcard::to_stdvec(&a).unwrap()).unwrap(), a);
        }
    }
}
