//! The swarm's disk: one tree of files, seen and written from every node.
//!
//! In reading order: [`path`] and [`vfs`] are the interface; [`Files`] is the swarm behind it, [`mem_vfs::MemVfs`] its
//! twin in memory, and [`conformance`] what both are held to. Below them, `tree` says what tree the cells in memory
//! make (pure), `chunk` and [`manifest`] what a file is made of (pure), and [`blob`] keeps and fetches its bytes.
//! [`copying`] moves folders of the host in and out.
//!
//! Deliberately absent: any node that owns a name or decides an order. Each node changes its own replica of the
//! tree's cells, and the rules in `tree` make all of them see the same.

pub mod host;
pub mod path;
pub mod vfs;

mod code;
mod durable;
mod files;
mod gather;
mod gc;
mod handover;
mod holders;
mod index_set;
pub mod links;
mod members;
mod mend;
mod peers;
mod place;
mod recent;
mod repair;
mod scrub;
mod store;
mod tree;

mod chunk;
mod hash;
pub mod manifest;

pub mod conformance;
pub mod copying;
pub mod mem_vfs;
pub mod mount;

pub use durable::Waiting;
pub use files::{Files, FilesOptions, Handover, OpenError, Usage, Version};
pub use handover::HandoverError;
pub use hash::{BlobHash, HashError};
pub use path::{PathError, VfsPath};
pub use peers::wire::Shortfall;
pub use tree::version::{MAX_VERSIONS, Retention};
pub use vfs::{Vfs, VfsError};
