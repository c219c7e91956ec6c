//! What programs reach beside their folders: buckets of memory, hosts and functions, each only if it was granted.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

mod nodes;

use std::io::{Read, Write};
use std::net::TcpListener;

use nodes::{Nodes, call, called, ended, heard, spec};
use starfish_compute::function::{FunctionSpec, Said};
use starfish_compute::{Outcome, RequestHead};
use starfish_dht::testing::{PATIENCE, wait_until};

/// A function that may reach this.
fn reaching(name: &str, program: &str, reach: &[&str]) -> FunctionSpec {
    FunctionSpec { reach: reach.iter().map(|what| what.parse().unwrap()).collect(), ..spec(name, program) }
}

/// A host that answers each request with its first line and its body, and its port. It takes one request by connection, and
/// says so: else the next one might be sent down a connection that is just being closed.
fn host() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"0\r\n\r\n") {
                let mut part = [0; 1024];
                let length = stream.read(&mut part).unwrap();
                assert!(length > 0, "the request breaks off");
                asked.extend_from_slice(&part[..length]);
            }
            let asked = String::from_utf8(asked).unwrap();
            let body = if asked.contains("ping") { "pong" } else { "what?" };
            let answer = format!("{} {body}", asked.lines().next().unwrap());
            let length = answer.len();
            let head =
                format!("HTTP/1.1 203 Fine\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{answer}");
            stream.write_all(head.as_bytes()).unwrap();
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_granted_bucket_is_a_space_of_the_swarms_memory() {
    let nodes = Nodes::start(&[1, 1]).await;
    nodes.deploy_as(reaching("count", "count", &["mem:counts"])).await;
    for sum in ["1", "2"] {
        assert_eq!(called(&nodes.computes[0], call("count", &[]), &[]).await, (sum.to_owned(), ended(0)));
    }
    let counts = nodes.memories[1].0.space("counts").unwrap();
    wait_until("the count is known", PATIENCE, || async {
        counts.get(b"n").await.unwrap().is_some_and(|value| &value[..] == b"2")
    })
    .await;
    assert_eq!(called(&nodes.computes[1], call("count", &[]), &[]).await.0, "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_was_not_granted_is_denied_by_its_name_or_for_writing() {
    let nodes = Nodes::start(&[1]).await;
    nodes.deploy_as(reaching("other", "count", &["mem:others", "mem:more"])).await;
    nodes.deploy_as(reaching("read", "count", &["mem:counts:ro"])).await;
    let node = &nodes.computes[0];
    const ACCESS_DENIED: &str = "1";
    assert_eq!(called(node, call("other", &[]), &[]).await, (format!("open {ACCESS_DENIED}"), ended(1)));
    assert_eq!(called(node, call("read", &[]), &[]).await, (format!("write{ACCESS_DENIED}"), ended(1)));
    let why = node.deploy(reaching("none", "count", &["fn:other"])).await.unwrap_err().to_string();
    assert!(why.contains("wasi:keyvalue/") && why.contains("mem:SPACE"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_to_granted_hosts_and_nowhere_else() {
    let nodes = Nodes::start(&[1]).await;
    let (port, other) = (host(), host());
    nodes.deploy_as(reaching("fetch", "fetch", &[&format!("http:127.0.0.1:{port}")])).await;
    let node = &nodes.computes[0];
    for _ in 0..3 {
        let said = called(node, call("fetch", &[&format!("127.0.0.1:{port}")]), &[]).await;
        assert_eq!(said, ("POST /there HTTP/1.1 pong".to_owned(), ended(1)));
    }
    for elsewhere in
        [format!("127.0.0.1:{other}"), "localhost".to_owned(), "fetch.starfish.internal".to_owned()]
    {
        let said = called(node, call("fetch", &[&elsewhere]), &[]).await.1;
        assert!(matches!(said, Said::Ended(Outcome::Trapped { .. })), "{elsewhere}: {said:?}");
    }
    let why = node.deploy(reaching("none", "fetch", &["mem:counts"])).await.unwrap_err().to_string();
    assert!(why.contains("wasi:http/outgoing-handler@0.2.0"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_call_functions_that_they_were_granted() {
    let nodes = Nodes::start(&[2, 1]).await;
    nodes.deploy("shout", "upper").await;
    nodes.deploy_as(reaching("echo", "service", &[])).await;
    nodes.deploy_as(reaching("ask", "fetch", &["fn:shout", "fn:echo"])).await;
    let node = &nodes.computes[0];
    let said = called(node, call("ask", &["shout.starfish.internal"]), &[]).await;
    assert_eq!(said, ("PING".to_owned(), ended(0)), "a command answers with what it prints");
    let said = called(node, call("ask", &["echo.starfish.internal"]), &[]).await;
    assert_eq!(said, ("/there\nping".to_owned(), ended(1)), "a component answers for itself");
    let said = called(node, call("ask", &["ask.starfish.internal"]), &[]).await;
    assert!(matches!(said.1, Said::Ended(Outcome::Trapped { .. })), "it was not granted itself: {said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_program_reads_late_does_not_hold_up_what_it_asks_for() {
    let nodes = Nodes::start(&[1]).await;
    nodes.deploy_as(reaching("count", "count", &["mem:counts"])).await;
    // Far more than fits into any pipe on the way, and the program reads none of it.
    let request = RequestHead { method: "POST".to_owned(), uri: "/".to_owned(), headers: Vec::new() };
    let spec = starfish_compute::function::CallSpec { request: Some(request), ..call("count", &[]) };
    let running = nodes.computes[0].call(spec).await.unwrap();
    let stdin = running.stdin.clone();
    let feeding = tokio::spawn(async move { while stdin.send(vec![b'x'; 64 << 10].into()).await.is_ok() {} });
    assert_eq!(heard(running).await, ("1".to_owned(), ended(0)));
    feeding.await.unwrap();
}
