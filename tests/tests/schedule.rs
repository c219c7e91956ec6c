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
    here.ok(["deploy", "environ", &swarm.scratch().guest("environ")]);
    here.ok(["cron", "add", "beat", "*/2 * * * * *", "environ"]);
    wait_until("there it is known", || !ticks(there, "beat").is_empty());
    swarm.partition(&[0], &[1]);
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
