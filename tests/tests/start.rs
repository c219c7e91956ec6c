//! A node's life on one machine: it starts, it is there once, it stops, and it is who it was.

use std::time::Duration;

use starfish_tests::{Leash, Start, Swarm, wait_until};

/// How a script is told that no node runs.
const NOT_RUNNING: i32 = 3;

#[test]
fn a_second_up_on_the_same_folder_says_so_and_changes_nothing() {
    let swarm = Swarm::start(1);
    let node = swarm.node(0);
    let before = node.json(["status"]);
    let second = node.run(["up", "--port", "0", "--api-port", "0"]);
    assert_eq!(second.code, 0, "{}", second.stderr);
    assert!(second.stderr.contains("already"), "{}", second.stderr);
    let after = node.json(["status"]);
    for what in ["peer", "swarm", "pid", "port", "api"] {
        assert_eq!(before[what], after[what], "{what}");
    }
}

#[test]
fn a_node_is_who_it_was_after_every_kind_of_end() {
    let swarm = Swarm::start(1);
    let node = swarm.node(0);
    let first = node.json(["id"]);
    node.ok(["mem", "set", "kept", "yes"]);

    assert_eq!(node.terminate().0, 0);
    assert_eq!(node.run(["status", "--quiet"]).code, NOT_RUNNING);
    let refused = node.run(["mem", "get", "kept"]);
    assert_eq!(refused.code, NOT_RUNNING);
    let hint = format!("starfish --data-dir {} up", node.data_dir().display());
    assert!(refused.stderr.contains(&hint), "no hint: {}", refused.stderr);

    node.restart();
    assert_eq!(node.json(["id"]), first);
    node.kill9();
    node.restart();
    assert_eq!(node.json(["id"]), first);
    node.ok(["down"]);
    assert_eq!(node.ended(), 0);
    node.restart();
    assert_eq!(node.json(["id"]), first);
    assert_eq!(node.ok(["mem", "get", "kept"]), "yes\n");
}

#[test]
fn a_slip_in_a_variable_is_told_of_with_the_name_that_is_near() {
    let start = Start::default().with_env("STARFISH_STORAGE_QOUTA", "1G").with_env("STARFISH_ZONE", "attic");
    let swarm = Swarm::start_as([start]);
    let logs = swarm.node(0).logs();
    let line = logs.lines().find(|line| line.contains("STARFISH_STORAGE_QOUTA")).unwrap_or_default();
    assert!(line.contains("WARN") && line.contains("STARFISH_STORAGE_QUOTA"), "{line}");
    assert!(!logs.contains("STARFISH_ZONE"), "{logs}");
}

#[test]
fn a_detached_node_goes_on_until_it_is_told_to_stop() {
    let mut swarm = Swarm::start(0);
    let index = swarm.prepare(Start::default());
    let node = swarm.node(index);
    node.ok(["up", "--detach", "--port", "0", "--api-port", "0"]);
    let pid = node.json(["status"])["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
    let _leash = Leash::tie(pid.unwrap()).unwrap();
    node.ok(["mem", "set", "a", "b"]);
    node.ok(["down"]);
    wait_until("it has stopped", || node.run(["status", "--quiet"]).code == NOT_RUNNING);
}

#[test]
fn sigterm_ends_a_busy_node_within_five_seconds() {
    let swarm = Swarm::start(2);
    let (busy, other) = (swarm.node(0), swarm.node(1));
    let watching = busy.spawn(["mem", "watch"]);
    busy.ok(["mem", "set", "seen", "yes"]);
    wait_until("the watch watches", || watching.stdout().contains("seen"));
    let computing = other.spawn(["run", "--on", &busy.id(), &swarm.scratch().guest("loop")]);
    let id = busy.id();
    wait_until("the task runs", || {
        let jobs = other.json(["jobs"]);
        jobs.as_array().unwrap().iter().any(|job| job["phase"] == "running" && job["by"] == id)
    });
    let writing = busy.spawn(["put", "-", "/endless"]);

    let (code, took) = busy.terminate();
    println!("stopped in {took:?}");
    assert_eq!(code, 0);
    assert!(took < Duration::from_secs(5), "stopped in {took:?}");
    drop((watching, computing, writing));
}

#[test]
fn a_port_that_is_taken_is_said_with_a_way_out() {
    let mut swarm = Swarm::start(1);
    let index = swarm.prepare(Start::default());
    let (first, second) = (swarm.node(0), swarm.node(index));
    let (port, api) = (first.port().to_string(), first.api_address().port().to_string());
    for (words, flag) in [
        (["--port", &port, "--api-port", "0"], "--port"),
        (["--port", "0", "--api-port", &api], "--api-port"),
    ] {
        let refused = second.run(["up"].into_iter().chain(words));
        assert_eq!(refused.code, 1, "{}", refused.stderr);
        assert!(
            refused.stderr.contains("in use") && refused.stderr.contains(&format!("with {flag} ")),
            "{}",
            refused.stderr
        );
    }
}

#[test]
fn output_that_does_not_fit_is_a_failure() {
    let swarm = Swarm::start(1);
    let node = swarm.node(0);
    node.ok(["mem", "set", "a", "b"]);
    node.ok(["mkdir", "/d"]);
    for words in [&["status"][..], &["mem", "ls"], &["ls", "/"], &["df"], &["-c", "ls /"], &["-c", "status"]]
    {
        assert_eq!(node.run_into("/dev/full", words), Some(1), "{words:?}");
    }
}

#[test]
fn a_watch_that_its_node_ends_is_no_success() {
    let swarm = Swarm::start(1);
    let node = swarm.node(0);
    node.ok(["mem", "set", "seen", "yes"]);
    let watching = node.spawn(["mem", "watch"]);
    wait_until("the watch watches", || watching.stdout().contains("seen"));
    node.terminate();
    assert_eq!(watching.finish().code, 5);
}
