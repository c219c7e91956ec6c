//! `starfish mem`: the shared memory.

mod batch;
mod held;
mod names;
mod past;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use starfish_node::client::{Precondition, RemoteLifetime, RemoteSpace, RemoteValue};
use starfish_node::memory::Stamp;
use starfish_node::wire::{Base64, KeyKindBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::io::ReaderStream;

use self::held::Held;
use self::past::Past;
use super::Context;
use super::failure::NOT_FOUND;
use crate::output::human;
use crate::output::table::Table;
use crate::shell::fs::path::VfsPath;

/// Keys fetched at once when all are listed.
const PAGE: usize = 1_000;
/// The most that is added to a value at once, in bytes: more than the node takes, so that it says what is wrong.
const MAX_MORE: u64 = 8 << 20;
/// Read at once of what is sent.
const PART: usize = 64 << 10;
/// Where the node keeps what does not fit a cell.
const VALUES: &str = "/.values";
/// What is longer is no text for a terminal, and is printed as it is.
const MAX_LINE: u64 = 16 << 10;

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
    /// Print the value of a key, and a newline behind one of up to 16 KiB; exit with 4 if there is none.
    Get {
        /// The key.
        #[arg(value_parser = names::key)]
        key: String,
        /// No newline: the bytes of the value and nothing else.
        #[arg(long)]
        raw: bool,
        /// Not what it is now but what it was in this version (see `mem log`).
        #[arg(long, value_name = "VERSION")]
        at: Option<String>,
    },
    /// Print what is known of a key: its version, when its time is over, what it holds.
    Stat {
        /// The key.
        #[arg(value_parser = names::key)]
        key: String,
        /// As one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Set a key to a value of up to 64 MiB. With a condition that does not hold nothing is set, and it exits with 1.
    Set {
        /// The key.
        #[arg(value_parser = names::key)]
        key: String,
        /// The value; standard input if it is missing or `-`.
        #[arg(allow_hyphen_values = true)]
        value: Option<String>,
        /// Take the value from this file.
        #[arg(long, value_name = "FILE", conflicts_with = "value")]
        file: Option<PathBuf>,
        /// Forget it after this time, such as 30s or 7d.
        #[arg(long, value_parser = parse_lasting)]
        ttl: Option<Duration>,
        /// Forget it when the value before would have been forgotten.
        #[arg(long, conflicts_with = "ttl")]
        keep_ttl: bool,
        /// Wait until any half of the members may vanish. A value of up to 16 KiB does not need it: all members have it.
        #[arg(long)]
        durable: bool,
        #[command(flatten)]
        condition: Condition,
    },
    /// Add to the end of a value, and print how many bytes it has then.
    Append {
        /// The key.
        #[arg(value_parser = names::key)]
        key: String,
        /// What to add; standard input if it is missing or `-`.
        #[arg(allow_hyphen_values = true)]
        more: Option<String>,
    },
    /// Forget a key after a time, or keep it for good; exit with 4 if there is none.
    Expire {
        /// The key.
        #[arg(value_parser = names::key)]
        key: String,
        /// Such as 30s or 7d; for good if it is missing.
        #[arg(value_parser = parse_lasting)]
        ttl: Option<Duration>,
    },
    /// Delete a key and all that it holds; exit with 4 if there is none.
    Del {
        /// The key.
        #[arg(value_parser = names::key)]
        key: String,
        /// Only the value of this version; another one exits with 1.
        #[arg(long, value_name = "VERSION")]
        if_version: Option<String>,
    },
    /// List the keys that begin with PREFIX, and their values; hashes and sets by their kind.
    Ls {
        /// What the keys begin with.
        #[arg(default_value = "")]
        prefix: String,
        /// Not the keys before this one.
        #[arg(long, value_name = "KEY")]
        from: Option<String>,
        /// Not this key and those behind it.
        #[arg(long, value_name = "KEY")]
        to: Option<String>,
        /// As one JSON document, values in base64, and keys as well if they are no text.
        #[arg(long)]
        json: bool,
        /// Keys alone, one a line.
        #[arg(short, long, conflicts_with = "json")]
        quiet: bool,
    },
    /// Add to a counter, and print what it is then.
    Incr {
        /// The key.
        #[arg(value_parser = names::key)]
        key: String,
        /// How much; may be negative.
        #[arg(default_value_t = 1, allow_negative_numbers = true)]
        by: i64,
    },
    #[command(flatten)]
    Past(Past),
    #[command(flatten)]
    Held(Held),
    /// Read writes from standard input, one JSON document a line, and make all of them or none:
    /// {"key": "a", "value": "1"}, {"key": "a", "field": "f", "value": "1"}, {"key": "b"} to delete.
    Batch,
    /// Print what the keys that begin with PREFIX hold, and then every change, a JSON document a line: of plain values and
    /// counters {"key", "value"}, of hashes {"key", "field", "value"}, of sets {"key", "member"}; with "deleted" or "removed"
    /// what is gone. Of a value over 16 KiB its size is told; what is no text is in base64, as "value_base64" and so on. If the node
    /// goes away, the status is 5.
    Watch {
        /// What the keys begin with.
        #[arg(default_value = "")]
        prefix: String,
        /// With each change the "cursor" behind it, and {"live": true} with one when all that there was has been told.
        #[arg(long)]
        cursors: bool,
        /// Only what came behind this cursor of this node. If that is too long ago, or was before the node's last start, it begins with
        /// {"lagged": true} and what there is.
        #[arg(long, value_name = "CURSOR")]
        from: Option<String>,
    },
}

#[derive(Clone, Debug, Default, clap::Args)]
#[group(multiple = false)]
struct Condition {
    /// Only if there is no such key, as far as this node knows: two nodes may both find none, and then the later write
    /// counts. So it is no lock across nodes.
    #[arg(long)]
    if_absent: bool,
    /// Only if there is one.
    #[arg(long)]
    if_present: bool,
    /// Only if it has this version still (see `mem stat`).
    #[arg(long, value_name = "VERSION")]
    if_version: Option<String>,
}

impl Condition {
    fn precondition(self) -> anyhow::Result<Precondition> {
        Ok(match self {
            Self { if_version: Some(version), .. } => of_version(version)?,
            Self { if_absent: true, .. } => Precondition::Absent,
            Self { if_present: true, .. } => Precondition::Present,
            Self { .. } => Precondition::None,
        })
    }
}

/// The node would speak of the header that the version travels in.
fn of_version(version: String) -> anyhow::Result<Precondition> {
    version.parse::<Stamp>().with_context(|| format!("--if-version {version}"))?;
    Ok(Precondition::Version(version))
}

impl Mem {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        let space = context.client.space(&self.space);
        match self.action {
            Action::Get { key, raw, at: Some(version) } => {
                return past::print_version(&mut context, &space, (&key, ""), &version, raw).await;
            }
            Action::Get { key, raw, at: None } => match space.open(key.as_bytes()).await? {
                Some(value) => print_value(&mut context, value, raw).await?,
                None => return Ok(NOT_FOUND),
            },
            Action::Stat { key, json } => return stat(&mut context, &space, &key, json).await,
            Action::Set { key, value, file, ttl, keep_ttl, durable, condition } => {
                let value = Source::of(value, file);
                let lifetime = match (ttl, keep_ttl) {
                    (Some(ttl), _) => RemoteLifetime::For(ttl),
                    (None, true) => RemoteLifetime::Keep,
                    (None, false) => RemoteLifetime::Forever,
                };
                let (precondition, value) = (condition.precondition()?, value.open(&context).await?);
                anyhow::ensure!(
                    space.set_streamed(key.as_bytes(), value, lifetime, &precondition).await?,
                    "{key} was not set: the condition does not hold"
                );
                if durable {
                    super::durable::wait(&mut context, &VfsPath::parse(VALUES)?).await?;
                }
            }
            Action::Append { key, more } => {
                let more = value_of(&mut context, more).await?;
                let length = space.append(key.as_bytes(), more).await?;
                context.print(length).await?;
            }
            Action::Expire { key, ttl } => {
                return Ok(found(space.expire(key.as_bytes(), ttl).await?));
            }
            Action::Del { key, if_version: Some(version) } => {
                let precondition = of_version(version)?;
                anyhow::ensure!(
                    space.delete_if(key.as_bytes(), &precondition).await?,
                    "{key} was not deleted: it has another version"
                );
            }
            Action::Del { key, if_version: None } => {
                return Ok(found(space.delete(key.as_bytes()).await?));
            }
            Action::Ls { prefix, from, to, json, quiet } => {
                let range = Range { prefix, from, to };
                list(&mut context, &self.space, &range, json, quiet).await?
            }
            Action::Incr { key, by } => {
                let value = space.incr(key.as_bytes(), by).await?;
                context.print(value).await?;
            }
            Action::Batch => batch::run(&mut context, &space).await?,
            Action::Watch { prefix, cursors, from } => {
                watch::run(&mut context, &space, &prefix, cursors, from.as_deref()).await?;
            }
            Action::Past(past) => return past.run(&mut context, &space).await,
            Action::Held(held) => return held.run(&mut context, &space).await,
        }
        Ok(0)
    }
}

