//! What is sound of a damaged store, when no index tells what there was.
//!
//! The engine reads up to a damaged block and no further, from either side. What lies between two such blocks is found by
//! beginning in the middle, again and again, until so many tries have been made that hardly anything is left.

mod attempt;

use std::{
    collections::VecDeque,
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use fjall::Keyspace;

use self::attempt::Attempt;

use crate::{cell::Cell, codec, memory::Memory, store::CELLS, writer::WriteError};

/// Beginnings in the middle. A damaged block of 4 KiB takes some of them for itself.
const MAX_TRIES: usize = 4096;
/// Bytes behind the common beginning of two addresses that count when a place between them is chosen.
const PRECISION: usize = 8;
/// Cells that are taken over with one write.
const AT_ONCE: usize = 1024;

impl Memory {
    /// Takes over what is sound of the damaged memory in `folder`, where nobody has it open, as if a peer had brought it; and when
    /// others were met last, so that nothing comes back that was deleted since. Returns how many cells there were. Blocks.
    ///
    /// # Errors
    ///
    /// What was taken over cannot be written.
    pub fn recover(&self, folder: &Path) -> Result<u64, WriteError> {
        let mut cells = Cells { memory: self, some: Vec::new(), n: 0, failed: None };
        let read = catch_unwind(AssertUnwindSafe(|| {
            let Some(attempt) = Attempt::at(folder, self.shared().store.engine.path()) else { return };
            if let Ok(opened) = attempt.engine.read() {
                for_each_sound(&opened.keyspaces[CELLS], &mut |address, record| cells.add(address, record));
            }
        }));
        if read.is_err() {
            tracing::warn!("the engine gave up on what is damaged");
        }
        cells.finish()
    }
}

/// Cells on their way.
struct Cells<'a> {
    memory: &'a Memory,
    some: Vec<Cell>,
    n: u64,
    failed: Option<WriteError>,
}

impl Cells<'_> {
    fn add(&mut self, address: &[u8], record: &[u8]) {
        if let Ok(cell) = codec::decode(address, record) {
            self.some.push(cell);
        }
        if self.some.len() >= AT_ONCE {
            self.write();
        }
    }

    fn write(&mut self) {
        let some = std::mem::take(&mut self.some);
        let n = some.len() as u64;
        if self.failed.is_none() {
            match self.memory.merge_blocking(some) {
                Ok(()) => self.n += n,
                Err(error) => self.failed = Some(error),
            }
        }
    }

    fn finish(mut self) -> Result<u64, WriteError> {
        self.write();
        self.failed.map_or(Ok(self.n), Err)
    }
}

/// Between these two, neither included, something may still be found.
struct Gap {
    after: Vec<u8>,
    before: Option<Vec<u8>>,
}

/// Visits the cells that can be read, none twice.
fn for_each_sound(cells: &Keyspace, visit: &mut dyn FnMut(&[u8], &[u8])) {
    let Err(after) = forwards(cells, &[], None, visit) else { return };
    let Err(before) = backwards(cells, None, &after, visit) else { return };
    let mut gaps = VecDeque::from([Gap { after, before }]);
    for _ in 0..MAX_TRIES {
        let Some(Gap { after, before }) = gaps.pop_front() else { return };
        let Some(middle) = between(&after, before.as_deref()) else { continue };
        if let Err(last) = forwards(cells, &middle, before.as_deref(), visit) {
            gaps.push_back(Gap { after: last, before });
        }
        if let Err(first) = backwards(cells, Some(&middle), &after, visit) {
            gaps.push_back(Gap { after, before: first });
        }
    }
}

/// Visits the cells from `from` on that lie before `before`. Where a damaged block is in the way, gives the last one it came to.
fn forwards(
    cells: &Keyspace,
    from: &[u8],
    before: Option<&[u8]>,
    visit: &mut dyn FnMut(&[u8], &[u8]),
) -> Result<(), Vec<u8>> {
    let mut last = from.to_vec();
    for guard in cells.range(from..) {
        let Ok((key, record)) = guard.into_inner() else { return Err(last) };
        if before.is_some_and(|before| *key >= *before) {
            break;
        }
        visit(&key, &record);
        last = key.to_vec();
    }
    Ok(())
}

/// Visits the cells before `before` that lie behind `after`, in reverse. Where a damaged block is in the way, gives the last one it came
/// to.
fn backwards(
    cells: &Keyspace,
    before: Option<&[u8]>,
    after: &[u8],
    visit: &mut dyn FnMut(&[u8], &[u8]),
) -> Result<(), Option<Vec<u8>>> {
    let mut last = before.map(<[u8]>::to_vec);
    let end = before.map_or(Bound::Unbounded, Bound::Excluded);
    for guard in cells.range::<&[u8], _>((Bound::Unbounded, end)).rev() {
        let Ok((key, record)) = guard.into_inner() else { return Err(last) };
        if *key <= *after {
            break;
        }
        visit(&key, &record);
        last = Some(key.to_vec());
    }
    Ok(())
}

