//! Files of the swarm.
pub mod path;
pub mod vfs;
pub mod hash;
pub mod blob;
mod chunk;
pub mod manifest;
mod tree;
