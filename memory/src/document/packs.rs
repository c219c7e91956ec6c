//! Packs that were taken lately.
//!
//! To take a pack is to check every change in it, which costs more than anything else about a document; and when an
//! epoch is closed, whoever opens the document and the thread that tidies up all take the same ones within a moment. A pack's
//! name is the hash of its bytes, so what was taken once need not be taken again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use super::{
    change::Name,
    pack::{self, Pack, Purpose},
    state,
};

/// What the packs that are kept may come to in memory, in bytes. A longer one is taken each time.
const MAX_KEPT: usize = 32 * 1024 * 1024;

/// The packs that were taken last. Bounded; what was used longest ago goes first.
#[derive(Debug, Default)]
pub(crate) struct Packs {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    packs: HashMap<Name, Entry>,
    bytes: usize,
    uses: u64,
}

#[derive(Debug)]
struct Entry {
    taken: Arc<Taken>,
    bytes: usize,
    used: u64,
}

/// Taken by whoever comes first; the others wait. `None` if the bytes make no pack.
type Taken = OnceLock<Option<Arc<Pack>>>;

impl Packs {
    /// The pack of this purpose and name that these bytes make; `None` if they are not what they should be.
    pub(crate) fn take(&self, purpose: Purpose, name: Name, bytes: &[u8]) -> Option<Arc<Pack>> {
        if pack::name_of(bytes) != name.hash {
            return None;
        }
        let take = || Pack::take(purpose, name.epoch, name.hash, bytes).map(Arc::new);
        let weight = state::weight(bytes.len());
        if weight > MAX_KEPT {
            return take();
        }
        let taken = self.kept.lock().unwrap_or_else(PoisonError::into_inner).entry(name, weight);
        taken.get_or_init(take).clone()
    }
}

impl Kept {
    fn entry(&mut self, name: Name, bytes: usize) -> Arc<Taken> {
        self.uses += 1;
        let used = self.uses;
        if let Some(entry) = self.packs.get_mut(&name) {
            entry.used = used;
            return entry.taken.clone();
        }
        let taken = Arc::new(Taken::new());
        self.packs.insert(name, Entry { taken: taken.clone(), bytes, used });
        self.bytes += bytes;
        while self.bytes > MAX_KEPT
            && let Some((oldest, _)) = self.packs.iter().min_by_key(|(_, entry)| entry.used)
        {
            let oldest = *oldest;
            self.bytes -= self.packs.remove(&oldest).map_or(0, |entry| entry.bytes);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use automerge::{ROOT, transaction::Transactable};

    use super::*;
    use crate::document::{change::Kind, epoch::Epoch};

    fn packed(length: usize) -> (Name, Vec<u8>) {
        let mut document = state::new_automerge();
        document.put(ROOT, "a", "x".repeat(length)).unwrap();
        let (hash, bytes) = pack::pack(document.get_changes(&[])).unwrap();
        (Name { kind: Kind::Pack(Purpose::Fold), epoch: Epoch::FIRST, hash }, bytes)
    }

    #[test]
    fn a_pack_is_taken_once_and_only_as_it_was_made() {
        let packs = Packs::default();
        let (name, bytes) = packed(10);
        let first = packs.take(Purpose::Fold, name, &bytes).unwrap();
        assert!(Arc::ptr_eq(&first, &packs.take(Purpose::Fold, name, &bytes).unwrap()));
        assert!(packs.take(Purpose::Fold, name, &bytes[1..]).is_none(), "though one of its name is known");
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let packs = Packs::default();
        for length in 0..100 {
            let (name, bytes) = packed(100_000 + length);
            assert!(packs.take(Purpose::Fold, name, &bytes).is_some());
        }
        let (name, bytes) = packed(MAX_KEPT);
        assert!(packs.take(Purpose::Fold, name, &bytes).is_some());
        let kept = packs.kept.lock().unwrap();
        assert!(kept.bytes <= MAX_KEPT && !kept.packs.is_empty() && kept.packs.len() < 100);
        assert_eq!(kept.bytes, kept.packs.values().map(|entry| entry.bytes).sum::<usize>());
    }
}
