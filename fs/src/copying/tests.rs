//! Folders of the host, in and out.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::mem_vfs::MemVfs;
use crate::vfs::{Attributes, Parents, Vfs, stream_of};

const QUIET: OnProgress<'static> = &|_| {};

fn at(path: &str) -> VfsPath {
    VfsPath::parse(path).unwrap()
}

/// Paths with kind, permissions, time, content or target.
fn describe(dir: &Path) -> Vec<String> {
    let (mut open, mut seen) = (vec![dir.to_owned()], Vec::new());
    while let Some(path) = open.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let content = if metadata.is_symlink() {
            format!("{:?}", fs::read_link(&path).unwrap())
        } else if metadata.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            String::new()
        } else {
            blake3::hash(&fs::read(&path).unwrap()).to_string()
        };
        let (mode, time) = (metadata.mode(), metadata.mtime() * 1000 + metadata.mtime_nsec() / 1_000_000);
        seen.push(format!("{:?} {mode:o} {time} {content}", path.strip_prefix(dir).unwrap()));
    }
    seen.sort();
    seen
}

fn sample(dir: &Path) {
    fs::create_dir_all(dir.join("a/b/empty")).unwrap();
    for number in 0..50 {
        fs::write(dir.join(format!("a/file {number}")), vec![number; usize::from(number) * 100]).unwrap();
    }
    fs::write(dir.join("a/b/größe 漢字"), vec![7; 3 << 20]).unwrap();
    fs::write(dir.join("run.sh"), "#!/bin/sh").unwrap();
    fs::set_permissions(dir.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("../run.sh", dir.join("a/link")).unwrap();
    symlink("/nowhere", dir.join("dangling")).unwrap();
    fs::set_permissions(dir.join("a/b"), fs::Permissions::from_mode(0o750)).unwrap();
}

#[tokio::test]
async fn a_folder_comes_back_as_it_went_in() {
    let host = tempfile::tempdir().unwrap();
    let (from, to) = (host.path().join("from"), host.path().join("to"));
    sample(&from);
    let vfs = MemVfs::new();
    let last_seen = AtomicU64::new(0);
    let on_progress = |summary: &Summary| last_seen.store(summary.bytes, Ordering::Relaxed);
    let went_in = import_dir(&from, &vfs, &at("/x/y"), &on_progress).await.unwrap();
    assert_eq!((went_in.files, went_in.dirs, went_in.links), (52, 4, 2));
    assert_eq!(last_seen.load(Ordering::Relaxed), went_in.bytes);
    let came_out = export_dir(&vfs, &at("/x/y"), &to, QUIET).await.unwrap();
    assert_eq!(came_out, went_in);
    assert_eq!(describe(&to), describe(&from));
    // Both again, over what is there.
    import_dir(&from, &vfs, &at("/x/y"), QUIET).await.unwrap();
    export_dir(&vfs, &at("/x/y"), &to, QUIET).await.unwrap();
    assert_eq!(describe(&to), describe(&from));
}

#[tokio::test]
async fn one_file_goes_in_and_out() {
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("f"), "content").unwrap();
    let vfs = MemVfs::new();
    import_file(&host.path().join("f"), &vfs, &at("/f"), QUIET).await.unwrap();
    let copied = export_file(&vfs, &at("/f"), &host.path().join("g"), QUIET).await.unwrap();
    assert_eq!((copied.files, copied.bytes), (1, 7));
    assert_eq!(fs::read(host.path().join("g")).unwrap(), b"content");
    assert!(import_file(host.path(), &vfs, &at("/dir"), QUIET).await.is_err());
    assert!(export_file(&vfs, &at("/"), &host.path().join("h"), QUIET).await.is_err());
    assert_eq!(fs::read_dir(host.path()).unwrap().count(), 2, "nothing half-written stays");
}

