//! A tree in memory, mounted for real and used as any folder. A machine that cannot mount says so and passes.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::io::Errno;

use super::{Access, Closed, Mount, MountError, MountOptions, is_mounted};
use crate::mem_vfs::MemVfs;
use crate::path::VfsPath;
use crate::vfs::{Attributes, Removal, Vfs, VfsError, collect, stream_of};

/// What may take a second may take long on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// More than any file of these tests.
const MAX: usize = 64 << 20;

struct Tested {
    tree: Arc<MemVfs>,
    mount: Mount,
    at: PathBuf,
    _folders: [tempfile::TempDir; 2],
}

impl Tested {
    /// A mounted tree, if this machine can do that.
    async fn new(access: Access) -> Option<Self> {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let tree = Arc::new(MemVfs::new());
        let options = MountOptions { access, disk: folders[0].path().to_owned() };
        let mount = match Mount::new(Arc::clone(&tree) as Arc<dyn Vfs>, folders[1].path(), options).await {
            Ok(mount) => mount,
            Err(error) => {
                println!("nothing is tested: {error}");
                return None;
            }
        };
        let at = mount.point().to_owned();
        Some(Self { tree, mount, at, _folders: folders })
    }

    /// Does with the mounted folder what may wait for answers of this very process.
    async fn with<T: Send + 'static>(&self, work: impl FnOnce(&Path) -> T + Send + 'static) -> T {
        let at = self.at.clone();
        tokio::task::spawn_blocking(move || work(&at)).await.unwrap()
    }

    async fn content(&self, path: &str) -> Result<String, VfsError> {
        let bytes = collect(self.tree.read(&path_of(path), 0..u64::MAX).await?, MAX).await?;
        Ok(String::from_utf8(bytes.to_vec()).unwrap())
    }

    async fn write(&self, path: &str, text: impl Into<bytes::Bytes>) {
        self.tree.write(&path_of(path), stream_of(text), Attributes::default()).await.unwrap();
    }

    async fn close(self) -> Closed {
        let closed = self.mount.close().await.unwrap();
        assert!(!is_mounted(&self.at));
        closed
    }
}

fn path_of(path: &str) -> VfsPath {
    VfsPath::parse(path).unwrap()
}

fn number<T: std::fmt::Debug>(result: io::Result<T>) -> Option<Errno> {
    Errno::from_io_error(&result.unwrap_err())
}