/// An address about halfway between two; `None` if they are too close.
fn between(after: &[u8], before: Option<&[u8]>) -> Option<Vec<u8>> {
    let top = [u8::MAX];
    let before = before.unwrap_or(&top);
    let common = after.iter().zip(before).take_while(|(a, b)| a == b).count();
    let number = |bytes: &[u8]| {
        let mut digits = [0; PRECISION];
        for (digit, byte) in digits.iter_mut().zip(bytes.iter().skip(common)) {
            *digit = *byte;
        }
        u64::from_be_bytes(digits)
    };
    let (low, high) = (number(after), number(before));
    let middle = low + high.checked_sub(low)? / 2;
    let mut address = before.get(..common).unwrap_or_default().to_vec();
    address.extend_from_slice(&middle.to_be_bytes());
    (*address > *after && *address < *before).then_some(address)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use starfish_dht::PeerId;

    use super::*;

    proptest! {
        #[test]
        fn the_middle_lies_between(a in vec(any::<u8>(), 0..12), b in vec(any::<u8>(), 0..12)) {
            let (low, high) = if a < b { (a, b) } else { (b, a) };
            if let Some(middle) = between(&low, Some(&high)) {
                prop_assert!(low < middle && middle < high);
            }
            if let Some(middle) = between(&low, None) {
                prop_assert!(low < middle);
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_a_memory_with_a_flipped_bit_nearly_all_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        let peer = PeerId::random();
        fill(&old, &peer, 60_000).await;
        let mut tables = Vec::new();
        for entry in std::fs::read_dir(old.join("keyspaces")).unwrap() {
            let tables_of = entry.unwrap().path().join("tables");
            tables.extend(
                std::fs::read_dir(tables_of).into_iter().flatten().map(|table| table.unwrap().path()),
            );
        }
        let largest = tables.into_iter().max_by_key(|table| table.metadata().unwrap().len()).unwrap();
        let mut bytes = std::fs::read(&largest).unwrap();
        // In three blocks of the data, which comes first.
        for share in [10, 30, 50] {
            let at = bytes.len() * share / 100;
            bytes[at] ^= 4;
        }
        std::fs::write(&largest, bytes).unwrap();
        let memory = Memory::open(&new, &peer).unwrap();
        let n = tokio::task::spawn_blocking({
            let memory = memory.clone();
            move || memory.recover(&old).unwrap()
        });
        let n = n.await.unwrap();
        assert!((58_000..60_000).contains(&n), "{n} of 60,000");
        assert_eq!(memory.stats().cells, n, "none twice");
    }

    /// A store in `folder` with so many cells. A thousand are too few for a table.
    async fn fill(folder: &Path, peer: &PeerId, n: usize) {
        let memory = Memory::open(folder, peer).unwrap();
        let space = memory.space("app").unwrap();
        for some in (0..n).collect::<Vec<usize>>().chunks(n / 100) {
            let mut batch = space.batch();
            for number in some {
                batch.put(format!("key/{number}"), "", vec![7; 100]);
            }
            memory.commit(batch).await.unwrap();
        }
    }

    fn flip(path: &Path, at: usize) {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[at] ^= 4;
        std::fs::write(path, bytes).unwrap();
    }

    async fn recovered(folder: &Path, peer: &PeerId) -> u64 {
        let new = tempfile::tempdir().unwrap();
        let (memory, folder) = (Memory::open(new.path(), peer).unwrap(), folder.to_owned());
        let found = std::fs::read_dir(&folder).unwrap().count();
        let n = tokio::task::spawn_blocking({
            let folder = folder.clone();
            move || memory.recover(&folder).unwrap()
        });
        let n = n.await.unwrap();
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), found, "what was found stays");
        assert_eq!(std::fs::read_dir(folder.parent().unwrap()).unwrap().count(), 1, "the copy is gone");
        n
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_store_whose_version_cannot_be_read_is_taken_over_whole() {
        let (folder, peer) = (tempfile::tempdir().unwrap(), PeerId::random());
        let old = folder.path().join("old");
        fill(&old, &peer, 1000).await;
        flip(&old.join("version"), 0);
        assert!(Memory::open(&old, &peer).is_err());
        assert_eq!(recovered(&old, &peer).await, 1000);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_a_journal_that_the_engine_refuses_the_beginning_is_taken_over() {
        let (filled, folder, peer) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), PeerId::random());
        fill(&filled.path().join("old"), &peer, 1000).await;
        let (old, journal) = (folder.path().join("old"), folder.path().join("old/0.jnl"));
        let renew = || {
            let _ = std::fs::remove_dir_all(&old);
            let copied =
                std::process::Command::new("cp").arg("-a").args([&filled.path().join("old"), &old]).status();
            assert!(copied.unwrap().success());
        };
        renew();
        let end = std::fs::read(&journal).unwrap().iter().rposition(|byte| *byte != 0).unwrap();
        // Some bits it takes for the end of what was written, and others for nonsense.
        let is_refused = |at: &usize| {
            renew();
            flip(&journal, *at);
            crate::store::Store::engine_of(&old).is_err()
        };
        let at = (end * 8 / 10..end).find(is_refused).expect("a bit that it does not take");
        renew();
        flip(&journal, at);
        let n = recovered(&old, &peer).await;
        assert!((750..1000).contains(&n), "{n} of 1,000");
    }
}
