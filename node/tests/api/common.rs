//! Real nodes in temporary folders, on loopback.

use std::path::PathBuf;

use starfish_node::dht::ticket::Ticket;
use starfish_node::wire::InviteRequest;
use starfish_node::{Client, DataDir, Layer, Node, NodeConfig, Settings, Slots, StartError};
use tempfile::TempDir;

/// A node and its folder, which outlives it.
pub(crate) struct TestNode {
    pub(crate) node: Node,
    pub(crate) folder: TempDir,
}

impl TestNode {
    pub(crate) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), None).await
    }

    pub(crate) async fn start_in(folder: TempDir, join: Option<Ticket>) -> Self {
        let node = start(&folder, join).await.unwrap();
        Self { node, folder }
    }

    /// A node with these settings besides.
    pub(crate) async fn start_with(settings: Layer) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let node = start_as(&folder, None, settings).await.unwrap();
        Self { node, folder }
    }

    pub(crate) fn client(&self) -> Client {
        self.node.client()
    }

    pub(crate) fn token(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("api.token")).unwrap().trim().to_owned()
    }

    pub(crate) async fn ticket(&self) -> Ticket {
        self.client().invite(&InviteRequest::default()).await.unwrap().ticket.parse().unwrap()
    }

    /// Stops the node and gives the folder back.
    pub(crate) async fn stop(self) -> TempDir {
        self.node.stop().await;
        self.folder
    }
}

/// A port that is free now.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

pub(crate) async fn start(folder: &TempDir, join: Option<Ticket>) -> Result<Node, StartError> {
    start_as(folder, join, Layer::default()).await
}

pub(crate) async fn start_as(
    folder: &TempDir,
    join: Option<Ticket>,
    settings: Layer,
) -> Result<Node, StartError> {
    let quiet = Layer {
        port: Some(0),
        api_port: Some(0),
        mdns: Some(false),
        upnp: Some(false),
        listen: Some(vec!["127.0.0.1".parse().unwrap()]),
        slots: Some(Slots::Exactly(1)),
        ..Layer::default()
    };
    let config = NodeConfig {
        dir: DataDir::new(folder.path()),
        settings: Settings::merge([settings, quiet]),
        join,
        worker_program: worker(),
        worker_args: vec![],
    };
    Node::start(config).await
}

/// `cargo test` builds the examples next to the tests.
fn worker() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(|deps| deps.parent()).unwrap().join("examples/worker")
}
