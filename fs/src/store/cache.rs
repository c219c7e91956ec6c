//! Which of the cached items goes first when space is needed: the one that was used least recently. Pure.

use std::collections::{BTreeMap, HashMap};

use crate::hash::BlobHash;

/// The cached items by their last use.
#[derive(Debug, Default)]
pub(crate) struct Recency {
    items: HashMap<BlobHash, (u64, u64)>,
    order: BTreeMap<u64, BlobHash>,
    clock: u64,
    bytes: u64,
}

impl Recency {
    /// An item of so many bytes is cached, and used now.
    pub(crate) fn add(&mut self, hash: BlobHash, bytes: u64) {
        self.remove(&hash);
        self.clock += 1;
        self.items.insert(hash, (self.clock, bytes));
        self.order.insert(self.clock, hash);
        self.bytes += bytes;
    }

    /// An item is used now; nothing if it is not cached.
    pub(crate) fn touch(&mut self, hash: &BlobHash) {
        if let Some((_, bytes)) = self.items.get(hash).copied() {
            self.add(*hash, bytes);
        }
    }

    /// An item is cached no longer.
    pub(crate) fn remove(&mut self, hash: &BlobHash) {
        if let Some((clock, bytes)) = self.items.remove(hash) {
            self.order.remove(&clock);
            self.bytes -= bytes;
        }
    }

    /// The item that goes first.
    pub(crate) fn oldest(&self) -> Option<BlobHash> {
        self.order.values().next().copied()
    }

    /// The bytes of all of them.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_goes_last() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|name| BlobHash::of(name));
        let mut recency = Recency::default();
        recency.add(a, 10);
        recency.add(b, 20);
        recency.add(c, 30);
        recency.touch(&a);
        assert_eq!((recency.oldest(), recency.bytes()), (Some(b), 60));
        recency.remove(&b);
        recency.add(c, 5);
        assert_eq!((recency.oldest(), recency.bytes()), (Some(a), 15));
    }
}
