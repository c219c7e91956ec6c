//! Programs that do not want to end are ended, told why, and do no harm to the node.

use starfish_tests::{Output, Start, Swarm, as_component};

/// The exit status of what ran out of time, as of timeout(1).
const TIMED_OUT: i32 = 124;
/// The exit status of what could not be run, or ran into another limit.
const LIMITED: i32 = 125;
/// The exit status of what trapped, as of an abort.
const TRAPPED: i32 = 134;
/// What a node has with little to do, several times over: what guests allocate is not in its process.
const NODE_MEMORY: u64 = 256 << 20;

#[track_caller]
fn assert_ended(output: &Output, code: i32, named: &str) {
    assert_eq!(output.code, code, "{}: {}", output.what, output.stderr);
    assert!(output.stderr.contains(named), "{} names no {named:?}: {}", output.what, output.stderr);
}

#[test]
fn whatever_a_program_does_it_is_ended_with_an_error_that_says_why_and_the_node_goes_on() {
    let swarm = Swarm::start_as([Start::default().with_slots(1)]);
    let node = swarm.node(0);
    node.ok(["mkdir", "/data"]);
    let run = |words: &[&str]| node.feed([&["run"][..], words].concat(), "");

    let module = |name: &str| swarm.scratch().guest(name);
    let component = |name: &str| {
        let wasm = as_component(&std::fs::read(module(name)).unwrap());
        swarm.scratch().write(&format!("{name}-component.wasm"), wasm)
    };
    for guest in [&module as &dyn Fn(&str) -> String, &component] {
        assert_ended(&run(&["--timeout", "500ms", &guest("loop")]), TIMED_OUT, "time limit of 500ms");
        assert_ended(&run(&["--timeout", "500ms", &guest("sleep")]), TIMED_OUT, "time limit of 500ms");
        assert_ended(&run(&["--memory", "64M", &guest("eat")]), LIMITED, "memory limit of 64 MiB");
        let printed = run(&["--output", "1M", &guest("print")]);
        assert_ended(&printed, LIMITED, "output limit of 1 MiB");
        assert!(printed.stdout.len() <= 1 << 20 && printed.text().starts_with("and on and on"));
        assert_ended(
            &run(&["--output", "1M", "--dir", "/data", &guest("fill")]),
            LIMITED,
            "written files of 1 MiB",
        );
        assert_ended(&run(&[&guest("recurse")]), LIMITED, "stack limit");
        assert_ended(&run(&[&guest("trap")]), TRAPPED, "divide by zero");
    }
    assert_ended(&run(&[&module("foreign")]), LIMITED, "launch_missiles");
    let garbage = run(&[&swarm.scratch().write("garbage.wasm", "this is no program")]);
    assert_ended(&garbage, LIMITED, "not a WASM program");

    // The only slot is free again, and clean.
    assert_eq!(node.feed(["run", &module("upper")], "still here").ok(), "STILL HERE");
    assert_eq!(node.json(["status"])["slots_free"], 1);
    assert!(node.run(["ls", "/data"]).stdout.is_empty(), "what an ended program wrote is in the tree");
    swarm.assert_memory_below(NODE_MEMORY);
}
