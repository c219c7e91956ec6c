//! Functions that run by themselves, over real processes.

use std::collections::BTreeMap;

use serde_json::Value;
use starfish_tests::{Node, Swarm, wait_for, wait_until};

/// The jobs of a name that have ended, as a node knows them: what each said, by its id.
fn said(node: &Node, name: &str) -> BTreeMap<String, String> {
    let jobs = node.json(["jobs"]);
    let jobs = jobs.as_array().into_iter().flatten().filter(|job| job["name"] == name);
    let ids =
        jobs.filter(|job| job["phase"] == "done").filter_map(|job| Some(job["id"].as_str()?.to_owned()));
    ids.map(|id| (id.clone(), node.run(["logs", &id]).text().to_owned())).collect()
}

/// The ticks that have been fired, each as it stands in what its job said; fails if one was fired as two jobs, or said
/// something twice.
#[track_caller]
fn ticks(node: &Node, name: &str) -> Vec<String> {
    let mut ticks: Vec<_> = said(node, name).into_values().collect();
    ticks.sort_unstable();
    for tick in &ticks {
        assert_eq!(tick.matches("STARFISH_TICK=").count(), 1, "{tick}");
    }
    for pair in ticks.windows(2) {
        assert_ne!(pair[0], pair[1], "a tick was fired twice");
    }
    ticks
}

/// What `starfish cron` says of a line.
fn line(node: &Node, name: &str) -> Option<Value> {
    node.json(["cron"]).as_array()?.iter().find(|line| line["name"] == name).cloned()
}

#[test]
fn each_tick_fires_once_in_the_swarm_and_goes_on_when_a_node_dies() {
    let swarm = Swarm::start(3);
    let [a, b, c] = [0, 1, 2].map(|index| swarm.node(index));
    a.ok(["deploy", "environ", &swarm.scratch().guest("environ")]);
    let added = a.ok(["cron", "add", "beat", "* * * * * *", "environ"]);
    assert!(added.starts_with("beat fires next 20"), "{added}");
    wait_until("all three have fired", || {
        let firings: Vec<_> = [a, b, c].iter().filter_map(|node| line(node, "beat")).collect();
        firings.len() == 3 && ticks(b, "beat").len() >= 4
    });
    let before = ticks(b, "beat").len();
    a.kill9();
    wait_until("the others go on", || ticks(b, "beat").len() >= before + 5);
    wait_until("the last one went well", || {
        line(c, "beat").is_some_and(|line| line["last"]["phase"] == "done")
    });
    let shown = c.ok(["cron"]);
    assert!(shown.contains("* * * * * *") && shown.contains("environ"), "{shown}");

    c.ok(["cron", "rm", "beat"]);
    wait_until("both know", || line(b, "beat").is_none());
    b.ok(["cron", "add", "other", "* * * * * *", "environ"]);
    wait_until("another line fires", || !ticks(b, "other").is_empty());
    assert!(ticks(b, "beat").last() < ticks(b, "other").first(), "what is removed fires no more");
}

#[test]
fn both_halves_of_a_cut_swarm_fire_a_tick_as_the_same_job() {
    let swarm = Swarm::start(2);
    let (here, there) = (swarm.node(0), swarm.node(1));
    here.ok(["mkdir", "/data"]);
    here.ok(["deploy", "--dir", "/data:ro", "environ", &swarm.scratch().guest("environ")]);
    here.ok(["cron", "add", "beat", "*/2 * * * * *", "environ"]);
    wait_until("there it is known", || !ticks(there, "beat").is_empty());
    swarm.partition(&[0], &[1]);
    // From here on a tick is not the same call on both sides: its folder holds something else.
    for (node, side) in [(here, "here"), (there, "there")] {
        node.feed(["put", "-", &format!("/data/{side}")], side).ok();
    }
    let known = [here, there].map(|node| ticks(node, "beat").len());
    wait_until("both go on", || {
        ticks(here, "beat").len() > known[0] + 3 && ticks(there, "beat").len() > known[1] + 3
    });
    here.ok(["cron", "rm", "beat"]);
    there.ok(["cron", "rm", "beat"]);
    swarm.heal();
    swarm.wait_connected();
    swarm.wait_same_memory();
    wait_until("they agree", || ticks(here, "beat") == ticks(there, "beat"));
    there.kill9();
    there.restart();
    wait_until("what was done is read from what is kept", || {
        let ticks = [here, there].map(|node| ticks(node, "beat"));
        ticks[0] == ticks[1] && !ticks[0].is_empty()
    });
}

