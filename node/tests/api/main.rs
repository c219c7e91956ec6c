//! Real nodes, asked through their real doors.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

mod browser;
mod common;
mod dav;
mod docs;
mod gateway;
mod guards;
mod host_files;
mod keys;
mod node;
mod redis;
mod share;
