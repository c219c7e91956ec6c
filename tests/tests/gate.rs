//! Who is let in, and who is not.

use starfish_tests::{Start, Swarm, wait_until};

#[test]
fn what_is_no_ticket_is_refused_before_anything_is_made_of_it() {
    let mut swarm = Swarm::start(1);
    let index = swarm.prepare(Start::default());
    let stranger = swarm.node(index);
    let ticket = swarm.node(0).invite();
    // The last character is another.
    let (most, last) = ticket.split_at(ticket.len() - 1);
    let changed = format!("{most}{}", if last == "a" { "b" } else { "a" });
    for (text, why) in [("garbage", "ticket"), (&ticket[..40], "ticket"), (&changed, "ticket")] {
        let refused = stranger.run(["up", "--port", "0", "--api-port", "0", "--join", text]);
        assert_eq!(refused.code, 1, "{}", refused.stderr);
        assert!(refused.stderr.contains(why), "{}", refused.stderr);
        assert!(!stranger.data_dir().join("swarm/membership").exists());
    }
}

#[test]
fn a_member_of_one_swarm_does_not_stray_into_another() {
    let (ours, theirs) = (Swarm::start(1), Swarm::start(1));
    let node = theirs.node(0);
    let before = node.json(["id"]);
    let ticket = ours.node(0).invite();
    let while_up = node.run(["up", "--join", &ticket]);
    assert_ne!(while_up.code, 0, "{}", while_up.stderr);
    node.terminate();
    let refused = node.run(["up", "--port", "0", "--api-port", "0", "--join", &ticket]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("member of swarm"), "{}", refused.stderr);
    node.restart();
    assert_eq!(node.json(["id"]), before);
    assert!(ours.node(0).json(["peers"]).as_array().unwrap().is_empty());
}

#[test]
fn an_expired_ticket_is_refused() {
    let mut swarm = Swarm::start(1);
    let ticket = swarm.node(0).ok(["invite", "--quiet", "--expires", "0s"]);
    let index = swarm.prepare(Start::default());
    let refused = swarm.node(index).run(["up", "--port", "0", "--api-port", "0", "--join", ticket.trim()]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("expired"), "{}", refused.stderr);
}

#[test]
fn a_revoked_ticket_lets_nobody_in_and_nothing_out() {
    let mut swarm = Swarm::start(1);
    swarm.node(0).ok(["mem", "set", "secret", "of the swarm"]);
    let ticket = swarm.node(0).invite();
    swarm.node(0).ok(["revoke", &ticket]);
    let index = swarm.add_as(Start::default().with_ticket(ticket));
    let (inside, outside) = (swarm.node(0), swarm.node(index));
    wait_until("the log says who was refused, and why", || {
        let logs = inside.logs();
        logs.lines().any(|line| line.contains(&outside.id()) && line.contains("revoked"))
    });
    assert!(inside.json(["peers"]).as_array().unwrap().is_empty());
    assert!(!outside.is_connected_to(&inside.id()));
    assert_eq!(outside.run(["mem", "get", "secret"]).code, 4);

    // A new ticket is another matter.
    let welcome = swarm.add();
    swarm.node(welcome);
    let (inside, welcome) = (swarm.node(0), swarm.node(welcome));
    wait_until("it is a member", || inside.is_connected_to(&welcome.id()));
}

#[test]
fn a_revoked_member_is_put_out_by_all() {
    let swarm = Swarm::start(3);
    let outcast = swarm.node(2).id();
    swarm.node(0).ok(["revoke", &outcast]);
    for index in [0, 1] {
        wait_until("it is put out", || !swarm.node(index).is_connected_to(&outcast));
    }
    swarm.node(0).ok(["mem", "set", "secret", "without it"]);
    wait_until("the rest goes on", || swarm.node(1).run(["mem", "get", "secret"]).stdout == b"without it\n");
    // It may try again as often as it likes.
    swarm.node(2).terminate();
    swarm.node(2).restart();
    wait_until("the others refuse it", || {
        swarm.node(0).logs().lines().any(|line| line.contains(&outcast) && line.contains("revoked"))
    });
    assert_eq!(swarm.node(2).run(["mem", "get", "secret"]).code, 4);
    assert!(!swarm.node(0).is_connected_to(&outcast) && !swarm.node(1).is_connected_to(&outcast));
}
