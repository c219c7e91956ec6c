//! What is asked for when functions are deployed and called, and what is told of them.

use serde::{Deserialize, Serialize};
use starfish_compute::function::version::{Function, FunctionName, VersionId};
use starfish_compute::reach::Reach;
use starfish_compute::task::{Digest, Grant};
use starfish_dht::PeerId;
use starfish_fs::path::VfsPath;

use super::LimitsRequest;

/// `PUT /api/v1/functions/{name}`: a function, all optional.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeployRequest {
    /// The program in the tree; if missing, it comes in frames behind this (see [`super::frame::submit`]).
    #[serde(default)]
    pub program: Option<VfsPath>,
    /// The environment of each call.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// The parts of the tree that each call may use.
    #[serde(default)]
    pub grants: Vec<Grant>,
    /// What else each call may reach: `mem:SPACE[:ro]`, `http:HOST[:PORT]`, `fn:NAME`.
    #[serde(default)]
    pub reach: Vec<Reach>,
    /// What each call may consume.
    #[serde(default)]
    pub limits: LimitsRequest,
    /// A path on the HTTP port of its own.
    #[serde(default)]
    pub http: Option<VfsPath>,
    /// How many nodes run its calls; if missing, as many as there are.
    #[serde(default)]
    pub replicas: Option<u16>,
}

/// The answer: the version that is the current one now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployed {
    /// Of this function.
    pub name: FunctionName,
    /// Which.
    pub version: VersionId,
}

/// `POST /api/v1/functions/{name}/rollback`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// The number of a version, or all of its name; if missing, the one before the current one.
    #[serde(default)]
    pub version: Option<String>,
}

/// `POST /api/v1/functions/{name}/call`: the first frame.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InvokeRequest {
    /// The arguments after the function's name.
    #[serde(default)]
    pub args: Vec<String>,
}

/// One of `GET /api/v1/functions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionLine {
    /// Its name.
    pub name: FunctionName,
    /// The version that calls get.
    pub current: VersionId,
    /// All that are kept, the oldest first.
    pub versions: Vec<VersionLine>,
}

/// One version of a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionLine {
    /// Which.
    pub version: VersionId,
    /// BLAKE3 of its program.
    pub module: Digest,
    /// The length of its program.
    pub bytes: u64,
    /// The environment of each call.
    pub env: Vec<(String, String)>,
    /// The parts of the tree that each call may use.
    pub grants: Vec<Grant>,
    /// What else each call may reach.
    #[serde(default)]
    pub reach: Vec<Reach>,
    /// What each call may consume.
    pub limits: LimitsRequest,
    /// Its own path on the HTTP port.
    pub http: Option<VfsPath>,
    /// Where it was deployed.
    pub by: PeerId,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

impl From<Function> for FunctionLine {
    fn from(function: Function) -> Self {
        let Function { name, current, versions } = function;
        let versions = versions.into_iter().map(|(version, record)| VersionLine {
            version,
            module: record.module,
            bytes: record.bytes,
            env: record.env,
            grants: record.grants,
            reach: record.reach,
            limits: record.limits.into(),
            http: record.http,
            by: record.by,
            at_ms: record.at_ms,
        });
        Self { name, current, versions: versions.collect() }
    }
}
