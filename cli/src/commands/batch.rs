//! Many tasks of one program: `starfish map`, which waits for them, and `starfish submit`, which does not.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use futures::TryStreamExt;
use starfish_node::compute::batch::{MAX_COPIES, Retries};
use starfish_node::compute::{JobId, JobReport, Outcome};
use starfish_node::wire::{BatchRequest, InputRequest, ItemsRequest, Submitted, TaskLine};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::run::{KILLED, print_all, status_of};
use super::task::{self, TaskOptions, millis, parse_duration};
use super::{Context, failure};
use crate::output::progress;
use crate::shell::fs::path::VfsPath;

/// Failed tasks that are told one by one.
const MAX_TOLD: usize = 10;
/// How often the bar is moved.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Where nothing happens for so long, it is told why.
const TELL_AFTER: Duration = Duration::from_secs(3);

/// What to run, and for what.
#[derive(Clone, Debug, clap::Args)]
struct BatchOptions {
    /// Each file of the tree that matches, such as '/data/**/*.log'. A task may read its own file.
    #[arg(long, value_name = "PATTERN", group = "items")]
    over: Option<String>,
    /// Each line of a file; `-` is standard input.
    #[arg(long, value_name = "FILE", group = "items")]
    lines: Option<String>,
    /// Each number of a range, without its end.
    #[arg(long, value_name = "FIRST..END", group = "items", value_parser = parse_range)]
    range: Option<(u64, u64)>,
    /// Then run this program once, with all that the tasks print, in order, as its standard input.
    #[arg(long, value_name = "PROGRAM")]
    reduce: Option<String>,
    /// Write what each task prints to a file of its own in this folder of the tree.
    #[arg(long, value_name = "DIR")]
    out: Option<String>,
    /// Try a task again when its program fails, so many times.
    #[arg(long, value_name = "TIMES", default_value_t = 0)]
    retries: u32,
    /// Try a task again when it reaches a limit, so many times.
    #[arg(long, value_name = "TIMES", default_value_t = 0)]
    limit_retries: u32,
    /// Higher goes first, from 0 to 255.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    priority: u8,
    /// End it if it is not done after this time.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    deadline: Option<Duration>,
    /// Keep results for this long after the end [default: 1d].
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    keep: Option<Duration>,
    /// Hand the tasks out without regard to where their files lie. Otherwise each goes to a node that has most of its
    /// file, if that one has time for it.
    #[arg(long)]
    anywhere: bool,
    /// Run each task on this many different nodes, from 2 to 9, and let count what more than half of them find. They run it
    /// so that each must find the same: with a clock that stands still, and random numbers that follow from the arguments.
    /// A node that finds something else is named (starfish job) and gets no tasks any more (starfish suspects).
    /// Not with --out: its files would be there before it is known whose count.
    #[arg(long, value_name = "NODES", value_parser = clap::value_parser!(u8).range(2..=i64::from(MAX_COPIES)), conflicts_with = "out")]
    verify: Option<u8>,
    /// Run it even if the same was run before and its results are kept.
    #[arg(long)]
    no_cache: bool,
    #[command(flatten)]
    task: TaskOptions,
    /// The program.
    program: String,
    /// Its arguments, before the item; those that begin with a hyphen behind a `--`.
    args: Vec<String>,
}

/// Run a WASM program for each file, line or number, all over the swarm, and wait for all of them.
///
/// Each task gets its file, line or number as its last argument. What the tasks print comes out in the order of the
/// items. The job goes on if nodes are lost, half of them too; it ends with this command.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Exit status: 0 if every task ended well (with --reduce: what that program exits with), 1 if some did not, \
                        137 it was killed.\n\n\
                        Examples:\n  starfish map wordcount.wasm --over '/books/**/*.txt' --reduce sum.wasm\n  \
                        starfish map prime.wasm --range 0..100000 --json\n  \
                        starfish map fetch.wasm --lines urls.txt --out /pages -- --quiet"
)]
pub struct Map {
    /// A line of JSON for each task, in place of what it prints.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    batch: BatchOptions,
}

