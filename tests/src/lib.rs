//! Whole swarms of real `starfish` processes, for the scenarios in `tests/`.
//!
//! A scenario starts nodes, feeds them, cuts them off from each other, kills them and looks at what the others
//! say, all of it through the program and the API, as a user would:
//!
//! ```no_run
//! use starfish_tests::{Swarm, wait_until};
//!
//! let swarm = Swarm::start(3);
//! swarm.node(0).ok(["mem", "set", "colour", "green"]);
//! swarm.node(0).kill9();
//! wait_until("the others know", || swarm.node(2).run(["mem", "get", "colour"]).text() == "green\n");
//! ```
//!
//! What it promises:
//! - Nothing leaves loopback, and nothing is read from or written to the user's own folders.
//! - No process outlives its test, however that ends: each node is on a leash.
//! - Whatever is waited for is a condition, and patience is bounded by [`PATIENCE`].
//! - The logs of all nodes are shown when a test fails; and a test fails when a node panicked.
//!
//! Start reading at [`Swarm`], then [`Node`].

#![expect(
    clippy::panic,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says why on standard error"
)]

mod guest;
mod http;
mod lan;
mod leash;
mod mounted;
mod node;
mod process;
mod program;
mod running;
mod scratch;
mod swarm;
mod tree;
mod wait;

pub use self::guest::{as_component, built_samples};
pub use self::http::{Answer, Request};
pub use self::lan::Lan;
pub use self::leash::Leash;
pub use self::mounted::Mounted;
pub use self::node::{Node, Start};
pub use self::running::{Output, Running};
pub use self::scratch::{Chance, Scratch, same_bytes};
pub use self::swarm::Swarm;
pub use self::tree::{Found, assert_same_folders, contents};
pub use self::wait::{PATIENCE, wait_for, wait_until};
