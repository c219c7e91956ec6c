//! `starfish spawn`, `send` and `ps`: processes, whose state outlives their nodes.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use starfish_node::compute::EventId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Context, failure};
use crate::output::human;
use crate::output::table::Table;

/// The most that is read of standard input for one event, in bytes: more than any may have, so that the node says what
/// is wrong.
const MAX_INPUT: u64 = 64 << 10;
/// Whoever waits for an answer for so long is told why.
const TELL_AFTER: Duration = Duration::from_secs(3);

/// Begin a process: state that no node owns, and a function that handles what is sent to it.
///
/// For each event, one after the other, the function's program is asked: its export of the handler's name is called, or, where it has
/// none, the program is run with that name as its argument. It reads the state and the event, and writes the new state, a reply, and events for other processes. One node at a time does that; if it dies, the next one goes on, and
/// every event counts once. `starfish kill NAME` ends a process. What handlers read and write is told in
/// compute/samples/README.md.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  starfish deploy auction auction.wasm\n  starfish spawn lot7 auction\n  \
                        starfish send --wait lot7 bid 'ada 100'\n  starfish ps lot7"
)]
pub struct Spawn {
    /// What the process is called.
    name: String,
    /// The function that handles its events.
    function: String,
}

/// Send an event to a process.
///
/// When the command ends, the event is on this node's disk and on that of another one, if there is one, and will be
/// handled. It prints the event's id; to send it again with `--id` is to send the same event.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Exit status: 0 it is journaled, or with --wait: the handler ended well; 1 the handler failed, and nothing has changed;\n\
                        4 there is no such process."
)]
pub struct Send {
    /// Wait until it was handled, and print what the handler replies instead.
    #[arg(long)]
    wait: bool,
    /// How the event is called, as 32 hexadecimal digits.
    #[arg(long, value_name = "ID")]
    id: Option<EventId>,
    /// The process.
    process: String,
    /// Which of its handlers.
    handler: String,
    /// What the handler is told; `-` is standard input.
    #[arg(allow_hyphen_values = true)]
    data: Option<String>,
}

/// List the swarm's processes, or show one.
#[derive(Clone, Debug, clap::Args)]
pub struct Ps {
    /// The process.
    name: Option<String>,
    /// Print its state, and nothing else.
    #[arg(long, requires = "name", conflicts_with = "json")]
    state: bool,
    /// As one JSON document.
    #[arg(long)]
    json: bool,
}

impl Spawn {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<i32> {
        context.client.spawn(&self.name, self.function.parse()?).await?;
        Ok(0)
    }
}

impl Send {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        let data = match self.data.as_deref() {
            Some("-") => {
                let mut data = Vec::new();
                let mut input = (&mut context.io.stdin).take(MAX_INPUT);
                input.read_to_end(&mut data).await.context("cannot read standard input")?;
                Bytes::from(data)
            }
            data => Bytes::from(data.unwrap_or_default().to_owned()),
        };
        let sent = context.client.send_event(&self.process, &self.handler, self.id, data).await?;
        if !self.wait {
            context.print(sent.id).await?;
            return Ok(0);
        }
        let mut watching = context.clone();
        let answer = tokio::select! {
            answer = context.client.event_answer(&self.process, sent.id) => answer?,
            error = self.tell_why(&mut watching) => return Err(error),
        };
        if let Some(why) = answer.failed {
            let line = format!("error: {} of {}: {why}", self.handler, self.process);
            context.io.stderr.line(line).await?;
            return Ok(failure::FAILED);
        }
        if let Some(reply) = answer.reply {
            context.io.stdout.write_all(&reply.0).await?;
        }
        Ok(0)
    }
}

impl Send {
    /// Says why the event is not handled, where that takes long; returns only with an error.
    async fn tell_why(&self, context: &mut Context) -> anyhow::Error {
        let mut told = None;
        loop {
            tokio::time::sleep(TELL_AFTER).await;
            // Whether there is still such a process, the answer says.
            let Ok(process) = context.client.process(&self.process).await else { continue };
            if process.why.is_some() && process.why != told {
                let line = format!("waiting: {}", process.why.as_deref().unwrap_or_default());
                if let Err(error) = context.io.stderr.line(line).await {
                    return error.into();
                }
                told = process.why;
            }
        }
    }
}

impl Ps {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        let Some(name) = &self.name else { return list(&mut context, self.json).await };
        if self.state {
            let state = context.client.process_state(name).await?;
            context.io.stdout.write_all(&state).await?;
            return Ok(0);
        }
        let process = context.client.process(name).await?;
        if self.json {
            context.print_json(&process).await?;
            return Ok(0);
        }
        let mut table = Table::default();
        let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
        row("process", process.name.to_string());
        row("function", process.function.to_string());
        row("owner", process.owner.to_string());
        row("begun", format!("{} by {}", human::age(process.since_ms), human::peer(&process.by)));
        row("handled", format!("{} events, {} of them failed", process.handled, process.failed));
        row("pending", process.pending.to_string());
        if let Some(why) = &process.why {
            row("why", why.clone());
        }
        row("state", human::bytes(process.state_bytes));
        row("last event", process.last_ms.map_or_else(|| "never".to_owned(), human::age));
        context.print(table.to_string().trim_end()).await?;
        Ok(0)
    }
}

async fn list(context: &mut Context, json: bool) -> anyhow::Result<i32> {
    let processes = context.client.processes().await?;
    if json {
        context.print_json(&processes).await?;
        return Ok(0);
    }
    let columns = ["NAME", "FUNCTION", "OWNER", "HANDLED", "FAILED", "PENDING", "STATE", "LAST EVENT"];
    let mut table = Table::new(columns).right_aligned(&[3, 4, 5, 6]);
    for process in &processes {
        table.row([
            process.name.to_string(),
            process.function.to_string(),
            human::peer(&process.owner),
            process.handled.to_string(),
            process.failed.to_string(),
            process.pending.to_string(),
            human::bytes(process.state_bytes),
            process.last_ms.map_or_else(|| "never".to_owned(), human::age),
        ]);
    }
    if !processes.is_empty() {
        context.print(table.to_string().trim_end()).await?;
    }
    Ok(0)
}
