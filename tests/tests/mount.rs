//! The tree as a folder of this machine: everyday programs on it, and what is left when it goes.
//!
//! A machine without `/dev/fuse`, or without one of the programs, says so and passes.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use starfish_tests::{Mounted, assert_same_folders, same_bytes, wait_until};

/// What `starfish` ends with when there is no node.
const NOT_RUNNING: i32 = 3;

#[test]
fn folders_are_copied_in_and_out_by_everyday_programs() {
    let Some(mounted) = Mounted::new(1) else { return };
    let original = mounted.swarm().scratch().folder("original", 60);
    mounted.run("cp", &["-a", &original, "copied"]);
    assert_same_folders(&original, mounted.path("copied"));
    if mounted.run("rsync", &["-a", &format!("{original}/"), "synced/"]).is_some() {
        assert_same_folders(&original, mounted.path("synced"));
        let again = mounted.run("rsync", &["-ai", &format!("{original}/"), "synced/"]).unwrap();
        assert_eq!(again, "", "there is nothing left to copy");
    }
    // In the format whose times are not cut to seconds.
    let archive = mounted.swarm().scratch().path("original.tar");
    let parent = Path::new(&original).parent().unwrap().to_str().unwrap();
    if mounted.run("tar", &["--format=posix", "-cf", &archive, "-C", parent, "original"]).is_some() {
        mounted.run("tar", &["-xf", &archive]);
        assert_same_folders(&original, mounted.path("original"));
    }
    // What programs wrote is what the swarm has.
    let out = mounted.swarm().scratch().path("out");
    mounted.swarm().node(0).ok(["get", "/copied", &out]);
    assert_same_folders(&original, &out);
    mounted.run("rm", &["-r", "copied"]);
    assert!(!Path::new(&mounted.path("copied")).exists());
}

#[test]
fn git_works_in_the_tree() {
    let Some(mounted) = Mounted::new(1) else { return };
    let home = mounted.swarm().scratch().path("repository");
    let identity = ["-c", "user.name=N", "-c", "user.email=n@example.org", "-c", "init.defaultBranch=main"];
    let git = |words: &[&str]| mounted.run("git", &[&identity[..], words].concat());
    if git(&["init", "-q", &home]).is_none() {
        return;
    }
    for i in 0..40 {
        fs::write(format!("{home}/file {i}"), format!("{i}\n").repeat(500 * i)).unwrap();
    }
    git(&["-C", &home, "add", "."]);
    git(&["-C", &home, "commit", "-qm", "First"]);
    git(&["clone", "-q", &home, "clone"]);
    assert_eq!(git(&["-C", "clone", "status", "--short"]).unwrap(), "");
    fs::write(mounted.path("clone/file 1"), "changed\n").unwrap();
    git(&["-C", "clone", "commit", "-qam", "Second"]);
    git(&["-C", "clone", "gc", "-q"]);
    git(&["-C", "clone", "fsck", "--full", "--strict"]);
    assert_eq!(git(&["-C", "clone", "log", "--format=%s"]).unwrap(), "Second\nFirst\n");
    git(&["-C", "clone", "checkout", "-q", "HEAD~1"]);
    assert_eq!(fs::read_to_string(mounted.path("clone/file 1")).unwrap(), "1\n".repeat(500));
}

#[test]
fn a_database_lives_in_the_tree() {
    let Some(mounted) = Mounted::new(2) else { return };
    let query = |text: &str| mounted.run("sqlite3", &["db", text]);
    if query("create table t (n integer, s text)").is_none() {
        return;
    }
    query(
        "with recursive c(n) as (select 1 union all select n + 1 from c where n < 5000) \
           insert into t select n, hex(randomblob(20)) from c",
    );
    query("begin; delete from t where n > 10; rollback");
    query("update t set s = 'x' where n % 2");
    assert_eq!(query("select count(*), sum(n) from t where s = 'x'").unwrap(), "2500|6250000\n");
    assert_eq!(
        query("pragma journal_mode = wal; insert into t values (0, ''); pragma integrity_check").unwrap(),
        "wal\nok\n"
    );
    assert_eq!(query("vacuum; select count(*) from t").unwrap(), "5001\n");

    // Another node has the same database.
    let other = mounted.swarm().node(0);
    let (here, there) = (mounted.path("db"), mounted.swarm().scratch().path("db"));
    mounted.swarm().wait_same_memory();
    other.ok(["get", "/db", &there]);
    assert!(same_bytes(&here, &there));
}

