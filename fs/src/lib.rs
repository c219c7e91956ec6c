//! Files.
pub mod path;
pub mod vfs;
