//! Contents that a node reads from, or writes to, a file that its client has open.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;

use serde_json::{Value, json};

use crate::browser::{Answer, Browser};
use crate::common::TestNode;

/// What a client says of a file that it has open.
fn mine(file: &impl AsFd) -> Value {
    let file = file.as_fd();
    let metadata = File::from(file.try_clone_to_owned().unwrap()).metadata().unwrap();
    json!({"descriptor": file.as_raw_fd(), "device": metadata.dev(), "inode": metadata.ino(), "name": "mine"})
}

async fn import(through: &Browser, file: &impl AsFd) -> Answer {
    let request = json!({"path": "/f", "source": mine(file), "mode": 0o640, "mtime_ms": 5});
    through.ask("POST", "/api/v1/fs/import", request.to_string()).await
}

async fn export(through: &Browser, file: &impl AsFd, from: u64) -> Answer {
    let request = json!({"path": "/f", "from": from, "to": u64::MAX, "target": mine(file)});
    through.ask("POST", "/api/v1/fs/export", request.to_string()).await
}

fn lines(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_copies_from_and_to_what_its_client_has_open() {
    let node = TestNode::start().await;
    let socket = Browser::at_socket(&node);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&vec![7; 5 << 20]).unwrap();
    let told = lines(&import(&socket, &file).await);
    let made = &told.last().unwrap()["done"];
    assert_eq!((made["size"].as_u64(), made["mode"].as_u64()), (Some(5 << 20), Some(0o640)));
    let moved: Vec<u64> = told.iter().filter_map(|line| line["moved"].as_u64()).collect();
    assert!(moved.is_sorted() && moved.iter().all(|moved| *moved <= 5 << 20), "{moved:?}");

    let back = tempfile::NamedTempFile::new().unwrap();
    let told = lines(&export(&socket, &back, 3 << 20).await);
    assert_eq!(told.last().unwrap(), &json!({"done": null}));
    let bytes = std::fs::read(back.path()).unwrap();
    assert_eq!(bytes.len(), 5 << 20);
    assert!(bytes[..3 << 20].iter().all(|byte| *byte == 0) && bytes[3 << 20..].iter().all(|byte| *byte == 7));

    // What goes wrong halfway is told in the last line.
    let request = json!({"path": "/none", "from": 0, "to": 1, "target": mine(&back)});
    let told = lines(&socket.ask("POST", "/api/v1/fs/export", request.to_string()).await);
    assert_eq!(told.last().unwrap()["failed"]["vfs"], "not-found");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_opens_nothing_but_regular_files_of_who_is_at_its_socket() {
    let node = TestNode::start().await;
    let (socket, tcp) =
        (Browser::at_socket(&node), Browser::of(&node).with("content-type", "application/json"));
    let file = tempfile::tempfile().unwrap();
    let refused = (409, "not-opened".to_owned());
    // Over TCP nobody knows whose descriptor it would be.
    assert_eq!(import(&tcp, &file).await.refusal(), refused);
    assert_eq!(export(&tcp, &file, 0).await.refusal(), refused);
    // A pipe: to open it would wait for its other end.
    let (reader, writer) = std::io::pipe().unwrap();
    assert_eq!(import(&socket, &reader).await.refusal(), refused);
    assert_eq!(export(&socket, &writer, 0).await.refusal(), refused);
    // The number of nothing, of another file, and of a directory.
    let other = tempfile::tempfile().unwrap();
    for descriptor in [1_000_000, other.as_raw_fd()] {
        let mut source = mine(&file);
        source["descriptor"] = json!(descriptor);
        let request = json!({"path": "/f", "source": source});
        let answer = socket.ask("POST", "/api/v1/fs/import", request.to_string()).await;
        assert_eq!(answer.refusal(), refused);
    }
    assert_eq!(import(&socket, &File::open("/").unwrap()).await.refusal(), refused);
    node.stop().await;
}