/// Run a WASM program in the swarm, once or for each file, line or number, and return at once.
///
/// Prints the job's id. From then on the swarm sees to it, whatever becomes of this node: see `starfish wait`, `logs`,
/// `job`, `retry` and `kill`, on any node.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  id=$(starfish submit train.wasm --dir /model)\n  starfish submit report.wasm --input-of $id --out /reports\n  \
                        starfish wait $id && starfish logs $id"
)]
pub struct Submit {
    /// Begin when this job has ended well; may be given several times.
    #[arg(long, value_name = "JOB")]
    after: Vec<String>,
    /// What this job prints is the standard input; begin when it has ended well.
    #[arg(long, value_name = "JOB", conflicts_with = "stdin")]
    input_of: Option<String>,
    /// This file of the tree is the standard input.
    #[arg(long, value_name = "PATH")]
    stdin: Option<String>,
    #[command(flatten)]
    batch: BatchOptions,
}

impl BatchOptions {
    /// The batch, and what goes with it.
    async fn request(
        &self,
        context: &mut Context,
    ) -> anyhow::Result<(BatchRequest, Option<Bytes>, Option<Bytes>)> {
        let (path, module) = task::find_program(context, &self.program).await?;
        let (items, lines) = self.items(context).await?;
        let request = BatchRequest {
            args: self.args.clone(),
            env: self.task.env()?,
            grants: self.task.grants(&context.cwd)?,
            reach: self.task.reach(),
            limits: self.task.limits(),
            on: self.task.on(context).await?,
            items,
            out: self.out.as_ref().map(|out| context.cwd.resolve(out)).transpose()?,
            priority: self.priority,
            deadline_ms: self.deadline.map(millis),
            retries: Retries { failed: self.retries, limit: self.limit_retries },
            keep_ms: self.keep.map(millis),
            anywhere: self.anywhere,
            verify: self.verify,
            no_cache: self.no_cache,
            ..BatchRequest::new(task::name_of(&self.program), path)
        };
        Ok((request, module, lines))
    }

    async fn items(&self, context: &mut Context) -> anyhow::Result<(ItemsRequest, Option<Bytes>)> {
        Ok(match (&self.over, &self.lines, self.range) {
            (Some(pattern), _, _) => (ItemsRequest::Files(absolute(&context.cwd, pattern)?), None),
            (_, Some(file), _) => (ItemsRequest::Frames, Some(read_lines(context, file).await?)),
            (_, _, Some((start, end))) => (ItemsRequest::Range(start, end), None),
            _ => (ItemsRequest::One, None),
        })
    }

    /// Submits the batch, and what is to become of its output. Returns the ids of both.
    async fn submit(
        &self,
        context: &mut Context,
        finish: impl FnOnce(&mut BatchRequest),
    ) -> anyhow::Result<(JobId, Option<JobId>)> {
        // Looked for first: it would be too late to find out that it is missing.
        let reduce = match &self.reduce {
            Some(program) => Some((program, task::find_program(context, program).await?)),
            None => None,
        };
        let (mut request, module, lines) = self.request(context).await?;
        finish(&mut request);
        let job = say_if_cached(context, context.client.submit_batch(&request, module, lines).await?).await?;
        let Some((program, (path, module))) = reduce else { return Ok((job, None)) };
        let then = BatchRequest {
            input: InputRequest::OutputOf(job),
            env: request.env,
            limits: request.limits,
            priority: request.priority,
            deadline_ms: request.deadline_ms,
            retries: request.retries,
            keep_ms: request.keep_ms,
            no_cache: request.no_cache,
            ..BatchRequest::new(task::name_of(program), path)
        };
        let reduce = context.client.submit_batch(&then, module, None).await?;
        Ok((job, Some(reduce.id)))
    }
}

