//! `starfish run`: a WASM program somewhere in the swarm, with the streams of this terminal.

use anyhow::Context as _;
use starfish_node::Client;
use starfish_node::client::JobOutput;
use starfish_node::compute::{Limit, Outcome, OutputFrame};
use starfish_node::wire::{StdinSource, TaskRequest};
use tokio::io::AsyncWriteExt;
use tokio_util::io::ReaderStream;

use super::Context;
use super::failure::{NOT_RUN, Unheard, not_run};
use super::task::{self, TaskOptions};
use crate::shell::{Io, Output};

/// It was ended by `starfish kill`, as by SIGKILL.
pub(super) const KILLED: i32 = 137;
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
                        Examples:\n  starfish run upper.wasm < in > out\n  starfish run --dir /logs:ro /bin/grep.wasm -i error /logs/today"
)]
pub struct Run {
    #[command(flatten)]
    options: TaskOptions,
    /// Print the job's id and return at once; it goes on with empty input.
    #[arg(long)]
    detach: bool,
    /// The program, and its arguments: everything behind it is its own.
    #[arg(value_names = ["PROGRAM", "ARGS"], num_args = 1.., required = true, trailing_var_arg = true)]
    command: Vec<String>,
}

impl Run {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<i32> {
        let (program, args) = self.command.split_first().context("no program")?;
        self.run_task(program, args, context).await.map_err(|error| not_run(error, program))
    }

    async fn run_task(&self, program: &str, args: &[String], mut context: Context) -> anyhow::Result<i32> {
        let (path, module) = task::find_program(&context, program).await?;
        let task = TaskRequest {
            args: args.to_vec(),
            env: self.options.env()?,
            grants: self.options.grants(&context.cwd)?,
            reach: self.options.reach(),
            limits: self.options.limits(),
            on: self.options.on(&context).await?,
            stdin: if self.detach { StdinSource::Empty } else { StdinSource::Stream },
            ..TaskRequest::new(task::name_of(program), path)
        };
        if self.detach {
            let id = context.client.submit(&task, module).await?;
            context.print(id).await?;
            return Ok(0);
        }
        attached(&context.client, &task, module, context.io).await
    }
}

/// Runs a task with these streams and gives the status to exit with. The node ends the task when nobody listens to
/// it any more, however that comes: ctrl-C, a pipe whose reader left, or kill -9.
pub(super) async fn attached(
    client: &Client,
    task: &TaskRequest,
    module: Option<bytes::Bytes>,
    io: Io,
) -> anyhow::Result<i32> {
    let job = client.submit(task, module).await?;
    let Io { stdin, mut stdout, mut stderr } = io;
    // Input goes its own way: a task may end without ever reading it.
    let input = ReaderStream::with_capacity(stdin, 64 << 10);
    let feeder = client.clone();
    let feeding = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = feeder.feed(job, input).await {
            tracing::debug!(%error, "the task's input ended early");
        }
    }));
    let mut output = client.output(&job.to_string(), true).await?;
    let outcome = print_all(&mut output, &mut stdout, &mut stderr).await?;
    drop(feeding);
    let status = status_of(&outcome);
    if !matches!(outcome, Outcome::Exited(_)) {
        stderr.line(format!("error: {}: {outcome}", task.name)).await?;
    }
    Ok(status)
}

/// Prints all that a job says, and returns how it ended.
pub(super) async fn print_all(
    output: &mut JobOutput,
    stdout: &mut Output,
    stderr: &mut Output,
) -> anyhow::Result<Outcome> {
    loop {
        match output.next().await? {
            OutputFrame::Stdout(bytes) => {
                stdout.write_all(&bytes).await.map_err(Unheard)?;
                stdout.flush().await.map_err(Unheard)?;
            }
            OutputFrame::Stderr(bytes) => {
                stderr.write_all(&bytes).await.map_err(Unheard)?;
                stderr.flush().await.map_err(Unheard)?;
            }
            OutputFrame::Exit(outcome) => return Ok(outcome),
        }
    }
}

pub(super) fn status_of(outcome: &Outcome) -> i32 {
    match outcome {
        // As a system does, of which a status has eight bits.
        Outcome::Exited(code) => code & 0xff,
        Outcome::LimitReached { limit: Limit::Time, .. } => TIMED_OUT,
        Outcome::Trapped { .. } => TRAPPED,
        Outcome::Killed => KILLED,
        Outcome::LimitReached { .. } | Outcome::Failed { .. } => NOT_RUN,
    }
}
