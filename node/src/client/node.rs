//! The node itself, its swarm and its members.

use std::time::Duration;

use http::Method;
use serde_json::json;
use starfish_dht::PeerId;
use starfish_fs::path::VfsPath;
use starfish_fs::vfs::Entry;

use super::connection::empty;
use super::{Client, ClientError, request};
use crate::lock::NodeLock;
use crate::percent;
use crate::task::WorkerInfo;
use crate::wire::{Invitation, InviteRequest, NodeId, Peer, RestoreRequest, RevokeRequest, Status};

/// How often the lock is looked at; a stop takes some tens of milliseconds.
const DOWN_POLL: Duration = Duration::from_millis(10);

impl Client {
    /// How the node is.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/api/v1/status").await
    }

    /// Who the node is.
    pub async fn id(&self) -> Result<NodeId, ClientError> {
        self.get("/api/v1/id").await
    }

    /// The other members that the node knows.
    pub async fn peers(&self) -> Result<Vec<Peer>, ClientError> {
        self.get("/api/v1/peers").await
    }

    /// The node's long-lived tasks.
    pub async fn workers(&self) -> Result<Vec<WorkerInfo>, ClientError> {
        self.get("/api/v1/workers").await
    }

    /// What the files of the swarm and of this node amount to.
    pub async fn usage(&self) -> Result<starfish_fs::Usage, ClientError> {
        self.get("/api/v1/fs/usage").await
    }

    /// What was written through this node at or below a path and is not at full durability yet.
    pub async fn waiting(&self, path: &VfsPath) -> Result<starfish_fs::Waiting, ClientError> {
        self.get(&format!("/api/v1/fs/waiting?path={}", percent::encode(path.as_str().as_bytes()))).await
    }

    /// What a file is and was, the newest first.
    pub async fn versions(&self, path: &VfsPath) -> Result<Vec<starfish_fs::Version>, ClientError> {
        self.get(&format!("/api/v1/fs/versions?path={}", percent::encode(path.as_str().as_bytes()))).await
    }

    /// How long the swarm keeps versions.
    pub async fn retention(&self) -> Result<starfish_fs::Retention, ClientError> {
        self.get("/api/v1/fs/retention").await
    }

    /// Has the swarm keep versions for so long.
    pub async fn set_retention(&self, retention: starfish_fs::Retention) -> Result<(), ClientError> {
        self.order("/api/v1/fs/retention", &retention).await
    }

    /// Makes a file what it was in a version.
    pub async fn restore(&self, path: &VfsPath, version: &str) -> Result<Entry, ClientError> {
        let request = RestoreRequest { path: path.clone(), version: version.to_owned() };
        self.post("/api/v1/fs/restore", &request).await
    }

    /// Files of the whole swarm below full durability.
    pub async fn shortfall(&self) -> Result<starfish_fs::Shortfall, ClientError> {
        self.get("/api/v1/fs/shortfall").await
    }

    /// Has the node give others what it keeps of their files; breaking off is safe.
    pub async fn hand_over(&self) -> Result<(), ClientError> {
        self.order("/api/v1/handover", &json!({})).await
    }

    /// How far [`Client::hand_over`] is.
    pub async fn handover(&self) -> Result<starfish_fs::Handover, ClientError> {
        self.get("/api/v1/handover").await
    }

    /// Makes a ticket.
    pub async fn invite(&self, request: &InviteRequest) -> Result<Invitation, ClientError> {
        self.post("/api/v1/invite", request).await
    }

    /// Ends somebody's rights, on every node.
    pub async fn revoke(&self, request: &RevokeRequest) -> Result<(), ClientError> {
        self.order("/api/v1/revoke", request).await
    }

    /// Leaves the swarm and stops the node.
    pub async fn leave(&self) -> Result<(), ClientError> {
        self.order("/api/v1/leave", &json!({})).await
    }

    /// Asks the node to stop; it has stopped when its folder's lock is free.
    pub async fn stop(&self) -> Result<(), ClientError> {
        self.order("/api/v1/stop", &json!({})).await
    }

    /// Cuts every connection with a peer and refuses new ones, on this node only.
    pub async fn block(&self, peer: PeerId) -> Result<(), ClientError> {
        self.send(request(Method::PUT, &format!("/api/v1/blocks/{peer}"), empty())).await?.done().await
    }

    /// Takes [`Client::block`] back.
    pub async fn unblock(&self, peer: PeerId) -> Result<(), ClientError> {
        self.send(request(Method::DELETE, &format!("/api/v1/blocks/{peer}"), empty())).await?.done().await
    }

    /// Waits until no node holds the folder any more, for as long as `patience`; says whether that is so.
    pub async fn wait_until_down(&self, patience: Duration) -> bool {
        let free = async {
            while NodeLock::is_held(self.data_dir()) {
                tokio::time::sleep(DOWN_POLL).await;
            }
        };
        tokio::time::timeout(patience, free).await.is_ok()
    }

    /// Whether a node answers in the folder, within `patience`.
    pub async fn is_up(&self, patience: Duration) -> bool {
        matches!(tokio::time::timeout(patience, self.id()).await, Ok(Ok(_)))
    }
}
