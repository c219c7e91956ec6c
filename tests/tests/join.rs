//! Members come and go, and no one of them is special.

use std::time::{Duration, Instant};

use starfish_tests::{Node, Start, Swarm, wait_until};

/// What it takes is printed, and is well under two seconds on an idle machine; the rest is for a busy one.
const AT_MOST: Duration = Duration::from_secs(10);

fn knows_as_alive(node: &Node, id: &str) -> bool {
    let peers = node.json(["peers"]);
    peers.as_array().is_some_and(|peers| peers.iter().any(|peer| peer["id"] == id && peer["alive"] == true))
}

#[test]
fn a_ticket_makes_a_member_in_under_two_seconds() {
    let mut swarm = Swarm::start(1);
    swarm.node(0).ok(["mem", "set", "from", "the founder"]);
    let ticket = swarm.node(0).invite();
    let begun = Instant::now();
    let index = swarm.add_as(Start::default().with_ticket(ticket));
    let newcomer = swarm.node(index);
    let founder = swarm.node(0).id();
    wait_until("the newcomer is a member", || newcomer.is_connected_to(&founder));
    let took = begun.elapsed();
    println!("a member {took:?} after it was started");
    assert!(took < AT_MOST, "a member after {took:?}");

    wait_until("it knows what the swarm knows", || {
        newcomer.run(["mem", "get", "from"]).stdout == b"the founder\n"
    });
    assert_eq!(newcomer.json(["id"])["swarm"], swarm.node(0).json(["id"])["swarm"]);
    wait_until("the founder knows it", || knows_as_alive(swarm.node(0), &newcomer.id()));
    let peers = newcomer.json(["peers"]);
    assert!(!peers[0]["addrs"].as_array().unwrap().is_empty(), "{peers}");
}

#[test]
fn a_swarm_forms_again_without_a_ticket_in_either_order() {
    let swarm = Swarm::start(2);
    for order in [[0, 1], [1, 0]] {
        for index in order {
            swarm.node(index).terminate();
        }
        for index in order {
            swarm.node(index).restart();
        }
        swarm.wait_connected();
    }
    swarm.node(0).kill9();
    swarm.node(1).kill9();
    swarm.node(1).restart();
    swarm.node(0).restart();
    swarm.wait_connected();
}

#[test]
fn a_node_that_is_killed_and_started_again_at_once_is_heard_by_the_others() {
    let swarm = Swarm::start_as([1, 0].map(|slots| Start::default().with_slots(slots)));
    let (there, here) = (swarm.node(0), swarm.node(1));
    let hello = swarm.scratch().guest("hello");
    for _ in 0..2 {
        here.kill9();
        here.restart();
        // What is announced by gossip has to reach the only node that can run it.
        assert_eq!(here.ok(["run", &hello]), "hello, swarm\n");
        here.ok(["mem", "set", "back", "again"]);
        wait_until("the key is known there", || there.run(["mem", "get", "back"]).stdout == b"again\n");
        here.ok(["mem", "del", "back"]);
    }
}

#[test]
fn the_founder_may_be_gone_for_good() {
    let mut swarm = Swarm::start(3);
    swarm.node(0).ok(["mem", "set", "legacy", "kept"]);
    swarm.wait_same_memory();
    let gone = swarm.node(0).id();
    swarm.node(0).kill9();

    let index = swarm.add();
    swarm.wait_connected();
    let newcomer = swarm.node(index);
    wait_until("it knows what the founder said", || {
        newcomer.run(["mem", "get", "legacy"]).stdout == b"kept\n"
    });
    newcomer.ok(["mem", "set", "news", "from the fourth"]);
    for other in [1, 2] {
        wait_until("the others hear of it", || {
            swarm.node(other).run(["mem", "get", "news"]).stdout == b"from the fourth\n"
        });
    }
    wait_until("the others see that the founder is gone", || {
        [1, 2].iter().all(|other| !swarm.node(*other).is_connected_to(&gone))
    });
}

#[test]
fn who_leaves_is_gone_and_starts_anew() {
    let swarm = Swarm::start(2);
    let (stays, leaves) = (swarm.node(0), swarm.node(1));
    let before = leaves.json(["id"]);
    leaves.ok(["leave"]);
    assert_eq!(leaves.ended(), 0);
    let left = leaves.id();
    wait_until("the others see that it is gone", || !knows_as_alive(stays, &left));

    leaves.restart();
    let after = leaves.json(["id"]);
    assert_eq!(after["peer"], before["peer"]);
    assert_ne!(after["swarm"], before["swarm"], "it founded a swarm of its own");
    assert!(leaves.json(["peers"]).as_array().unwrap().is_empty());
}

#[test]
fn the_last_member_does_not_leave_by_mistake_and_can_come_back() {
    let swarm = Swarm::start(1);
    let node = swarm.node(0);
    let before = node.json(["id"]);
    node.ok(["mem", "set", "only", "here"]);
    let refused = node.run(["leave"]);
    assert_eq!(refused.code, 5, "{}", refused.stderr);
    assert!(refused.stderr.contains("--force"), "{}", refused.stderr);
    assert_eq!(node.ok(["mem", "get", "only"]), "here\n");

    let left = node.run(["leave", "--force"]);
    assert_eq!((left.code, node.ended()), (0, 0), "{}", left.stderr);
    let folders = std::fs::read_dir(node.data_dir()).unwrap().map(|entry| entry.unwrap().path());
    let aside: Vec<_> = folders.filter(|path| path.to_string_lossy().contains("left-")).collect();
    assert_eq!(aside.len(), 1);
    assert!(left.stderr.contains(&*aside[0].to_string_lossy()), "{}", left.stderr);
    std::fs::rename(&aside[0], node.data_dir().join("swarm")).unwrap();
    node.restart();
    assert_eq!(node.json(["id"]), before);
    assert_eq!(node.ok(["mem", "get", "only"]), "here\n");
}
