//! Durable processes over real processes: an auction whose owners die, are cut off and come back.

#![expect(clippy::print_stdout, reason = "a test says what it skipped")]

use std::collections::BTreeMap;

use starfish_tests::{Node, Swarm, built_samples, wait_for, wait_until};

/// Deploys the auction, and begins one; says so if it is not built here.
#[track_caller]
fn begin(swarm: &Swarm, name: &str) -> bool {
    let auction = built_samples(env!("CARGO_TARGET_TMPDIR")).join("auction.wasm");
    if !auction.is_file() {
        println!("skipped: the auction is not built here");
        return false;
    }
    let node = swarm.node(0);
    node.ok(["deploy", "auction", auction.to_str().unwrap_or_default()]);
    node.ok(["spawn", name, "auction"]);
    for node in swarm.nodes() {
        wait_until("all know the process", || node.run(["ps", name]).code == 0);
    }
    true
}

/// The lines of a state, and how often each is in it.
fn lines(node: &Node, name: &str) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    for line in node.run(["ps", "--state", name]).text().lines() {
        *lines.entry(line.to_owned()).or_default() += 1;
    }
    lines
}

/// Waits until so many events are in the state as all nodes of `nodes` show it, each exactly once.
#[track_caller]
fn wait_once_each(nodes: &[&Node], name: &str, expected: &[String]) {
    let expected: BTreeMap<String, usize> = expected.iter().map(|line| (line.clone(), 1)).collect();
    for node in nodes {
        let is_through = || {
            let process = node.json(["ps", name]);
            process["pending"] == 0 && process["handled"].as_u64() >= Some(expected.len() as u64)
        };
        wait_until("all events are handled", is_through);
        assert_eq!(lines(node, name), expected, "{} has each event exactly once", node.name());
    }
}

#[test]
fn every_bid_counts_once_though_the_owner_is_killed_in_the_middle_of_them() {
    const BIDS: usize = 120;
    let swarm = Swarm::start(3);
    if !begin(&swarm, "lot7") {
        return;
    }
    let owner = swarm.node(0).json(["ps", "lot7"])["owner"].as_str().map(str::to_owned);
    let (owner, others): (Vec<_>, Vec<_>) = swarm.nodes().iter().partition(|node| Some(node.id()) == owner);
    let mut bids = Vec::new();
    for bid in 0..BIDS {
        let (id, data) = (format!("{bid:032x}"), format!("b{bid} {}", bid + 1));
        let words = ["send", "--id", &id, "lot7", "bid", &data];
        bids.push(format!("bid {data}"));
        match bid % 3 {
            // The owner is asked as well. What it has acknowledged must count; what it has not is sent again.
            0 if owner[0].is_running() && owner[0].run(words).code == 0 => {}
            1 => drop(others[0].ok(words)),
            _ => {
                others[1].ok(words);
                assert_eq!(others[1].ok(words).trim(), id, "once more is the same bid");
            }
        }
        if bid == BIDS / 3 {
            wait_until("some are handled", || others[0].json(["ps", "lot7"])["handled"].as_u64() >= Some(5));
            owner[0].kill9();
        }
    }
    wait_once_each(&others, "lot7", &bids);
    let leader = others[0].ok(["send", "--wait", "lot7", "bid", "late 5"]);
    assert_eq!(leader, format!("b{} leads with {BIDS}\n", BIDS - 1));
    bids.push("bid late 5".to_owned());

    // The one that died comes back with what it had, and agrees.
    owner[0].restart();
    swarm.wait_connected();
    wait_once_each(&[owner[0], others[0], others[1]], "lot7", &bids);
    assert_eq!(owner[0].json(["ps", "lot7"])["failed"], 0);
}

