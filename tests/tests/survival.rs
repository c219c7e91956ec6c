//! Files outlive nodes: any half of a swarm of real processes is killed at once, and every survivor reads everything.

use std::fs;
use std::path::Path;

use starfish_tests::{Node, Start, Swarm, assert_same_folders, same_bytes, wait_until};

/// How soon a silent member counts as gone in these tests.
const GRACE: &str = "1s";

fn start() -> Start {
    Start::default().with_env("STARFISH_REPAIR_GRACE", GRACE)
}

fn swarm(size: usize) -> Swarm {
    Swarm::start_as(vec![start(); size])
}

/// Bytes that a node's store takes on its disk. The journal of the index is as long as the engine makes it from the
/// start, so it is left out.
fn stored(node: &Node) -> u64 {
    fn walk(folder: &Path) -> u64 {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let size = |entry: fs::DirEntry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() && entry.file_name() != "index" => walk(&entry.path()),
            Ok(metadata) if metadata.is_file() => metadata.len(),
            _ => 0,
        };
        entries.map(size).sum()
    }
    walk(&node.data_dir().join("swarm/files"))
}

/// Kills some nodes; the others must have everything of `folder` and `file` at once.
fn survive(size: usize, doomed: &[usize]) {
    let swarm = swarm(size);
    let folder = swarm.scratch().folder("folder", 60);
    let file = swarm.scratch().random("file", 9 << 20);
    swarm.node(0).ok(["put", &folder, "/folder"]);
    swarm.node(size - 1).ok(["put", &file, "/file"]);
    swarm.node(size - 1).ok(["mem", "set", "key", "value"]);
    swarm.wait_same_memory();
    for index in doomed {
        swarm.node(*index).kill9();
    }
    for (number, node) in swarm.nodes().iter().filter(|node| node.is_running()).enumerate() {
        let copy = swarm.scratch().path(&format!("folder-{number}"));
        node.ok(["get", "/folder", &copy]);
        assert_same_folders(&folder, &copy);
        let copy = swarm.scratch().path(&format!("file-{number}"));
        node.ok(["get", "/file", &copy]);
        assert!(same_bytes(&file, &copy));
        assert_eq!(node.ok(["mem", "get", "key"]), "value\n");
    }
}

#[test]
fn one_of_two_may_die() {
    survive(2, &[0]);
    survive(2, &[1]);
}

#[test]
fn any_two_of_five_may_die() {
    survive(5, &[0, 4]);
    survive(5, &[1, 3]);
}

#[test]
fn the_first_five_of_ten_may_die() {
    survive(10, &[0, 1, 2, 3, 4]);
}

#[test]
fn a_file_takes_about_twice_its_length_on_all_disks_together() {
    let swarm = swarm(5);
    let file = swarm.scratch().random("file", 16 << 20);
    swarm.node(0).ok(["put", &file, "/file"]);
    wait_until("what is only cached is gone or small", || {
        let cached: u64 =
            swarm.nodes().iter().map(|node| node.json(["df"])["cached"].as_u64().unwrap()).sum();
        let kept: u64 = swarm.nodes().iter().map(stored).sum::<u64>() - cached;
        kept as f64 <= 2.1 * f64::from(16 << 20)
    });
    wait_until("df says so", || {
        let usage = swarm.node(3).json(["df"]);
        let (swarm, content) = (usage["swarm"].as_f64().unwrap(), usage["content"].as_f64().unwrap());
        usage["members"] == 5 && (1.6..2.1).contains(&(swarm / content))
    });
}

#[test]
fn what_half_of_the_swarm_held_is_made_anew_so_that_half_of_the_rest_may_die() {
    let swarm = swarm(4);
    let file = swarm.scratch().random("file", 5 << 20);
    swarm.node(0).ok(["put", &file, "/file"]);
    swarm.node(0).kill9();
    swarm.node(1).kill9();
    // Each of the two that are left must be able to go on alone.
    let last = swarm.node(3);
    wait_until("the rest is made good", || last.json(["df"])["bytes"].as_u64().unwrap() >= 5 << 20);
    wait_until("nobody finds anything missing", || last.ok(["status"]).contains("all at full durability"));
    swarm.node(2).kill9();
    let copy = swarm.scratch().path("copy");
    last.ok(["get", "/file", &copy]);
    assert!(same_bytes(&file, &copy));
}

