//! What the shell needs from the node that it stands on: programs run, and the verbs of `starfish` answer.

use async_trait::async_trait;

use super::fs::path::VfsPath;
use super::io::{Input, Io, Output};

/// Runs WASM programs of the tree somewhere in the swarm.
#[async_trait]
pub trait Programs: Send + Sync {
    /// Runs one program to its end and gives its exit code. Dropping the future kills the program.
    /// The streams must be dropped when this returns: the next stage of a pipe waits for their end.
    async fn run(&self, call: ProgramCall) -> anyhow::Result<i32>;
}

/// A program to run.
#[derive(Debug)]
pub struct ProgramCall {
    /// The module in the tree.
    pub program: VfsPath,
    /// Its arguments, without its own name.
    pub args: Vec<String>,
    /// The exported variables of the shell.
    pub env: Vec<(String, String)>,
    /// Where the shell stands.
    pub cwd: VfsPath,
    /// What the program reads.
    pub stdin: Input,
    /// Where its output goes.
    pub stdout: Output,
    /// Where its messages go.
    pub stderr: Output,
}

/// The words that mean the same in the shell and after `starfish`: peers, run, mem and so on.
#[async_trait]
pub trait Verbs: Send + Sync {
    /// All of them, for `help` and completion.
    fn list(&self) -> &[Verb];

    /// Runs one; `argv[0]` is its name. What went wrong has been said on `io.stderr` when this returns.
    async fn run(&self, argv: Vec<String>, cwd: VfsPath, io: Io) -> i32;
}

/// One verb, as `help` shows it.
#[derive(Clone, Debug)]
pub struct Verb {
    /// The word.
    pub name: String,
    /// One line about it.
    pub about: String,
}

/// No verbs at all: a shell over nothing but a tree.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoVerbs;

#[async_trait]
impl Verbs for NoVerbs {
    fn list(&self) -> &[Verb] {
        &[]
    }

    async fn run(&self, argv: Vec<String>, _cwd: VfsPath, mut io: Io) -> i32 {
        let _ = io.stderr.line(format!("{}: no such verb", argv.first().map_or("", String::as_str))).await;
        super::status::NOT_FOUND
    }
}