#[test]
fn what_cannot_be_called_by_the_clock_is_said() {
    let swarm = Swarm::start(1);
    let node = swarm.node(0);
    node.ok(["deploy", "exit", &swarm.scratch().guest("exit")]);
    let senseless = node.run(["cron", "add", "x", "61 * * * *", "exit"]);
    assert!(senseless.code == 1 && senseless.stderr.contains("is no schedule"), "{senseless:?}");
    assert_eq!(node.run(["cron", "add", "x", "* * * * *", "nobody"]).code, 4);
    assert_eq!(node.run(["cron", "rm", "x"]).code, 4);
    assert_ne!(node.run(["cron", "add", "../x", "* * * * *", "exit"]).code, 0);
    assert_eq!(node.json(["cron"]), serde_json::json!([]));

    node.ok(["cron", "add", "x", "* * * * * *", "exit", "one", "-two"]);
    let outcome = || line(node, "x").map(|line| line["last"]["outcome"].clone());
    wait_until("it has failed", || outcome() == Some(serde_json::json!({"exited": 2})));
    assert!(node.ok(["cron"]).contains("exited with code 2"));
    node.ok(["undeploy", "exit"]);
    let why = wait_for("it says why", || outcome()?["failed"]["reason"].as_str().map(str::to_owned));
    assert_eq!(why, "no function exit");
    assert_eq!(node.request("GET", "/api/v1/mem/schedule").send().status, 403, "it belongs to the system");
}

/// Waits until a node knows a trigger, and knows for long enough what was there before.
#[track_caller]
fn wait_trigger(node: &Node, name: &str) {
    wait_until("the trigger is known", || {
        node.json(["on"]).as_array().is_some_and(|all| all.iter().any(|trigger| trigger["name"] == name))
    });
}

/// What the calls of a trigger said, sorted, once there are so many.
#[track_caller]
fn calls(node: &Node, name: &str, many: usize) -> Vec<String> {
    let mut all: Vec<_> = wait_for(&format!("{name} was called {many} times"), || {
        let said = said(node, name);
        (said.len() >= many).then(|| said.into_values().collect())
    });
    all.sort_unstable();
    all
}

#[test]
fn each_file_that_comes_or_changes_is_seen_to_once_also_when_a_node_dies() {
    let swarm = Swarm::start(3);
    let [a, b, c] = [0, 1, 2].map(|index| swarm.node(index));
    a.ok(["deploy", "cat", &swarm.scratch().guest("cat")]);
    a.ok(["mkdir", "-p", "/inbox/before", "/inbox/one", "/inbox/two[2]", "/inbox/last", "/outside"]);
    a.feed(["put", "-", "/inbox/before/in.txt"], "not this one\n").ok();
    a.ok(["on", "add", "mail", "--file", "/inbox/**/*.txt", "cat"]);
    wait_trigger(c, "mail");
    c.feed(["put", "-", "/inbox/one/in.txt"], "first\n").ok();
    c.feed(["put", "-", "/inbox/two[2]/in.txt"], "second\n").ok();
    c.feed(["put", "-", "/inbox/three.csv"], "not this one\n").ok();
    assert_eq!(calls(b, "mail", 2), ["first\n", "second\n"]);

    b.feed(["put", "-", "/inbox/one/in.txt"], "changed\n").ok();
    assert_eq!(calls(c, "mail", 3), ["changed\n", "first\n", "second\n"]);
    c.feed(["put", "-", "/outside/in.txt"], "moved in\n").ok();
    c.ok(["mv", "/outside", "/inbox/outside"]);
    assert_eq!(calls(c, "mail", 4)[2], "moved in\n");

    // Who wrote it dies before it could do much.
    c.feed(["put", "--wait", "local", "-", "/inbox/last/in.txt"], "last\n").ok();
    wait_until("another one knows of it", || b.run(["cat", "/inbox/last/in.txt"]).text() == "last\n");
    c.kill9();
    assert_eq!(calls(b, "mail", 5), ["changed\n", "first\n", "last\n", "moved in\n", "second\n"]);
    let about = || a.json(["on"])[0]["last"]["about"].clone();
    wait_until("the last one is named", || about() == "/inbox/last/in.txt");
    a.ok(["on", "rm", "mail"]);
    a.feed(["put", "-", "/inbox/one/in.txt"], "ignored\n").ok();
    a.ok(["mkdir", "/other"]);
    a.ok(["on", "add", "--file", "/other/in.txt", "other", "cat"]);
    a.feed(["put", "-", "/other/in.txt"], "new\n").ok();
    assert_eq!(calls(a, "other", 1), ["new\n"]);
    assert_eq!(calls(a, "mail", 5).len(), 5, "what is removed listens no more, and nothing was called twice");
}

