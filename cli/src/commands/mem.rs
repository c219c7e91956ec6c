//! `starfish mem`: the shared memory.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use starfish_node::wire::WatchEvent;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Context;
use super::failure::NOT_FOUND;
use crate::output::table::Table;

/// Keys fetched at once when all are listed.
const PAGE: usize = 1_000;
/// The most that is read of standard input for one value, in bytes: more than any value may have, so that the
/// node says what is wrong.
const MAX_VALUE: u64 = 64 << 10;

/// Read and write the shared memory.
///
/// A value that was set is on this node's disk when the command ends, and on its way to every other node.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  starfish mem set greeting hello\n  starfish mem get greeting\n  starfish mem incr visits\n  \
                        starfish mem ls user/\n  starfish mem watch user/"
)]
pub struct Mem {
    /// The space of keys.
    #[arg(long, global = true, default_value = "default")]
    space: String,
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Action {
    /// Print the value of a key and a newline; exit with 4 if there is none.
    Get {
        /// The key.
        key: String,
    },
    /// Set a key.
    Set {
        /// The key.
        key: String,
        /// The value; standard input if it is missing or `-`.
        #[arg(allow_hyphen_values = true)]
        value: Option<String>,
        /// Forget it after this time, such as 30s or 7d.
        #[arg(long, value_parser = super::run::parse_duration)]
        ttl: Option<Duration>,
    },
    /// Delete a key; exit with 4 if there is none.
    Del {
        /// The key.
        key: String,
    },
    /// List the keys that begin with PREFIX, and their values.
    Ls {
        /// What the keys begin with.
        #[arg(default_value = "")]
        prefix: String,
        /// As one JSON document.
        #[arg(long)]
        json: bool,
        /// Keys alone, one a line.
        #[arg(short, long, conflicts_with = "json")]
        quiet: bool,
    },
    /// Add to a counter, and print what it is then.
    Incr {
        /// The key.
        key: String,
        /// How much; may be negative.
        #[arg(default_value_t = 1, allow_negative_numbers = true)]
        by: i64,
    },
    /// Print the keys that begin with PREFIX, and then every change, one JSON document a line.
    Watch {
        /// What the keys begin with.
        #[arg(default_value = "")]
        prefix: String,
    },
}

impl Mem {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        let space = context.client.space(&self.space);
        match self.action {
            Action::Get { key } => match space.get(key.as_bytes()).await? {
                Some(value) => {
                    context.io.stdout.write_all(&value).await?;
                    context.io.stdout.write_all(b"\n").await?;
                }
                None => return Ok(NOT_FOUND),
            },
            Action::Set { key, value, ttl } => {
                let value = match value {
                    Some(value) if value != "-" => Bytes::from(value),
                    _ => read_value(&mut context).await?,
                };
                space.set(key.as_bytes(), value, ttl).await?;
            }
            Action::Del { key } => {
                return Ok(if space.delete(key.as_bytes()).await? { 0 } else { NOT_FOUND });
            }
            Action::Ls { prefix, json, quiet } => {
                list(&mut context, &self.space, &prefix, json, quiet).await?
            }
            Action::Incr { key, by } => {
                let value = space.incr(key.as_bytes(), by).await?;
                context.print(value).await?;
            }
            Action::Watch { prefix } => watch(&mut context, &self.space, &prefix).await?,
        }
        Ok(0)
    }
}

async fn read_value(context: &mut Context) -> anyhow::Result<Bytes> {
    let mut value = Vec::new();
    (&mut context.io.stdin).take(MAX_VALUE).read_to_end(&mut value).await?;
    Ok(value.into())
}

async fn list(
    context: &mut Context,
    space: &str,
    prefix: &str,
    json: bool,
    quiet: bool,
) -> anyhow::Result<()> {
    let space = context.client.space(space);
    let mut all = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = space.scan(prefix.as_bytes(), after.as_deref(), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone().into());
        if quiet {
            for pair in &page {
                context.io.stdout.write_all(&pair.key).await?;
                context.io.stdout.write_all(b"\n").await?;
            }
        } else {
            all.extend(page);
        }
    }
    if json {
        return context.print_json(&all).await;
    }
    if !all.is_empty() {
        let mut table = Table::default();
        for pair in &all {
            table.row([readable(&pair.key), readable(&pair.value)]);
        }
        context.print(table.to_string().trim_end()).await?;
    }
    Ok(())
}

/// Text as it is, and what would disturb a terminal escaped.
fn readable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

/// One line of `mem watch`.
#[derive(Serialize)]
#[serde(untagged)]
enum Line {
    Set { key: String, value: String },
    Deleted { key: String, deleted: bool },
    Lagged { lagged: bool },
}

async fn watch(context: &mut Context, space: &str, prefix: &str) -> anyhow::Result<()> {
    let mut watch = context.client.space(space).watch(prefix.as_bytes()).await?;
    while let Some(event) = watch.next().await? {
        let line = match event {
            WatchEvent::Value { key, value } => Line::Set { key: readable(&key), value: readable(&value) },
            WatchEvent::Deleted { key } => Line::Deleted { key: readable(&key), deleted: true },
            WatchEvent::Live => continue,
            WatchEvent::Lagged => Line::Lagged { lagged: true },
        };
        context.print(serde_json::to_string(&line)?).await?;
        context.io.stdout.flush().await?;
    }
    Ok(())
}
