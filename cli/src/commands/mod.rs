//! The verbs of `starfish`: one file each, the same after `starfish` and as words in the shell.
//!
//! Every verb but `up` is a client of the node's API and nothing else. What it prints for programs goes to
//! standard output, everything else to standard error; how it ends is a status of [`crate::shell::status`] or
//! one of [`failure`].

mod batch;
mod bench;
mod completions;
mod cron;
mod df;
mod doc;
mod down;
mod durable;
pub mod failure;
mod function;
mod get;
mod invite;
mod jobs;
mod leave;
mod mem;
mod mount;
mod on;
mod peers;
mod process;
mod put;
mod revoke;
mod run;
mod share;
mod shell;
mod status;
mod task;
mod transfer;
mod umount;
mod up;
mod verbs;
mod versions;

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use futures::FutureExt;
use futures::future::BoxFuture;
use starfish_node::{Client, DataDir};
use tokio::io::AsyncWriteExt;

use crate::shell::fs::path::VfsPath;
use crate::shell::fs::vfs::Vfs;
use crate::shell::{Io, builtins};

/// The starfish program: a leaderless swarm of machines as one computer.
///
/// Without a verb it opens the shell on the running node, or on one that it starts.
#[derive(Debug, Parser)]
#[command(name = "starfish", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// The node's data folder [env: STARFISH_DATA_DIR] [default: $XDG_DATA_HOME/starfish].
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Run one line in the shell and exit with its status.
    #[arg(short = 'c', value_name = "COMMAND")]
    pub command: Option<String>,

    /// What to do.
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

/// Every verb. The built-ins of the shell (`ls`, `cat`, `cp`, ...) are verbs too; see [`command`].
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start a node here, in the foreground.
    Up(Box<up::Up>),
    /// Stop the node.
    Down(down::Down),
    /// Show how the node and its swarm are.
    Status(status::Status),
    /// Show who the node is.
    Id(status::Id),
    /// List the other members, or block one.
    Peers(peers::Peers),
    /// Make a ticket that lets another machine in.
    Invite(invite::Invite),
    /// Revoke a member, a ticket or a share link, for good and everywhere.
    Revoke(revoke::Revoke),
    /// Leave the swarm and stop the node.
    Leave(leave::Leave),
    /// Copy a file or folder of this machine into the tree.
    Put(put::Put),
    /// Copy a file or folder of the tree to this machine.
    Get(get::Get),
    /// Make a link that lets others read a file or folder.
    Share(share::Share),
    /// Show how much the swarm's files take, here and in all.
    Df(df::Df),
    /// List what a file is and was.
    Log(versions::Log),
    /// Make a file what it was.
    Restore(versions::Restore),
    /// Say, or set, how long the swarm keeps what files were before.
    Retention(versions::Retention),
    /// Keep a folder as it is now under a name.
    Snapshot(versions::Snapshot),
    /// Mount the tree on an empty folder, for every program to use.
    Mount(mount::Mount),
    /// Take a mount of the tree away.
    Umount(umount::Umount),
    /// Read and write the shared memory.
    Mem(mem::Mem),
    /// Keep, find and edit JSON documents.
    Doc(Box<doc::Doc>),
    /// Run a WASM program somewhere in the swarm, as if it ran here.
    Run(run::Run),
    /// Run a WASM program for each file, line or number, all over the swarm.
    Map(Box<batch::Map>),
    /// Run a WASM program in the swarm, once or many times, and return at once.
    Submit(Box<batch::Submit>),
    /// List the swarm's jobs.
    Jobs(jobs::Jobs),
    /// Show a job: why it waits, who runs it, how it ended.
    Job(jobs::Job),
    /// Print what a job said.
    Logs(jobs::Logs),
    /// Wait for the end of jobs.
    Wait(jobs::Wait),
    /// Run the failed tasks of a job again.
    Retry(jobs::Retry),
    /// End a job or a process.
    Kill(jobs::Kill),
    /// List nodes that found something else than others did, or trust one again.
    Suspects(jobs::Suspects),
    /// Give a WASM program a name, by which every node can call it.
    Deploy(Box<function::Deploy>),
    /// Call a function, as if it ran here.
    Call(function::Call),
    /// List the swarm's functions.
    Functions(function::Functions),
    /// Make an older version of a function the current one.
    Rollback(function::Rollback),
    /// Forget a function with all of its versions.
    Undeploy(function::Undeploy),
    /// Have functions called by the clock.
    Cron(cron::Cron),
    /// Have functions called when a file or key changes.
    On(on::On),
    /// Begin a process: state that outlives nodes, and a function that handles its events.
    Spawn(process::Spawn),
    /// Send an event to a process.
    Send(process::Send),
    /// List the swarm's processes, or show one.
    Ps(process::Ps),
    /// List the node's background work.
    Workers(status::Workers),
    /// Measure a swarm on this machine against the machine itself.
    Bench(bench::Bench),
    /// Open the shell, or run a script in it.
    Shell(shell::Shell),
    /// Print a completion script for a shell of this machine.
    Completions(completions::Completions),
    /// Become a worker process of a node.
    #[command(hide = true)]
    Worker,
    /// A built-in of the shell.
    #[command(external_subcommand)]
    Builtin(Vec<String>),
}

