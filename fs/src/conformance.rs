//! What every [`Vfs`] does, as a test that any implementation can be put through.
//!
//! Used on [`crate::mem_vfs::MemVfs`], on [`crate::Files`], and by the layers above on theirs. A difference from what
//! is expected panics, as in any test; an unexpected error is returned.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::{StreamExt, stream};

use crate::hash::BlobHash;
use crate::host::HostFile;
use crate::path::VfsPath;
use crate::vfs::{Attributes, Entry, Kind, Parents, Removal, Vfs, VfsError, collect, stream_of};

/// More than any file that the test writes.
const MAX: usize = 16 << 20;

/// Puts an empty file system through everything.
pub async fn check(vfs: &dyn Vfs) -> Result<(), VfsError> {
    files(vfs).await?;
    long_files(vfs).await?;
    open_files(vfs).await?;
    failed_writes(vfs).await?;
    directories(vfs).await?;
    removals(vfs).await?;
    renames(vfs).await?;
    copies(vfs).await?;
    links(vfs).await?;
    names(vfs).await
}

fn at(path: &str) -> Result<VfsPath, VfsError> {
    Ok(VfsPath::parse(path)?)
}

async fn put(vfs: &dyn Vfs, path: &str, bytes: &'static str) -> Result<Entry, VfsError> {
    vfs.write(&at(path)?, stream_of(bytes), Attributes::default()).await
}

async fn get(vfs: &dyn Vfs, path: &str) -> Result<Bytes, VfsError> {
    collect(vfs.read(&at(path)?, 0..u64::MAX).await?, MAX).await
}

async fn mkdir(vfs: &dyn Vfs, path: &str) -> Result<Entry, VfsError> {
    vfs.mkdir(&at(path)?, Parents::Create).await
}

async fn listing(vfs: &dyn Vfs, path: &str) -> Result<Vec<String>, VfsError> {
    Ok(vfs.list(&at(path)?).await?.into_iter().map(|entry| entry.name).collect())
}

async fn rename(vfs: &dyn Vfs, from: &str, to: &str) -> Result<(), VfsError> {
    vfs.rename(&at(from)?, &at(to)?).await
}

async fn files(vfs: &dyn Vfs) -> Result<(), VfsError> {
    assert!(listing(vfs, "/").await?.is_empty(), "the test wants an empty file system");
    let made = put(vfs, "/f", "hello").await?;
    assert_eq!((made.kind, made.size, made.mode), (Kind::File, 5, 0o644));
    assert_eq!(made.hash, Some(BlobHash::of(b"hello").to_string()));
    assert_eq!(vfs.stat(&at("/f")?).await?, made);
    assert_eq!(get(vfs, "/f").await?, "hello");
    for (range, part) in [(1..3, "el"), (3..99, "lo"), (5..9, ""), (7..9, ""), (2..2, "")] {
        assert_eq!(collect(vfs.read(&at("/f")?, range.clone()).await?, MAX).await?, part, "{range:?}");
    }
    let attributes = Attributes { mode: Some(0o750), mtime_ms: Some(123_456) };
    let changed = vfs.set_attributes(&at("/f")?, attributes).await?;
    assert_eq!((changed.mode, changed.mtime_ms), (0o750, 123_456));
    let replaced = put(vfs, "/f", "other").await?;
    assert_eq!(replaced.inode, made.inode, "a file keeps its identity when it is written again");
    assert_eq!((replaced.mode, get(vfs, "/f").await?.as_ref()), (0o750, b"other".as_slice()));
    assert!(replaced.mtime_ms > 123_456);
    put(vfs, "/empty", "").await?;
    assert_eq!(get(vfs, "/empty").await?, "");
    let given = vfs.write(&at("/g")?, stream_of("x"), attributes).await?;
    assert_eq!((given.mode, given.mtime_ms), (0o750, 123_456));
    assert!(matches!(get(vfs, "/none").await, Err(VfsError::NotFound { .. })));
    assert!(matches!(put(vfs, "/none/f", "x").await, Err(VfsError::NotFound { .. })));
    assert!(matches!(put(vfs, "/f/x", "x").await, Err(VfsError::NotADirectory { .. })));
    assert!(matches!(vfs.stat(&at("/f/x")?).await, Err(VfsError::NotADirectory { .. })));
    assert!(matches!(put(vfs, "/", "x").await, Err(VfsError::IsADirectory { .. })));
    clear(vfs).await
}

