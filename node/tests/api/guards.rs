//! What the API refuses, asked over real sockets, in bytes that no well-behaved client would send.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::common::TestNode;

/// Status and body of the answer to `request` over TCP.
async fn ask(node: &TestNode, request: &str) -> (u16, String) {
    let stream = TcpStream::connect(node.node.api_address()).await.unwrap();
    exchange(stream, request).await
}

async fn exchange(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, request: &str) -> (u16, String) {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A server that refuses a long body may hang up while it is still coming.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or_default().parse().unwrap_or(0);
    (status, body.to_owned())
}

/// The code of a refusal, after a look at its shape.
fn code((status, body): &(u16, String)) -> (u16, String) {
    let problem: Value =
        serde_json::from_str(body).unwrap_or_else(|_| panic!("{status}: {body:?} is no problem"));
    assert!(!problem["message"].as_str().unwrap().is_empty());
    assert_eq!(problem["request_id"].as_str().unwrap().len(), 16);
    (*status, problem["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn over_tcp_only_those_with_the_token_get_in_and_only_from_here() {
    let node = TestNode::start().await;
    let (host, token) = (node.node.api_address().to_string(), node.token());
    let get = async |path: &str, host: &str, headers: &str| {
        ask(&node, &format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{headers}connection: close\r\n\r\n"))
            .await
    };
    let right = format!("authorization: Bearer {token}\r\n");
    assert_eq!(get("/api/v1/id", &host, &right).await.0, 200);
    assert_eq!(get("/metrics", &host, &right).await.0, 200);
    assert_eq!(get("/healthz", &host, "").await, (200, "ok\n".into()));

    for path in ["/api/v1/id", "/metrics", "/", "/api/v1/openapi.json", "/healthz/../api/v1/id"] {
        assert_eq!(code(&get(path, &host, "").await), (401, "no-token".into()), "{path}");
    }
    assert_eq!(code(&get("/api/v1/id", &host, "authorization: Bearer wrong\r\n").await).1, "no-token");
    assert_eq!(code(&get("/api/v1/id", "evil.example", &right).await), (403, "foreign-host".into()));
    assert_eq!(code(&get("/healthz", "evil.example", "").await), (403, "foreign-host".into()));
    let foreign = format!("{right}origin: https://evil.example\r\n");
    assert_eq!(code(&get("/api/v1/id", &host, &foreign).await), (403, "foreign-origin".into()));
    node.stop().await;
}

#[tokio::test]
async fn the_socket_needs_no_token_and_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let node = TestNode::start().await;
    let socket = node.folder.path().join("api.sock");
    for (path, mode) in [("api.sock", 0o600), ("api.token", 0o600), ("identity.key", 0o600), ("", 0o700)] {
        let found = std::fs::metadata(node.folder.path().join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{path:?}");
    }
    let ask = async |headers: &str| {
        let request = format!("GET /api/v1/id HTTP/1.1\r\n{headers}connection: close\r\n\r\n");
        exchange(UnixStream::connect(&socket).await.unwrap(), &request).await
    };
    assert_eq!(ask("host: localhost\r\n").await.0, 200);
    assert_eq!(code(&ask("host: localhost\r\norigin: http://evil.example\r\n").await).1, "foreign-origin");
    node.stop().await;
}

#[tokio::test]
async fn bodies_and_urls_that_make_no_sense_are_refused_with_a_reason() {
    let node = TestNode::start().await;
    let socket = node.folder.path().join("api.sock");
    let send = async |line: &str, kind: &str, body: &str| {
        let length = body.len();
        let request = format!(
            "{line} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
        let answer = exchange(UnixStream::connect(&socket).await.unwrap(), &request).await;
        code(&answer)
    };
    let json = "application/json";
    let refused = |status: u16, code: &str| (status, code.to_owned());
    assert_eq!(send("POST /api/v1/fs/mkdir", json, "{").await, refused(400, "bad-json"));
    assert_eq!(
        send("POST /api/v1/fs/mkdir", json, r#"{"path":"/a","nonsense":1}"#).await,
        refused(400, "bad-json")
    );
    assert_eq!(send("POST /api/v1/fs/mkdir", json, r#"{"path":"a"}"#).await, refused(400, "bad-json"));
    assert_eq!(
        send("POST /api/v1/fs/mkdir", "text/plain", r#"{"path":"/a"}"#).await,
        refused(415, "not-json")
    );
    let long = format!(r#"{{"path":"/{}"}}"#, "x".repeat(1 << 20));
    assert_eq!(send("POST /api/v1/fs/mkdir", json, &long).await, refused(413, "too-large"));
    assert_eq!(
        send("PUT /api/v1/mem/a/key", "", &"x".repeat((64 << 20) + 1)).await,
        refused(413, "too-large")
    );

    assert_eq!(
        send("GET /api/v1/fs/stat?path=/%2e%2e/%2e%2e/etc/passwd", "", "").await,
        refused(404, "not-found")
    );
    assert_eq!(send("GET /api/v1/fs/stat?path=etc", "", "").await, refused(400, "bad-path"));
    assert_eq!(send("GET /api/v1/fs/stat?path=/a%00b", "", "").await, refused(400, "bad-path"));
    assert_eq!(send("GET /api/v1/fs/stat?path=/%ff", "", "").await, refused(400, "bad-query"));
    assert_eq!(send("GET /api/v1/fs/stat", "", "").await, refused(400, "bad-query"));
    assert_eq!(send("GET /api/v1/mem/a/%zz", "", "").await, refused(400, "bad-url"));
    assert_eq!(send("GET /api/v1/mem/..%2f..%2fsys/key", "", "").await.0, 404);
    assert_eq!(send("GET /api/v1/mem/SPACE/key", "", "").await, refused(400, "bad-space"));
    assert_eq!(send("PUT /api/v1/mem/sys/key", "", "x").await, refused(403, "system-space"));
    assert_eq!(send("GET /api/v1/jobs/..%2f..", "", "").await, refused(404, "no-such-job"));
    assert_eq!(send("PUT /api/v1/blocks/nobody", "", "").await, refused(400, "bad-url"));
    assert_eq!(send("GET /api/v2/id", "", "").await, refused(404, "no-such-route"));
    assert_eq!(send("POST /api/v1/id", json, "{}").await, refused(405, "no-such-method"));
    node.stop().await;
}

#[tokio::test]
async fn every_documented_route_is_there() {
    let node = TestNode::start().await;
    let socket = node.folder.path().join("api.sock");
    let ask = async |method: &str, path: &str| {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        exchange(UnixStream::connect(&socket).await.unwrap(), &request).await
    };
    let document: Value = serde_json::from_str(&ask("GET", "/api/v1/openapi.json").await.1).unwrap();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 25, "only {} paths", paths.len());
    for (path, operations) in paths {
        let concrete = path
            .replace("{space}", "a")
            .replace("{key}", "k")
            .replace("{id}", "i")
            .replace("{peer}", "p")
            .replace("{path}", "f")
            .replace("{token}", "t")
            .replace("{collection}", "c")
            .replace("{name}", "n");
        // No route knows this method, so the answer tells whether the path is known.
        assert_eq!(ask("TRACE", &concrete).await.0, 405, "{path}");
        for method in operations.as_object().unwrap().keys() {
            // These would do what they say.
            if ["/api/v1/leave", "/api/v1/stop", "/api/v1/watch/{space}"].contains(&path.as_str()) {
                continue;
            }
            let (status, body) = ask(&method.to_uppercase(), &concrete).await;
            assert!(status != 405 && !body.contains("no-such-route"), "{method} {path}: {status} {body}");
            assert!(status < 500, "{method} {path}: {status} {body}");
        }
    }
    node.stop().await;
}
