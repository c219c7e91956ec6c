//! Files over HTTP and WebDAV, with the programs that people use: curl and rclone. Where one is missing, its test says
//! that it was skipped.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says why, in its helpers too"
)]

use std::fs;
use std::io::{self, Write};
use std::process::{Command, Stdio};

use starfish_tests::{Node, Swarm, assert_same_folders, same_bytes, wait_until};

/// What a node may have in memory while it moves a file of any size.
const MEMORY: u64 = 300 << 20;

/// The program, unless it is missing.
fn tool(name: &str) -> Option<()> {
    let found = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_err() {
        // Past the test runner, which keeps what passing tests print to itself.
        let _ = writeln!(io::stderr(), "skipped: there is no {name} here");
    }
    found.ok().map(drop)
}

fn token(node: &Node) -> String {
    fs::read_to_string(node.data_dir().join("api.token")).unwrap().trim().to_owned()
}

/// Runs a program to its end; gives what it printed, and whether it was content.
#[track_caller]
fn run(command: &mut Command) -> (String, bool) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        // Shown when the test fails.
        println!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    (text, output.status.success())
}

/// `curl WORDS` with the token as password, where any answer but a success is a failure.
fn curl(node: &Node, words: &[&str]) -> Command {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--user"]);
    command.arg(format!("ada:{}", token(node))).args(words);
    command
}

/// What somebody gets who has nothing but the link.
fn fetch(url: &str) -> (String, bool) {
    run(Command::new("curl").args(["--silent", "--fail", "--noproxy", "*", url]))
}

#[test]
fn a_large_file_goes_in_on_one_node_and_comes_out_on_another_in_pieces() {
    let Some(()) = tool("curl") else { return };
    let swarm = Swarm::start(2);
    let (writer, reader) = (swarm.node(0), swarm.node(1));
    let original = swarm.scratch().random("original", 64 << 20);
    let url = |node: &Node| format!("http://{}/fs/films/ocean%20life.mp4", node.api_address());
    assert!(run(&mut curl(writer, &["--upload-file", &original, &url(writer)])).1);
    wait_until("the other node sees it", || run(&mut curl(reader, &["--head", &url(reader)])).1);

    let copy = swarm.scratch().path("copy");
    assert!(run(&mut curl(reader, &["--range", "0-9999999", "--output", &copy, &url(reader)])).1);
    assert_eq!(fs::metadata(&copy).unwrap().len(), 10_000_000);
    assert!(run(&mut curl(reader, &["--continue-at", "-", "--output", &copy, &url(reader)])).1);
    assert!(same_bytes(&original, &copy), "the pieces do not make the whole");

    let (head, _) = run(&mut curl(reader, &["--head", &url(reader)]));
    assert!(head.contains("content-type: video/mp4"), "{head}");
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().trim();
    let known = format!("If-None-Match: {tag}");
    let (status, _) =
        run(&mut curl(reader, &["--header", &known, "--write-out", "%{http_code}", &url(reader)]));
    assert_eq!(status, "304", "the tag is the same on every node");
    swarm.assert_memory_below(MEMORY);
}

#[test]
fn rclone_copies_a_folder_there_and_back() {
    let Some(()) = tool("rclone") else { return };
    let swarm = Swarm::start(1);
    let node = swarm.node(0);
    let original = swarm.scratch().path("original");
    for (name, size) in [("a", 0), ("b c", 5000), ("Grüße 100%.txt", 3 << 20), ("sub/ü?#", 70)] {
        let path = format!("{original}/{name}");
        fs::create_dir_all(path.rsplit_once('/').unwrap().0).unwrap();
        fs::copy(swarm.scratch().random(&size.to_string(), size), path).unwrap();
    }
    let (password, _) = run(Command::new("rclone").args(["obscure", &token(node)]));
    let rclone = |words: &[&str]| {
        let mut command = Command::new("rclone");
        let url = format!("http://{}/dav/", node.api_address());
        command.args(["--config", "", "--webdav-url", &url, "--webdav-vendor", "owncloud"]);
        command.args(["--webdav-user", "ada", "--webdav-pass", password.trim()]).args(words);
        run(&mut command)
    };
    assert!(rclone(&["copy", &original, ":webdav:up/here"]).1);
    assert!(rclone(&["check", "--download", &original, ":webdav:up/here"]).1);
    assert!(rclone(&["moveto", ":webdav:up/here", ":webdav:there"]).1);
    assert!(rclone(&["copyto", ":webdav:there/b c", ":webdav:there/sub/b c"]).1);
    assert!(rclone(&["deletefile", ":webdav:there/sub/b c"]).1);
    assert_eq!(rclone(&["lsf", ":webdav:there"]).0, "Grüße 100%.txt\na\nb c\nsub/\n");

    let copy = swarm.scratch().path("copy");
    node.ok(["get", "/there", &copy]);
    let again = swarm.scratch().path("again");
    assert!(rclone(&["copy", ":webdav:there", &again]).1);
    for name in ["a", "b c", "Grüße 100%.txt", "sub/ü?#"] {
        for found in [&copy, &again] {
            assert!(same_bytes(format!("{original}/{name}"), format!("{found}/{name}")), "{name}");
        }
    }
    assert!(rclone(&["purge", ":webdav:there"]).1);
    assert!(!rclone(&["lsf", ":webdav:there"]).1);
}

