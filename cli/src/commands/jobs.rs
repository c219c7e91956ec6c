//! `starfish jobs`, `job` and `kill`: what runs in the swarm.

use std::time::Duration;

use futures::TryStreamExt;
use starfish_node::compute::batch::Outvoted;
use starfish_node::compute::{JobReport, JobSummary, Phase, Verified};
use tokio::io::AsyncWriteExt;

use super::run::print_all;
use super::{Context, batch, peers};
use crate::output::human;
use crate::output::table::Table;

/// How often a job that is watched is asked after.
const WATCH_EVERY: Duration = Duration::from_millis(250);

/// List the swarm's jobs.
#[derive(Clone, Debug, clap::Args)]
pub struct Jobs {
    /// As one JSON document.
    #[arg(long)]
    json: bool,
    /// Ids alone, one a line.
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,
}

/// Show a job: why it waits, who runs it, how it ended.
#[derive(Clone, Debug, clap::Args)]
pub struct Job {
    /// Its id, or a unique beginning of it.
    id: String,
    /// Print a line for each change until it has ended.
    #[arg(short, long, conflicts_with = "json")]
    watch: bool,
    /// As one JSON document.
    #[arg(long)]
    json: bool,
}

/// Print what a job said, from its beginning; of a job that runs, also what it goes on to say.
#[derive(Clone, Debug, clap::Args)]
pub struct Logs {
    /// Its id, or a unique beginning of it.
    id: String,
    /// Each task in a line of JSON, for a job of many tasks.
    #[arg(long)]
    json: bool,
}

/// Wait for the end of jobs.
///
/// Exits with 0 if all of them ended well, else with what the first one that did not would have ended `starfish map`
/// with.
#[derive(Clone, Debug, clap::Args)]
pub struct Wait {
    /// Their ids, or unique beginnings of them.
    #[arg(required = true)]
    ids: Vec<String>,
}

/// Run those tasks of a job again that failed, or were not run because it was ended.
#[derive(Clone, Debug, clap::Args)]
pub struct Retry {
    /// Its id, or a unique beginning of it.
    id: String,
}

/// List the nodes that found something else than others that ran the same tasks (--verify), or trust one again.
///
/// They get no tasks of `starfish map` and `submit` for 30 days.
#[derive(Clone, Debug, clap::Args)]
pub struct Suspects {
    /// Trust this node again: its id, or a unique ending or beginning of it.
    #[arg(long, value_name = "NODE")]
    forgive: Option<String>,
    /// As one JSON document.
    #[arg(long, conflicts_with = "forgive")]
    json: bool,
}

/// End a job, or a process with its state and all of its events.
#[derive(Clone, Debug, clap::Args)]
pub struct Kill {
    /// The id of a job, or a unique beginning of it; or the name of a process, which goes first.
    #[arg(value_name = "JOB|PROCESS")]
    id: String,
}

impl Jobs {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        let jobs = context.client.jobs().await?;
        if self.json {
            context.print_json(&jobs).await?;
            return Ok(0);
        }
        if self.quiet {
            for job in &jobs {
                context.print(job.id).await?;
            }
            return Ok(0);
        }
        let mut table = Table::new(["ID", "STATE", "TASKS", "NODE", "KEEPER", "SUBMITTED", "NAME"]);
        for job in &jobs {
            table.row([
                short(&job.id.to_string()),
                word(job.phase).to_owned(),
                tasks(job),
                job.by.as_ref().map_or_else(|| "-".to_owned(), human::peer),
                human::peer(&job.keeper),
                human::age(job.submitted_ms),
                job.name.clone(),
            ]);
        }
        if !jobs.is_empty() {
            context.print(table.to_string().trim_end()).await?;
        }
        Ok(0)
    }
}

impl Job {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        let report = context.client.job(&self.id).await?;
        if self.watch {
            return watch(&mut context, report).await;
        }
        if self.json {
            context.print_json(&report).await?;
        } else {
            context.print(describe(&report).to_string().trim_end()).await?;
        }
        Ok(0)
    }
}

impl Logs {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        if self.json {
            let mut lines = context.client.tasks(&self.id, false).await?;
            while let Some(bytes) = lines.try_next().await? {
                context.io.stdout.write_all(&bytes).await?;
                context.io.stdout.flush().await?;
            }
            return Ok(0);
        }
        let mut output = context.client.output(&self.id, false).await?;
        print_all(&mut output, &mut context.io.stdout, &mut context.io.stderr).await?;
        Ok(0)
    }
}

impl Wait {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        let mut status = 0;
        for id in &self.ids {
            let report = context.client.job_end(id).await?;
            let ended = batch::conclude(&mut context, &report).await?;
            status = if status == 0 { ended } else { status };
        }
        Ok(status)
    }
}

impl Retry {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        let id = context.client.retry(&self.id).await?;
        context.print(id).await?;
        Ok(0)
    }
}

