//! The HTTP API on loopback, which any page in a browser can reach as well.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use starfish_tests::Swarm;

#[test]
fn only_who_has_the_token_and_comes_from_here_is_answered() {
    let swarm = Swarm::start(1);
    let node = swarm.node(0);
    let status = || node.request("GET", "/api/v1/status");
    let answer = status().send();
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains(&node.id()));

    let port = node.api_address().port();
    let refused = [
        (status().without("Authorization"), 401),
        (status().with("Authorization", "Bearer "), 401),
        (status().with("Authorization", "Bearer wrong"), 401),
        (status().with("Host", "starfish.example"), 403),
        (status().with("Host", &format!("starfish.example:{port}")), 403),
        (status().with("Host", "127.0.0.1:1"), 403),
        (status().without("Host"), 403),
        (status().with("Origin", "http://starfish.example"), 403),
        (status().with("Origin", "null"), 403),
        (node.request("GET", "/metrics").without("Authorization"), 401),
        (node.request("GET", "/openapi.json").without("Authorization"), 401),
        (node.request("POST", "/api/v1/stop").without("Authorization"), 401),
        (node.request("GET", "/no/such/path").without("Authorization"), 401),
    ];
    for (request, code) in refused {
        let answer = request.send();
        assert_eq!(answer.status, code, "{request:?}: {}", answer.body);
        assert!(!answer.body.contains(&node.id()), "{request:?} learned something: {}", answer.body);
    }
    assert_eq!(status().with("Origin", &format!("http://localhost:{port}")).send().status, 200);
    assert_eq!(node.request("GET", "/healthz").without("Authorization").send().status, 200);
    assert_eq!(node.request("GET", "/no/such/path").send().status, 404);
}

#[test]
fn bodies_are_what_they_should_be_or_refused() {
    let swarm = Swarm::start(1);
    let node = swarm.node(0);
    let invite = || node.request("POST", "/api/v1/invite");
    let answer = invite().json("{}").send();
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert_eq!(invite().json("{").send().status, 400);
    assert_eq!(invite().json("{}").with("Content-Type", "text/plain").send().status, 415);
    let endless = [b"{\"role\":\"".as_slice(), &vec![b'x'; 8 << 20], b"\"}"].concat();
    assert_eq!(invite().json(endless).send().status, 413);
    node.ok(["status"]);
}

#[test]
fn a_parameter_that_nobody_knows_is_refused() {
    let swarm = Swarm::start(1);
    let node = swarm.node(0);
    node.ok(["mem", "set", "key", "value"]);
    for (method, path) in [
        ("PUT", "/api/v1/mem/default/key?if_absent=true"),
        ("GET", "/api/v1/mem/default?perfix=k"),
        ("GET", "/api/v1/watch/default?prefxi=k"),
        ("GET", "/api/v1/status?verbose"),
        ("GET", "/api/v1/mem/default?limit=1&limit=2"),
    ] {
        let answer = node.request(method, path).send();
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
    }
    assert_eq!(node.ok(["mem", "get", "key"]), "value\n");
    assert_eq!(node.request("GET", "/api/v1/mem/default?prefix=k&limit=1").send().status, 200);
}

#[test]
fn metrics_are_there_for_prometheus() {
    let swarm = Swarm::start(2);
    let metrics = swarm.node(0).request("GET", "/metrics").send();
    assert_eq!(metrics.status, 200);
    let says = |line: &str| metrics.body.lines().any(|other| other == line);
    assert!(says("starfish_dht_peers_connected 1"), "{}", metrics.body);
    assert!(says("# EOF"), "{}", metrics.body);
}

#[test]
fn other_users_of_the_machine_read_nothing() {
    let swarm = Swarm::start(1);
    let folder = swarm.node(0).data_dir();
    let mode = |name: &str| fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(""), 0o700);
    for secret in ["api.sock", "api.token", "identity.key", "swarm/membership"] {
        assert_eq!(mode(secret), 0o600, "{secret}");
    }
}