#[tokio::test]
async fn a_long_copy_that_broke_off_goes_on_where_it_stopped_and_trusts_nothing() {
    const SIZE: usize = 9 << 20;
    let host = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..SIZE).map(|n| (n / 7 % 251) as u8).collect();
    let vfs = MemVfs::new();
    vfs.write(&at("/f"), stream_of(content.clone()), Attributes::default()).await.unwrap();
    let name = format!(".starfish-{}", &blake3::hash(&content).to_hex()[..32]);
    let mut other = content.clone();
    other[5] ^= 1;
    for there in
        [&content[..SIZE / 2], &content[..], &other[..SIZE / 2], &[content.clone(), other.clone()].concat()]
    {
        let (partial, to) = (host.path().join(&name), host.path().join("f"));
        fs::write(&partial, there).unwrap();
        let copied = export_file(&vfs, &at("/f"), &to, QUIET).await.unwrap();
        assert_eq!((copied.files, copied.bytes), (1, SIZE as u64));
        assert!(fs::read(&to).unwrap() == content);
        assert!(!partial.exists());
    }
    // Somebody else's link of that name is not followed.
    fs::write(host.path().join("victim"), "untouched").unwrap();
    symlink(host.path().join("victim"), host.path().join(&name)).unwrap();
    assert!(export_file(&vfs, &at("/f"), &host.path().join("f"), QUIET).await.is_err());
    assert_eq!(fs::read(host.path().join("victim")).unwrap(), b"untouched");
}

#[tokio::test]
async fn a_pipe_is_refused_and_not_waited_for() {
    let host = tempfile::tempdir().unwrap();
    let pipe = host.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    let error = import_file(&pipe, &MemVfs::new(), &at("/p"), QUIET).await.unwrap_err();
    assert!(format!("{:?}", error).contains("no regular file"));
}

#[tokio::test]
async fn a_name_that_is_not_utf8_is_a_clear_error() {
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join(OsStr::from_bytes(b"bad\xff")), "x").unwrap();
    let error = import_dir(host.path(), &MemVfs::new(), &at("/d"), QUIET).await.unwrap_err();
    assert!(matches!(&error, CopyError::NotUtf8 { .. }));
    assert!(error.to_string().contains("bad\\xFF") && error.to_string().contains("not UTF-8"), "{error}");
}

#[tokio::test]
async fn export_writes_nothing_through_links() {
    let host = tempfile::tempdir().unwrap();
    let (outside, to) = (host.path().join("outside"), host.path().join("to"));
    fs::create_dir_all(&to).unwrap();
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("victim"), "untouched").unwrap();
    let vfs = MemVfs::new();
    vfs.write(&at("/file"), stream_of("new"), Attributes::default()).await.unwrap();
    symlink(outside.join("victim"), to.join("file")).unwrap();
    export_dir(&vfs, &at("/"), &to, QUIET).await.unwrap();
    assert!(fs::symlink_metadata(to.join("file")).unwrap().is_file(), "the link was replaced");
    vfs.mkdir(&at("/dir"), Parents::Create).await.unwrap();
    vfs.write(&at("/dir/victim"), stream_of("new"), Attributes::default()).await.unwrap();
    symlink(&outside, to.join("dir")).unwrap();
    let error = export_dir(&vfs, &at("/"), &to, QUIET).await.unwrap_err();
    assert!(matches!(error, CopyError::NotAFolder { .. }), "{error}");
    assert_eq!(fs::read(outside.join("victim")).unwrap(), b"untouched");
}

#[tokio::test]
async fn export_grants_no_privileges() {
    let host = tempfile::tempdir().unwrap();
    let vfs = MemVfs::new();
    let attributes = Attributes { mode: Some(0o6755), mtime_ms: None };
    vfs.write(&at("/su"), stream_of("x"), attributes).await.unwrap();
    export_dir(&vfs, &at("/"), host.path(), QUIET).await.unwrap();
    assert_eq!(fs::metadata(host.path().join("su")).unwrap().mode() & 0o7777, 0o755);
}