async fn long_files(vfs: &dyn Vfs) -> Result<(), VfsError> {
    for len in [2048, 2049, 65_537, 9 << 20] {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(b"long").finalize_xof().fill(&mut bytes);
        let bytes = Bytes::from(bytes);
        let parts: Vec<_> = bytes.chunks(100_000).map(|part| Ok(bytes.slice_ref(part))).collect();
        let made = vfs.write(&at("/long")?, stream::iter(parts).boxed(), Attributes::default()).await?;
        assert_eq!((made.size, made.hash), (len as u64, Some(BlobHash::of(&bytes).to_string())));
        assert_eq!(get(vfs, "/long").await?, bytes, "{len} bytes");
        let middle = (len / 3)..(len / 2 + 1);
        let part = vfs.read(&at("/long")?, middle.start as u64..middle.end as u64).await?;
        assert_eq!(collect(part, MAX).await?, bytes.slice(middle), "the middle of {len} bytes");
    }
    clear(vfs).await
}

/// Contents of files that are open on this machine, to the tree and back.
async fn open_files(vfs: &dyn Vfs) -> Result<(), VfsError> {
    let failed = |source| VfsError::Io { what: "a file of this machine".into(), source };
    for len in [0, 1, 65_537, 9 << 20] {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(b"open").finalize_xof().fill(&mut bytes);
        let file = nameless().map_err(failed)?;
        file.write_all_at(&bytes, 0).map_err(failed)?;
        let (moved, back) = (AtomicU64::new(0), AtomicU64::new(0));
        let source = HostFile { file, name: "here".into() };
        let on_moved = |more| _ = moved.fetch_add(more, Ordering::Relaxed);
        let attributes = Attributes { mode: Some(0o640), mtime_ms: Some(123_456) };
        let made = vfs.write_from(&at("/open")?, source, attributes, &on_moved).await?;
        assert_eq!((made.size, made.hash), (len as u64, Some(BlobHash::of(&bytes).to_string())));
        assert_eq!((made.mode, made.mtime_ms), (0o640, 123_456));
        assert_eq!(moved.into_inner(), len as u64, "all that came over was told of");

        let file = nameless().map_err(failed)?;
        let target = HostFile { file: file.try_clone().map_err(failed)?, name: "there".into() };
        let from = len as u64 / 3;
        let on_moved = |more| _ = back.fetch_add(more, Ordering::Relaxed);
        vfs.read_to(&at("/open")?, from..u64::MAX, target, &on_moved).await?;
        let mut got = vec![0; len];
        file.read_exact_at(&mut got, 0).map_err(failed)?;
        let (before, rest) = got.split_at(len / 3);
        assert!(before.iter().all(|byte| *byte == 0), "what is before the range is left alone");
        assert_eq!(rest, &bytes[len / 3..], "{len} bytes");
        assert_eq!(back.into_inner(), len as u64 - from);
    }
    let target = HostFile { file: nameless().map_err(failed)?, name: "there".into() };
    let none = vfs.read_to(&at("/none")?, 0..1, target, &|_| {}).await;
    assert!(matches!(none, Err(VfsError::NotFound { .. })));
    mkdir(vfs, "/open-dir").await?;
    let source = HostFile { file: nameless().map_err(failed)?, name: "here".into() };
    let over_dir = vfs.write_from(&at("/open-dir")?, source, Attributes::default(), &|_| {}).await;
    assert!(matches!(over_dir, Err(VfsError::IsADirectory { .. })));
    clear(vfs).await
}