#[test]
fn both_halves_of_a_cut_swarm_take_bids_and_all_of_them_count_once_when_it_heals() {
    let swarm = Swarm::start(2);
    if !begin(&swarm, "lot7") {
        return;
    }
    let (here, there) = (swarm.node(0), swarm.node(1));
    here.ok(["send", "--wait", "lot7", "bid", "first 1"]);
    swarm.partition(&[0], &[1]);
    let mut bids = vec!["bid first 1".to_owned()];
    for bid in 0..10 {
        for (node, side) in [(here, "here"), (there, "there")] {
            let data = format!("{side}{bid} {}", bid + 2);
            assert!(node.ok(["send", "--wait", "lot7", "bid", &data]).contains(" leads with "));
            bids.push(format!("bid {data}"));
        }
    }
    assert_eq!((lines(here, "lot7").len(), lines(there, "lot7").len()), (11, 11));
    swarm.heal();
    swarm.wait_connected();
    swarm.wait_same_memory();
    wait_once_each(&[here, there], "lot7", &bids);
    assert_eq!(here.ok(["ps", "--state", "lot7"]), there.ok(["ps", "--state", "lot7"]));
}

#[test]
fn a_process_outlives_a_restart_tells_others_and_fails_without_a_trace() {
    let swarm = Swarm::start(1);
    if !begin(&swarm, "lot7") {
        return;
    }
    let node = swarm.node(0);
    assert_eq!(node.run(["spawn", "lot7", "auction"]).code, 1, "the name is taken");
    assert_eq!(node.run(["spawn", "lot8", "nobody"]).code, 4);
    assert_eq!(node.run(["send", "lot8", "bid", "x 1"]).code, 4);
    let long = "x".repeat(20_000);
    assert_eq!(node.feed(["send", "lot7", "bid", "-"], long).code, 1);
    assert_eq!(node.feed(["send", "--wait", "lot7", "bid", "-"], "ada 10").ok(), "ada leads with 10\n");
    let refused = node.run(["send", "--wait", "lot7", "bid", "nonsense"]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("a bid is a name and an amount"), "{refused:?}");
    let unknown = node.run(["send", "--wait", "lot7", "steal", "all"]);
    assert!(unknown.stderr.contains("no handler steal: its handlers are bid, close, sold"), "{unknown:?}");
    let state = node.ok(["ps", "--state", "lot7"]);
    assert_eq!(state, "bid ada 10\n");
    let process = node.json(["ps", "lot7"]);
    assert_eq!((&process["handled"], &process["failed"]), (&3.into(), &2.into()), "{process}");

    node.kill9();
    node.restart();
    assert_eq!(node.ok(["ps", "--state", "lot7"]), state);
    let lost = node.run(["send", "--wait", "lot7", "close", "ledger"]);
    assert!(lost.stderr.contains("no process ledger"), "{lost:?}");
    node.ok(["spawn", "ledger", "auction"]);
    node.ok(["send", "--wait", "lot7", "close", "ledger"]);
    let sold = || node.ok(["ps", "--state", "ledger"]);
    wait_until("the ledger knows", || sold() == "sold lot7 to ada for 10\n");
    let closed = node.run(["send", "--wait", "lot7", "bid", "late 99"]);
    assert!(closed.stderr.contains("the auction is closed"), "{closed:?}");
    let shown = node.ok(["ps"]);
    assert!(shown.contains("lot7") && shown.contains("ledger"), "{shown}");

    // What its function is called with can be replaced under it; without one, events wait.
    node.ok(["undeploy", "auction"]);
    node.ok(["send", "ledger", "sold", "nothing"]);
    let why = wait_for("it says why", || node.json(["ps", "ledger"])["why"].as_str().map(str::to_owned));
    assert_eq!(why, "no function auction");
    assert_eq!(node.json(["ps", "ledger"])["pending"], 1);
    let waiting = node.spawn(["send", "--wait", "ledger", "sold", "more"]);
    wait_until("who waits is told why", || waiting.stderr().contains("waiting: no function auction"));
    drop(waiting);
    node.ok(["kill", "ledger"]);
    assert_eq!(node.run(["ps", "ledger"]).code, 4);
    assert_eq!(node.run(["kill", "ledger"]).code, 4);
    assert_eq!(node.request("GET", "/api/v1/mem/processes").send().status, 403, "it belongs to the system");
}
