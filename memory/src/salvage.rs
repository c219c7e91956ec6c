//! Damage that is found while the store is open.
//!
//! The engine keeps checksums, so a damaged block is found when it is read, and not before; and every scan and every
//! compaction that comes across it fails from then on. So the writer copies all that is still sound into new keyspaces. What is
//! not is *lost*: to read it fails rather than finding nothing, and it is fetched from other members, since the index
//! no longer has it. It is lost until it is written again, or a member was compared with that does not have it either.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use fjall::{Guard, Keyspace, OwnedWriteBatch, UserKey, UserValue};

use crate::{
    cell::Cell,
    codec::{self, MalformedCell, Spot},
    commits,
    engine::{EngineError, Opened},
    index::{Index, Known},
    store::{BATCH_PREFIX, BATCHES, BLOBS, CELLS, DUE, IndexEntry, KEYSPACES, ReadError, Store, blob_key},
};

/// Cells that are copied with one write.
const COPIED_AT_ONCE: usize = 4096;

/// What was damaged.
#[derive(Debug, Default)]
pub(crate) struct Damage {
    is_found: AtomicBool,
    /// How many cells are lost; so that who reads need not lock while there are none.
    n_lost: AtomicU64,
    lost: Mutex<Lost>,
}

#[derive(Debug, Default)]
struct Lost {
    addresses: BTreeSet<Vec<u8>>,
    /// Since when the index does not have them any more.
    since: Option<Instant>,
}

impl Damage {
    /// Takes note of an error if it tells of damage.
    pub(crate) fn note(&self, error: &ReadError) {
        if error.is_damage() && !self.is_found.swap(true, Ordering::AcqRel) {
            tracing::error!(%error, "the memory on this node's disk is damaged: what is sound is saved, the rest is fetched from other members");
        }
    }

    /// Whether there is something to be saved.
    pub(crate) fn is_found(&self) -> bool {
        self.is_found.load(Ordering::Acquire)
    }

    /// Whether there is, or something is lost.
    pub(crate) fn is_known(&self) -> bool {
        self.is_found() || self.lost() > 0
    }

    /// How many cells are lost and have not come back.
    pub(crate) fn lost(&self) -> u64 {
        self.n_lost.load(Ordering::Acquire)
    }

    /// Fails if a cell behind `start` whose address begins so is lost.
    pub(crate) fn check(&self, start: &[u8], prefix: &[u8]) -> Result<(), ReadError> {
        if self.lost() == 0 {
            return Ok(());
        }
        let is_lost = {
            let lost = self.guard();
            let mut behind = lost.addresses.range(start.max(prefix).to_vec()..);
            behind.next().is_some_and(|address| address.starts_with(prefix))
        };
        if is_lost { Err(ReadError::Lost) } else { Ok(()) }
    }

    /// The same for one cell.
    pub(crate) fn check_one(&self, address: &[u8]) -> Result<(), ReadError> {
        let is_lost = self.lost() > 0 && self.guard().addresses.contains(address);
        if is_lost { Err(ReadError::Lost) } else { Ok(()) }
    }

    /// These cells are on the disk.
    pub(crate) fn came_back<'a>(&self, addresses: impl Iterator<Item = &'a [u8]>) {
        if self.lost() == 0 {
            return;
        }
        let mut lost = self.guard();
        addresses.for_each(|address| {
            lost.addresses.remove(address);
        });
        self.n_lost.store(lost.addresses.len() as u64, Ordering::Release);
    }

    /// A comparison that began then has ended: what has not come back is nowhere.
    pub(crate) fn has_compared(&self, began: Instant) {
        if self.lost() == 0 {
            return;
        }
        let mut lost = self.guard();
        if lost.since.is_some_and(|since| since < began) {
            tracing::warn!(n = lost.addresses.len(), "cells that damage took are known to no other member");
            *lost = Lost::default();
            self.n_lost.store(0, Ordering::Release);
        }
    }

    fn lose(&self, addresses: impl Iterator<Item = Vec<u8>>) {
        let mut lost = self.guard();
        lost.addresses.extend(addresses);
        // A comparison that begins before the index has forgotten them would bring nothing.
        lost.since = None;
        self.n_lost.store(lost.addresses.len() as u64, Ordering::Release);
    }

    fn guard(&self) -> MutexGuard<'_, Lost> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Saves what is sound, and says of how many cells nothing is left. `index` knows what there was, and then what there is. Only
    /// the writer does.
    pub(crate) fn salvage(&self, index: &Index) -> Result<u64, EngineError> {
        let spots = index.spots();
        let addresses = |spot: &Spot| self.address(index, spot);
        let (saved, n_lost) = self.engine.renew(|old, new| {
            let mut copy = Copy { index, saved: Index::default(), new, batch: new.database.batch(), n: 0 };
            copy.cells(&old.keyspaces, &spots, addresses)?;
            copy.batches(&old.keyspaces)?;
            let Copy { saved, mut batch, .. } = copy;
            batch.insert(&new.keyspaces[CELLS], commits::ADDRESS, self.commits.last());
            batch.commit()?;
            let lost: Vec<&Spot> = spots.iter().filter(|spot| saved.at(spot).is_none()).collect();
            self.damage.lose(lost.iter().copied().filter_map(addresses));
            Ok((saved, lost.len() as u64))
        })?;
        index.become_like(saved);
        self.damage.guard().since = Some(Instant::now());
        self.damage.is_found.store(false, Ordering::Release);
        Ok(n_lost)
    }
}