/// What a verb works with.
#[derive(Clone, Debug)]
pub struct Context {
    /// The way to the node.
    pub client: Client,
    /// Where the shell stands in the tree; the root outside of it.
    pub cwd: VfsPath,
    /// The streams.
    pub io: Io,
    /// Whether the verb is a word of the shell, where paths mean the tree.
    pub is_shell: bool,
}

impl Context {
    /// For a verb after `starfish`: the streams of this process, the root of the tree.
    pub fn process(dir: DataDir) -> Self {
        Self { client: Client::new(dir), cwd: VfsPath::root(), io: Io::process(), is_shell: false }
    }

    /// The tree, as this node shows it.
    pub fn tree(&self) -> Arc<dyn Vfs> {
        Arc::new(self.client.files())
    }

    /// Prints a value as JSON.
    async fn print_json<T: serde::Serialize + ?Sized>(&mut self, value: &T) -> anyhow::Result<()> {
        let text = crate::output::json::render(value)?;
        self.print(text.trim_end()).await
    }

    /// Prints one or more lines.
    async fn print(&mut self, text: impl std::fmt::Display) -> anyhow::Result<()> {
        Ok(self.io.stdout.line(text).await?)
    }
}

/// The grammar of the command line, with the shell's built-ins among the verbs.
pub fn command() -> clap::Command {
    let command = <Cli as clap::CommandFactory>::command();
    builtins::ALL
        .iter()
        .filter(|entry| is_verb(entry.name))
        .fold(command, |command, entry| command.subcommand((entry.command)().about(entry.about)))
}

/// How this program is called for the node of `dir`: with the folder, unless it is found without.
pub(crate) fn program(dir: &DataDir) -> String {
    let usual = DataDir::find(None, |name| std::env::var(name).ok());
    if usual.is_ok_and(|usual| usual.path() == dir.path()) {
        return "starfish".to_owned();
    }
    let path = dir.path().display().to_string();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,:@%".contains(&byte);
    let path = if path.bytes().all(is_plain) { path } else { format!("'{}'", path.replace('\'', r"'\''")) };
    format!("starfish --data-dir {path}")
}

/// Whether a built-in makes sense outside of the shell, where the machine's own `echo` or `seq` is at hand.
pub(crate) fn is_verb(builtin: &str) -> bool {
    !matches!(builtin, "basename" | "dirname" | "echo" | "printf" | "seq" | "sleep" | "tee")
}

/// Runs a verb to its end and gives the status to exit with.
pub async fn run(verb: Verb, context: Context) -> anyhow::Result<i32> {
    let mut stdout = context.io.stdout.clone();
    let status = start(verb, context).await?;
    match stdout.flush().await {
        // What did not get out was not done. A reader that left is no failure.
        Err(error) if status == 0 && error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(status),
    }
}

