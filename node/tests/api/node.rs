//! One node and two, through the client that the CLI uses.

use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use starfish_node::client::RemoteVfs;
use starfish_node::compute::task::{Outcome, OutputFrame};
use starfish_node::dht::testing::wait_until;
use starfish_node::fs::vfs::{Attributes, Vfs, VfsError};
use starfish_node::fs::{VfsPath, conformance};
use starfish_node::wire::{RevokeRequest, StdinSource, TaskRequest, WatchEvent};
use starfish_node::{Client, ClientError, DataDir, LockError, NodeLock, RuntimeInfo, StartError};

use crate::common::{TestNode, start};

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_holds_one_node_at_a_time_and_remembers_it() {
    let first = TestNode::start().await;
    let (peer, client) = (first.node.peer(), first.client());
    let id = client.id().await.unwrap();
    assert_eq!(id.peer, peer);
    let runtime = RuntimeInfo::read(client.data_dir()).unwrap();
    assert_eq!((runtime.pid, runtime.api), (std::process::id(), first.node.api_address()));

    let second = start(&first.folder, None).await;
    assert!(
        matches!(second, Err(StartError::Lock(LockError::Held { pid: Some(pid), .. })) if pid == runtime.pid)
    );
    assert_eq!(client.id().await.unwrap(), id, "the second attempt changes nothing");

    let folder = first.stop().await;
    assert!(!NodeLock::is_held(client.data_dir()));
    assert!(RuntimeInfo::read(client.data_dir()).is_none());
    assert!(matches!(client.id().await, Err(ClientError::NotRunning { .. })));

    // As after a `kill -9`: the socket is there and nobody listens.
    drop(std::os::unix::net::UnixListener::bind(folder.path().join(DataDir::SOCKET)).unwrap());
    assert!(matches!(client.id().await, Err(ClientError::NotRunning { .. })));
    let again = TestNode::start_in(folder, None).await;
    assert_eq!(client.id().await.unwrap(), id);
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_over_the_api_are_files() {
    let node = TestNode::start().await;
    conformance::check(&node.client().files()).await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_leaves_nothing_and_says_why() {
    let node = TestNode::start().await;
    let files = node.client().files();
    let path = VfsPath::parse("/half").unwrap();
    let full = VfsError::NoSpace { what: "the other half".into() };
    let content = stream::iter([Ok(Bytes::from(vec![1; 1 << 20])), Err(full)]);
    let failed = files.write(&path, Box::pin(content), Attributes::default()).await.unwrap_err();
    assert!(matches!(failed, VfsError::NoSpace { .. }), "{failed:?}");
    assert!(matches!(files.stat(&path).await, Err(VfsError::NotFound { .. })));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_upload_is_told_the_reason_however_long_it_is() {
    let node = TestNode::start().await;
    let files = node.client().files();
    let path = VfsPath::parse("/missing/file").unwrap();
    let content = stream::iter((0..64).map(|_| Ok(Bytes::from(vec![1; 1 << 20]))));
    let refused = files.write(&path, Box::pin(content), Attributes::default()).await.unwrap_err();
    assert!(matches!(refused, VfsError::NotFound { .. }), "{refused:?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_any_bytes_and_survive_a_restart() {
    let node = TestNode::start().await;
    let space = node.client().space("test/space");
    let key = b"../a b/\xff%2f";
    assert_eq!(space.get(key).await.unwrap(), None);
    let mut watch = space.watch(b"../").await.unwrap();
    let first = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap();
    assert_eq!(first, Some(WatchEvent::Live), "nothing is there");
    space.set(key, Bytes::from_static(b"\0value"), None).await.unwrap();
    let seen = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap();
    let value = Bytes::from_static(b"\0value");
    assert_eq!(seen, Some(WatchEvent::Value { key: Bytes::from_static(key), value: value.clone() }));
    // A key like a verb of the API is a key.
    space.set(b"watch", Bytes::from_static(b"1"), None).await.unwrap();
    assert_eq!(space.incr(b"count", 5).await.unwrap(), 5);
    assert_eq!(space.incr(b"count", -7).await.unwrap(), -2);
    drop(watch);

    let node = TestNode::start_in(node.stop().await, None).await;
    assert_eq!(space.get(key).await.unwrap(), Some(value));
    let page = space.scan(b"", None, 2).await.unwrap();
    assert_eq!(page.iter().map(|entry| &entry.key[..]).collect::<Vec<_>>(), [&key[..], b"count"]);
    let rest = space.scan(b"", Some(b"count"), 2).await.unwrap();
    assert_eq!(rest.iter().map(|entry| &entry.key[..]).collect::<Vec<_>>(), [b"watch"]);
    assert!(space.delete(key).await.unwrap());
    assert!(!space.delete(key).await.unwrap());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_reads_its_input_and_says_its_output() {
    let node = TestNode::start().await;
    let client = node.client();
    let upper = wat::parse_str(include_str!("../../../compute/samples/upper.wat")).unwrap().into();
    let task = TaskRequest { stdin: StdinSource::Stream, ..TaskRequest::new("upper", None) };
    let job = client.submit(&task, Some(upper)).await.unwrap();
    let input = stream::iter([Ok(Bytes::from_static(b"star")), Ok(Bytes::from_static(b"fish"))]);
    client.feed(job, input).await.unwrap();
    assert_eq!(said(&client, &job.to_string()[..8]).await, ("STARFISH".to_owned(), Outcome::Exited(0)));
    let report = client.job(&job.to_string()).await.unwrap();
    assert_eq!(report.by, Some(node.node.peer()));
    assert!(client.jobs().await.unwrap().iter().any(|summary| summary.id == job));

    let refused =
        client.submit(&TaskRequest::new("none", None), Some(Bytes::from_static(b"no program"))).await;
    assert!(matches!(refused, Err(ClientError::Refused(problem)) if problem.body.code == "bad-task"));
    node.stop().await;
}

async fn said(client: &Client, job: &str) -> (String, Outcome) {
    let (mut output, mut text) = (client.output(job, false).await.unwrap(), Vec::new());
    loop {
        match output.next().await.unwrap() {
            OutputFrame::Stdout(bytes) | OutputFrame::Stderr(bytes) => text.extend_from_slice(&bytes),
            OutputFrame::Exit(outcome) => return (String::from_utf8(text).unwrap(), outcome),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_makes_a_member_that_needs_none_afterwards() {
    let first = TestNode::start().await;
    let second = TestNode::start_in(tempfile::tempdir().unwrap(), Some(first.ticket().await)).await;
    let (here, there) = (first.client(), second.client());
    wait_until("both see each other", PATIENCE, async || {
        let (ours, theirs) = (here.peers().await.unwrap(), there.peers().await.unwrap());
        ours.iter().any(|peer| peer.alive) && theirs.iter().any(|peer| peer.alive)
    })
    .await;
    assert_eq!(here.id().await.unwrap().swarm, there.id().await.unwrap().swarm);
    wait_until("the membership lasts", PATIENCE, async || {
        there.workers().await.unwrap().iter().all(|worker| worker.name != "enrol" || !worker.alive)
    })
    .await;

    here.space("s").set(b"k", Bytes::from_static(b"v"), None).await.unwrap();
    wait_until("the key arrives", PATIENCE, async || there.space("s").get(b"k").await.unwrap().is_some())
        .await;
    write(&here.files(), "/f", vec![7; 3 << 20]).await;
    wait_until("the name arrives", PATIENCE, async || {
        there.files().stat(&"/f".parse().unwrap()).await.is_ok()
    })
    .await;
    let content = there.files().read(&"/f".parse().unwrap(), 0..u64::MAX).await.unwrap();
    let bytes = starfish_node::fs::vfs::collect(content, 4 << 20).await.unwrap();
    assert!(bytes.len() == 3 << 20 && bytes.iter().all(|byte| *byte == 7));

    // The second may invite, and comes back without a ticket.
    second.ticket().await;
    let second = TestNode::start_in(second.stop().await, None).await;
    wait_until("it is back", PATIENCE, async || {
        second.client().peers().await.unwrap().iter().any(|peer| peer.connected)
    })
    .await;

    here.revoke(&RevokeRequest::Peer(second.node.peer())).await.unwrap();
    wait_until("the revoked one is out", PATIENCE, async || {
        here.peers().await.unwrap().iter().all(|peer| !peer.connected)
    })
    .await;
    second.stop().await;
    first.stop().await;
}

async fn write(files: &RemoteVfs, path: &str, bytes: Vec<u8>) {
    let content = starfish_node::fs::vfs::stream_of(bytes);
    files.write(&path.parse().unwrap(), content, Attributes::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_leaves_keeps_its_data_aside_and_may_go_elsewhere() {
    let node = TestNode::start().await;
    let before = node.client().id().await.unwrap();
    node.client().leave().await.unwrap();
    let folder = node.stop().await;
    let aside = format!("left-{:.8}-", before.swarm);
    let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().any(|name| name.to_string_lossy().starts_with(&aside)));

    let node = TestNode::start_in(folder, None).await;
    let after = node.client().id().await.unwrap();
    assert_eq!(after.peer, before.peer);
    assert_ne!(after.swarm, before.swarm);
    node.stop().await;
}
