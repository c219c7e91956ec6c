//! Documents: one that both halves of a swarm edit keeps the edits of both.

use serde_json::Value;
use starfish_tests::{Swarm, wait_until};

/// How a script is told that there is no such document.
const NO_SUCH_DOCUMENT: i32 = 4;

#[test]
fn two_halves_edit_one_document_and_both_edits_stay() {
    let swarm = Swarm::start(2);
    let (left, right) = (swarm.node(0), swarm.node(1));
    left.ok(["doc", "put", "people", "ada", r#"{"name": "Ada", "langs": ["en"], "visits": 1}"#]);
    swarm.wait_same_memory();

    swarm.partition(&[0], &[1]);
    left.ok(["doc", "edit", "people", "ada", "push", "/langs", "fr"]);
    left.ok(["doc", "edit", "people", "ada", "increment", "/visits", "10"]);
    left.ok(["doc", "edit", "people", "ada", "splice-text", "/name", "3", "--insert", " Lovelace"]);
    right.feed(["doc", "patch", "people", "ada", "-"], r#"{"born": 1815}"#).ok();
    right.ok(["doc", "edit", "people", "ada", "increment", "/visits", "100"]);
    right.ok(["doc", "edit", "people", "ada", "splice-text", "/name", "0", "--insert", "Countess "]);

    swarm.heal();
    swarm.wait_same_memory();
    for node in [left, right] {
        let ada: Value = serde_json::from_str(&node.ok(["doc", "get", "people", "ada"])).unwrap();
        assert_eq!(ada["name"], "Countess Ada Lovelace");
        assert_eq!(ada["visits"], 111);
        assert_eq!(ada["born"], 1815);
        assert_eq!(ada["langs"].as_array().map(Vec::len), Some(2));
    }
    swarm.wait_connected();
}

#[test]
fn documents_are_found_by_query_index_and_page_and_go_as_they_came() {
    let swarm = Swarm::start(1);
    let node = swarm.node(0);
    let lines: String =
        (0..20).map(|i| format!("{{\"id\":\"p{i:02}\",\"document\":{{\"age\":{i}}}}}\n")).collect();
    assert_eq!(node.feed(["doc", "import", "people"], lines.clone()).text(), "20\n");
    assert_eq!(node.ok(["doc", "export", "people"]), lines);
    assert_eq!(
        node.ok(["doc", "find", "people", r#"{"age": {"$gte": 18}}"#, "--sort", "-age"]),
        "p19\t{\"age\":19}\np18\t{\"age\":18}\n"
    );
    let page = node.json(["doc", "find", "people", "--limit", "15"]);
    let rest = node.ok(["doc", "find", "people", "--after", page["next"].as_str().unwrap()]);
    assert_eq!(rest.lines().count(), 5);

    let explain = || node.ok(["doc", "find", "people", r#"{"age": 7}"#, "--explain"]);
    assert_eq!(explain(), "scan: 20 documents looked at, 1 match\n");
    node.ok(["doc", "index", "add", "people", "by-age", "/age"]);
    wait_until("the index is used", || explain() == "index by-age: 1 documents looked at, 1 match\n");

    assert_eq!(node.ok(["doc", "put", "women", "ada", r#"{"name": "Ada", "born": 1815}"#]), "ada\n");
    let found = node.ok(["doc", "find", "women", r#"{"born": {"$lt": 1900}}"#, "--fields", "name"]);
    assert_eq!(found, "ada\t{\"name\":\"Ada\"}\n");
    assert_eq!(node.ok(["doc", "drop", "women"]), "1\n");

    let wrong = node.run(["doc", "find", "people", r#"{"age": {"$gtee": 1}}"#]);
    assert_ne!(wrong.code, 0);
    assert!(wrong.stderr.contains("/age/$gtee"), "{}", wrong.stderr);
    assert_eq!(node.ok(["doc", "rm", "people", "--where", r#"{"age": {"$lt": 10}}"#]), "10\n");
    assert_eq!(node.run(["doc", "rm", "people", "p01"]).code, NO_SUCH_DOCUMENT);
    assert_eq!(node.run(["doc", "get", "people", "p01"]).code, NO_SUCH_DOCUMENT);
    assert_eq!(node.ok(["doc", "drop", "people"]), "10\n");
    assert_eq!(node.ok(["doc", "collections"]), "");
}
