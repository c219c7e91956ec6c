//! Who is let in, and who is not.

use std::io::{Read, Write};
use std::net::Shutdown;

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
    let index = swarm.prepare(Start::default());
    let (inside, outside) = (swarm.node(0), swarm.node(index));
    for way in [&["up"][..], &["up", "--detach"]] {
        let join = ["--port", "0", "--api-port", "0", "--join", &ticket];
        let refused = outside.run(way.iter().copied().chain(join));
        assert_eq!(refused.code, 6, "{}", refused.stderr);
        assert!(refused.stderr.contains("revoked"), "{}", refused.stderr);
        assert!(!outside.data_dir().join("swarm/membership").exists(), "it is bound to nothing");
    }
    wait_until("the log says who was refused, and why", || {
        let logs = inside.logs();
        logs.lines().any(|line| line.contains("refused") && line.contains("revoked"))
    });
    assert!(inside.json(["peers"]).as_array().unwrap().is_empty());

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
    // It is told, too.
    wait_until("it knows why", || {
        let status = swarm.node(2).json(["status"]);
        status["turned_away"].as_str().is_some_and(|why| why.contains("revoked"))
    });
    assert!(swarm.node(2).ok(["status"]).contains("lets this node in no more"));
    assert!(swarm.node(2).run(["peers"]).stderr.contains("lets this node in no more"));
    assert!(!swarm.node(0).is_connected_to(&outcast) && !swarm.node(1).is_connected_to(&outcast));
}

#[test]
fn a_ticket_that_nobody_answers_is_said_and_binds_to_nothing() {
    let (dead, alive) = (Swarm::start(1), Swarm::start(1));
    let (ticket, good) = (dead.node(0).invite(), alive.node(0).invite());
    dead.node(0).terminate();
    let mut swarm = Swarm::start(0);
    let index = swarm.prepare(Start::default());
    let node = swarm.node(index);
    let up = |join: &[&str]| {
        let words = ["up", "--detach", "--port", "0", "--api-port", "0"];
        node.run(words.iter().chain(join).copied())
    };
    for join in [&["--join", &ticket][..], &[]] {
        let alone = up(join);
        assert_eq!(alone.code, 5, "{}", alone.stderr);
        assert!(alone.stderr.contains("no member of the swarm could be reached"), "{}", alone.stderr);
        assert!(node.ok(["status"]).contains("never reached a member"));
        assert!(node.run(["peers"]).stderr.contains("never reached a member"));
        node.ok(["down"]);
    }
    assert_eq!(up(&["--join", ""]).code, 2);

    let joined = up(&["--join", &good]);
    assert_eq!(joined.code, 0, "{}", joined.stderr);
    let pid = node.json(["status"])["pid"].to_string();
    let command_line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(!command_line.contains(&good), "a ticket is a secret");
    assert_eq!(node.json(["id"])["swarm"], alive.node(0).json(["id"])["swarm"]);
    let again = node.run(["up", "--join", &good]);
    assert_eq!(again.code, 0, "{}", again.stderr);
    node.ok(["down"]);
}

#[test]
fn garbage_at_the_port_is_logged_once_in_a_while_and_answered_by_nothing() {
    let swarm = Swarm::start(1);
    let node = swarm.node(0);
    for _ in 0..20 {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", node.port())).unwrap();
        // It may be closed before all of it is taken.
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n");
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!String::from_utf8_lossy(&answer).contains("HTTP"), "{answer:?}");
    }
    wait_until("it is in the log", || node.logs().contains("an inbound connection came to nothing"));
    assert!(node.logs().matches("came to nothing").count() < 20, "who knocks all the time fills no log");
}
