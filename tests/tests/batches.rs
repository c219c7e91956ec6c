//! Jobs of many tasks, over real processes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use serde_json::Value;
use starfish_tests::{Chance, Node, Start, Swarm, wait_for, wait_until};

fn numbers(range: std::ops::Range<u64>) -> String {
    range.map(|number| format!("{number}\n")).collect()
}

/// What a node says of a job, if it knows it.
fn report(node: &Node, id: &str) -> Option<Value> {
    serde_json::from_slice(&node.run(["job", id, "--json"]).stdout).ok()
}

/// The same, once the job has ended.
fn ended(node: &Node, id: &str) -> Value {
    wait_for("the job has ended", || report(node, id).filter(|report| !report["outcome"].is_null()))
}

#[test]
fn a_program_is_mapped_over_numbers_lines_and_files() {
    let swarm = Swarm::start(2);
    let (here, there) = (swarm.node(0), swarm.node(1));
    let [echo, upper, cat] = ["echo", "upper", "cat"].map(|name| swarm.scratch().guest(name));
    assert_eq!(here.ok(["map", &echo, "--range", "7..107"]), numbers(7..107));
    let lines = swarm.scratch().write("lines", "one\n\nthree\n");
    assert_eq!(there.ok(["map", &echo, "--lines", &lines]), "one\n\nthree\n");
    assert_eq!(here.feed(["map", &echo, "--lines", "-"], "by\npipe\n").ok(), "by\npipe\n");
    assert_eq!(there.ok(["map", &echo, "--lines", &lines, "--reduce", &upper]), "ONE\n\nTHREE\n");

    for (folder, text) in [("a", "first\n"), ("b", "second\n")] {
        here.ok(["mkdir", "-p", &format!("/in/{folder}")]);
        here.feed(["put", "-", &format!("/in/{folder}/in.txt")], text).ok();
    }
    assert_eq!(here.ok(["map", &cat, "--over", "/in/*/in.txt", "--out", "/out"]), "");
    assert_eq!(here.ok(["cat", "/out/a/in.txt", "/out/b/in.txt"]), "first\nsecond\n");
    let tasks = here.ok(["map", &cat, "--over", "/in/*/in.txt", "--json"]);
    let tasks: Vec<Value> = tasks.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(tasks[1]["item"], "/in/b/in.txt");
    assert_eq!(tasks[1]["stdout"], "second\n");
}

#[test]
fn who_waits_is_told_what_for() {
    let swarm = Swarm::start(1);
    let node = swarm.node(0);
    let echo = swarm.scratch().guest("echo");
    let mapping = node.spawn(["map", &echo, "--range", "0..3", "--verify", "9"]);
    wait_until("it says what it waits for", || mapping.stderr().contains("waiting: "));
    let job = node.json(["jobs"])[0]["id"].as_str().unwrap().to_owned();
    let why = node.json(["job", &job])["why"].as_str().unwrap().to_owned();
    node.ok(["kill", &job]);
    let ended = mapping.finish();
    assert_eq!(ended.code, 137);
    assert!(ended.stderr.contains(&format!("waiting: {why}")), "{why} is not in {}", ended.stderr);
}

#[test]
fn a_task_that_was_left_alone_is_waited_for_like_any_job() {
    let swarm = Swarm::start(2);
    let [here, there] = [swarm.node(0), swarm.node(1)];
    let exit = swarm.scratch().guest("exit");
    let job = here.ok(["run", "--detach", &exit]);
    let ended = here.run(["wait", job.trim()]);
    assert_eq!(there.run(["wait", job.trim()]).code, ended.code);
    assert_eq!(ended.code, here.run(["run", &exit]).code);
}

#[test]
fn what_fails_is_named_and_run_again_on_request() {
    let swarm = Swarm::start(1);
    let node = swarm.node(0);
    let echo = swarm.scratch().guest("echo");
    let lines = swarm.scratch().write("lines", "good\nbadx\n");
    let mapped = node.run(["map", &echo, "--lines", &lines]);
    assert_eq!((mapped.code, mapped.text()), (1, "good\nbadx\n"));
    assert!(mapped.stderr.contains("task 1 (badx): exited with code 3"), "{}", mapped.stderr);
    assert!(mapped.stderr.contains("1 of 2 tasks failed"), "{}", mapped.stderr);
    let job = node.json(["jobs"])[0]["id"].as_str().unwrap().to_owned();
    node.ok(["retry", &job]);
    wait_until("it has failed again", || node.json(["job", &job])["attempts"] == 2);
    assert_eq!(node.run(["wait", &job]).code, 1);
    assert_eq!(node.ok(["logs", &job]), "good\nbadx\n");
    let sleep = swarm.scratch().guest("sleep");
    for (range, words) in [("0..1", "reached its time limit of 100ms"), ("0..3", "3 of 3 tasks failed")] {
        let mapped = node.run(["map", &sleep, "--timeout", "100ms", "--range", range]);
        assert_eq!(mapped.code, 1, "however many: {}", mapped.stderr);
        assert!(mapped.stderr.contains(words), "{}", mapped.stderr);
    }
    assert_ne!(node.run(["map", &echo]).code, 0, "nothing to map over");
    assert_ne!(node.run(["map", &echo, "--range", "5..5"]).code, 0);
}

