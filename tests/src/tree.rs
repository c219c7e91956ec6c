//! Folders of the host that hold some of everything, and what is found in them again.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use crate::scratch::{Chance, Scratch};

/// What users do to names. Files and folders are called by these in turn, with a number behind.
const NAMES: [&str; 8] =
    ["plain", "with space", "-dash", ".hidden", "quote'\"", "Grüße", "星魚🌟", "back\\slash*?[a]"];
/// Permissions of files.
const FILE_MODES: [u32; 5] = [0o644, 0o600, 0o755, 0o444, 0o640];
/// Permissions of folders. All can be removed again.
const FOLDER_MODES: [u32; 3] = [0o755, 0o700, 0o750];
/// Files are as long as one of these, or a few bytes less: nothing, what fits beside a name, one segment, several.
const SIZES: [usize; 8] = [0, 1, 100, 2 << 10, 5 << 10, 20 << 10, 70 << 10, 100];

/// One thing in a folder, with all that is to be kept of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A folder.
    Folder {
        /// Its permissions.
        mode: u32,
    },
    /// A file.
    File {
        /// Its permissions.
        mode: u32,
        /// When it was last changed, in milliseconds since the Unix epoch.
        mtime_ms: i64,
        /// Its length.
        size: usize,
        /// A hash of its content.
        content: u64,
    },
    /// A symbolic link.
    Link {
        /// Where it points.
        target: String,
    },
}

impl Scratch {
    /// Makes a folder of `n_files` files in some dozens of nested folders, empty ones and links of all kinds among
    /// them, and gives its path.
    #[track_caller]
    pub fn folder(&self, name: &str, n_files: usize) -> String {
        let path = self.path(name);
        make(Path::new(&path), n_files, Chance::new(name)).expect("there is room for a folder");
        path
    }
}

fn make(root: &Path, n_files: usize, mut chance: Chance) -> io::Result<()> {
    fs::create_dir(root)?;
    let mut folders = vec![root.to_owned()];
    for number in 0..n_files / 8 {
        let folder =
            folders[chance.below(folders.len())].join(format!("{}{number}", pick(&mut chance, &NAMES)));
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, Permissions::from_mode(pick(&mut chance, &FOLDER_MODES)))?;
        folders.push(folder);
    }
    // The last ones stay empty.
    let filled = &folders[..folders.len() - folders.len() / 8];
    for number in 0..n_files {
        let file =
            filled[chance.below(filled.len())].join(format!("{}{number}.txt", pick(&mut chance, &NAMES)));
        make_file(&file, &mut chance)?;
    }
    let long = "l".repeat(255);
    make_file(&root.join(&long), &mut chance)?;
    fs::write(root.join("longer than a segment"), chance.bytes(9 << 20))?;
    symlink(&long, root.join("link to a file"))?;
    symlink("..", folders[folders.len() - 1].join("link upwards"))?;
    symlink("/dev/null", root.join("link out of the folder"))?;
    symlink("nowhere/at all", root.join("link to nothing"))
}

fn make_file(path: &Path, chance: &mut Chance) -> io::Result<()> {
    let (size, less) = (pick(chance, &SIZES), chance.below(4));
    fs::write(path, chance.bytes(size.saturating_sub(less)))?;
    let age = Duration::from_millis(1_600_000_000_000 + chance.number() % 100_000_000_000);
    let file = File::options().write(true).open(path)?;
    file.set_times(FileTimes::new().set_modified(UNIX_EPOCH + age))?;
    file.set_permissions(Permissions::from_mode(pick(chance, &FILE_MODES)))
}

fn pick<T: Copy>(chance: &mut Chance, from: &[T]) -> T {
    from[chance.below(from.len())]
}

/// Fails if two folders do not hold the same, and says what differs.
///
/// # Panics
/// If they do not.
#[track_caller]
pub fn assert_same_folders(left: impl AsRef<Path>, right: impl AsRef<Path>) {
    let (left, right) = (contents(left.as_ref()), contents(right.as_ref()));
    let mut different = Vec::new();
    for name in left.keys().chain(right.keys().filter(|name| !left.contains_key(*name))) {
        if left.get(name) != right.get(name) {
            different.push(format!("{name}: {:?} is not {:?}", left.get(name), right.get(name)));
        }
    }
    assert!(different.is_empty(), "{} of {} differ:\n{}", different.len(), left.len(), different.join("\n"));
}

/// All that is in a folder, by path.
#[track_caller]
pub fn contents(folder: &Path) -> BTreeMap<String, Found> {
    let mut found = BTreeMap::new();
    collect(folder, "", &mut found)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", folder.display()));
    found
}

fn collect(folder: &Path, prefix: &str, found: &mut BTreeMap<String, Found>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, name) = (entry.path(), format!("{prefix}{}", entry.file_name().display()));
        let metadata = fs::symlink_metadata(&path)?;
        let mode = metadata.mode() & 0o7777;
        let what = if metadata.is_symlink() {
            Found::Link { target: fs::read_link(&path)?.display().to_string() }
        } else if metadata.is_dir() {
            collect(&path, &format!("{name}/"), found)?;
            Found::Folder { mode }
        } else {
            let content = fs::read(&path)?;
            let mtime_ms = metadata.mtime() * 1000 + metadata.mtime_nsec() / 1_000_000;
            Found::File { mode, mtime_ms, size: content.len(), content: hash(&content) }
        };
        found.insert(name, what);
    }
    Ok(())
}

fn hash(content: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}
