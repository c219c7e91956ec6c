//! Plain values that were read lately, in memory: what is read again and again takes no search.
//!
//! A reader leaves what it has found if it was found before, not long ago: most is read once. After a commit the writer takes out what was written over, and with it the places of readers that
//! looked before and have not left their find yet. While a commit is under way nobody looks here: who has seen one of its cells must
//! not find what was there before another one.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use bytes::Bytes;
use quick_cache::{
    Weighter,
    sync::{Cache, GuardResult},
};

use crate::moments::Moments;

/// What is kept, in bytes. Many times what is read again and again, and little beside the index of a million cells.
const MAX_BYTES: u64 = 8 << 20;
/// How many values these are, if they are short.
const USUAL: usize = 32 * 1024;
/// Values that were found once are remembered in so many places, each by the other half of its hash.
const PLACES: usize = 16 * 1024;
/// What a value takes besides its own bytes and those of its address.
const OVERHEAD: usize = 128;

/// A value, and when its time is over.
#[derive(Clone, Debug)]
pub(crate) struct Plain {
    pub(crate) value: Bytes,
    pub(crate) expires_ms: Option<u64>,
}

/// What a search for a value comes to.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// It is this.
    Plain(Plain),
    /// There is none, or it was deleted.
    Nothing,
    /// It is not in its cell.
    Elsewhere,
}

impl Plain {
    pub(crate) fn is_over(&self, now_ms: u64) -> bool {
        self.expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms)
    }
}

#[derive(Clone, Debug)]
struct Weight;

impl Weighter<Vec<u8>, Plain> for Weight {
    fn weight(&self, address: &Vec<u8>, plain: &Plain) -> u64 {
        (OVERHEAD + address.len() + plain.value.len()) as u64
    }
}

/// What was read lately, by address.
#[derive(Debug)]
pub(crate) struct Hot {
    values: Cache<Vec<u8>, Plain, Weight>,
    pub(crate) moments: Moments,
    found: Box<[AtomicU32]>,
    hasher: RandomState,
}

impl Default for Hot {
    fn default() -> Self {
        Self {
            values: Cache::with_weighter(USUAL, MAX_BYTES, Weight),
            moments: Moments::default(),
            found: (0..PLACES).map(|_| AtomicU32::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl Hot {
    /// The value at `address`, which is looked for with `find` unless it is here.
    pub(crate) fn get_or<E>(&self, address: &[u8], find: impl Fn() -> Result<Found, E>) -> Result<Found, E> {
        if !self.moments.is_quiet() {
            return find();
        }
        if let Some(plain) = self.values.get(address) {
            return Ok(Found::Plain(plain));
        }
        let found = find()?;
        if !matches!(found, Found::Plain(_)) || !self.was_found_before(address) {
            return Ok(found);
        }
        // It may have been written over since, so it is looked for once more, with its place taken.
        match self.values.get_value_or_guard(address, Some(Duration::ZERO)) {
            GuardResult::Value(plain) => Ok(Found::Plain(plain)),
            GuardResult::Guard(place) => {
                let found = find()?;
                if let Found::Plain(plain) = &found {
                    // It was written over meanwhile if there is no place any more.
                    let _ = place.insert(plain.clone());
                }
                Ok(found)
            }
            // Somebody else is looking.
            GuardResult::Timeout => find(),
        }
    }

    fn was_found_before(&self, address: &[u8]) -> bool {
        let hash = self.hasher.hash_one(address);
        let (place, mark) = (hash as usize % PLACES, (hash >> 32) as u32);
        self.found.get(place).is_some_and(|found| found.swap(mark, Ordering::Relaxed) == mark)
    }

    /// Commits what takes the place of what is at these addresses, with this number or a later one. One does at a time.
    pub(crate) fn write<'a, T, E>(
        &self,
        addresses: impl Iterator<Item = &'a [u8]>,
        number: u64,
        commit: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        self.moments.commit(number, || {
            let outcome = commit();
            match outcome {
                Ok(_) => addresses.for_each(|address| _ = self.values.remove(address)),
                // Nobody knows what was written.
                Err(_) => self.forget_all(),
            }
            outcome
        })
    }

    /// There may be anything now.
    pub(crate) fn forget_all(&self) {
        self.values.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(value: &'static str) -> Found {
        Found::Plain(Plain { value: value.into(), expires_ms: None })
    }

    /// Writes over `a`, with this outcome.
    fn write(hot: &Hot, outcome: Result<(), ()>) {
        assert_eq!(hot.write([b"a".as_slice()].into_iter(), 0, || outcome), outcome);
    }

    fn value_of(found: Result<Found, ()>) -> Option<Bytes> {
        match found.unwrap() {
            Found::Plain(plain) => Some(plain.value),
            Found::Nothing | Found::Elsewhere => None,
        }
    }

    /// What is found at `a` when `there` is what a search finds.
    fn got(hot: &Hot, there: Option<&'static str>) -> Option<Bytes> {
        value_of(hot.get_or::<()>(b"a", || Ok(there.map_or(Found::Nothing, plain))))
    }

    #[test]
    fn what_was_found_once_is_found_until_it_is_written_over() {
        let hot = Hot::default();
        assert_eq!(got(&hot, None), None, "what is not there is looked for each time");
        assert_eq!(got(&hot, Some("once")).unwrap(), "once");
        assert_eq!(got(&hot, Some("old")).unwrap(), "old", "and so is what was found once");
        assert_eq!(got(&hot, Some("new")).unwrap(), "old");
        write(&hot, Ok(()));
        assert_eq!(got(&hot, Some("new")).unwrap(), "new");
        write(&hot, Err(()));
        assert_eq!(got(&hot, Some("newer")).unwrap(), "newer");
    }

    #[test]
    fn while_it_is_written_over_nothing_is_found_but_what_is_there() {
        let hot = Hot::default();
        for _ in 0..2 {
            assert_eq!(got(&hot, Some("old")).unwrap(), "old");
        }
        let seen = hot.write::<_, ()>([b"a".as_slice()].into_iter(), 0, || Ok(got(&hot, Some("new"))));
        assert_eq!(seen.unwrap().unwrap(), "new");
    }

    #[test]
    fn who_looked_before_a_write_leaves_nothing_old() {
        for outcome in [Ok(()), Err(())] {
            let hot = Hot::default();
            assert_eq!(got(&hot, Some("old")).unwrap(), "old");
            let found = hot.get_or::<()>(b"a", || {
                write(&hot, outcome);
                Ok(plain("old"))
            });
            assert_eq!(value_of(found).unwrap(), "old");
            assert_eq!(got(&hot, Some("new")).unwrap(), "new");
        }
    }

    #[test]
    fn who_looks_while_another_one_does_does_not_wait() {
        let hot = Hot::default();
        assert_eq!(got(&hot, Some("same")).unwrap(), "same");
        let found =
            hot.get_or::<()>(b"a", || Ok(got(&hot, Some("same")).map_or(Found::Nothing, |_| plain("same"))));
        assert_eq!(value_of(found).unwrap(), "same");
    }

    #[test]
    fn it_keeps_no_more_than_it_may() {
        let hot = Hot::default();
        for number in 0..20_000u32 {
            let found = Found::Plain(Plain { value: vec![0; 1024].into(), expires_ms: None });
            for _ in 0..2 {
                hot.get_or::<()>(&number.to_be_bytes(), || Ok(found.clone())).unwrap();
            }
        }
        assert!(hot.values.weight() <= MAX_BYTES);
        assert!(hot.values.len() > 1000, "and not much less");
    }
}
