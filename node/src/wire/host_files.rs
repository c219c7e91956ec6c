//! Contents that go between the tree and files which a client of the node's socket has open.

use serde::{Deserialize, Serialize};
use starfish_fs::path::VfsPath;
use starfish_fs::vfs::Entry;

use super::WireVfsError;

/// `POST /api/v1/fs/import`: the file is to be what the client's open file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportRequest {
    /// Where in the tree.
    pub path: VfsPath,
    /// The client's open file.
    pub source: ClientFile,
    /// Permission bits, if they are to be others than a new file's or what they are now.
    pub mode: Option<u32>,
    /// Modification time in milliseconds since the Unix epoch, if it is not now.
    pub mtime_ms: Option<u64>,
}

/// `POST /api/v1/fs/export`: bytes of a file are to be written to the client's open file, where they stand in the content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportRequest {
    /// Where in the tree.
    pub path: VfsPath,
    /// First byte.
    pub from: u64,
    /// The byte after the last; past the end is the end.
    pub to: u64,
    /// The client's open file.
    pub target: ClientFile,
}

/// A file that the client has open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientFile {
    /// The number that the client's process has it under.
    pub descriptor: u32,
    /// The device that it lies on, and its number there: whatever else that descriptor may lead to by now is not meant.
    pub device: u64,
    /// See `device`.
    pub inode: u64,
    /// What the client's user calls it, for errors.
    pub name: String,
}

/// What the node answers while it copies: lines of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CopyLine {
    /// So many bytes came over, all in all.
    Moved(u64),
    /// The end: all came over. With the file as it is in the tree, if it went there.
    Done(Option<Entry>),
    /// The end, before its time.
    Failed(WireVfsError),
}
