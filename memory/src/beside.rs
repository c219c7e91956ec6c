//! Which keys may have more than their value's cell: counts, fields, members or old versions.
//!
//! Nearly all keys have not, and to learn that from the disk takes a look at a range, which is many times the work of a look at one
//! cell. So a filter in memory is told of every other cell, as the cells are summed up at start and as new ones come. It never
//! says of a key that has such cells that it has none. The contrary costs a look at a range, so nothing is ever taken out of it.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

use crate::codec;

/// A bit each, 1 MiB in all: with a million keys that have more, one in nine of the others is taken for one of them.
const PLACES: usize = 1 << 23;
const BITS: usize = u64::BITS as usize;

/// The keys that have more than their value's cell, and some others.
#[derive(Debug)]
pub(crate) struct Beside {
    bits: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl Default for Beside {
    fn default() -> Self {
        Self { bits: (0..PLACES / BITS).map(|_| AtomicU64::new(0)).collect(), hasher: RandomState::new() }
    }
}

impl Beside {
    /// That there is a cell with this address, or will be in a moment.
    pub(crate) fn note(&self, address: &[u8]) {
        if let Some(key_prefix) = codec::beside(address) {
            let (word, bit) = self.place(key_prefix);
            word.fetch_or(bit, Ordering::SeqCst);
        }
    }

    /// Whether the key whose addresses begin with this may have such cells.
    pub(crate) fn may_have(&self, key_prefix: &[u8]) -> bool {
        let (word, bit) = self.place(key_prefix);
        word.load(Ordering::SeqCst) & bit != 0
    }

    fn place(&self, key_prefix: &[u8]) -> (&AtomicU64, u64) {
        let place = self.hasher.hash_one(key_prefix) as usize % PLACES;
        (&self.bits[place / BITS], 1 << (place % BITS))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::cell::tests::any_cell;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_key_with_more_than_its_value_is_always_told(cells in vec(any_cell(), 0..40)) {
            let beside = Beside::default();
            let addresses: Vec<_> =
                cells.iter().map(|cell| codec::address(&cell.space, &cell.key, &cell.field)).collect();
            addresses.iter().for_each(|address| beside.note(address));
            for cell in cells.iter().filter(|cell| !cell.field.is_empty()) {
                prop_assert!(beside.may_have(&codec::key_prefix(&cell.space, &cell.key)));
            }
        }
    }

    #[test]
    fn values_alone_leave_it_empty() {
        let beside = Beside::default();
        let space = crate::SpaceName::new("app").unwrap();
        for number in 0..10_000u32 {
            let prefix = codec::key_prefix(&space, &number.to_be_bytes());
            beside.note(&prefix);
            assert!(!beside.may_have(&prefix));
        }
    }
}