fn start(verb: Verb, context: Context) -> BoxFuture<'static, anyhow::Result<i32>> {
    match verb {
        Verb::Up(up) => up.run(context).boxed(),
        Verb::Down(down) => down.run(context).boxed(),
        Verb::Status(status) => status.run(context).boxed(),
        Verb::Id(id) => id.run(context).boxed(),
        Verb::Peers(peers) => peers.run(context).boxed(),
        Verb::Invite(invite) => invite.run(context).boxed(),
        Verb::Revoke(revoke) => revoke.run(context).boxed(),
        Verb::Leave(leave) => leave.run(context).boxed(),
        Verb::Put(put) => put.run(context).boxed(),
        Verb::Get(get) => get.run(context).boxed(),
        Verb::Share(share) => share.run(context).boxed(),
        Verb::Df(df) => df.run(context).boxed(),
        Verb::Log(log) => log.run(context).boxed(),
        Verb::Restore(restore) => restore.run(context).boxed(),
        Verb::Retention(retention) => retention.run(context).boxed(),
        Verb::Snapshot(snapshot) => snapshot.run(context).boxed(),
        Verb::Mount(mount) => mount.run(context).boxed(),
        Verb::Umount(umount) => umount.run(context).boxed(),
        Verb::Mem(mem) => mem.run(context).boxed(),
        Verb::Doc(doc) => doc.run(context).boxed(),
        Verb::Run(run) => run.run(context).boxed(),
        Verb::Map(map) => map.run(context).boxed(),
        Verb::Submit(submit) => submit.run(context).boxed(),
        Verb::Jobs(jobs) => jobs.run(context).boxed(),
        Verb::Job(job) => job.run(context).boxed(),
        Verb::Logs(logs) => logs.run(context).boxed(),
        Verb::Wait(wait) => wait.run(context).boxed(),
        Verb::Retry(retry) => retry.run(context).boxed(),
        Verb::Kill(kill) => kill.run(context).boxed(),
        Verb::Suspects(suspects) => suspects.run(context).boxed(),
        Verb::Deploy(deploy) => deploy.run(context).boxed(),
        Verb::Call(call) => call.run(context).boxed(),
        Verb::Functions(functions) => functions.run(context).boxed(),
        Verb::Rollback(rollback) => rollback.run(context).boxed(),
        Verb::Undeploy(undeploy) => undeploy.run(context).boxed(),
        Verb::Cron(cron) => cron.run(context).boxed(),
        Verb::On(on) => on.run(context).boxed(),
        Verb::Spawn(spawn) => spawn.run(context).boxed(),
        Verb::Send(send) => send.run(context).boxed(),
        Verb::Ps(ps) => ps.run(context).boxed(),
        Verb::Workers(workers) => workers.run(context).boxed(),
        Verb::Bench(bench) => bench.run(context).boxed(),
        Verb::Shell(shell) => shell.run(context).boxed(),
        Verb::Completions(completions) => completions.run(context).boxed(),
        Verb::Worker => async { anyhow::bail!("a worker process is started by its node") }.boxed(),
        Verb::Builtin(argv) => run_builtin(argv, context).boxed(),
    }
}

/// Opens the shell on the running node, or on one started for it: what `starfish` alone does.
pub async fn open_shell(context: Context, line: Option<String>) -> anyhow::Result<i32> {
    shell::open(context, line).await
}

async fn run_builtin(argv: Vec<String>, context: Context) -> anyhow::Result<i32> {
    let (name, args) = argv.split_first().ok_or_else(|| anyhow::anyhow!("no verb"))?;
    let entry = builtins::find(name).ok_or_else(|| failure::NoSuchVerb(name.clone()))?;
    // The built-in reports errors of files by itself; that there is no node is said here, with its hint.
    context.client.id().await?;
    let tree = context.tree();
    let mut io = context.io.clone();
    let status = entry.run(args.to_vec(), builtins::Context::new(context.io, context.cwd, tree)).await;
    io.flush().await;
    Ok(status)
}
