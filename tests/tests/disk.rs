//! A disk without a free byte: nothing that was acknowledged is lost, and all goes on when there is room again.
//!
//! The disk is a small one in memory. Where none may be mounted, the tests say so and pass.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use starfish_tests::{Start, Swarm, same_bytes, wait_until};

/// Large enough for a node and some files.
const SIZE: &str = "size=160m";

/// A file system of its own, for as long as this lives.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).expect("a folder can be made");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(at.to_owned()));
        }
        let _ = writeln!(std::io::stderr(), "skipped: no disk can be mounted here");
        None
    }

    /// Takes all that is free but for some bytes.
    fn fill(&self, but: u64) {
        let disk = rustix::fs::statvfs(&self.0).expect("the disk is there");
        let free = disk.f_bavail * disk.f_frsize;
        let filler = File::create(self.filler()).expect("a file can be made");
        let held = filler.metadata().expect("it was just made").len();
        rustix::fs::fallocate(
            &filler,
            rustix::fs::FallocateFlags::empty(),
            0,
            held + free.saturating_sub(but),
        )
        .expect("what is free can be taken");
    }

    fn free_all(&self) {
        fs::remove_file(self.filler()).expect("the filler is there");
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

#[test]
fn a_full_disk_is_said_harms_nothing_and_is_over_when_there_is_room() {
    let mut swarm = Swarm::start_as([]);
    let index = swarm.prepare(Start::default());
    let node = swarm.node(index);
    let Some(disk) = Disk::mount(&node.data_dir()) else { return };
    node.restart();
    let scratch = swarm.scratch();
    let (before, during) = (scratch.random("before", 3 << 20), scratch.random("during", 20 << 20));
    node.ok(["put", &before, "/before"]);
    node.ok(["mem", "set", "key", "before"]);

    disk.fill(8 << 20);
    let refused = node.run(["put", &during, "/during"]);
    assert!(refused.code != 0 && refused.stderr.contains("no space left"), "{}", refused.stderr);
    disk.free_all();
    disk.fill(0);
    assert_ne!(node.run(["put", &during, "/during"]).code, 0);
    let refused = node.run(["mem", "set", "key", "during"]);
    assert!(refused.code != 0 && refused.stderr.contains("no space left"), "{}", refused.stderr);
    let refused = node.run(["mkdir", "/folder"]);
    assert!(refused.code != 0 && refused.stderr.contains("no space left"), "{}", refused.stderr);
    assert_eq!(node.ok(["mem", "get", "key"]), "before\n");
    assert!(node.run(["cat", "/before"]).stdout == fs::read(&before).unwrap());

    disk.free_all();
    wait_until("there is room again", || node.run(["put", &during, "/during"]).code == 0);
    node.ok(["mem", "set", "key", "after"]);
    node.kill9();
    node.restart();
    assert_eq!(node.ok(["mem", "get", "key"]), "after\n");
    for (path, original) in [("/before", &before), ("/during", &during)] {
        let copy = scratch.path("copy");
        node.ok(["get", path, &copy]);
        assert!(same_bytes(original, &copy));
    }
    node.ok(["down"]);
    node.ended();
    drop(disk);
}
