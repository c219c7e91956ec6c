//! Where the cells of an index lie: their addresses by spot, on the disk.
//!
//! An address is needed only to send its cell, so it is not written with the cell: it waits in memory until there are many,
//! which are then written in order, at once. What waited when the node was killed is missed when it is asked for, and then
//! all cells are looked through. What an entry says is a function of its address, so none is ever wrong.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    codec::{self, Spot},
    engine::{EngineError, Purpose},
    store::{CELLS, NAMES, ReadError, StoreEngine},
};

/// Addresses that wait, and their bytes.
const MAX_WAITING: usize = 16_384;
const MAX_BYTES: usize = 4 << 20;

/// The addresses by spot.
#[derive(Debug, Default)]
pub(crate) struct Names {
    waiting: Mutex<Waiting>,
    /// Nothing that is on the disk is missing here.
    is_whole: AtomicBool,
    /// One looks through all cells at a time.
    restoring: Mutex<()>,
}

#[derive(Debug, Default)]
struct Waiting {
    addresses: BTreeMap<Spot, Vec<u8>>,
    bytes: usize,
}

impl Names {
    /// Takes note of a cell that is on the disk now.
    pub(crate) fn note(&self, spot: Spot, address: &[u8]) {
        let mut waiting = self.waiting();
        waiting.bytes += address.len();
        waiting.addresses.insert(spot, address.to_vec());
    }

    /// Whether so many wait that they are to be written.
    pub(crate) fn are_many(&self) -> bool {
        let waiting = self.waiting();
        waiting.addresses.len() >= MAX_WAITING || waiting.bytes >= MAX_BYTES
    }

    /// Writes those that wait. Only the writer does.
    pub(crate) fn write(&self, engine: &StoreEngine) -> Result<(), EngineError> {
        // They are found here until they are found there.
        let addresses = self.waiting().addresses.clone();
        let written = put(engine, &addresses);
        *self.waiting() = Waiting::default();
        if written.is_err() {
            self.is_whole.store(false, Ordering::Release);
        }
        written
    }

    /// Of cells that are taken out nothing needs to be known.
    pub(crate) fn forget(&self, spot: &Spot) {
        let mut waiting = self.waiting();
        if let Some(address) = waiting.addresses.remove(spot) {
            waiting.bytes -= address.len();
        }
    }

    /// The address of the cell at `spot`.
    pub(crate) fn address(&self, engine: &StoreEngine, spot: &Spot) -> Result<Option<Vec<u8>>, ReadError> {
        let find = || self.find(engine, spot);
        if let Some(address) = find()? {
            return Ok(Some(address));
        }
        if self.is_whole.load(Ordering::Acquire) {
            // It may have been written in between.
            return find();
        }
        let _restoring = self.restoring.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_whole.load(Ordering::Acquire) {
            self.restore(engine)?;
        }
        find()
    }

    /// The address of the cell at `spot`, as far as it can be told without looking through all cells.
    pub(crate) fn known_address(&self, engine: &StoreEngine, spot: &Spot) -> Option<Vec<u8>> {
        self.find(engine, spot).ok()?
    }

    fn find(&self, engine: &StoreEngine, spot: &Spot) -> Result<Option<Vec<u8>>, ReadError> {
        if let Some(address) = self.waiting().addresses.get(spot) {
            return Ok(Some(address.clone()));
        }
        Ok(engine.read()?.keyspaces[NAMES].get(spot)?.map(|address| address.to_vec()))
    }

    /// Adds what is missing.
    fn restore(&self, engine: &StoreEngine) -> Result<(), ReadError> {
        // What fails to be written from here on is missed again.
        self.is_whole.store(true, Ordering::Release);
        let restored = (|| {
            let opened = engine.read()?;
            let mut missing = BTreeMap::new();
            for guard in opened.keyspaces[CELLS].iter() {
                let address = guard.key()?;
                let spot = codec::spot(&address);
                if !opened.keyspaces[NAMES].contains_key(spot)? {
                    missing.insert(spot, address.to_vec());
                }
                if missing.len() >= MAX_WAITING {
                    put(engine, &std::mem::take(&mut missing))?;
                }
            }
            put(engine, &missing)?;
            Ok(())
        })();
        if restored.is_err() {
            self.is_whole.store(false, Ordering::Release);
        }
        restored
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nobody waits for it: should it be lost, it is added again.
fn put(engine: &StoreEngine, addresses: &BTreeMap<Spot, Vec<u8>>) -> Result<(), EngineError> {
    if addresses.is_empty() {
        return Ok(());
    }
    engine.write(Purpose::Add, |opened| {
        let mut batch = opened.database.batch();
        for (spot, address) in addresses {
            batch.insert(&opened.keyspaces[NAMES], spot.as_slice(), address.as_slice());
        }
        batch.commit()
    })
}