fn found(is_there: bool) -> i32 {
    if is_there { 0 } else { NOT_FOUND }
}

async fn print_bytes(context: &mut Context, bytes: &[u8]) -> anyhow::Result<()> {
    context.io.stdout.write_all(bytes).await?;
    Ok(context.io.stdout.write_all(b"\n").await?)
}

/// Prints a value as it comes.
async fn print_value(context: &mut Context, value: RemoteValue, raw: bool) -> anyhow::Result<()> {
    let is_line = !raw && value.len <= MAX_LINE;
    let mut chunks = std::pin::pin!(value.chunks());
    while let Some(chunk) = chunks.try_next().await? {
        context.io.stdout.write_all(&chunk).await?;
    }
    if is_line {
        context.io.stdout.write_all(b"\n").await?;
    }
    Ok(())
}

/// Where a value comes from.
enum Source {
    Argument(String),
    File(PathBuf),
    Input,
}

impl Source {
    fn of(value: Option<String>, file: Option<PathBuf>) -> Self {
        match (value, file) {
            (_, Some(file)) => Self::File(file),
            (Some(value), None) if value != "-" => Self::Argument(value),
            _ => Self::Input,
        }
    }

    async fn open(
        self,
        context: &Context,
    ) -> anyhow::Result<BoxStream<'static, Result<Bytes, std::io::Error>>> {
        Ok(match self {
            Self::Argument(value) => stream::iter([Ok(Bytes::from(value))]).boxed(),
            Self::Input => ReaderStream::with_capacity(context.io.stdin.clone(), PART).boxed(),
            Self::File(path) => {
                let file = tokio::fs::File::open(&path).await;
                let file = file.with_context(|| format!("cannot read {}", path.display()))?;
                ReaderStream::with_capacity(file, PART).boxed()
            }
        })
    }
}