impl Map {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        let has_items = self.batch.over.is_some() || self.batch.lines.is_some() || self.batch.range.is_some();
        if !has_items {
            context.io.stderr.line("error: give what to run it for: --over, --lines or --range").await?;
            return Ok(failure::USAGE);
        }
        let (job, reduce) = self.batch.submit(&mut context, |_| {}).await?;
        let mut watching = context.clone();
        let bar = async { show_progress(&mut watching, job).await };
        let show = match (self.json, reduce.is_some() || self.batch.out.is_some()) {
            (true, _) => Show::Json,
            // Whoever waits for the sum does not want to see its parts.
            (false, true) => Show::Nothing,
            (false, false) => Show::Output,
        };
        let listening = listen(&mut context, job, show);
        let status = tokio::select! {
            status = listening => status?,
            error = bar => return Err(error),
        };
        // However many tasks there are, and however they failed.
        let status = if [0, KILLED].contains(&status) { status } else { failure::FAILED };
        match reduce {
            Some(reduce) if status == 0 => {
                let mut output = context.client.output(&reduce.to_string(), true).await?;
                let outcome = print_all(&mut output, &mut context.io.stdout, &mut context.io.stderr).await?;
                Ok(status_of(&outcome))
            }
            _ => Ok(status),
        }
    }
}

impl Submit {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        let mut after = Vec::new();
        for job in &self.after {
            after.push(context.client.job(job).await?.id);
        }
        let input = match (&self.input_of, &self.stdin) {
            (Some(job), _) => InputRequest::OutputOf(context.client.job(job).await?.id),
            (_, Some(path)) => InputRequest::File(context.cwd.resolve(path)?),
            _ => InputRequest::Empty,
        };
        let finish = |request: &mut BatchRequest| (request.after, request.input) = (after, input);
        let (job, reduce) = self.batch.submit(&mut context, finish).await?;
        context.print(reduce.unwrap_or(job)).await?;
        Ok(0)
    }
}

/// Nobody should wonder how it could be done so soon.
async fn say_if_cached(context: &mut Context, submitted: Submitted) -> anyhow::Result<JobId> {
    if submitted.cached {
        let id = submitted.id.to_string();
        let line = format!(
            "the same was run before, as job {:.8}: these are its results (--no-cache runs it again)",
            id
        );
        context.io.stderr.line(line).await?;
    }
    Ok(submitted.id)
}

/// What comes out of the tasks of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Show {
    /// A line of JSON for each.
    Json,
    /// What they print.
    Output,
    /// Nothing: it goes elsewhere.
    Nothing,
}

/// Listens to a batch to its end, and gives the status to exit with. The batch ends when nobody listens any more.
async fn listen(context: &mut Context, job: JobId, show: Show) -> anyhow::Result<i32> {
    let id = job.to_string();
    if show == Show::Output {
        let mut output = context.client.output(&id, true).await?;
        print_all(&mut output, &mut context.io.stdout, &mut context.io.stderr).await?;
    } else {
        let mut lines = context.client.tasks(&id, true).await?;
        while let Some(bytes) = lines.try_next().await? {
            if show == Show::Json {
                context.io.stdout.write_all(&bytes).await?;
                context.io.stdout.flush().await?;
            }
        }
    }
    let report = context.client.job_end(&id).await?;
    if show != Show::Json && report.progress.is_some_and(|progress| progress.failed > 0) {
        tell_failures(context, job, show == Show::Nothing).await?;
    }
    conclude(context, &report).await
}

