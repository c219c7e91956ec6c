//! A leash on the processes of one node: when it is let go, they are killed.
//!
//! It is let go when it is dropped, and also when the test's own process ends without dropping anything (an
//! abort, `kill -9`, an impatient ctrl-C). For the hand at the other end is a process of its own: a shell that waits for
//! the end of its input, which is a pipe from the test.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// Signals to the test are not for the hand: it has something to do after them.
const HAND: &str = "trap '' HUP INT TERM; read -r _; kill -s KILL -- \"-$1\"";

/// Dropping it kills a process group.
#[derive(Debug)]
pub struct Leash {
    hand: Child,
}

impl Leash {
    /// Ties the process group `group`.
    pub fn tie(group: u32) -> io::Result<Self> {
        let mut hand = Command::new("sh");
        hand.args(["-c", HAND, "leash"]).arg(group.to_string());
        hand.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        Ok(Self { hand: hand.spawn()? })
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        drop(self.hand.stdin.take());
        if let Err(error) = self.hand.wait() {
            eprintln!("processes of a node may still run: {error}");
        }
    }
}
