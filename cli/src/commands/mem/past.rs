//! What a space keeps of the past: its settings, the versions of a key, and going back to one.

use std::time::Duration;

use anyhow::Context as _;
use clap::builder::NonEmptyStringValueParser;
use starfish_node::client::RemoteSpace;
use starfish_node::memory::SpaceSettings;
use starfish_node::wire::VersionBody;

use super::{Context, NOT_FOUND, names, print_value};
use crate::output::human;
use crate::output::table::Table;

/// Digits of a version that tell it from others, as a rule: its time.
const SHORT: usize = 16;

#[derive(Clone, Debug, clap::Subcommand)]
pub(super) enum Past {
    /// Print what a space is asked to do, or ask it, on all nodes: to keep old versions of values and fields.
    Space {
        /// The space.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
        /// Keep so many versions of each value and field, the current one among them; 0 for none, 100 at the most.
        #[arg(long, value_name = "N")]
        versions: Option<u16>,
        /// Forget a version so long after it was replaced, such as 7d.
        #[arg(long, value_name = "TIME", value_parser = super::super::task::parse_duration)]
        keep: Option<Duration>,
        /// Forget none because of its age.
        #[arg(long, conflicts_with = "keep")]
        keep_forever: bool,
        /// As one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// List the versions of a key that its space keeps, the newest first; exit with 4 if there is no such key.
    /// A conflict was written without knowledge of the version that counts.
    Log {
        /// The key.
        #[arg(value_parser = names::key)]
        key: String,
        /// Of this field, not of the plain value.
        #[arg(long, default_value = "")]
        field: String,
        /// As one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Make an old version of a key the current one, as a new version; exit with 4 if there is no such version.
    Restore {
        /// The key.
        #[arg(value_parser = names::key)]
        key: String,
        /// The version, as `mem log` names it; its first digits are enough.
        #[arg(value_name = "VERSION")]
        at: String,
        /// Of this field, not of the plain value.
        #[arg(long, default_value = "")]
        field: String,
    },
}

impl Past {
    pub(super) async fn run(self, context: &mut Context, space: &RemoteSpace) -> anyhow::Result<i32> {
        match self {
            Self::Space { name, versions, keep, keep_forever, json } => {
                let space = context.client.space(&name);
                let mut now = space.settings().await?;
                if versions.is_some() || keep.is_some() || keep_forever {
                    let keep_ms = keep.map(|keep| u64::try_from(keep.as_millis()).unwrap_or(u64::MAX));
                    let keep_ms = keep_ms.or(now.keep_ms.filter(|_| !keep_forever));
                    let versions = versions.unwrap_or(now.versions);
                    now = space.set_settings(&SpaceSettings { versions, keep_ms }).await?;
                }
                if json {
                    context.print_json(&now).await?;
                    return Ok(0);
                }
                let keep = now.keep_ms.map(|ms| human::duration(Duration::from_millis(ms)));
                context.print(format!("versions   {}", now.versions)).await?;
                context
                    .print(format!("keep       {}", keep.unwrap_or_else(|| "for good".to_owned())))
                    .await?;
            }
            Self::Log { key, field, json } => {
                let Some(versions) = space.versions(key.as_bytes(), field.as_bytes()).await? else {
                    return Ok(NOT_FOUND);
                };
                if json {
                    context.print_json(&versions).await?;
                    return Ok(0);
                }
                let mut table = Table::new(["VERSION", "SIZE", "WRITTEN", "BY", "STATE"]);
                for version in &versions {
                    table.row([
                        version.version.chars().take(SHORT).collect(),
                        version.bytes.map_or_else(|| "deleted".to_owned(), human::bytes),
                        human::time(version.at_ms),
                        version.author.chars().take(8).collect(),
                        state(version).to_owned(),
                    ]);
                }
                context.print(table.to_string().trim_end()).await?;
            }
            Self::Restore { key, at: version, field } => {
                let Some(version) = named(space, &key, &field, &version).await? else { return Ok(NOT_FOUND) };
                let done = space.restore(key.as_bytes(), field.as_bytes(), &version).await?;
                return Ok(super::found(done));
            }
        }
        Ok(0)
    }
}

fn state(version: &VersionBody) -> &'static str {
    match version {
        VersionBody { current: true, .. } => "current",
        VersionBody { conflict: true, .. } => "conflict",
        _ => "old",
    }
}

/// Prints the value in one version.
pub(super) async fn print_version(
    context: &mut Context,
    space: &RemoteSpace,
    (key, field): (&str, &str),
    version: &str,
    raw: bool,
) -> anyhow::Result<i32> {
    let Some(version) = named(space, key, field, version).await? else { return Ok(NOT_FOUND) };
    match space.open_version(key.as_bytes(), field.as_bytes(), &version).await? {
        Some(value) => print_value(context, value, raw).await.map(|()| 0),
        None => Ok(NOT_FOUND),
    }
}

/// The one version whose name begins so.
async fn named(space: &RemoteSpace, key: &str, field: &str, version: &str) -> anyhow::Result<Option<String>> {
    let all = space.versions(key.as_bytes(), field.as_bytes()).await?.unwrap_or_default();
    let mut fitting = all.into_iter().map(|known| known.version).filter(|known| known.starts_with(version));
    let found = fitting.next();
    match fitting.next() {
        None => Ok(found),
        Some(_) => None.with_context(|| format!("several versions begin with {version}: see mem log {key}")),
    }
}
