//! One tree of files, seen and read from every node.

use std::fs;

use starfish_tests::{Node, Swarm, assert_same_folders, same_bytes, wait_until};

/// How a script is told that there is no such file.
const NO_SUCH_FILE: i32 = 4;
/// How a script is told that trying again may help.
const TEMPORARY: i32 = 5;
/// What a node may have in memory while it moves a file of any size.
const MEMORY: u64 = 300 << 20;

fn sees(node: &Node, path: &str) -> bool {
    node.run(["stat", path]).code == 0
}

#[test]
fn a_file_is_read_byte_for_byte_on_a_node_that_joined_later() {
    cross(64 << 20);
}

#[test]
#[ignore = "moves and compares a gibibyte"]
fn a_file_of_a_gibibyte_crosses_in_little_memory() {
    cross(1 << 30);
}

fn cross(size: usize) {
    let mut swarm = Swarm::start(1);
    let original = swarm.scratch().random("original", size);
    swarm.node(0).ok(["put", &original, "/missing/folders/file"]);
    let (_, reader) = (swarm.add(), swarm.add());
    let reader = swarm.node(reader);
    wait_until("the newcomer sees it", || sees(reader, "/missing/folders/file"));
    let copy = swarm.scratch().path("copy");
    reader.ok(["get", "/missing/folders/file", &copy]);
    assert!(same_bytes(&original, &copy), "the copy is not what was put");
    swarm.assert_memory_below(MEMORY);
}

#[test]
fn a_folder_comes_out_on_another_node_as_it_went_in() {
    let swarm = Swarm::start(2);
    let original = swarm.scratch().folder("original", 400);
    swarm.node(0).ok(["put", &original, "/folder"]);
    swarm.wait_same_memory();
    let copy = swarm.scratch().path("copy");
    swarm.node(1).ok(["get", "/folder", &copy]);
    assert_same_folders(&original, &copy);

    // Put again where it is already, it stays what it is.
    swarm.node(1).ok(["put", &copy, "/folder"]);
    let again = swarm.scratch().path("again");
    swarm.node(1).ok(["get", "/folder", &again]);
    assert_same_folders(&original, &again);
}

#[test]
fn what_is_changed_on_one_node_is_changed_on_all() {
    let swarm = Swarm::start(2);
    let (here, there) = (swarm.node(0), swarm.node(1));
    let poem = swarm.scratch().write("poem", "the tide\n");
    here.ok(["mkdir", "-p", "/a/b/c"]);
    here.ok(["put", &poem, "/a/b/poem"]);
    wait_until("it is there", || there.run(["cat", "/a/b/poem"]).stdout == b"the tide\n");
    there.ok(["cp", "/a/b/poem", "/a/copy"]);
    there.ok(["mv", "/a/b", "/moved"]);
    wait_until("it is moved here", || sees(here, "/moved/poem"));
    assert_eq!(here.run(["cat", "/a/b/poem"]).code, NO_SUCH_FILE);
    wait_until("the copy is here", || here.run(["cat", "/a/copy"]).stdout == b"the tide\n");
    let listed = here.ok(["ls", "-l", "/moved"]);
    assert!(listed.contains("poem") && listed.contains("rw-r--r--"), "{listed}");
    let stat = here.json(["stat", "/moved/poem"]);
    assert_eq!(stat[0]["size"], 9, "{stat}");
    assert_eq!(here.json(["df"])["files"], 2);

    assert_ne!(here.run(["rm", "/moved"]).code, 0, "a directory goes with -r only");
    here.ok(["rm", "-r", "/moved"]);
    wait_until("it is gone there", || there.run(["ls", "/moved"]).code == NO_SUCH_FILE);
    assert_eq!(there.ok(["cat", "/a/copy"]), "the tide\n");
}

#[test]
fn standard_input_is_put_and_standard_output_is_got() {
    let swarm = Swarm::start(1);
    let node = swarm.node(0);
    let content = swarm.scratch().random("content", 3 << 20);
    let content = fs::read(content).unwrap();
    node.feed(["put", "-", "/streamed"], content.clone()).ok();
    assert!(node.run(["get", "/streamed", "-"]).stdout == content);
    assert!(node.run(["cat", "/streamed"]).stdout == content);
    assert_eq!(node.run(["get", "/nothing", "-"]).code, NO_SUCH_FILE);
}

#[test]
fn a_file_that_is_out_of_reach_is_said_to_be_so_and_can_be_read_again_later() {
    let swarm = Swarm::start(4);
    let (writer, reader) = (swarm.node(0), swarm.node(3));
    let far = swarm.scratch().random("far", 1 << 20);
    writer.ok(["put", &far, "/far"]);
    swarm.wait_same_memory();
    // A quarter of the shards is not enough.
    swarm.partition(&[0, 1, 2], &[3]);
    let copy = swarm.scratch().path("copy");
    let refused = reader.run(["get", "/far", &copy]);
    assert_eq!(refused.code, TEMPORARY, "{}", refused.stderr);
    assert!(!fs::exists(&copy).unwrap(), "half a file was left");

    swarm.heal();
    swarm.wait_connected();
    wait_until("it is in reach again", || reader.run(["get", "/far", &copy]).code == 0);
    assert!(same_bytes(&far, &copy));
}