#[test]
fn a_share_link_works_at_every_node_until_it_or_its_maker_is_revoked() {
    let Some(()) = tool("curl") else { return };
    let swarm = Swarm::start(2);
    let (one, other) = (swarm.node(0), swarm.node(1));
    for (path, content) in [("/docs/a.txt", "the tide is in"), ("/secret", "nobody reads this")] {
        let file = swarm.scratch().write("file", content);
        one.ok(["put", &file, path]);
    }
    swarm.wait_same_memory();
    let link = other.ok(["share", "/docs", "--expires", "1h"]).trim().to_owned();
    let second = other.ok(["share", "/docs"]).trim().to_owned();
    swarm.wait_same_memory();
    let (here, there) = (one.api_address().to_string(), other.api_address().to_string());
    assert!(link.starts_with(&format!("http://{there}/s/")) && link.ends_with("/docs/"), "{link}");

    for link in [link.clone(), link.replace(&there, &here)] {
        assert!(fetch(&link).0.contains("<a href=\"a.txt\">"));
        assert_eq!(fetch(&format!("{link}a.txt")).0, "the tide is in");
        assert!(!fetch(&link.replace("/docs/", "/secret")).1);
        let climbing = ["--silent", "--fail", "--noproxy", "*", "--path-as-is", &format!("{link}../secret")];
        assert!(!run(Command::new("curl").args(climbing)).1);
        let removing =
            ["--silent", "--fail", "--noproxy", "*", "--request", "DELETE", &format!("{link}a.txt")];
        assert!(!run(Command::new("curl").args(removing)).1);
    }
    assert_eq!(one.run(["share", "/none"]).code, 4, "there is no such file");
    assert_ne!(one.run(["share", "/docs", "--expires", "0s"]).code, 0, "a link for no time is none");
    let short = one.ok(["share", "/docs", "--expires", "1s"]);
    wait_until("the link to expire", || !fetch(short.trim()).1);
    for node in swarm.nodes() {
        assert!(!node.logs().contains(&link[link.len() - 60..]), "a link is a secret");
    }

    let here = |link: &str| link.replace(&there, &here);
    one.ok(["revoke", &link]);
    assert!(!fetch(&here(&link)).1 && fetch(&here(&second)).1);
    wait_until("the link is revoked everywhere", || !fetch(&link).1);
    one.ok(["revoke", &other.id()]);
    assert!(!fetch(&here(&second)).1);
}

#[test]
fn a_folder_that_is_copied_and_moved_over_webdav_keeps_all_it_has() {
    let Some(()) = tool("curl") else { return };
    let swarm = Swarm::start(1);
    let node = swarm.node(0);
    let original = swarm.scratch().folder("original", 40);
    node.ok(["put", &original, "/folder"]);
    let base = format!("http://{}/dav", node.api_address());
    for (method, path, to) in [("COPY", "/folder", "/copied"), ("MOVE", "/copied", "/moved")] {
        let destination = format!("Destination: {base}{to}");
        assert!(
            run(&mut curl(node, &["--request", method, "--header", &destination, &format!("{base}{path}")]))
                .1
        );
    }
    let copy = swarm.scratch().path("copy");
    node.ok(["get", "/moved", &copy]);
    assert_same_folders(&original, &copy);
}