#[test]
fn keys_call_with_their_value_and_of_a_burst_the_last_counts() {
    let swarm = Swarm::start(2);
    let (here, there) = (swarm.node(0), swarm.node(1));
    for name in ["upper", "echo", "environ"] {
        here.ok(["deploy", name, &swarm.scratch().guest(name)]);
    }
    here.ok(["mem", "set", "sensors/old", "9"]);
    here.ok(["on", "add", "--key", "sensors/*", "shout", "upper"]);
    here.ok(["on", "add", "--key", "sensors/b", "name", "echo", "x"]);
    here.ok(["on", "add", "--key", "sensors/a", "why", "environ"]);
    wait_trigger(there, "why");
    for value in 0..20 {
        there.ok(["mem", "set", "sensors/a", &format!("warm {value}")]);
    }
    there.ok(["mem", "set", "sensors/b", "cold"]);
    wait_until("the last value was seen to", || {
        said(there, "shout").values().any(|said| said == "WARM 19")
            && said(there, "shout").values().any(|said| said == "COLD")
    });
    let n_calls = said(there, "shout").len();
    assert!(n_calls < 10, "twenty values in a moment were {n_calls} calls");
    assert_eq!(calls(here, "name", 1), ["sensors/b\n"]);
    let why = calls(here, "why", 1);
    assert!(why.iter().all(|why| why.starts_with("STARFISH_CHANGE=written\nSTARFISH_VERSION=")), "{why:?}");
    here.ok(["mem", "del", "sensors/a"]);
    wait_until("a deletion is a change", || {
        said(there, "why").values().any(|said| said.contains("STARFISH_CHANGE=deleted"))
    });
}

#[test]
fn a_function_that_could_call_itself_for_ever_is_not_called() {
    let swarm = Swarm::start(1);
    let node = swarm.node(0);
    node.ok(["mkdir", "-p", "/in/deep", "/out"]);
    let [write, cat] = ["write", "cat"].map(|name| swarm.scratch().guest(name));
    node.ok(["deploy", "--dir", "/in/deep", "write", &write]);
    let refused = node.run(["on", "add", "--file", "/in/**", "x", "write"]);
    assert!(refused.code == 1 && refused.stderr.contains("would call itself"), "{refused:?}");
    assert_eq!(node.run(["on", "add", "--file", "/in/**", "x", "nobody"]).code, 4);
    assert_eq!(node.run(["on", "rm", "x"]).code, 4);
    assert_ne!(node.run(["on", "add", "x", "write"]).code, 0, "it must listen to something");
    assert_ne!(node.run(["on", "add", "--key", "a*b", "x", "write"]).code, 0);
    assert_ne!(node.run(["on", "add", "--key", "a", "--space", "jobs", "x", "write"]).code, 0);
    assert_ne!(node.run(["on", "add", "--file", "/.jobs/**", "x", "write"]).code, 0);
    node.ok(["on", "add", "--file", "/out/**", "x", "write"]);

    // A version that may comes later: then it is not called either.
    node.ok(["deploy", "f", &cat]);
    node.ok(["on", "add", "--file", "/in/*.txt", "y", "f"]);
    node.ok(["deploy", "--dir", "/in", "f", &cat]);
    node.feed(["put", "-", "/in/a.txt"], "a\n").ok();
    let why = wait_for("it says why", || {
        let all = node.json(["on"]);
        let y = all.as_array()?.iter().find(|trigger| trigger["name"] == "y")?.clone();
        y["last"]["outcome"]["failed"]["reason"].as_str().map(str::to_owned)
    });
    assert!(why.contains("would call itself"), "{why}");
}

#[test]
fn what_a_trigger_did_stays_done_when_its_function_goes_and_its_node_restarts() {
    let swarm = Swarm::start(1);
    let node = swarm.node(0);
    let [upper, echo] = ["upper", "echo"].map(|name| swarm.scratch().guest(name));
    node.ok(["deploy", "upper", &upper]);
    node.ok(["deploy", "echo", &echo]);
    node.ok(["on", "add", "--key", "in/*", "first", "upper"]);
    node.ok(["on", "add", "--key", "later/*", "second", "echo"]);
    let last = |name: &str| {
        let all = node.json(["on"]);
        let all = all.as_array().cloned().unwrap_or_default();
        all.into_iter().find(|trigger| trigger["name"] == name).map(|trigger| trigger["last"].clone())
    };
    node.ok(["mem", "set", "in/a", "word"]);
    wait_until("it has fired", || last("first").is_some_and(|last| last["job"].is_string()));
    let job = last("first").unwrap()["job"].clone();
    node.ok(["undeploy", "upper"]);
    node.kill9();
    node.restart();
    // Whatever the first would do again, it would have done when the second fires.
    node.ok(["mem", "set", "later/b", "word"]);
    wait_until("the other fires", || last("second").is_some_and(|last| last["job"].is_string()));
    assert_eq!(last("first").unwrap()["job"], job);
}
