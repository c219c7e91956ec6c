//! `starfish cron`: functions that run by the clock.

use starfish_node::compute::Phase;
use starfish_node::wire::{CronRequest, FiringLine};

use super::Context;
use super::jobs::{short, word};
use crate::output::human;
use crate::output::table::Table;

/// Have functions called by the clock; without more, list what is called when.
///
/// A line names moments as crontab(5) does, in UTC: minute, hour, day, month, weekday. A sixth field in front names the
/// second. At each of them one node of the swarm, whichever is there, submits a job that calls the function, with the moment
/// in STARFISH_TICK; `starfish logs` shows what it said. If that node is lost before, another one does it some seconds later;
/// moments that nobody could see to within a minute are left out.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  starfish cron add tidy '*/5 * * * *' cleanup --older 30d\n  \
                        starfish cron add beat '*/10 * * * * *' heartbeat\n  starfish cron\n  starfish cron rm tidy")]
pub struct Cron {
    #[command(subcommand)]
    action: Option<Action>,
    /// As one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Action {
    /// Add a line, or put it in place of that of this name.
    Add {
        /// What the line is called.
        name: String,
        /// When, such as '0 3 * * SUN'.
        schedule: String,
        /// The function, and its arguments: everything behind it is its own.
        #[arg(value_names = ["FUNCTION", "ARGS"], num_args = 1.., required = true, trailing_var_arg = true)]
        command: Vec<String>,
    },
    /// List the lines: when each fires next, and how its last time went.
    #[command(visible_alias = "ls")]
    List {
        /// As one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Forget a line. What it has begun goes on.
    #[command(name = "rm", visible_alias = "remove")]
    Remove {
        /// The line.
        name: String,
    },
}

impl Cron {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        match self.action {
            None => list(&mut context, self.json).await?,
            Some(Action::List { json }) => list(&mut context, json || self.json).await?,
            Some(Action::Add { name, schedule, command }) => {
                let mut words = command.into_iter();
                let function = words.next().unwrap_or_default().parse()?;
                let line = CronRequest { schedule, function, args: words.collect() };
                let added = context.client.add_cron(&name, &line).await?;
                context.print(format!("{} fires next {}", added.name, at(added.next_ms))).await?;
            }
            Some(Action::Remove { name }) => context.client.remove_cron(&name).await?,
        }
        Ok(0)
    }
}

async fn list(context: &mut Context, json: bool) -> anyhow::Result<()> {
    let lines = context.client.cron().await?;
    if json {
        return context.print_json(&lines).await;
    }
    let mut table = Table::new(["NAME", "SCHEDULE", "NEXT", "LAST", "JOB", "STATE", "CALLS"]);
    for line in &lines {
        let (last, job, state) = line.last.as_ref().map_or_else(Default::default, told);
        table.row([
            line.name.to_string(),
            line.schedule.clone(),
            at(line.next_ms),
            last,
            job,
            state,
            calls(line.function.as_str(), &line.args),
        ]);
    }
    if !lines.is_empty() {
        context.print(table.to_string().trim_end()).await?;
    }
    Ok(())
}

/// When something was run last, as which job, and how it went.
pub(super) fn told(last: &FiringLine) -> (String, String, String) {
    let job = last.job.map_or_else(|| "-".to_owned(), |job| short(&job.to_string()));
    let state = match (last.phase, &last.outcome) {
        (Some(Phase::Failed), Some(outcome)) => outcome.to_string(),
        (Some(phase), _) => word(phase).to_owned(),
        (None, _) => "no longer kept".to_owned(),
    };
    (human::time_to_the_second(last.due_ms), job, state)
}

fn at(moment: Option<u64>) -> String {
    moment.map_or_else(|| "never".to_owned(), human::time_to_the_second)
}

/// A function and its arguments.
pub(super) fn calls(function: &str, args: &[String]) -> String {
    std::iter::once(function).chain(args.iter().map(String::as_str)).collect::<Vec<_>>().join(" ")
}