#[test]
fn editors_save_and_programs_run_in_the_tree() {
    let Some(mounted) = Mounted::new(1) else { return };
    // As editors do: the old file aside, the new one in its place, the old one away.
    fs::write(mounted.path("text"), "old\n").unwrap();
    fs::rename(mounted.path("text"), mounted.path("text~")).unwrap();
    let mut new = File::create(mounted.path("text")).unwrap();
    new.write_all(b"new\n").unwrap();
    new.sync_all().unwrap();
    drop(new);
    fs::remove_file(mounted.path("text~")).unwrap();
    assert_eq!(mounted.swarm().node(0).ok(["cat", "/text"]), "new\n");
    mounted.run("vim", &["-u", "NONE", "-es", "-c", "normal Oline", "-c", "wq", "text"]);
    mounted.run("sed", &["-i", "s/new/newer/", "text"]);
    assert!(mounted.swarm().node(0).ok(["cat", "/text"]).ends_with("newer\n"));

    // A program is mapped into memory, not read.
    fs::copy("/bin/sh", mounted.path("shell")).unwrap();
    assert_eq!(mounted.run("./shell", &["-c", "echo it runs"]).unwrap(), "it runs\n");
    fs::write(mounted.path("script"), "#!/bin/sh\necho $((6 * 7))\n").unwrap();
    fs::set_permissions(mounted.path("script"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(mounted.run("./script", &[]).unwrap(), "42\n");

    // Several at once, each to the end of one file and to its own.
    let words =
        "for i in 1 2 3 4; do (for j in 1 2 3 4 5; do echo $i >> log; echo $j > own-$i; done) & done; wait";
    mounted.run("sh", &["-c", words]);
    assert_eq!(fs::read_to_string(mounted.path("log")).unwrap().lines().count(), 20);
    assert_eq!(fs::read_to_string(mounted.path("own-3")).unwrap(), "5\n");
}

#[test]
fn what_another_node_does_shows_and_what_is_done_here_shows_there() {
    let Some(mounted) = Mounted::new(2) else { return };
    let other = mounted.swarm().node(0);
    let note = mounted.swarm().scratch().write("note", "from there\n");
    other.ok(["put", &note, "/folder/note"]);
    let here = mounted.path("folder/note");
    wait_until("it is here", || fs::read_to_string(&here).is_ok_and(|text| text == "from there\n"));
    fs::write(&here, "from here\n").unwrap();
    wait_until("it is there", || other.run(["cat", "/folder/note"]).stdout == b"from here\n");
    other.ok(["mv", "/folder", "/moved"]);
    wait_until("it is moved here", || !Path::new(&here).exists());
    assert_eq!(fs::read_to_string(mounted.path("moved/note")).unwrap(), "from here\n");

    let big = mounted.swarm().scratch().random("big", 24 << 20);
    other.ok(["put", &big, "/big"]);
    wait_until("the big one is here", || Path::new(&mounted.path("big")).exists());
    assert!(same_bytes(&big, mounted.path("big")), "what is read here is not what was put there");
}

#[test]
fn nothing_is_left_of_a_mount_however_it_ends() {
    let Some(mut mounted) = Mounted::new(1) else { return };
    let point = mounted.path("");
    fs::write(mounted.path("f"), "kept\n").unwrap();
    let again = mounted.swarm().node(0).run(["mount", &point]);
    assert!(again.code == 1 && again.stderr.contains("mounted already"), "{}", again.stderr);

    // By the verb, but not under a program's feet.
    let open = File::open(mounted.path("f")).unwrap();
    let busy = mounted.swarm().node(0).run(["umount", &point]);
    assert!(busy.code == 1 && busy.stderr.contains("in use"), "{}", busy.stderr);
    drop(open);
    mounted.swarm().node(0).ok(["umount", &point]);
    assert!(!mounted.is_there());
    mounted.process().finish().ok();
    let gone = mounted.swarm().node(0).run(["umount", &point]);
    assert!(gone.code == 1 && gone.stderr.contains("no mount"), "{}", gone.stderr);

    // By ctrl-C, which brings to the tree what programs have not closed.
    mounted.mount();
    let mut open = File::create(mounted.path("open")).unwrap();
    open.write_all(b"not closed\n").unwrap();
    let mut mount = mounted.process();
    mount.interrupt();
    mount.finish().ok();
    assert!(!mounted.is_there());
    drop(open);
    assert_eq!(mounted.swarm().node(0).ok(["cat", "/open"]), "not closed\n");

    // By a crash: the next mount clears away what that left.
    mounted.mount();
    drop(mounted.process());
    assert!(mounted.is_there() && fs::read_dir(&point).is_err(), "a dead mount is left");
    mounted.mount();
    assert_eq!(fs::read_to_string(mounted.path("f")).unwrap(), "kept\n");

    // A mount outlives its node, and goes on with it.
    mounted.swarm().node(0).kill9();
    let error = fs::read_to_string(mounted.path("missing")).unwrap_err();
    assert_ne!(error.kind(), std::io::ErrorKind::NotFound, "nobody knows whether it is there");
    mounted.swarm().node(0).restart();
    wait_until("it is there again", || {
        fs::read_to_string(mounted.path("f")).is_ok_and(|text| text == "kept\n")
    });
}

#[test]
fn a_mount_goes_on_in_the_background() {
    let Some(mut mounted) = Mounted::new(1) else { return };
    let (point, node) = (mounted.path(""), 0);
    mounted.swarm().node(node).ok(["umount", &point]);
    mounted.process().finish().ok();
    let said = mounted.swarm().node(node).run(["mount", "--detach", "--read-only", &point]);
    assert!(said.stderr.contains("read-only"), "{}", said.stderr);
    let refused = fs::write(mounted.path("f"), "").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    mounted.swarm().node(node).ok(["umount", &point]);
    assert!(!mounted.is_there());
    fs::write(mounted.path("hides"), "").unwrap();
    let refused = mounted.swarm().node(node).run(["mount", "--detach", &point]);
    assert!(refused.code == 1 && refused.stderr.contains("not empty"), "{}", refused.stderr);
    fs::remove_file(mounted.path("hides")).unwrap();
    mounted.swarm().node(node).kill9();
    assert_eq!(mounted.swarm().node(node).run(["mount", &point]).code, NOT_RUNNING);
}

#[test]
fn a_file_of_many_megabytes_is_written_and_read_in_little_memory() {
    let Some(mounted) = Mounted::new(1) else { return };
    let big = mounted.swarm().scratch().random("big", 96 << 20);
    fs::copy(&big, mounted.path("big")).unwrap();
    assert!(same_bytes(&big, mounted.path("big")));
    let mut end = Vec::new();
    let mut file = File::open(mounted.path("big")).unwrap();
    file.read_to_end(&mut end).unwrap();
    assert_eq!(end.len(), 96 << 20);
    mounted.swarm().assert_memory_below(300 << 20);
}