impl Suspects {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        let suspects = context.client.suspects().await?;
        if let Some(wanted) = &self.forgive {
            let node = peers::only("suspect", suspects.iter().map(|suspect| suspect.node), wanted)?;
            context.client.forgive(&node).await?;
            context.io.stderr.line(format!("{node} is trusted again")).await?;
            return Ok(0);
        }
        if self.json {
            context.print_json(&suspects).await?;
            return Ok(0);
        }
        let mut table = Table::new(["NODE", "JOB", "TASKS", "EXAMPLE", "SEEN", "BY"]);
        for suspect in &suspects {
            table.row([
                suspect.node.to_string(),
                short(&suspect.job.to_string()),
                suspect.tasks.to_string(),
                suspect.example.to_string(),
                human::age(suspect.at_ms),
                human::peer(&suspect.by),
            ]);
        }
        if !suspects.is_empty() {
            context.print(table.to_string().trim_end()).await?;
        }
        Ok(0)
    }
}

impl Kill {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        if self.is_process(&context).await? {
            context.client.end_process(&self.id).await?;
            context.io.stderr.line(format!("process {} is ended", self.id)).await?;
            return Ok(0);
        }
        let before = context.client.job(&self.id).await?;
        if let Some(outcome) = before.outcome {
            let line = format!("job {} has ended already: {outcome}", short(&before.id.to_string()));
            context.io.stderr.line(line).await?;
            return Ok(0);
        }
        let id = context.client.kill(&self.id).await?;
        context.io.stderr.line(format!("job {} is ended", short(&id.to_string()))).await?;
        Ok(0)
    }
}

impl Kill {
    async fn is_process(&self, context: &Context) -> anyhow::Result<bool> {
        let processes = context.client.processes().await?;
        Ok(processes.iter().any(|process| process.name.as_str() == self.id))
    }
}

/// Says how a job goes whenever that has changed.
async fn watch(context: &mut Context, mut report: JobReport) -> anyhow::Result<i32> {
    let (id, mut said) = (report.id.to_string(), String::new());
    loop {
        let line = in_a_line(&report);
        if line != said {
            context.print(&line).await?;
            said = line;
        }
        if report.outcome.is_some() {
            return Ok(0);
        }
        tokio::time::sleep(WATCH_EVERY).await;
        report = context.client.job(&id).await?;
    }
}

fn in_a_line(report: &JobReport) -> String {
    let mut line = word(report.phase).to_owned();
    if let Some(progress) = report.progress {
        line += &format!(", {} of {} tasks ended", progress.done, progress.tasks);
        if progress.failed > 0 {
            line += &format!(", {} of them failed", progress.failed);
        }
    }
    match (&report.outcome, &report.why) {
        (Some(outcome), _) => line + &format!(": {outcome}"),
        (None, Some(why)) => line + &format!(": {why}"),
        (None, None) => line,
    }
}

fn compared(verified: &Verified) -> String {
    let Verified { copies, enough, outvoted } = verified;
    let mut words = format!("{copies} nodes run each task");
    if enough < copies {
        words += &format!("; {enough} had to do, there were no more");
    }
    match outvoted.len() {
        0 => words + "; none found anything else",
        1 => words + "; one found something else",
        n => words + &format!("; {n} found something else"),
    }
}

fn describe(report: &JobReport) -> Table {
    let mut table = Table::default();
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("job", report.id.to_string());
    row("name", report.name.clone());
    row("state", format!("{}, {}", word(report.phase), human::age(report.since_ms)));
    if let Some(why) = &report.why {
        row("why", why.clone());
    }
    if let Some(outcome) = &report.outcome {
        row("outcome", outcome.to_string());
    }
    if let Some(by) = &report.by {
        row("node", by.to_string());
    }
    row("keeper", report.keeper.to_string());
    row("submitted", human::age(report.submitted_ms));
    if report.progress.is_none() || report.attempts > 1 {
        row("attempts", report.attempts.to_string());
    }
    for (peer, reason) in &report.lost {
        row("lost on", format!("{}: {reason}", human::peer(peer)));
    }
    match report.progress {
        Some(progress) => {
            let failed = match progress.failed {
                0 => String::new(),
                failed => format!(", {failed} of them failed"),
            };
            row("tasks", format!("{} of {} ended{failed}", progress.done, progress.tasks));
            if !report.workers.is_empty() {
                row("at work", report.workers.iter().map(human::peer).collect::<Vec<_>>().join(", "));
            }
            if progress.done > 0 {
                row("output", format!("starfish logs {:.8}", report.id.to_string()));
            }
            if let Some(verified) = &report.verified {
                row("verified", compared(verified));
                for (node, Outvoted { tasks, example }) in &verified.outvoted {
                    row("outvoted", format!("{node} on {tasks} tasks, such as {example}"));
                }
            }
        }
        None => row("output", human::bytes(report.output_bytes)),
    }
    table
}

/// How many tasks have ended, of how many.
fn tasks(job: &JobSummary) -> String {
    match job.progress {
        Some(progress) if progress.done < progress.tasks => format!("{}/{}", progress.done, progress.tasks),
        Some(progress) => progress.tasks.to_string(),
        None => "1".to_owned(),
    }
}

pub(super) fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "pending",
        Phase::Running => "running",
        Phase::Done => "done",
        Phase::Failed => "failed",
        Phase::Killed => "killed",
    }
}

/// Enough of an id to tell jobs apart.
pub(super) fn short(id: &str) -> String {
    id.chars().take(8).collect()
}
