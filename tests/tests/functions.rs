//! Functions over real processes: deployed on one node, called on all, by name and over HTTP.

use starfish_tests::{Node, Start, Swarm, wait_until};

/// Waits until a node knows the version of a function that `starfish deploy` printed.
#[track_caller]
fn wait_known(node: &Node, deployed: &str) {
    let words: Vec<&str> = deployed.split_whitespace().collect();
    wait_until("the version is known", || {
        let functions = node.json(["functions"]);
        let mut functions = functions.as_array().into_iter().flatten();
        functions.any(|function| {
            [&function["name"], &function["current"]].map(|it| it.as_str())
                == [Some(words[0]), Some(words[1])]
        })
    });
}

#[test]
fn a_function_is_called_on_every_node_and_outlives_the_one_that_deployed_it() {
    let swarm = Swarm::start(3);
    let [a, b, c] = [0, 1, 2].map(|index| swarm.node(index));
    let [upper, exit] = ["upper", "exit"].map(|name| swarm.scratch().guest(name));
    for (name, program) in [("shout", &upper), ("exit", &exit)] {
        let deployed = a.ok(["deploy", name, program]);
        [b, c].iter().for_each(|node| wait_known(node, &deployed));
    }
    for node in [a, b, c] {
        assert_eq!(node.feed(["call", "shout"], "crossing over\n").ok(), "CROSSING OVER\n");
    }
    assert_eq!(b.run(["call", "exit", "one", "-two", "three"]).code, 3);
    let long = "all of it, and in order; ".repeat(100_000);
    assert_eq!(c.feed(["call", "shout"], long.clone()).ok(), long.to_uppercase());
    assert_eq!(b.run(["call", "nobody"]).code, 4);

    a.kill9();
    for node in [b, c] {
        assert_eq!(node.feed(["call", "shout"], "still here\n").ok(), "STILL HERE\n");
    }
}

#[test]
fn versions_follow_each_other_and_can_be_gone_back_to() {
    let swarm = Swarm::start(2);
    let (here, there) = (swarm.node(0), swarm.node(1));
    let [upper, echo] = ["upper", "echo"].map(|name| swarm.scratch().guest(name));
    let first = here.ok(["deploy", "f", &upper]);
    wait_known(there, &first);
    assert_eq!(there.feed(["call", "f", "two"], "one").ok(), "ONE");
    let second = here.ok(["deploy", "f", &echo]);
    assert_eq!(here.feed(["call", "f", "two"], "one").ok(), "two\n", "it is used at once where it is known");
    wait_known(there, &second);
    assert_eq!(there.feed(["call", "f", "two"], "one").ok(), "two\n");

    assert_eq!(there.ok(["rollback", "f"]), first);
    assert_eq!(there.feed(["call", "f", "two"], "one").ok(), "ONE");
    wait_known(here, &first);
    assert_eq!(here.ok(["rollback", "f", "2"]), second);
    assert_eq!(here.json(["functions", "f"])[0]["versions"].as_array().map(Vec::len), Some(2));
    assert_eq!(here.run(["rollback", "f", "9"]).code, 4);

    let garbage = swarm.scratch().write("garbage.wasm", "\0asm\u{1}\0\0\0garbage");
    let refused = here.run(["deploy", "f", &garbage]);
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("does not compile"), "{}", refused.stderr);
    assert_ne!(here.run(["deploy", "../f", &echo]).code, 0, "no name");
    assert_eq!(here.feed(["call", "f", "two"], "one").ok(), "two\n", "what was refused has changed nothing");

    here.ok(["undeploy", "f"]);
    assert_eq!(here.run(["call", "f"]).code, 4);
    assert_eq!(here.run(["undeploy", "f"]).code, 4);
}

#[test]
fn a_node_without_slots_has_its_calls_run_by_others() {
    let swarm = Swarm::start_as([0, 1].map(|slots| Start::default().with_slots(slots)));
    let (here, there) = (swarm.node(0), swarm.node(1));
    let deployed = here.ok(["deploy", "shout", &swarm.scratch().guest("upper")]);
    wait_known(there, &deployed);
    wait_until("the slots are known", || here.feed(["call", "shout"], "far").code == 0);
    assert_eq!(here.feed(["call", "shout"], "far away").ok(), "FAR AWAY");
    there.kill9();
    let refused = here.feed(["call", "shout"], "nobody");
    assert_eq!(refused.code, 5, "{}", refused.stderr);
    let answer = here.request("GET", "/fn/shout").send();
    assert_eq!(answer.status, 429, "{answer:?}");
}

#[test]
fn functions_answer_http_requests_at_their_name_and_at_a_path_of_their_own() {
    let swarm = Swarm::start_as([2, 0].map(|slots| Start::default().with_slots(slots)));
    let service = swarm.scratch().guest("service");
    let [upper, exit, cat] = ["upper", "exit", "cat"].map(|name| swarm.scratch().guest(name));
    let (here, there) = (swarm.node(0), swarm.node(1));
    here.ok(["deploy", "--http", "/shop", "shop", &service]);
    here.ok(["deploy", "shout", &upper]);
    here.ok(["deploy", "well", &exit]);
    let deployed = here.ok(["deploy", "--env", "UNUSED=1", "cat", &cat]);
    wait_known(there, &deployed);
    wait_until("the slots are known", || there.request("GET", "/fn/well").send().status == 200);
    for node in [here, there] {
        let answer = node.request("PUT", "/fn/shop/deep/path?with=query").json("and a body").send();
        assert_eq!(answer.status, 201, "{answer:?}");
        // It is streamed, so it comes in chunks, of whatever length.
        assert!(answer.body.contains("/deep/path?with=query"), "{answer:?}");
        assert!(answer.body.contains("and a body"), "{answer:?}");
        let answer = node.request("GET", "/shop/cart?id=1").send();
        assert_eq!(answer.status, 201, "{answer:?}");
        assert!(answer.body.contains("/cart?id=1"), "{answer:?}");
        let answer = node.request("POST", "/fn/shout").json("loud").send();
        assert_eq!((answer.status, answer.body.as_str()), (200, "LOUD"));
    }
    assert_eq!(here.request("GET", "/shopping").send().status, 404);
    assert_eq!(here.request("GET", "/fn/nobody").send().status, 404);
    assert_eq!(here.request("GET", "/fn/shop").without("Authorization").send().status, 401);
    assert_eq!(here.request("GET", "/shop").without("Authorization").send().status, 401);
    assert_eq!(here.request("GET", "/fn/shop").with("Host", "evil.example").send().status, 403);
    let failed = here.request("GET", "/fn/cat").send();
    assert_eq!(failed.status, 500, "it exits with 1, as it was granted nothing: {failed:?}");
    assert!(failed.body.contains("exited with code 1"), "{failed:?}");
    let command = here.run(["call", "shop"]);
    assert!(command.stderr.contains("it answers HTTP requests"), "{}", command.stderr);
    assert_ne!(here.run(["deploy", "--http", "/api/mine", "x", &upper]).code, 0);
    assert_ne!(here.run(["deploy", "--http", "/shop", "x", &upper]).code, 0);
    let space = here.request("GET", "/api/v1/mem/functions").send();
    assert_eq!(space.status, 403, "the records belong to the system");
}
