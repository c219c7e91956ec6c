//! `starfish status`, `starfish id` and `starfish workers`: how the node is.

use std::time::Duration;

use starfish_node::compute::jail::{Bar, JailReport};
use starfish_node::fs::Shortfall;
use starfish_node::wire;

use super::Context;
use super::failure::NOT_RUNNING;
use crate::output::human;
use crate::output::table::Table;

/// Show how the node and its swarm are.
#[derive(Clone, Debug, clap::Args)]
pub struct Status {
    /// As one JSON document.
    #[arg(long)]
    json: bool,
    /// Say nothing; exit with 0 if the node answers and 3 if not.
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,
}

/// Show who the node is.
#[derive(Clone, Debug, clap::Args)]
pub struct Id {
    /// As one JSON document, with the swarm.
    #[arg(long)]
    json: bool,
}

/// List the node's background work.
#[derive(Clone, Debug, clap::Args)]
pub struct Workers {
    /// As one JSON document.
    #[arg(long)]
    json: bool,
}

/// How far this machine's kernel confines the processes that run tasks.
fn bars(jail: JailReport) -> String {
    let word = |bar| match bar {
        Bar::Full => "on",
        Bar::Partial => "on as far as this kernel has it",
        Bar::Absent => "not there",
    };
    let JailReport { seccomp, landlock, limits } = jail;
    format!("seccomp {}, landlock {}, limits {}", word(seccomp), word(landlock), word(limits))
}

impl Status {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        if self.quiet {
            return Ok(if context.client.status().await.is_ok() { 0 } else { NOT_RUNNING });
        }
        let status = context.client.status().await?;
        if self.json {
            context.print_json(&status).await?;
            return Ok(0);
        }
        let mut table = Table::default();
        table.row(["node".to_owned(), status.id.peer.to_string()]);
        table.row(["swarm".to_owned(), status.id.swarm.clone()]);
        table.row(["members".to_owned(), members(&status)]);
        for (index, address) in status.addrs.iter().enumerate() {
            table.row([if index == 0 { "addresses" } else { "" }.to_owned(), address.to_string()]);
        }
        if !status.zone.is_empty() {
            table.row(["zone".to_owned(), status.zone.clone()]);
        }
        let lost = match status.memory_lost {
            0 if status.memory_is_whole => String::new(),
            0 => ", some was damaged on this disk and has not come back from other members yet".to_owned(),
            n => format!(", {n} damaged on this disk and not back from other members yet"),
        };
        let memory = format!("{} cells, digest {:.16}{lost}", status.memory_cells, status.memory_digest);
        table.row(["memory".to_owned(), memory]);
        table.row(["files".to_owned(), files(&context.client.shortfall().await?)]);
        table.row(["tasks".to_owned(), format!("{} of {} slots free", status.slots_free, status.slots)]);
        table.row([
            "jail".to_owned(),
            status.jail.map_or_else(|| "no task has run here yet".to_owned(), bars),
        ]);
        let up = human::duration(Duration::from_millis(status.uptime_ms));
        let resident =
            status.resident_bytes.map_or_else(String::new, |n| format!(", {} of memory", human::bytes(n)));
        table.row([
            "process".to_owned(),
            format!("pid {}, up {up}{resident}, version {}", status.pid, status.version),
        ]);
        table.row(["data".to_owned(), status.data_dir.display().to_string()]);
        table.row(["api".to_owned(), format!("http://{}", status.api)]);
        context.print(table.to_string().trim_end()).await?;
        Ok(0)
    }
}

/// Who else is there, and whether this node is let in at all.
fn members(status: &wire::Status) -> String {
    if status.provisional && !status.has_met_others && status.turned_away.is_none() {
        return "never reached a member of its swarm; it goes on trying".to_owned();
    }
    let mut text = format!("{} of {} others alive", status.n_alive, status.n_known);
    if let Some(why) = &status.turned_away {
        text.push_str(&format!("; the swarm lets this node in no more: {why}"));
    }
    text
}

/// How the files of the swarm are, in words.
fn files(shortfall: &Shortfall) -> String {
    if shortfall.files == 0 {
        return match shortfall.looking {
            0 => "all at full durability".to_owned(),
            1 => "being looked after: members have changed, and 1 of them is not through".to_owned(),
            n => format!("being looked after: members have changed, and {n} of them are not through"),
        };
    }
    let mut text = format!("{} below full durability", shortfall.files);
    if shortfall.unreadable > 0 {
        text.push_str(&format!(", of which {} cannot be read now", shortfall.unreadable));
    }
    for (why, files) in shortfall.why.iter().take(3) {
        text.push_str(&format!("; {files}: {why}"));
    }
    text
}

impl Id {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        let id = context.client.id().await?;
        if self.json {
            // The same node is `id` to `peers` and `peer` to the API.
            let json = serde_json::json!({ "id": id.peer, "peer": id.peer, "swarm": id.swarm });
            context.print_json(&json).await?;
        } else {
            context.print(id.peer).await?;
        }
        Ok(0)
    }
}

impl Workers {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        let workers = context.client.workers().await?;
        if self.json {
            context.print_json(&workers).await?;
            return Ok(0);
        }
        let mut table = Table::new(["NAME", "STATE"]);
        for worker in workers {
            table.row([worker.name.as_str(), if worker.alive { "at work" } else { "ended" }]);
        }
        context.print(table.to_string().trim_end()).await?;
        Ok(0)
    }
}
