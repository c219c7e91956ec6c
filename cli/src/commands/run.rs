//! `starfish run`: a WASM program somewhere in the swarm, with the streams of this terminal.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use starfish_node::Client;
use starfish_node::compute::{Grant, Limit, Outcome, OutputFrame};
use starfish_node::quantity::{QuantityError, Size, Span};
use starfish_node::wire::{LimitsRequest, StdinSource, TaskRequest};
use tokio::io::AsyncWriteExt;
use tokio_util::io::ReaderStream;

use super::failure::{NOT_RUN, NotRun};
use super::{Context, peers};
use crate::shell::Io;
use crate::shell::fs::path::VfsPath;

/// It was ended by `starfish kill`, as by SIGKILL.
const KILLED: i32 = 137;
/// It was ended for running too long, as by timeout(1).
const TIMED_OUT: i32 = 124;
/// It trapped, as by SIGABRT.
const TRAPPED: i32 = 134;

/// Run a WASM program somewhere in the swarm, as if it ran here.
///
/// The program is a WASI command, a module of preview 1 or a component of preview 2: a file of this machine, or one of
/// the tree. It reads this standard input, and its output and exit code come back. It sees nothing but what is granted
/// with --dir.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Exit status: the program's own; 124 it ran out of time, 125 it is no program or exceeded another limit,\n\
                        134 it trapped, 137 it was killed; 4 there is no such file.\n\n\
                        Examples:\n  starfish run upper.wasm < in > out\n  starfish run --dir /logs:ro /bin/grep.wasm error /logs/today"
)]
pub struct Run {
    /// A part of the tree that the program may use, under the same path; `:ro` for reading only. Changes reach the
    /// tree when it exits with 0.
    #[arg(long = "dir", value_name = "PATH[:ro]")]
    dirs: Vec<String>,
    /// Run it on this node only.
    #[arg(long, value_name = "PEER")]
    on: Option<String>,
    /// End it after this time, such as 500ms, 30s or 2h [default: 1h].
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// The most memory that it may have, such as 64M or 1G [default: 256M].
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    memory: Option<u64>,
    /// The most that it may print, such as 1M [default: 1G].
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    output: Option<u64>,
    /// An environment variable for it.
    #[arg(long = "env", value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Print the job's id and return at once; it goes on with empty input.
    #[arg(long)]
    detach: bool,
    /// The program.
    program: String,
    /// Its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Run {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<i32> {
        let program = self.program.clone();
        self.run_task(context).await.with_context(|| NotRun(program))
    }

    async fn run_task(self, mut context: Context) -> anyhow::Result<i32> {
        let (program, module) = self.find_program(&context).await?;
        let on = match &self.on {
            Some(text) => Some(peers::find(&context, text).await?),
            None => None,
        };
        let name = self.program.rsplit('/').next().unwrap_or(&self.program);
        let task = TaskRequest {
            args: self.args.clone(),
            env: self.env.iter().map(|pair| variable(pair)).collect::<anyhow::Result<_>>()?,
            grants: self.dirs.iter().map(|dir| grant(&context.cwd, dir)).collect::<anyhow::Result<_>>()?,
            limits: LimitsRequest {
                timeout_ms: self.timeout.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
                memory_bytes: self.memory,
                output_bytes: self.output,
            },
            on,
            stdin: if self.detach { StdinSource::Empty } else { StdinSource::Stream },
            ..TaskRequest::new(name, program)
        };
        if self.detach {
            let id = context.client.submit(&task, module).await?;
            context.print(id).await?;
            return Ok(0);
        }
        attached(&context.client, &task, module, context.io).await
    }

    /// A file of this machine goes first outside of the shell; inside, where paths mean the tree, the tree does.
    async fn find_program(
        &self,
        context: &Context,
    ) -> anyhow::Result<(Option<VfsPath>, Option<bytes::Bytes>)> {
        let in_tree = context.cwd.resolve(&self.program);
        let host = Path::new(&self.program);
        if context.is_shell
            && let Ok(path) = &in_tree
            && context.tree().stat(path).await.is_ok()
        {
            return Ok((Some(path.clone()), None));
        }
        if host.is_file() {
            let module =
                tokio::fs::read(host).await.with_context(|| format!("cannot read {}", host.display()))?;
            return Ok((None, Some(module.into())));
        }
        Ok((Some(in_tree?), None))
    }
}

