//! Files of the host that a test makes, and what is compared at its end.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// How much is made, written and compared at a time.
const PIECE: usize = 1 << 20;

/// A folder for a test's own files. Paths are text, as they stand in commands.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes the folder.
    pub(crate) fn new(folder: PathBuf) -> Self {
        fs::create_dir(&folder).expect("there is room for a folder");
        Self(folder)
    }

    /// Where the file `name` is or would be.
    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("folders for temporary files have names in UTF-8").to_owned()
    }

    /// Writes a file, and gives its path.
    #[track_caller]
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, content).unwrap_or_else(|error| panic!("cannot write {path}: {error}"));
        path
    }

    /// Writes a file of so many bytes of chance, and gives its path. The same `name` has the same bytes.
    #[track_caller]
    pub fn random(&self, name: &str, size: usize) -> String {
        let path = self.path(name);
        let mut file = BufWriter::new(File::create(&path).expect("a file can be made"));
        let mut chance = Chance::new(name);
        for begin in (0..size).step_by(PIECE) {
            file.write_all(&chance.bytes(PIECE.min(size - begin))).expect("there is room for a file");
        }
        file.flush().expect("there is room for a file");
        path
    }
}

/// Bytes that look like chance and are the same in every run.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The chance of this name.
    pub fn new(name: &str) -> Self {
        // FNV-1a: short, and good enough to tell names apart.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self(hash)
    }

    /// The next number: SplitMix64.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.number() % end as u64).unwrap_or_default()
    }

    /// The next `length` bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.number().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

/// Whether two files hold the same bytes.
#[track_caller]
pub fn same_bytes(left: impl AsRef<Path>, right: impl AsRef<Path>) -> bool {
    let open = |path: &Path| {
        let file = File::open(path);
        BufReader::new(file.unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display())))
    };
    let (mut left, mut right) = (open(left.as_ref()), open(right.as_ref()));
    loop {
        let (a, b) = (piece(&mut left), piece(&mut right));
        if a != b {
            return false;
        }
        if a.is_empty() {
            return true;
        }
    }
}

fn piece(from: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.take(PIECE as u64).read_to_end(&mut bytes).expect("a file that was opened can be read");
    bytes
}
