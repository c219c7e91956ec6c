//! The addresses of all cells, in the order in which they came: so that a cell is found of which only the digest is known.
//!
//! An address is needed only to send its cell; the index says where in this log it lies. The log belongs to one run: it is begun
//! anew whenever the cells are summed up. So it is never synced, what fails to be written is made good, and its file has no name.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// New ones are written when they are so many bytes.
const WRITTEN_AT_ONCE: usize = 64 << 10;
/// Those of cells that are gone stay in the log until they are more than this, in bytes, and more than half of it.
const MAX_GONE: u64 = 64 << 20;
/// A log that cannot be written, or has become long, is begun anew, but not more often than this.
const RENEWED_EVERY: Duration = Duration::from_secs(10);
/// Before each address stands its length.
const HEAD: usize = size_of::<u16>();
/// So much is read at once, and is more than nearly all of them.
const READ_AT_ONCE: usize = 128;

/// Where in the log an address lies.
// As long as there is room for beside what else the index knows of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place([u8; 5]);

impl Place {
    /// Of an address that is not in the log.
    pub(crate) const NOWHERE: Self = Self([u8::MAX; 5]);

    fn at(offset: u64) -> Self {
        match offset.to_le_bytes() {
            [a, b, c, d, e, 0, 0, 0] => Self([a, b, c, d, e]),
            _ => Self::NOWHERE,
        }
    }

    fn offset(self) -> u64 {
        let [a, b, c, d, e] = self.0;
        u64::from_le_bytes([a, b, c, d, e, 0, 0, 0])
    }
}

/// The log of the cells that there are.
#[derive(Debug)]
pub(crate) struct Addresses(Mutex<Log>);

/// One log, from its beginning on.
#[derive(Debug)]
pub(crate) struct Log {
    file: Option<Arc<File>>,
    /// What is in the file, in bytes.
    written: u64,
    /// What follows.
    tail: Vec<u8>,
    /// What belongs to cells that are gone.
    gone: u64,
    has_failed: bool,
    /// When it was begun, or was to be begun anew.
    since: Instant,
}

impl Addresses {
    pub(crate) fn new(log: Log) -> Self {
        Self(Mutex::new(log))
    }

    /// Puts another log in the place of this one.
    pub(crate) fn become_like(&self, log: Log) {
        *self.log() = log;
    }

    /// Adds the address of a new cell.
    pub(crate) fn push(&self, address: &[u8]) -> Place {
        self.log().push(address)
    }

    /// The cell with this address is gone.
    pub(crate) fn forget(&self, address: &[u8]) {
        self.log().gone += (HEAD + address.len()) as u64;
    }

    /// What lies there, if the log can be read. The log may have been begun anew since somebody was told of this place.
    pub(crate) fn at(&self, place: Place) -> Option<Vec<u8>> {
        let file = {
            let log = self.log();
            if let Some(behind) = place.offset().checked_sub(log.written) {
                let (address, _) = split(log.tail.get(usize::try_from(behind).ok()?..)?)?;
                return Some(address.to_vec());
            }
            log.file.clone()?
        };
        read_at(&file, place.offset())
            .inspect_err(|error| tracing::debug!(%error, "an address cannot be read"))
            .ok()
    }