/// Runs a task with these streams and gives the status to exit with. Dropping it ends the task.
pub(super) async fn attached(
    client: &Client,
    task: &TaskRequest,
    module: Option<bytes::Bytes>,
    io: Io,
) -> anyhow::Result<i32> {
    let job = client.submit(task, module).await?;
    let killer = KillOnDrop { client: client.clone(), job: Some(job.to_string()) };
    let Io { stdin, mut stdout, mut stderr } = io;
    // Input goes its own way: a task may end without ever reading it.
    let input = ReaderStream::with_capacity(stdin, 64 << 10);
    let feeder = client.clone();
    let feeding = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = feeder.feed(job, input).await {
            tracing::debug!(%error, "the task's input ended early");
        }
    }));
    let mut output = client.output(&job.to_string()).await?;
    let outcome = loop {
        match output.next().await? {
            OutputFrame::Stdout(bytes) => {
                stdout.write_all(&bytes).await?;
                stdout.flush().await?;
            }
            OutputFrame::Stderr(bytes) => {
                stderr.write_all(&bytes).await?;
                stderr.flush().await?;
            }
            OutputFrame::Exit(outcome) => break outcome,
        }
    };
    drop(feeding);
    killer.disarm();
    let status = status_of(&outcome);
    if !matches!(outcome, Outcome::Exited(_)) {
        stderr.line(format!("error: {}: {outcome}", task.name)).await?;
    }
    Ok(status)
}

fn status_of(outcome: &Outcome) -> i32 {
    match outcome {
        Outcome::Exited(code) => *code,
        Outcome::LimitReached { limit: Limit::Time, .. } => TIMED_OUT,
        Outcome::Trapped { .. } => TRAPPED,
        Outcome::Killed => KILLED,
        Outcome::LimitReached { .. } | Outcome::Failed { .. } => NOT_RUN,
    }
}

/// Ends the job when whoever ran it goes away: ctrl-C, or a pipe whose reader left.
struct KillOnDrop {
    client: Client,
    job: Option<String>,
}

impl KillOnDrop {
    fn disarm(mut self) {
        self.job = None;
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(job) = self.job.take() {
            let client = self.client.clone();
            tokio::spawn(async move {
                let _ = client.kill(&job).await;
            });
        }
    }
}

fn variable(pair: &str) -> anyhow::Result<(String, String)> {
    let (name, value) = pair.split_once('=').with_context(|| format!("{pair:?} is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Paths of grants are relative to where the shell stands, like all others.
fn grant(cwd: &VfsPath, text: &str) -> anyhow::Result<Grant> {
    let (path, access) = match text.rsplit_once(':') {
        Some((path, access @ ("ro" | "rw"))) => (path, access),
        _ => (text, "rw"),
    };
    Ok(format!("{}:{access}", cwd.resolve(path)?).parse()?)
}

pub(super) fn parse_duration(text: &str) -> Result<Duration, QuantityError> {
    text.parse().map(|Span(duration)| duration)
}

pub(super) fn parse_bytes(text: &str) -> Result<u64, QuantityError> {
    text.parse().map(|Size(bytes)| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_start_where_the_shell_stands() {
        let cwd = VfsPath::parse("/home").unwrap();
        assert_eq!(grant(&cwd, "ada:ro").unwrap(), "/home/ada:ro".parse().unwrap());
        assert_eq!(grant(&cwd, "/logs").unwrap(), "/logs".parse().unwrap());
    }
}
