//! WASM programs that run somewhere in the swarm as if they ran here.

use serde_json::Value;
use starfish_tests::{Node, Start, Swarm, wait_for, wait_until};

/// The exit status of what was ended with `starfish kill`.
const KILLED: i32 = 137;

/// The only job of this name, once it is in this phase.
fn job_in(node: &Node, name: &str, phase: &str) -> Value {
    wait_for(&format!("{name} is {phase}"), || {
        let jobs = node.json(["jobs"]);
        let job = jobs.as_array()?.iter().find(|job| job["name"] == name && job["phase"] == phase)?;
        Some(node.json(["job", job["id"].as_str()?]))
    })
}

#[test]
fn a_program_reads_writes_and_exits_as_if_it_ran_here() {
    let swarm = Swarm::start(2);
    let upper = swarm.scratch().guest("upper");
    for (from, on) in [(0, 0), (0, 1), (1, 0)] {
        let on = swarm.node(on).id();
        let said = swarm.node(from).feed(["run", "--on", &on, &upper], "crossing over\n").ok();
        assert_eq!(said, "CROSSING OVER\n");
    }
    let long = "all of it, and in order; ".repeat(100_000);
    assert_eq!(swarm.node(1).feed(["run", &upper], long.clone()).ok(), long.to_uppercase());

    let exit = swarm.scratch().guest("exit");
    assert_eq!(swarm.node(0).run(["run", &exit]).code, 0);
    assert_eq!(swarm.node(0).run(["run", &exit, "one", "two", "-three"]).code, 3);
    assert_eq!(job_in(swarm.node(0), "exit.wasm", "failed")["outcome"]["exited"], 3);
}

#[test]
fn a_program_of_the_tree_sees_what_it_is_granted_and_nothing_else() {
    let swarm = Swarm::start(2);
    let (here, there) = (swarm.node(0), swarm.node(1));
    here.ok(["mkdir", "/bin", "/data"]);
    for guest in ["cat", "write"] {
        here.ok(["put", &swarm.scratch().guest(guest), &format!("/bin/{guest}.wasm")]);
    }
    here.feed(["put", "-", "/data/in.txt"], "granted\n").ok();
    swarm.wait_same_memory();
    let on = there.id();
    let run = |words: &[&str]| here.run([&["run", "--on", &on][..], words].concat());

    assert_eq!(run(&["/bin/cat.wasm"]).code, 1, "it sees something without a grant");
    assert_eq!(run(&["--dir", "/data:ro", "/bin/cat.wasm"]).ok(), "granted\n");
    assert_eq!(run(&["--dir", "/bin:ro", "/bin/cat.wasm"]).code, 1, "it sees more than its grant");
    assert_eq!(run(&["--dir", "/data:ro", "/bin/write.wasm"]).code, 100, "it writes where it may only read");
    assert_ne!(here.run(["stat", "/data/out.txt"]).code, 0);

    assert_ne!(run(&["--dir", "/data", "/bin/write.wasm", "fail"]).code, 0);
    assert_ne!(here.run(["stat", "/data/out.txt"]).code, 0, "who fails changes nothing");
    run(&["--dir", "/data", "/bin/write.wasm"]).ok();
    wait_until("what it wrote is in the tree", || {
        here.run(["cat", "/data/out.txt"]).stdout == b"written by a guest\n"
    });
}

#[test]
fn a_task_whose_node_is_killed_is_finished_by_another() {
    // The first only submits, so that it is never the one to be killed.
    let swarm = Swarm::start_as([0, 1, 1].map(|slots| Start::default().with_slots(slots)));
    let submitter = swarm.node(0);
    let slow = submitter.spawn(["run", &swarm.scratch().guest("slow")]).fed("");
    let first = job_in(submitter, "slow.wasm", "running")["by"].clone();
    let runner = swarm.nodes().iter().find(|node| first == node.id()).unwrap();
    runner.kill9();

    assert_eq!(slow.finish().ok(), "begun\nended\n");
    let report = job_in(submitter, "slow.wasm", "done");
    assert_ne!(report["by"], first);
    assert_eq!(report["lost"][0][0], first, "{report}");
}

#[test]
fn a_job_says_why_it_waits_and_ends_when_it_is_killed() {
    let swarm = Swarm::start_as([Start::default().with_slots(0), Start::default().with_slots(1)]);
    let (submitter, worker) = (swarm.node(0), swarm.node(1));
    let guest = swarm.scratch().guest("loop");
    let mut running = submitter.spawn(["run", &guest]);
    let id = job_in(submitter, "loop.wasm", "running")["id"].as_str().unwrap().to_owned();
    let waiting = submitter.ok(["run", "--detach", &guest]);
    let report = wait_for("the job waits for a slot", || {
        let report = submitter.json(["job", waiting.trim()]);
        report["why"].as_str().is_some_and(|why| why.contains(&worker.id())).then_some(report)
    });
    assert_eq!(report["phase"], "pending");
    assert!(!running.has_ended());

    submitter.ok(["kill", &id[..8]]);
    assert_eq!(running.finish().code, KILLED);
    assert_eq!(submitter.json(["job", &id])["phase"], "killed");
    wait_until("the other has its turn", || submitter.json(["job", waiting.trim()])["phase"] == "running");
    submitter.ok(["kill", waiting.trim()]);
    wait_until("the slot is free", || worker.json(["status"])["slots_free"] == 1);
}