#[tokio::test]
async fn what_cannot_be_copied_is_named() {
    let host = tempfile::tempdir().unwrap();
    let socket = host.path().join("socket");
    let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let vfs = MemVfs::new();
    let summary = import_dir(host.path(), &vfs, &at("/d"), QUIET).await.unwrap();
    assert_eq!((summary.n_remarks, summary.remarks), (1, vec![(socket, Remark::PassedOver)]));
    assert!(vfs.list(&at("/d")).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_vanishes_or_changes_while_a_folder_is_copied_is_named_and_all_else_is_there() {
    let host = tempfile::tempdir().unwrap();
    let path = |name: &str| host.path().join(name);
    fs::create_dir(path("folder")).unwrap();
    for name in ["stays", "gone", "short", "long", "folder/gone"] {
        fs::write(path(name), "before").unwrap();
    }
    fs::write(path("long"), vec![1; 200_000]).unwrap();
    // The folders come first, when all that there is has been listed.
    let meanwhile = |summary: &Summary| {
        if summary.dirs == 1 && summary.files == 0 {
            let _ = fs::remove_file(path("gone"));
            let _ = fs::remove_dir_all(path("folder"));
            fs::write(path("short"), "and after").unwrap();
            fs::write(path("long"), vec![2; 200_001]).unwrap();
        }
    };
    let vfs = MemVfs::new();
    let summary = import_dir(host.path(), &vfs, &at("/d"), &meanwhile).await.unwrap();
    let mut remarks = summary.remarks;
    remarks.sort_by_key(|(path, _)| path.clone());
    let expected = [
        ("folder/gone", Remark::Vanished),
        ("gone", Remark::Vanished),
        ("long", Remark::Changed),
        ("short", Remark::Changed),
    ];
    assert_eq!(remarks, expected.map(|(name, remark)| (path(name), remark)));
    assert_eq!((summary.files, summary.n_remarks), (3, 4));
    assert!(vfs.stat(&at("/d/stays")).await.is_ok() && vfs.stat(&at("/d/gone")).await.is_err());
}

#[tokio::test]
async fn a_file_goes_through_a_link_and_replaces_nothing_but_files() {
    let host = tempfile::tempdir().unwrap();
    let (target, link, pipe) =
        (host.path().join("target"), host.path().join("link"), host.path().join("pipe"));
    let vfs = MemVfs::new();
    let attributes = Attributes { mode: Some(0o644), mtime_ms: None };
    vfs.write(&at("/f"), stream_of("new"), attributes).await.unwrap();

    fs::write(&target, "old").unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
    symlink("target", &link).unwrap();
    export_file(&vfs, &at("/f"), &link, QUIET).await.unwrap();
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("target"));
    assert_eq!(fs::read_to_string(&target).unwrap(), "new");
    assert_eq!(fs::metadata(&target).unwrap().mode() & 0o777, 0o600);

    symlink("nowhere", host.path().join("dangling")).unwrap();
    let dangling = export_file(&vfs, &at("/f"), &host.path().join("dangling"), QUIET).await;
    assert!(matches!(dangling, Err(CopyError::Host { .. })), "{dangling:?}");

    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    symlink("pipe", host.path().join("to-pipe")).unwrap();
    fs::create_dir(host.path().join("folder")).unwrap();
    for name in ["pipe", "to-pipe", "folder"] {
        let refused = export_file(&vfs, &at("/f"), &host.path().join(name), QUIET).await;
        assert!(matches!(refused, Err(CopyError::NotAFile { .. })), "{name}: {refused:?}");
    }
    vfs.mkdir(&at("/d"), Parents::Create).await.unwrap();
    vfs.write(&at("/d/pipe"), stream_of("new"), attributes).await.unwrap();
    let refused = export_dir(&vfs, &at("/d"), host.path(), QUIET).await;
    assert!(matches!(refused, Err(CopyError::NotAFile { .. })), "{refused:?}");
    assert!(!fs::symlink_metadata(&pipe).unwrap().is_file());

    let nowhere = export_file(&vfs, &at("/f"), &host.path().join("no/folder"), QUIET).await.unwrap_err();
    assert!(nowhere.to_string().ends_with("no/folder"), "{nowhere}");
}
