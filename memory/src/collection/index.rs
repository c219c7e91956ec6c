//! The entries of one index: what documents have at a place, in order.
//!
//! A document with a list there has an entry for the list and one for each element, as a query finds it by either.
//! Entries are cut ([`order::MAX_SORT_KEY`]), so what an index gives are candidates: whoever asks looks at them.

use std::{
    collections::{BTreeSet, HashMap},
    ops::RangeInclusive,
};

use bytes::Bytes;
use serde_json::Value;

use super::{order, query::values_at};
use crate::document::pointer::Pointer;

/// Entries that one document may have. One with a longer list there makes the index useless, and so unused.
const MAX_PER_DOCUMENT: usize = 10_000;

/// Bytes of one index. It is in memory; a collection that needs more is looked through.
const MAX_BYTES: usize = 256 * 1024 * 1024;

/// What an entry takes beside its bytes, twice: it is kept by its key and by its document.
const OVERHEAD: usize = 128;

/// The index has become too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the index has become too large")]
pub(crate) struct TooLarge;

/// A range of keys, both ends within; a key that begins with the upper end is within, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyRange {
    pub(crate) from: Vec<u8>,
    pub(crate) to: Vec<u8>,
}

/// The entries of an index.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    by_key: BTreeSet<(Vec<u8>, Bytes)>,
    by_id: HashMap<Bytes, Vec<Vec<u8>>>,
    /// Documents with more than one entry.
    several: usize,
    bytes: usize,
}

impl Entries {
    /// Makes the entries of a document those of `value`, or none if it is gone.
    pub(crate) fn replace(
        &mut self,
        id: &Bytes,
        place: &Pointer,
        value: Option<&Value>,
    ) -> Result<(), TooLarge> {
        if let Some(keys) = self.by_id.remove(id) {
            self.several -= usize::from(keys.len() > 1);
            for key in keys {
                self.bytes -= weight(&key, id);
                self.by_key.remove(&(key, id.clone()));
            }
        }
        let keys = value.map(|value| keys_of(value, place)).unwrap_or_default();
        if keys.is_empty() {
            return Ok(());
        }
        if keys.len() > MAX_PER_DOCUMENT {
            return Err(TooLarge);
        }
        self.several += usize::from(keys.len() > 1);
        for key in &keys {
            self.bytes += weight(key, id);
            self.by_key.insert((key.clone(), id.clone()));
        }
        self.by_id.insert(id.clone(), keys.into_iter().collect());
        if self.bytes > MAX_BYTES { Err(TooLarge) } else { Ok(()) }
    }

    /// The documents with an entry in the range. One may come more than once.
    pub(crate) fn ids(&self, range: &KeyRange) -> impl Iterator<Item = &Bytes> {
        let end = range.to.clone();
        self.by_key
            .range((range.from.clone(), Bytes::new())..)
            .take_while(move |(key, _)| *key <= end || key.starts_with(&end))
            .map(|(_, id)| id)
    }

    /// Whether no document has more than one entry: then two ranges of one query can be made one.
    pub(crate) fn is_single(&self) -> bool {
        self.several == 0
    }

    /// How many documents have an entry.
    pub(crate) fn documents(&self) -> usize {
        self.by_id.len()
    }
}

fn weight(key: &[u8], id: &[u8]) -> usize {
    2 * (key.len() + id.len()) + OVERHEAD
}

fn keys_of(document: &Value, place: &Pointer) -> BTreeSet<Vec<u8>> {
    let mut keys = BTreeSet::new();
    for value in values_at(document, place) {
        keys.insert(order::key(value));
        keys.extend(value.as_array().into_iter().flatten().map(order::key));
        if keys.len() > MAX_PER_DOCUMENT {
            break;
        }
    }
    keys
}

impl From<RangeInclusive<Vec<u8>>> for KeyRange {
    fn from(range: RangeInclusive<Vec<u8>>) -> Self {
        let (from, to) = range.into_inner();
        Self { from, to }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(entries: &Entries, value: &Value) -> Vec<Bytes> {
        let key = order::key(value);
        entries.ids(&(key.clone()..=key).into()).cloned().collect()
    }

    #[test]
    fn a_document_is_found_by_what_it_says_now() {
        let (mut entries, place) = (Entries::default(), "/a".parse().unwrap());
        let id = Bytes::from_static(b"1");
        entries.replace(&id, &place, Some(&json!({"a": 1}))).unwrap();
        entries.replace(&"2".into(), &place, Some(&json!({"a": 1}))).unwrap();
        assert_eq!(found(&entries, &json!(1)), ["1", "2"]);
        entries.replace(&id, &place, Some(&json!({"a": ["x", "y"]}))).unwrap();
        assert_eq!(found(&entries, &json!(1)), ["2"]);
        for value in [json!("x"), json!("y"), json!(["x", "y"])] {
            assert_eq!(found(&entries, &value), ["1"]);
        }
        assert!(!entries.is_single());
        entries.replace(&id, &place, None).unwrap();
        entries.replace(&"2".into(), &place, Some(&json!({"b": 1}))).unwrap();
        assert_eq!((entries.documents(), entries.bytes, entries.is_single()), (0, 0, true));
        assert!(entries.by_key.is_empty());
    }

    #[test]
    fn a_document_with_too_many_entries_is_refused() {
        let (mut entries, place) = (Entries::default(), "/a".parse().unwrap());
        let many: Vec<usize> = (0..=MAX_PER_DOCUMENT).collect();
        assert_eq!(entries.replace(&"1".into(), &place, Some(&json!({ "a": many }))), Err(TooLarge));
    }
}
