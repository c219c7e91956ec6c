//! `node.json`: what a running node says about itself to those who look into its folder.
//!
//! It is written when the node is ready and removed when it stops. After a crash it stays behind; so it is
//! a hint, and the lock and the socket are the truth.

use std::io;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::data_dir::{DataDir, write_private};

/// The content of `node.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeInfo {
    /// The node's process.
    pub pid: u32,
    /// The program's version.
    pub version: String,
    /// The node's PeerId, in base58.
    pub peer: String,
    /// Where the HTTP API listens.
    pub api: SocketAddr,
    /// The swarm's UDP and TCP port, as bound.
    pub port: u16,
}

impl RuntimeInfo {
    /// Tells the folder that this node is ready.
    pub fn write(&self, dir: &DataDir) -> io::Result<()> {
        write_private(&dir.runtime(), &serde_json::to_vec_pretty(self)?)
    }

    /// What the last node that was ready in this folder said; `None` if there is nothing, or nothing readable.
    pub fn read(dir: &DataDir) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(dir.runtime()).ok()?).ok()
    }

    /// Takes the word back.
    pub fn remove(dir: &DataDir) -> io::Result<()> {
        match std::fs::remove_file(dir.runtime()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