/// An empty file that goes when it is closed.
fn nameless() -> io::Result<File> {
    let path = std::env::temp_dir().join(format!("starfish-{:016x}", rand::random::<u64>()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

async fn failed_writes(vfs: &dyn Vfs) -> Result<(), VfsError> {
    put(vfs, "/kept", "old").await?;
    for path in ["/kept", "/new"] {
        let broken = VfsError::Io { what: "source broke".into(), source: io::ErrorKind::BrokenPipe.into() };
        let parts = [Ok(Bytes::from(vec![1; 100_000])), Err(broken)];
        let written = vfs.write(&at(path)?, stream::iter(parts).boxed(), Attributes::default()).await;
        assert!(matches!(written, Err(VfsError::Io { .. })));
    }
    assert_eq!(get(vfs, "/kept").await?, "old");
    assert_eq!(listing(vfs, "/").await?, ["kept"]);
    clear(vfs).await
}

async fn directories(vfs: &dyn Vfs) -> Result<(), VfsError> {
    let made = vfs.mkdir(&at("/d")?, Parents::MustExist).await?;
    assert_eq!((made.name.as_str(), made.kind, made.mode), ("d", Kind::Dir, 0o755));
    assert!(matches!(vfs.mkdir(&at("/d")?, Parents::MustExist).await, Err(VfsError::Exists { .. })));
    assert!(matches!(vfs.mkdir(&at("/x/y")?, Parents::MustExist).await, Err(VfsError::NotFound { .. })));
    assert_eq!(mkdir(vfs, "/d/e/f").await?.name, "f");
    assert_eq!(mkdir(vfs, "/d/e/f").await?.kind, Kind::Dir);
    mkdir(vfs, "/").await?;
    put(vfs, "/d/a", "1").await?;
    put(vfs, "/d-a", "2").await?;
    assert_eq!(listing(vfs, "/d").await?, ["a", "e"]);
    assert_eq!(listing(vfs, "/").await?, ["d", "d-a"]);
    assert!(matches!(mkdir(vfs, "/d/a").await, Err(VfsError::Exists { .. })));
    assert!(matches!(mkdir(vfs, "/d/a/b").await, Err(VfsError::NotADirectory { .. })));
    assert!(matches!(listing(vfs, "/d/a").await, Err(VfsError::NotADirectory { .. })));
    assert!(matches!(listing(vfs, "/none").await, Err(VfsError::NotFound { .. })));
    assert!(matches!(get(vfs, "/d").await, Err(VfsError::IsADirectory { .. })));
    assert!(matches!(put(vfs, "/d", "x").await, Err(VfsError::IsADirectory { .. })));
    clear(vfs).await
}

async fn removals(vfs: &dyn Vfs) -> Result<(), VfsError> {
    mkdir(vfs, "/d/e").await?;
    put(vfs, "/d/e/f", "1").await?;
    let single = async |path: &str| vfs.remove(&at(path)?, Removal::Single).await;
    assert!(matches!(single("/d").await, Err(VfsError::NotEmpty { .. })));
    assert!(matches!(single("/none").await, Err(VfsError::NotFound { .. })));
    assert!(matches!(vfs.remove(&at("/")?, Removal::Recursive).await, Err(VfsError::Invalid { .. })));
    single("/d/e/f").await?;
    single("/d/e").await?;
    put(vfs, "/d/x", "1").await?;
    vfs.remove(&at("/d")?, Removal::Recursive).await?;
    assert!(matches!(vfs.stat(&at("/d/x")?).await, Err(VfsError::NotFound { .. })));
    mkdir(vfs, "/d").await?;
    assert!(listing(vfs, "/d").await?.is_empty(), "a new directory holds nothing of the old one");
    clear(vfs).await
}

async fn renames(vfs: &dyn Vfs) -> Result<(), VfsError> {
    let made = put(vfs, "/a", "a").await?;
    put(vfs, "/b", "b").await?;
    mkdir(vfs, "/d/e").await?;
    mkdir(vfs, "/empty").await?;
    put(vfs, "/d/e/f", "f").await?;
    rename(vfs, "/a", "/b").await?;
    assert_eq!(
        (get(vfs, "/b").await?.as_ref(), vfs.stat(&at("/b")?).await?.inode),
        (b"a".as_slice(), made.inode)
    );
    assert!(matches!(get(vfs, "/a").await, Err(VfsError::NotFound { .. })));
    rename(vfs, "/b", "/b").await?;
    rename(vfs, "/b", "/d/e/b").await?;
    assert_eq!(listing(vfs, "/d/e").await?, ["b", "f"]);
    assert!(matches!(rename(vfs, "/d", "/d/e/d").await, Err(VfsError::Invalid { .. })));
    assert!(matches!(rename(vfs, "/", "/x").await, Err(VfsError::Invalid { .. })));
    assert!(matches!(rename(vfs, "/d", "/").await, Err(VfsError::Invalid { .. })));
    assert!(matches!(rename(vfs, "/none", "/x").await, Err(VfsError::NotFound { .. })));
    assert!(matches!(rename(vfs, "/d", "/none/d").await, Err(VfsError::NotFound { .. })));
    assert!(matches!(rename(vfs, "/d/e/f", "/empty").await, Err(VfsError::IsADirectory { .. })));
    assert!(matches!(rename(vfs, "/empty", "/d/e/f").await, Err(VfsError::NotADirectory { .. })));
    assert!(matches!(rename(vfs, "/empty", "/d").await, Err(VfsError::NotEmpty { .. })));
    rename(vfs, "/d", "/empty").await?;
    assert_eq!(get(vfs, "/empty/e/f").await?, "f");
    assert_eq!(listing(vfs, "/").await?, ["empty"]);
    clear(vfs).await
}

async fn copies(vfs: &dyn Vfs) -> Result<(), VfsError> {
    mkdir(vfs, "/d/e").await?;
    vfs.write(&at("/d/e/f")?, stream_of("f"), Attributes { mode: Some(0o700), mtime_ms: Some(5) }).await?;
    vfs.symlink(&at("/d/l")?, "e/f").await?;
    let copy = async |from: &str, to: &str| vfs.copy(&at(from)?, &at(to)?).await;
    copy("/d", "/c").await?;
    assert_eq!((listing(vfs, "/c").await?.join(" "), get(vfs, "/c/l").await?), ("e l".into(), "f".into()));
    let (original, copied) = (vfs.stat(&at("/d/e/f")?).await?, vfs.stat(&at("/c/e/f")?).await?);
    assert_ne!(original.inode, copied.inode);
    assert_eq!((copied.mode, copied.mtime_ms, copied.hash), (0o700, 5, original.hash));
    put(vfs, "/c/e/f", "changed").await?;
    assert_eq!(get(vfs, "/d/e/f").await?, "f", "a copy is independent");
    copy("/c/e/f", "/d/e/f").await?;
    assert_eq!(get(vfs, "/d/e/f").await?, "changed");
    copy("/d/e/f", "/d/e/f").await?;
    assert!(matches!(copy("/d", "/d/x").await, Err(VfsError::Invalid { .. })));
    assert!(matches!(copy("/d", "/c").await, Err(VfsError::Exists { .. })));
    assert!(matches!(copy("/d/e/f", "/c").await, Err(VfsError::IsADirectory { .. })));
    assert!(matches!(copy("/none", "/x").await, Err(VfsError::NotFound { .. })));
    assert!(matches!(copy("/d", "/none/x").await, Err(VfsError::NotFound { .. })));
    clear(vfs).await
}

async fn links(vfs: &dyn Vfs) -> Result<(), VfsError> {
    mkdir(vfs, "/d").await?;
    put(vfs, "/d/f", "f").await?;
    let link = vfs.symlink(&at("/l")?, "d").await?;
    assert_eq!((link.kind, link.size, link.target.as_deref()), (Kind::Symlink, 1, Some("d")));
    assert_eq!(vfs.stat(&at("/l")?).await?, link, "a link is described itself");
    assert_eq!(listing(vfs, "/l").await?, ["f"]);
    assert_eq!(get(vfs, "/l/f").await?, "f");
    put(vfs, "/l/g", "g").await?;
    assert_eq!(get(vfs, "/d/g").await?, "g");
    vfs.symlink(&at("/d/up")?, "../d/g").await?;
    put(vfs, "/l/up", "through").await?;
    assert_eq!(get(vfs, "/d/g").await?, "through");
    vfs.symlink(&at("/dangling")?, "/nowhere/x").await?;
    assert!(matches!(get(vfs, "/dangling").await, Err(VfsError::NotFound { .. })));
    vfs.symlink(&at("/loop")?, "/loop").await?;
    assert!(matches!(get(vfs, "/loop").await, Err(VfsError::LinkLoop { .. })));
    assert!(matches!(vfs.symlink(&at("/l")?, "x").await, Err(VfsError::Exists { .. })));
    assert!(matches!(vfs.symlink(&at("/m")?, "").await, Err(VfsError::Invalid { .. })));
    rename(vfs, "/l", "/moved").await?;
    assert_eq!(vfs.stat(&at("/moved")?).await?.target.as_deref(), Some("d"));
    vfs.remove(&at("/moved")?, Removal::Recursive).await?;
    assert_eq!(get(vfs, "/d/f").await?, "f", "removing a link leaves what it points to");
    clear(vfs).await
}

async fn names(vfs: &dyn Vfs) -> Result<(), VfsError> {
    for name in ["ä ö", "漢字", "a\nb", "-rf", "x (conflict of abcd)", &"n".repeat(255)] {
        let path = VfsPath::root().join(name)?;
        vfs.write(&path, stream_of("x"), Attributes::default()).await?;
        assert_eq!(vfs.stat(&path).await?.name, name);
    }
    assert_eq!(listing(vfs, "/").await?.len(), 6);
    clear(vfs).await
}

async fn clear(vfs: &dyn Vfs) -> Result<(), VfsError> {
    for entry in vfs.list(&VfsPath::root()).await? {
        vfs.remove(&VfsPath::root().join(&entry.name)?, Removal::Recursive).await?;
    }
    Ok(())
}