/// Says which tasks failed, the first of them one by one.
async fn tell_failures(context: &mut Context, job: JobId, with_stderr: bool) -> anyhow::Result<()> {
    let mut lines = context.client.tasks(&job.to_string(), false).await?;
    let (mut rest, mut told) = (Vec::new(), 0);
    while let Some(bytes) = lines.try_next().await? {
        rest.extend_from_slice(&bytes);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let ended: TaskLine =
                serde_json::from_slice(&line).context("the node's answer makes no sense")?;
            if !ended.outcome.is_success() {
                tell(context, &ended, with_stderr).await?;
                told += 1;
            }
            if told == MAX_TOLD {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Says that a task failed, and, if nobody has heard it yet, what it said about that.
async fn tell(context: &mut Context, ended: &TaskLine, with_stderr: bool) -> anyhow::Result<()> {
    let item = ended.item.as_ref().map(|item| format!(" ({item})")).unwrap_or_default();
    let stderr = &mut context.io.stderr;
    stderr.line(format!("error: task {}{item}: {}", ended.task, ended.outcome)).await?;
    for line in ended.stderr.iter().filter(|_| with_stderr).flat_map(|said| said.lines()) {
        stderr.line(format!("  {line}")).await?;
    }
    Ok(())
}

/// The status that a batch ends with, and why it is not 0.
pub(super) async fn conclude(context: &mut Context, report: &JobReport) -> anyhow::Result<i32> {
    let outcome = report.outcome.clone().unwrap_or(Outcome::Killed);
    if outcome.is_success() {
        return Ok(0);
    }
    context.io.stderr.line(format!("error: {}: {outcome}", report.name)).await?;
    Ok(match outcome {
        Outcome::Failed { .. } => failure::FAILED,
        other => status_of(&other),
    })
}

/// Moves a bar on standard error, and says why nothing happens where that is so for a while; returns only with an error.
async fn show_progress(context: &mut Context, job: JobId) -> anyhow::Error {
    let bar = progress::items("tasks", Some(0));
    let every = if bar.is_hidden() { TELL_AFTER } else { LOOK_EVERY };
    let (mut moved, mut done, mut told) = (Instant::now(), 0, None);
    loop {
        let report = match context.client.job(&job.to_string()).await {
            Ok(report) => report,
            Err(error) => return error.into(),
        };
        let progress = report.progress.unwrap_or_default();
        bar.set_length(progress.tasks);
        bar.set_position(progress.done);
        if progress.done > done || report.why.is_none() {
            (moved, done) = (Instant::now(), progress.done);
        } else if moved.elapsed() >= TELL_AFTER && report.why != told {
            told = report.why;
            let words = format!("waiting: {}", told.as_deref().unwrap_or_default());
            bar.println(&words);
            if bar.is_hidden()
                && let Err(error) = context.io.stderr.line(words).await
            {
                return error.into();
            }
        }
        tokio::time::sleep(every).await;
    }
}

/// A pattern of absolute paths, from one that may be relative to where the shell stands.
pub(super) fn absolute(cwd: &VfsPath, pattern: &str) -> anyhow::Result<String> {
    Ok(if pattern.starts_with('/') {
        pattern.to_owned()
    } else {
        format!("{}/{pattern}", cwd.to_string().trim_end_matches('/'))
    })
}

async fn read_lines(context: &mut Context, file: &str) -> anyhow::Result<Bytes> {
    if file == "-" {
        let mut lines = Vec::new();
        context.io.stdin.read_to_end(&mut lines).await.context("cannot read standard input")?;
        return Ok(lines.into());
    }
    if context.is_shell {
        let path = context.cwd.resolve(file)?;
        let content = context.tree().read(&path, 0..u64::MAX).await?;
        let parts: Vec<Bytes> = content.try_collect().await?;
        return Ok(parts.concat().into());
    }
    Ok(tokio::fs::read(file).await.with_context(|| format!("cannot read {file}"))?.into())
}

fn parse_range(text: &str) -> Result<(u64, u64), String> {
    let (start, end) = text.split_once("..").ok_or("give FIRST..END, such as 0..100")?;
    let number = |text: &str| text.trim().parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
    let (start, end) = (number(start)?, number(end)?);
    if start < end { Ok((start, end)) } else { Err("it is empty".to_owned()) }
}
