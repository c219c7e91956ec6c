//! Share links.

use serde::{Deserialize, Serialize};
use starfish_fs::path::VfsPath;

/// `POST /api/v1/share`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareRequest {
    /// What others may read, with everything below it.
    pub path: VfsPath,
    /// How long the link is good for; a day if missing.
    #[serde(default)]
    pub expires_s: Option<u64>,
}

/// The answer: a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// To be given away. It is of this node; with another host and port it is the same link at another member.
    pub url: String,
    /// What it opens: the path that was asked for, without symbolic links.
    pub path: VfsPath,
    /// When it ends, in milliseconds since the Unix epoch.
    pub expires_ms: u64,
}