/// Copying what is sound.
struct Copy<'a> {
    index: &'a Index,
    saved: Index,
    new: &'a Opened<KEYSPACES>,
    batch: OwnedWriteBatch,
    n: usize,
}

impl Copy<'_> {
    fn cells(
        &mut self,
        old: &[Keyspace; KEYSPACES],
        spots: &[Spot],
        address_of: impl Fn(&Spot) -> Option<Vec<u8>>,
    ) -> Result<(), fjall::Error> {
        // Up to the first damaged block from either side, and then one by one what lies between such blocks.
        for guard in old[CELLS].iter() {
            let Ok((address, record)) = guard.into_inner() else { break };
            self.cell(&address, &record)?;
        }
        for guard in old[CELLS].iter().rev() {
            let Ok((address, record)) = guard.into_inner() else { break };
            if self.saved.at(&codec::spot(&address)).is_some() {
                break;
            }
            self.cell(&address, &record)?;
        }
        let missing: Vec<&Spot> = spots.iter().filter(|spot| self.saved.at(spot).is_none()).collect();
        for spot in missing {
            if let Some(address) = address_of(spot)
                && let Ok(Some(record)) = old[CELLS].get(&address)
            {
                self.cell(&address.into(), &record)?;
            }
        }
        Ok(())
    }

    /// Copies a cell if it is the one that the index knows.
    fn cell(&mut self, address: &UserKey, record: &UserValue) -> Result<(), fjall::Error> {
        let Ok((entry, cell)) = read(address, record) else { return Ok(()) };
        let Some(known) = self.index.version(&entry.digest) else { return Ok(()) };
        let keyspaces = &self.new.keyspaces;
        if let Some(key) = entry.due_key() {
            self.batch.insert(&keyspaces[DUE], key, address.clone());
        }
        if let Some(name) = cell.blob() {
            self.batch.insert(&keyspaces[BLOBS], blob_key(&name, address), []);
        }
        let (spot, _) = codec::split_digest(&entry.digest);
        self.batch.insert(&keyspaces[CELLS], address.clone(), record.clone());
        self.saved.put([(spot, Known::new(&entry).told_at(known.place))]);
        self.n += 1;
        if self.n.is_multiple_of(COPIED_AT_ONCE) {
            std::mem::replace(&mut self.batch, self.new.database.batch()).commit()?;
        }
        Ok(())
    }

    /// Which cells were written together, as far as it can be told.
    fn batches(&mut self, old: &[Keyspace; KEYSPACES]) -> Result<(), fjall::Error> {
        let sound = |guard: Guard| guard.key().ok();
        let keys: BTreeSet<UserKey> =
            old[BATCHES].iter().map_while(sound).chain(old[BATCHES].iter().rev().map_while(sound)).collect();
        for key in keys {
            if let Some(address) = key.get(BATCH_PREFIX..) {
                self.saved.unplain(&codec::spot(address));
                self.batch.insert(&self.new.keyspaces[BATCHES], key, []);
            }
        }
        Ok(())
    }
}

fn read(address: &[u8], record: &[u8]) -> Result<(IndexEntry, Cell), MalformedCell> {
    let cell = codec::decode(address, record)?;
    let encoded = codec::encode(&cell)?;
    Ok((IndexEntry::of(&cell, &encoded), cell))
}

/// Whether the engine says that a file is not what was written.
pub(crate) fn is_damage(error: &fjall::Error) -> bool {
    match error {
        fjall::Error::Storage(fjall::LsmError::Io(error)) | fjall::Error::Io(error) => matches!(
            error.kind(),
            std::io::ErrorKind::UnexpectedEof
                | std::io::ErrorKind::InvalidData
                | std::io::ErrorKind::NotFound
        ),
        fjall::Error::Storage(_)
        | fjall::Error::Decompress(_)
        | fjall::Error::InvalidTrailer
        | fjall::Error::InvalidTag(_) => true,
        _ => false,
    }
}