#[test]
fn what_was_written_while_half_was_away_is_spread_over_all_as_soon_as_they_are_back() {
    // With the usual grace time, which is far longer than this test takes: once all are there, nobody need be waited for.
    let swarm = Swarm::start(4);
    let file = swarm.scratch().random("file", 2 << 20);
    let later = swarm.scratch().folder("later", 20);
    swarm.node(0).ok(["put", &file, "/file"]);
    swarm.node(1).kill9();
    swarm.node(3).kill9();
    swarm.node(2).ok(["put", &later, "/later"]);
    swarm.node(1).restart();
    swarm.node(3).restart();
    for node in swarm.nodes() {
        wait_until("all is spread", || node.ok(["status"]).contains("all at full durability"));
    }
    swarm.node(0).kill9();
    swarm.node(2).kill9();
    for index in [1, 3] {
        let copy = swarm.scratch().path(&format!("later-{index}"));
        swarm.node(index).ok(["get", "/later", &copy]);
        assert_same_folders(&later, &copy);
        let copy = swarm.scratch().path(&format!("file-{index}"));
        swarm.node(index).ok(["get", "/file", &copy]);
        assert!(same_bytes(&file, &copy));
    }
}

#[test]
fn a_swarm_that_grew_one_by_one_can_lose_those_it_began_with() {
    const SIZE: usize = 12;
    let mut swarm = swarm(1);
    let folder = swarm.scratch().folder("folder", 40);
    let file = swarm.scratch().random("file", 6 << 20);
    swarm.node(0).ok(["put", &folder, "/folder"]);
    swarm.node(0).ok(["put", &file, "/file"]);
    for size in 2..=SIZE {
        swarm.add_as(start());
        let newest = swarm.node(size - 1);
        wait_until("the newcomer has heard of the files", || newest.run(["stat", "/file"]).code == 0);
    }
    swarm.wait_connected();
    for node in swarm.nodes() {
        wait_until(&format!("{} holds its part", node.name()), || {
            node.json(["df"])["bytes"].as_u64().unwrap() >= (6 << 20) / SIZE as u64
        });
        wait_until("all is at full durability", || node.ok(["status"]).contains("all at full durability"));
    }
    for index in 0..SIZE / 2 {
        swarm.node(index).kill9();
    }
    let last = swarm.node(SIZE - 1);
    let (copy, copies) = (swarm.scratch().path("copy"), swarm.scratch().path("copies"));
    last.ok(["get", "/file", &copy]);
    assert!(same_bytes(&file, &copy));
    last.ok(["get", "/folder", &copies]);
    assert_same_folders(&folder, &copies);
}

#[test]
fn a_node_that_leaves_takes_nothing_with_it() {
    let swarm = swarm(3);
    let file = swarm.scratch().random("file", 5 << 20);
    swarm.node(0).ok(["put", &file, "/file"]);
    swarm.node(0).ok(["leave"]);
    swarm.node(0).ended();
    // Two are left: one more may go, at once.
    swarm.node(1).kill9();
    let copy = swarm.scratch().path("copy");
    swarm.node(2).ok(["get", "/file", &copy]);
    assert!(same_bytes(&file, &copy));
}

#[test]
fn what_was_put_and_not_yet_spread_is_spread_after_a_crash() {
    let mut swarm = swarm(1);
    let file = swarm.scratch().random("file", 5 << 20);
    swarm.node(0).ok(["put", "--wait", "local", &file, "/file"]);
    swarm.node(0).kill9();
    swarm.node(0).restart();
    swarm.add_as(start());
    let late = swarm.node(1);
    wait_until("the newcomer holds its share", || late.json(["df"])["bytes"].as_u64().unwrap() >= 5 << 20);
    wait_until("all is at full durability", || late.ok(["status"]).contains("all at full durability"));
    swarm.node(0).kill9();
    let copy = swarm.scratch().path("copy");
    late.ok(["get", "/file", &copy]);
    assert!(same_bytes(&file, &copy));
}