fn read_and_write(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what}: waited too long");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_in_the_tree_when_it_is_closed() {
    let Some(tested) = Tested::new(Access::ReadWrite).await else { return };
    let mut file = tested
        .with(|at| {
            let mut file = File::create(at.join("f")).unwrap();
            file.write_all(b"half").unwrap();
            assert_eq!(fs::read_to_string(at.join("f")).unwrap(), "half", "others here see it at once");
            assert_eq!(fs::read_dir(at).unwrap().count(), 1);
            file
        })
        .await;
    assert!(matches!(tested.content("/f").await, Err(VfsError::NotFound { .. })), "others see no half");
    let file =
        tested.with(move |_| file.write_all(b" and whole").and_then(|()| file.sync_all()).map(|()| file));
    let mut file = file.await.unwrap();
    assert_eq!(tested.content("/f").await.unwrap(), "half and whole");
    tested.with(move |_| file.write_all(b", and more").unwrap()).await;
    assert_eq!(tested.content("/f").await.unwrap(), "half and whole, and more");
    assert_eq!(tested.close().await, Closed { was_busy: false, lost: 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_changed_in_place() {
    let Some(tested) = Tested::new(Access::ReadWrite).await else { return };
    tested.write("/f", "0123456789").await;
    tested
        .with(|at| {
            let path = at.join("f");
            read_and_write(&path).write_all_at(b"ab", 3).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "012ab56789");
            OpenOptions::new().append(true).open(&path).unwrap().write_all(b"!").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "012ab56789!");
            OpenOptions::new().write(true).open(&path).unwrap().set_len(4).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "012a");
            OpenOptions::new().write(true).open(&path).unwrap().set_len(6).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"012a\0\0");
            fs::write(&path, "new").unwrap();
        })
        .await;
    assert_eq!(tested.content("/f").await.unwrap(), "new");
    tested.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_are_kept() {
    let Some(tested) = Tested::new(Access::ReadWrite).await else { return };
    let then = SystemTime::UNIX_EPOCH + Duration::from_millis(1_234_567_890_123);
    tested
        .with(move |at| {
            let file = File::create(at.join("f")).unwrap();
            file.set_modified(then).unwrap();
            file.set_permissions(fs::Permissions::from_mode(0o640)).unwrap();
            drop(file);
            let check = || {
                let metadata = fs::metadata(at.join("f")).unwrap();
                assert_eq!(metadata.modified().unwrap(), then);
                assert_eq!(metadata.mode() & 0o7777, 0o640);
                assert_eq!(metadata.uid(), rustix::process::getuid().as_raw());
            };
            check();
            fs::set_permissions(at.join("f"), fs::Permissions::from_mode(0o600)).unwrap();
            fs::set_permissions(at.join("f"), fs::Permissions::from_mode(0o640)).unwrap();
            check();
            symlink("../any where", at.join("l")).unwrap();
            assert_eq!(fs::read_link(at.join("l")).unwrap(), Path::new("../any where"));
            fs::create_dir(at.join("d")).unwrap();
            fs::set_permissions(at.join("d"), fs::Permissions::from_mode(0o700)).unwrap();
        })
        .await;
    let entry = tested.tree.stat(&path_of("/f")).await.unwrap();
    assert_eq!((entry.mode, entry.mtime_ms), (0o640, 1_234_567_890_123));
    assert_eq!(tested.tree.stat(&path_of("/d")).await.unwrap().mode, 0o700);
    tested.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_removed_while_open_works_until_it_is_closed() {
    let Some(tested) = Tested::new(Access::ReadWrite).await else { return };
    tested.write("/old", "old content").await;
    tested
        .with(|at| {
            let mut old = File::open(at.join("old")).unwrap();
            let mut new = read_and_write(&at.join("new"));
            fs::remove_file(at.join("old")).unwrap();
            fs::remove_file(at.join("new")).unwrap();
            let mut text = String::new();
            old.read_to_string(&mut text).unwrap();
            assert_eq!(text, "old content");
            new.write_all(b"temporary").unwrap();
            new.sync_all().unwrap();
            new.seek(SeekFrom::Start(0)).unwrap();
            text.clear();
            new.read_to_string(&mut text).unwrap();
            assert_eq!(text, "temporary");
            assert_eq!(new.metadata().unwrap().nlink(), 0);
            assert_eq!(fs::read_dir(at).unwrap().count(), 0);
        })
        .await;
    assert!(tested.tree.list(&VfsPath::root()).await.unwrap().is_empty());
    tested.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_follows_a_file_that_is_moved() {
    let Some(tested) = Tested::new(Access::ReadWrite).await else { return };
    tested.write("/target", "before").await;
    tested
        .with(|at| {
            fs::create_dir_all(at.join("a/b")).unwrap();
            let mut deep = File::create(at.join("a/b/f")).unwrap();
            deep.write_all(b"deep").unwrap();
            let inode = deep.metadata().unwrap().ino();
            assert_eq!(number(fs::remove_dir(at.join("a/b"))), Some(Errno::NOTEMPTY));
            fs::rename(at.join("a"), at.join("z")).unwrap();
            deep.write_all(b" down").unwrap();
            drop(deep);
            assert_eq!(fs::metadata(at.join("z/b/f")).unwrap().ino(), inode);

            // As editors save: a new file in the place of the old one, which others still read.
            let mut before = File::open(at.join("target")).unwrap();
            let mut after = File::create(at.join(".target.new")).unwrap();
            after.write_all(b"after").unwrap();
            fs::rename(at.join(".target.new"), at.join("target")).unwrap();
            after.write_all(b" all").unwrap();
            let mut text = String::new();
            before.read_to_string(&mut text).unwrap();
            assert_eq!(text, "before");
        })
        .await;
    assert_eq!(tested.content("/z/b/f").await.unwrap(), "deep down");
    assert_eq!(tested.content("/target").await.unwrap(), "after all");
    assert_eq!(tested.tree.list(&VfsPath::root()).await.unwrap().len(), 2);
    tested.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_cut_by_its_name_stays_cut_though_somebody_reads_it() {
    let Some(tested) = Tested::new(Access::ReadWrite).await else { return };
    tested.write("/f", "twenty bytes of text").await;
    let tree = Arc::clone(&tested.tree);
    tested
        .with(move |at| {
            let reader = File::open(at.join("f")).unwrap();
            // The standard library cuts files by handles only.
            let cut = std::process::Command::new("perl")
                .args(["-e", "truncate($ARGV[0], 6) or die $!"])
                .arg(at.join("f"))
                .status();
            if cut.is_ok_and(|status| status.success()) {
                let there = tokio::runtime::Handle::current()
                    .block_on(tree.stat(&VfsPath::root().join("f").unwrap()))
                    .unwrap();
                assert_eq!(there.size, 6, "it was said to be done");
                drop(reader);
                assert_eq!(fs::read(at.join("f")).unwrap(), b"twenty");
            }
        })
        .await;
    tested.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_those_of_any_file_system() {
    let Some(tested) = Tested::new(Access::ReadWrite).await else { return };
    tested
        .with(|at| {
            fs::create_dir_all(at.join("d/e")).unwrap();
            fs::write(at.join("f"), "x").unwrap();
            assert_eq!(number(fs::read(at.join("missing"))), Some(Errno::NOENT));
            assert_eq!(number(fs::write(at.join("missing/f"), "")), Some(Errno::NOENT));
            assert_eq!(number(fs::read(at.join("f/x"))), Some(Errno::NOTDIR));
            assert_eq!(number(fs::create_dir(at.join("f"))), Some(Errno::EXIST));
            assert_eq!(number(fs::remove_dir(at.join("d"))), Some(Errno::NOTEMPTY));
            assert_eq!(number(fs::remove_dir(at.join("f"))), Some(Errno::NOTDIR));
            assert_eq!(number(fs::rename(at.join("d"), at.join("d/e/x"))), Some(Errno::INVAL));
            assert_eq!(number(fs::rename(at.join("d"), at.join("f"))), Some(Errno::NOTDIR));
            assert_eq!(number(fs::rename(at.join("f"), at.join("d"))), Some(Errno::ISDIR));
            assert_eq!(number(fs::write(at.join("d"), "")), Some(Errno::ISDIR));
            assert_eq!(number(fs::hard_link(at.join("f"), at.join("h"))), Some(Errno::PERM));
            assert_eq!(number(fs::write(at.join("n".repeat(256)), "")), Some(Errno::NAMETOOLONG));
            let name = OsStr::from_bytes(&[0xff]);
            assert_eq!(number(fs::write(at.join(name), "")), Some(Errno::ILSEQ));
            let excl = OpenOptions::new().write(true).create_new(true).open(at.join("f"));
            assert_eq!(number(excl), Some(Errno::EXIST));
        })
        .await;
    tested.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_other_nodes_do_shows_within_a_second_or_two() {
    let Some(tested) = Tested::new(Access::ReadWrite).await else { return };
    tested.write("/f", "one").await;
    let path = tested.at.join("f");
    let sees = move |text: &'static str| {
        let path = path.clone();
        move || fs::read_to_string(&path).is_ok_and(|now| now == text)
    };
    let (one, two) = (sees("one"), sees("two, and longer"));
    tested.with(move |_| wait_until("it is seen", one)).await;
    tested.write("/f", "two, and longer").await;
    tested.with(move |_| wait_until("the change is seen", two)).await;
    tested.write("/new", "").await;
    tested.tree.remove(&path_of("/f"), Removal::Single).await.unwrap();
    tested
        .with(|at| {
            wait_until("the removal is seen", || !at.join("f").exists());
            wait_until("the new file is seen", || at.join("new").exists());
            let names = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().file_name());
            assert_eq!(names.collect::<Vec<_>>(), ["new"]);
        })
        .await;
    tested.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_file_is_read_in_order_and_out_of_order() {
    let Some(tested) = Tested::new(Access::ReadWrite).await else { return };
    let long: Vec<u8> = (0..5_000_000_u32).map(|i| (i / 7 % 251) as u8).collect();
    tested.write("/long", long.clone()).await;
    tested
        .with(move |at| {
            assert!(fs::read(at.join("long")).unwrap() == long);
            let file = File::open(at.join("long")).unwrap();
            for offset in [4_999_990, 0, 2_500_000, 1_048_576, 1_048_570, 4_000_000, 3_999_000] {
                let mut part = [0; 10];
                file.read_exact_at(&mut part, offset).unwrap();
                assert_eq!(part, long[offset as usize..offset as usize + 10]);
            }
            assert_eq!(file.read_at(&mut [0; 10], 5_000_000).unwrap(), 0);
            fs::copy(at.join("long"), at.join("copy")).unwrap();
            assert!(fs::read(at.join("copy")).unwrap() == long);
        })
        .await;
    tested.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_files_are_listed_in_seconds() {
    const FILES: usize = 100_000;
    let Some(tested) = Tested::new(Access::ReadWrite).await else { return };
    for i in 0..FILES {
        tested.write(&format!("/{i}"), "x").await;
    }
    tested
        .with(|at| {
            let start = Instant::now();
            let sizes = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
            assert_eq!(sizes.sum::<u64>(), FILES as u64);
            assert!(start.elapsed() < PATIENCE, "it took {:?}", start.elapsed());
            // A listing goes on although what it was made of goes.
            let mut seen = 0;
            for entry in fs::read_dir(at).unwrap().take(300) {
                fs::remove_file(entry.unwrap().path()).unwrap();
                seen += 1;
            }
            assert_eq!(fs::read_dir(at).unwrap().count(), FILES - seen);
        })
        .await;
    tested.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_changed_through_a_mount_for_reading() {
    let Some(tested) = Tested::new(Access::ReadOnly).await else { return };
    tested.write("/f", "x").await;
    tested
        .with(|at| {
            assert_eq!(fs::read_to_string(at.join("f")).unwrap(), "x");
            assert_eq!(number(fs::write(at.join("f"), "y")), Some(Errno::ROFS));
            assert_eq!(number(fs::create_dir(at.join("d"))), Some(Errno::ROFS));
        })
        .await;
    tested.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_when_the_mount_goes_is_in_the_tree() {
    let Some(tested) = Tested::new(Access::ReadWrite).await else { return };
    let file = tested
        .with(|at| {
            let mut file = File::create(at.join("open")).unwrap();
            file.write_all(b"not closed").unwrap();
            file
        })
        .await;
    let (tree, at) = (Arc::clone(&tested.tree), tested.at.clone());
    let closed = tested.mount.close().await.unwrap();
    assert_eq!(closed, Closed { was_busy: true, lost: 0 });
    assert!(!is_mounted(&at));
    let content = collect(tree.read(&path_of("/open"), 0..u64::MAX).await.unwrap(), MAX).await.unwrap();
    assert_eq!(content, "not closed");
    tokio::task::spawn_blocking(move || drop(file)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_that_are_no_good_mount_points_are_refused() {
    let Some(tested) = Tested::new(Access::ReadWrite).await else { return };
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("f"), "").unwrap();
    let options = || MountOptions { access: Access::ReadWrite, disk: std::env::temp_dir() };
    let refused = async |path: &Path| Mount::new(Arc::new(MemVfs::new()), path, options()).await.unwrap_err();
    assert!(matches!(refused(folder.path()).await, MountError::NotEmpty(_)));
    assert!(matches!(refused(&folder.path().join("f")).await, MountError::NotAFolder(_)));
    assert!(matches!(refused(&folder.path().join("missing")).await, MountError::Folder { .. }));
    assert!(matches!(refused(&tested.at).await, MountError::MountedAlready(_)));
    tested.close().await;
}