    /// Whether it should be begun anew; told so, one tries.
    pub(crate) fn are_worn(&self) -> bool {
        let mut log = self.log();
        let all = log.written + log.tail.len() as u64;
        let is_worn = log.has_failed || (log.gone > MAX_GONE && log.gone > all / 2);
        let is_worn = is_worn && log.since.elapsed() >= RENEWED_EVERY;
        if is_worn {
            log.since = Instant::now();
        }
        is_worn
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    /// An empty one, with its file in `folder`.
    pub(crate) fn begin(folder: &Path) -> Self {
        let file = nameless(folder).inspect_err(|error| tracing::warn!(%error, "addresses cannot be kept"));
        let (has_failed, file) = (file.is_err(), file.ok().map(Arc::new));
        Self { file, written: 0, tail: Vec::new(), gone: 0, has_failed, since: Instant::now() }
    }

    /// Adds an address.
    pub(crate) fn push(&mut self, address: &[u8]) -> Place {
        let Ok(len) = u16::try_from(address.len()) else { return Place::NOWHERE };
        if self.has_failed {
            return Place::NOWHERE;
        }
        let place = Place::at(self.written + self.tail.len() as u64);
        self.tail.extend_from_slice(&len.to_le_bytes());
        self.tail.extend_from_slice(address);
        if self.tail.len() >= WRITTEN_AT_ONCE
            && let Err(error) = self.write()
        {
            tracing::warn!(%error, "addresses cannot be kept");
            self.has_failed = true;
        }
        place
    }

    fn write(&mut self) -> io::Result<()> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        file.write_all_at(&self.tail, self.written)?;
        self.written += self.tail.len() as u64;
        self.tail.clear();
        Ok(())
    }
}

/// A file that is gone when it is closed.
fn nameless(folder: &Path) -> io::Result<File> {
    let path = folder.join("addresses");
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    fs::remove_file(path)?;
    Ok(file)
}

fn read_at(file: &File, offset: u64) -> io::Result<Vec<u8>> {
    let mut some = [0; READ_AT_ONCE];
    let mut n = 0;
    while n < HEAD {
        match file.read_at(&mut some[n..], offset + n as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => n += more,
        }
    }
    if let Some((address, _)) = split(&some[..n]) {
        return Ok(address.to_vec());
    }
    let len = u16::from_le_bytes([some[0], some[1]]);
    let mut address = vec![0; usize::from(len)];
    file.read_exact_at(&mut address, offset + HEAD as u64)?;
    Ok(address)
}

/// The first address, if it is there as a whole, and what follows.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn each_address_is_found_where_it_was_put(
            seeds in vec((any::<u8>(), prop_oneof![0..40usize, 120..140usize, 3000..3200usize]), 1..200),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let addresses = Addresses::new(Log::begin(folder.path()));
            let all: Vec<Vec<u8>> = seeds.iter().map(|(byte, len)| vec![*byte; *len]).collect();
            let places: Vec<Place> = all.iter().map(|address| addresses.push(address)).collect();
            for (place, address) in places.iter().zip(&all) {
                prop_assert_eq!(addresses.at(*place), Some(address.clone()));
            }
            prop_assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing stays");
            addresses.become_like(Log::begin(folder.path()));
            prop_assert_eq!(addresses.at(places[0]), None);
            prop_assert_eq!(addresses.at(Place::NOWHERE), None);
        }
    }

    #[test]
    fn what_cannot_be_written_is_nowhere_and_the_log_is_to_be_begun_anew() {
        let addresses = Addresses::new(Log::begin(Path::new("/does/not/exist")));
        assert_eq!(addresses.push(b"a"), Place::NOWHERE);
        assert!(!addresses.are_worn(), "it was just tried");
        addresses.log().since -= RENEWED_EVERY;
        assert!(addresses.are_worn());
        assert!(!addresses.are_worn(), "it is being tried");
    }

    #[test]
    fn addresses_of_cells_that_are_gone_wear_it_out() {
        let folder = tempfile::tempdir().unwrap();
        let addresses = Addresses::new(Log::begin(folder.path()));
        addresses.log().since -= RENEWED_EVERY;
        let address = [7; 3000];
        let n = MAX_GONE / 3000 + 1;
        (0..2 * n).for_each(|_| _ = addresses.push(&address));
        (0..n).for_each(|_| addresses.forget(&address));
        assert!(!addresses.are_worn(), "half of it is needed");
        (0..n).for_each(|_| addresses.forget(&address));
        assert!(addresses.are_worn());
    }
}