#[test]
fn a_node_whose_quota_is_full_says_so_and_goes_on() {
    let swarm = Swarm::start_as([start().with_env("STARFISH_STORAGE_QUOTA", "8M")]);
    let node = swarm.node(0);
    let (large, small) =
        (swarm.scratch().random("large", 20 << 20), swarm.scratch().random("small", 2 << 20));
    let refused = node.run(["put", &large, "/large"]);
    assert!(refused.code != 0 && refused.stderr.contains("no space left"), "{}", refused.stderr);
    assert_ne!(node.run(["stat", "/large"]).code, 0);
    wait_until("there is room again", || node.run(["put", &small, "/small"]).code == 0);
    let copy = swarm.scratch().path("copy");
    node.ok(["get", "/small", &copy]);
    assert!(same_bytes(&small, &copy));
}

#[test]
fn files_are_durable_and_said_to_be_though_one_member_has_no_room() {
    let swarm = Swarm::start_as([start(), start(), start().with_env("STARFISH_STORAGE_QUOTA", "8M")]);
    let large = swarm.scratch().random("large", 40 << 20);
    swarm.node(0).ok(["put", &large, "/large"]);
    for node in 0..3 {
        wait_until("all is at full durability", || {
            swarm.node(node).ok(["status"]).contains("all at full durability")
        });
    }
    swarm.node(0).kill9();
    for node in [1, 2] {
        let copy = swarm.scratch().path("copy");
        swarm.node(node).ok(["get", "/large", &copy]);
        assert!(same_bytes(&large, &copy));
        std::fs::remove_file(&copy).expect("the copy can be removed");
    }
}

#[test]
fn what_a_file_was_is_listed_and_restored_on_another_node() {
    let swarm = swarm(2);
    let (here, there) = (swarm.node(0), swarm.node(1));
    for text in ["one\n", "two\n"] {
        here.feed(["put", "-", "/notes"], text).ok();
    }
    swarm.wait_same_memory();
    let versions = there.json(["log", "/notes"]);
    assert_eq!(versions.as_array().unwrap().len(), 2);
    there.ok(["snapshot", "create", "before", "/notes"]);
    there.ok(["rm", "/notes"]);
    let version = versions[1]["id"].as_str().unwrap();
    there.ok(["restore", &format!("/notes@{version}")]);
    assert_eq!(there.ok(["cat", "/notes"]), "one\n");
    wait_until("it is restored here", || here.run(["cat", "/notes"]).stdout == b"one\n");
    assert_eq!(here.ok(["snapshot", "ls"]), "before\n");
    assert_eq!(here.ok(["cat", "/.snapshots/before"]), "two\n");
}

#[test]
fn how_many_versions_are_kept_is_said_for_the_whole_swarm() {
    let swarm = swarm(2);
    let (here, there) = (swarm.node(0), swarm.node(1));
    for text in ["one\n", "two\n", "three\n", "four\n"] {
        here.feed(["put", "-", "/notes"], text).ok();
    }
    assert_eq!(here.ok(["retention"]), "versions are kept for 30d, 32 of a file\n");
    assert_eq!(here.ok(["retention", "--count", "1"]), "versions are kept for 30d, 1 of a file\n");
    wait_until("it is known there", || there.json(["retention"])["count"] == 1);
    wait_until("one version is left beside the file", || {
        there.json(["log", "/notes"]).as_array().is_some_and(|versions| versions.len() == 2)
    });
    let version = there.json(["log", "/notes"])[1]["id"].as_str().unwrap().to_owned();
    there.ok(["restore", &format!("/notes@{version}")]);
    assert_eq!(there.ok(["cat", "/notes"]), "three\n");
    assert_ne!(here.run(["retention", "--count", "1001"]).code, 0);
}
