//! The starfish shell: bash's language over the swarm's tree and its programs.
//!
//! Text is parsed by `brush-parser`; everything else is here. [`eval`] walks the syntax tree, [`expand`] turns
//! words into arguments, [`redirect`] connects streams, [`words`] act on the shell and [`builtins`] on the
//! tree. The shell knows the node by two traits only ([`Programs`], [`Verbs`]) and files by
//! [`fs::vfs::Vfs`], so all of it runs in tests over a tree in memory. It never touches the host's files.

pub mod builtins;
mod command;
mod compound;
mod condition;
mod content;
mod eval;
mod expand;
mod host;
mod interactive;
mod io;
mod parse;
mod program;
mod redirect;
mod state;
pub mod status;
mod stop;
#[cfg(test)]
mod tests;
mod tty;
mod words;

use std::fmt;
use std::future::Future;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;

pub use starfish_fs as fs;

pub use host::{NoVerbs, ProgramCall, Programs, Verb, Verbs};
pub use io::{BoxReader, BoxWriter, Input, Io, Output, pipe};

use eval::{Host, Interpreter};
use fs::vfs::Vfs;

/// What a shell is made of.
pub struct ShellOptions {
    /// The tree.
    pub vfs: Arc<dyn Vfs>,
    /// Runs WASM programs.
    pub programs: Arc<dyn Programs>,
    /// The verbs of `starfish`.
    pub verbs: Arc<dyn Verbs>,
    /// How the prompt calls the node.
    pub node_name: String,
    /// Where lines are remembered; nowhere if there is no file.
    pub history: Option<PathBuf>,
}

/// A shell on a node.
pub struct Shell {
    interpreter: Interpreter,
    node_name: String,
    history: Option<PathBuf>,
}

impl Shell {
    /// A fresh shell that stands at the root of the tree.
    pub fn new(options: ShellOptions) -> Self {
        let ShellOptions { vfs, programs, verbs, node_name, history } = options;
        Self { interpreter: Interpreter::new(Host { vfs, programs, verbs }), node_name, history }
    }

    /// Reads lines from the terminal until `exit` or ctrl-D, and gives the status to exit with. Where
    /// standard input is no terminal, it is a script.
    pub async fn run_interactive(&mut self) -> anyhow::Result<i32> {
        if std::io::stdin().is_terminal() {
            return interactive::run(self).await;
        }
        let script = tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin())).await??;
        Ok(self.run_with(&script, Io { stdin: Input::empty(), ..Io::process() }).await)
    }

    /// Runs one text, as `starfish -c` does, over the streams of this process.
    pub async fn run_command(&mut self, text: &str) -> i32 {
        self.run_with(text, Io::process()).await
    }

    /// Runs a script: `args[0]` is its name, the others are `$1` and on.
    pub async fn run_script(&mut self, text: &str, args: &[String]) -> i32 {
        if let Some((name, positional)) = args.split_first() {
            self.interpreter.state.name.clone_from(name);
            self.interpreter.state.positional = positional.to_vec();
        }
        self.run_with(text, Io::process()).await
    }

    /// Runs a text over any streams. Ctrl-C ends it with status 130, and what it was writing stays as it was.
    pub async fn run_with(&mut self, text: &str, io: Io) -> i32 {
        self.interpreter.reset();
        let mut streams = io.clone();
        let status = interruptible(self.interpreter.run(text, io)).await.unwrap_or(status::INTERRUPTED);
        streams.flush().await;
        status
    }
}

impl fmt::Debug for Shell {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Shell").field("node_name", &self.node_name).finish_non_exhaustive()
    }
}

impl fmt::Debug for ShellOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ShellOptions").field("node_name", &self.node_name).finish_non_exhaustive()
    }
}

/// Drops the evaluation, and with it every stage of it, when ctrl-C comes: then there is no status.
async fn interruptible(evaluation: impl Future<Output = i32>) -> Option<i32> {
    tokio::select! {
        status = evaluation => Some(status),
        Ok(()) = tokio::signal::ctrl_c() => None,
    }
}