async fn value_of(context: &mut Context, value: Option<String>) -> anyhow::Result<Bytes> {
    match value {
        Some(value) if value != "-" => Ok(Bytes::from(value)),
        _ => read_value(context).await,
    }
}

async fn stat(context: &mut Context, space: &RemoteSpace, key: &str, json: bool) -> anyhow::Result<i32> {
    let entry = space.open(key.as_bytes()).await?;
    let (n_fields, n_members) =
        (space.fields(key.as_bytes()).await?.len(), space.members(key.as_bytes()).await?.len());
    if entry.is_none() && n_fields == 0 && n_members == 0 {
        return Ok(NOT_FOUND);
    }
    let known = serde_json::json!({
        "key": key,
        "bytes": entry.as_ref().map(|entry| entry.len),
        "version": entry.as_ref().map(|entry| &entry.version),
        "expires_ms": entry.as_ref().and_then(|entry| entry.expires_ms),
        "fields": n_fields,
        "members": n_members,
    });
    if json {
        context.print(serde_json::to_string(&known)?).await?;
        return Ok(0);
    }
    for name in ["key", "bytes", "version", "expires_ms", "fields", "members"] {
        let value = &known[name];
        if !value.is_null() {
            context
                .print(format!("{name:<10} {}", value.as_str().map_or(value.to_string(), str::to_owned)))
                .await?;
        }
    }
    Ok(0)
}

struct Range {
    prefix: String,
    from: Option<String>,
    to: Option<String>,
}

async fn read_value(context: &mut Context) -> anyhow::Result<Bytes> {
    let mut value = Vec::new();
    (&mut context.io.stdin).take(MAX_MORE).read_to_end(&mut value).await?;
    Ok(value.into())
}

async fn list(
    context: &mut Context,
    space: &str,
    range: &Range,
    json: bool,
    quiet: bool,
) -> anyhow::Result<()> {
    let space = context.client.space(space);
    let mut all = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let bounds = (range.from.as_deref().map(str::as_bytes), range.to.as_deref().map(str::as_bytes));
        let page = space.keys(range.prefix.as_bytes(), bounds, after.as_deref(), PAGE).await?;
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
        return context.print_json(&all.into_iter().map(Listed::from).collect::<Vec<_>>()).await;
    }
    if !all.is_empty() {
        let mut table = Table::default();
        for pair in &all {
            let held = match (&pair.value, pair.kind.as_str()) {
                (Some(value), _) => readable(&value.0),
                (None, "value") => {
                    pair.bytes.map_or(String::new(), |bytes| format!("({})", human::bytes(bytes)))
                }
                (None, "fields") => "(a hash: mem hget)".to_owned(),
                (None, "members") => "(a set: mem smembers)".to_owned(),
                (None, kind) => format!("({kind})"),
            };
            table.row([readable(&pair.key), held]);
        }
        context.print(table.to_string().trim_end()).await?;
    }
    Ok(())
}

/// One key of `mem ls --json`: as other commands take it.
#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    key: Key,
    kind: String,
    /// In base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Base64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Key {
    Text { key: String },
    Bytes { key_base64: Base64 },
}

impl From<KeyKindBody> for Listed {
    fn from(body: KeyKindBody) -> Self {
        let KeyKindBody { key, kind, value, bytes } = body;
        let key = match std::str::from_utf8(&key) {
            Ok(text) => Key::Text { key: text.to_owned() },
            Err(_) => Key::Bytes { key_base64: Base64(key) },
        };
        Self { key, kind, value, bytes }
    }
}

/// A time for which something counts.
fn parse_lasting(text: &str) -> Result<Duration, String> {
    match super::task::parse_duration(text).map_err(|error| error.to_string())? {
        Duration::ZERO => {
            Err("a value that counts for no time cannot be kept; `mem del` deletes one".to_owned())
        }
        lasting => Ok(lasting),
    }
}

/// Text as it is, and what would disturb a terminal escaped.
fn readable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}
