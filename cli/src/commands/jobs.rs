//! `starfish jobs`, `job` and `kill`: what runs in the swarm.

use starfish_node::compute::{JobReport, Phase};

use super::Context;
use crate::output::human;
use crate::output::table::Table;

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
    /// As one JSON document.
    #[arg(long)]
    json: bool,
}

/// End a job.
#[derive(Clone, Debug, clap::Args)]
pub struct Kill {
    /// Its id, or a unique beginning of it.
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
        let mut table = Table::new(["ID", "STATE", "NODE", "KEEPER", "NAME"]);
        for job in &jobs {
            table.row([
                short(&job.id.to_string()),
                word(job.phase).to_owned(),
                job.by.as_ref().map_or_else(|| "-".to_owned(), human::peer),
                human::peer(&job.keeper),
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
        if self.json {
            context.print_json(&report).await?;
        } else {
            context.print(describe(&report).to_string().trim_end()).await?;
        }
        Ok(0)
    }
}

impl Kill {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        let id = context.client.kill(&self.id).await?;
        context.io.stderr.line(format!("job {} is ended", short(&id.to_string()))).await?;
        Ok(0)
    }
}

fn describe(report: &JobReport) -> Table {
    let mut table = Table::default();
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("job", report.id.to_string());
    row("name", report.name.clone());
    row(
        "state",
        format!("{} for {}", word(report.phase), human::age(report.since_ms).trim_end_matches(" ago")),
    );
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
    row("attempts", report.attempts.to_string());
    for (peer, reason) in &report.lost {
        row("lost on", format!("{}: {reason}", human::peer(peer)));
    }
    row("output", human::bytes(report.output_bytes));
    table
}

fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "pending",
        Phase::Running => "running",
        Phase::Done => "done",
        Phase::Failed => "failed",
        Phase::Killed => "killed",
    }
}

/// Enough of an id to tell jobs apart.
fn short(id: &str) -> String {
    id.chars().take(8).collect()
}
