//! The words of the API: what requests and answers look like as JSON.
//!
//! Server and client both use these types, so they cannot drift apart. Fields are only ever added.

mod batches;
mod docs;
pub mod frame;
mod functions;
mod host_files;
mod jobs;
mod memory;
mod problem;
mod processes;
mod schedule;
mod share;
mod vfs;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use starfish_compute::jail::JailReport;
use starfish_dht::{Multiaddr, PeerId};
use starfish_fs::path::VfsPath;

pub use self::{
    batches::{BatchRequest, InputRequest, ItemsRequest, TaskLine},
    docs::{
        DeleteRequest, DocumentCost, DocumentCount, DocumentLine, DocumentWritten, FindAnswer, FindRequest,
        IndexRequest,
    },
    functions::{DeployRequest, Deployed, FunctionLine, InvokeRequest, RollbackRequest, VersionLine},
    host_files::{ClientFile, CopyLine, ExportRequest, ImportRequest},
    jobs::{LimitsRequest, StdinSource, Submitted, TaskRequest},
    memory::{
        Base64, Changed, Counted, Deleted, ExpireRequest, FieldBody, FieldsChanged, FieldsRequest,
        IncrementRequest, KeyKindBody, KeyValueBody, Length, MemberBody, MembersChanged, MembersRequest,
        NameBody, RestoreValueRequest, SpaceBody, VersionBody, WatchEvent, WriteBody,
    },
    problem::{Problem, ProblemBody},
    processes::{EventAnswer, EventSent, ProcessLine, SpawnRequest},
    schedule::{CronEntry, CronRequest, FiringLine, TriggerEntry, TriggerRequest},
    share::{Share, ShareRequest},
    vfs::{IoKind, WirePathError, WireVfsError},
};

/// `GET /api/v1/id`: who this node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeId {
    /// This node.
    pub peer: PeerId,
    /// The public key that names its swarm.
    pub swarm: String,
}

/// `GET /api/v1/status`: how this node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Who it is.
    #[serde(flatten)]
    pub id: NodeId,
    /// The program's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// How long it has been up.
    pub uptime_ms: u64,
    /// Memory that it holds now, where the system can tell.
    pub resident_bytes: Option<u64>,
    /// Its folder.
    pub data_dir: PathBuf,
    /// Where the TCP API listens.
    pub api: SocketAddr,
    /// The swarm's port, as bound.
    pub port: u16,
    /// Where others can reach it.
    pub addrs: Vec<Multiaddr>,
    /// The zone that it was given; may be empty.
    pub zone: String,
    /// A fingerprint of the shared memory: two nodes that show the same hold the same.
    pub memory_digest: String,
    /// Cells of the shared memory on this node, tombstones among them.
    pub memory_cells: u64,
    /// Cells that were damaged on this node's disk and have not come back from other members yet.
    pub memory_lost: u64,
    /// Whether all is here that was here before; it is not after damage, until other members were compared with.
    pub memory_is_whole: bool,
    /// Tasks that this node runs at once.
    pub slots: u32,
    /// Of those, how many are free.
    pub slots_free: u32,
    /// What confines the processes that run tasks, once one was started.
    #[serde(default)]
    pub jail: Option<JailReport>,
    /// How many other members are alive.
    pub n_alive: usize,
    /// How many other members are known.
    pub n_known: usize,
    /// Whether another member was ever reached, since this start or before it.
    #[serde(default)]
    pub has_met_others: bool,
    /// Whether it lives on its ticket still: no member has made it a lasting one.
    #[serde(default)]
    pub provisional: bool,
    /// If members turn it away: who, and why.
    #[serde(default)]
    pub turned_away: Option<String>,
}

/// One other member, in `GET /api/v1/peers`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Who.
    pub id: PeerId,
    /// Where it can be reached, as it says and as it was seen.
    pub addrs: Vec<Multiaddr>,
    /// Whether it is connected or was heard of lately.
    pub alive: bool,
    /// Whether there is a connection to it now.
    pub connected: bool,
    /// Whether that connection goes over another member.
    pub relayed: bool,
    /// The latest round trip.
    pub rtt_ms: Option<f64>,
    /// Time since it was last heard of.
    pub silent_ms: u64,
    /// The version of its program; empty until it has said so.
    pub version: String,
    /// Its zone; may be empty.
    pub zone: String,
}

/// `POST /api/v1/invite`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InviteRequest {
    /// What the newcomer may do; the usual member's rights if missing.
    #[serde(default)]
    pub role: Option<String>,
    /// How long the ticket is good for.
    #[serde(default)]
    pub expires_s: Option<u64>,
    /// Only this node may use it.
    #[serde(default, rename = "for")]
    pub peer: Option<PeerId>,
}

/// The answer to an invitation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// To be given to the newcomer.
    pub ticket: String,
}

/// `POST /api/v1/revoke`: whose rights end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum RevokeRequest {
    /// A member, with every token it has.
    Peer(PeerId),
    /// A ticket; who has become a member with it stays one.
    Ticket(String),
    /// A share link, or the voucher in it.
    Link(String),
}

/// `POST /api/v1/fs/restore`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreRequest {
    /// The file.
    pub path: VfsPath,
    /// (The beginning of) the id of what it was.
    pub version: String,
}

/// `POST /api/v1/fs/mkdir`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MkdirRequest {
    /// What to make.
    pub path: VfsPath,
    /// Make missing parents too, and be content with a directory that is there.
    #[serde(default)]
    pub parents: bool,
}

/// `POST /api/v1/fs/symlink`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SymlinkRequest {
    /// The link.
    pub path: VfsPath,
    /// Where it points.
    pub target: String,
}

/// `POST /api/v1/fs/rename` and `POST /api/v1/fs/copy`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FromTo {
    /// What is there.
    pub from: VfsPath,
    /// Where it goes.
    pub to: VfsPath,
}

/// `POST /api/v1/fs/remove`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveRequest {
    /// What to remove.
    pub path: VfsPath,
    /// With everything below it.
    #[serde(default)]
    pub recursive: bool,
}

/// `POST /api/v1/fs/attributes`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttributesRequest {
    /// What to change.
    pub path: VfsPath,
    /// POSIX permission bits, as a plain number.
    #[serde(default)]
    pub mode: Option<u32>,
    /// Milliseconds since the Unix epoch.
    #[serde(default)]
    pub mtime_ms: Option<u64>,
}

/// The trailer of `GET /api/v1/fs/content` that says why a read broke off: a [`WireVfsError`] as JSON in base64.
pub const ERROR_TRAILER: &str = "x-starfish-error";