#[test]
fn jobs_wait_for_others_and_read_what_they_print() {
    let swarm = Swarm::start(2);
    let (here, there) = (swarm.node(0), swarm.node(1));
    let [slow, upper, exit] = ["slow", "upper", "exit"].map(|name| swarm.scratch().guest(name));
    let first = here.ok(["submit", &slow]);
    let then = here.ok(["submit", &upper, "--input-of", first.trim()]);
    let report = here.json(["job", then.trim()]);
    assert!(report["why"].as_str().unwrap().contains(first.trim()), "{report}");
    let watched = here.ok(["job", "--watch", then.trim()]);
    assert!(watched.starts_with("pending, 0 of 1 tasks ended: it waits for job"), "{watched}");
    assert!(watched.ends_with("done, 1 of 1 tasks ended: exited with code 0\n"), "{watched}");
    assert_eq!(here.run(["wait", then.trim()]).code, 0);
    wait_until("the output is known there", || there.run(["logs", then.trim()]).stdout == b"BEGUN\nENDED\n");
    let code = here.ok(["submit", &exit, "one", "two"]);
    assert_eq!(here.run(["wait", code.trim()]).code, 2, "the status of one task is that of the job");
}

#[test]
fn a_job_that_was_submitted_outlives_its_submitter_and_half_of_the_swarm() {
    let swarm = Swarm::start_as([(); 4].map(|()| Start::default().with_slots(1)));
    let slow = swarm.scratch().guest("slow");
    let id = swarm.node(0).ok(["submit", &slow, "--range", "0..8"]);
    let id = id.trim();
    let left = swarm.node(3);
    wait_until("it is under way", || {
        report(left, id).is_some_and(|report| report["progress"]["done"].as_u64() >= Some(1))
    });
    swarm.node(0).kill9();
    swarm.node(1).kill9();
    let report = ended(left, id);
    assert_eq!(report["progress"], serde_json::json!({"tasks": 8, "done": 8, "failed": 0}), "{report}");
    assert_eq!(left.ok(["logs", id]), "begun\nended\n".repeat(8));
    assert_eq!(swarm.node(2).ok(["logs", id]), "begun\nended\n".repeat(8));
}

#[test]
fn eight_nodes_end_ten_thousand_tasks_though_half_of_them_are_killed_with_the_keeper() {
    const TASKS: u64 = 10_000;
    let swarm = Swarm::start_as([(); 8].map(|()| Start::default().with_slots(1)));
    let echo = swarm.scratch().guest("echo");
    let id = swarm.node(0).ok(["submit", &echo, "--range", "0..10000"]);
    let (id, left) = (id.trim(), swarm.node(7));
    wait_until("it is under way", || {
        report(left, id).is_some_and(|report| report["progress"]["done"].as_u64() >= Some(100))
    });
    for node in 0..4 {
        swarm.node(node).kill9();
    }
    let report = ended(left, id);
    assert_eq!(
        report["progress"],
        serde_json::json!({"tasks": TASKS, "done": TASKS, "failed": 0}),
        "{report}"
    );
    assert!(left.ok(["logs", id]) == numbers(0..TASKS), "each task is there exactly once, in order");
    let tasks = left.ok(["logs", id, "--json"]);
    assert_eq!(tasks.lines().count() as u64, TASKS);
}

#[test]
fn a_job_that_waits_for_its_results_ends_with_whoever_waits() {
    let swarm = Swarm::start(1);
    let node = swarm.node(0);
    let forever = swarm.scratch().guest("loop");
    for words in [&["map", &forever, "--range", "0..9"][..], &["run", &forever]] {
        let waiting = node.spawn(words).fed("");
        wait_until("it runs", || node.json(["status"])["slots_free"] != node.json(["status"])["slots"]);
        drop(waiting);
        wait_until("its slots are free", || {
            let status = node.json(["status"]);
            status["slots_free"] == status["slots"]
        });
    }
}

/// What the nodes have fetched from each other so far to read files.
fn fetched(swarm: &Swarm, nodes: usize) -> u64 {
    let of = |node: usize| {
        let metrics = swarm.node(node).request("GET", "/metrics").send().body;
        let line = metrics.lines().find_map(|line| line.strip_prefix("starfish_fs_fetched_bytes "));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    (0..nodes).map(of).sum()
}

#[test]
fn tasks_run_where_their_files_are() {
    const NODES: usize = 5;
    const FILES: usize = 6;
    let swarm = Swarm::start_as([(); NODES].map(|()| Start::default().with_slots(1)));
    let program = swarm.scratch().guest("hello");
    let mut chance = Chance::new("files for tasks to be near to");
    for node in 0..NODES {
        for folder in ["/near", "/far"] {
            for file in 0..FILES {
                let path = format!("{folder}/{node}/{file}");
                swarm.node(node).ok(["mkdir", "-p", &format!("{folder}/{node}")]);
                swarm.node(node).feed(["put", "-", &path], chance.bytes(2 << 20)).ok();
            }
        }
    }
    for node in 0..NODES {
        wait_until("every node knows every file", || {
            ["/near", "/far"].iter().all(|folder| {
                let listed = swarm.node(node).ok(["ls", &format!("{folder}/{}", NODES - 1)]);
                listed.lines().count() == FILES
            })
        });
    }
    let before = fetched(&swarm, NODES);
    swarm.node(0).ok(["map", &program, "--over", "/far/*/*", "--anywhere"]);
    let anywhere = fetched(&swarm, NODES) - before;
    swarm.node(0).ok(["map", &program, "--over", "/near/*/*"]);
    let near = fetched(&swarm, NODES) - before - anywhere;
    println!("fetched: {anywhere} bytes by tasks anywhere, {near} by tasks near their files");
    assert!(near * 10 < anywhere * 6, "{near} of {anywhere} bytes");
}
