//! `starfish log`, `starfish restore` and `starfish snapshot`: what files were before.

use std::time::Duration;

use anyhow::Context as _;

use super::Context;
use super::task::{millis, parse_duration};
use crate::output::human;
use crate::output::table::Table;
use crate::shell::fs::MAX_VERSIONS;
use crate::shell::fs::path::VfsPath;
use crate::shell::fs::vfs::{Parents, Removal};

/// Where snapshots lie, each under its name.
const SNAPSHOTS: &str = "/.snapshots";

/// List what a file is and was.
///
/// Versions are kept for 30 days, and no more than 32 of a file, unless `starfish retention` says otherwise; also those of
/// a file that was removed.
#[derive(Clone, Debug, clap::Args)]
pub struct Log {
    /// The file.
    path: String,
    /// As one JSON document.
    #[arg(long)]
    json: bool,
}

/// Make a file what it was.
///
/// What it is now becomes an older version, so this can be taken back.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  starfish log /notes.txt\n  starfish restore /notes.txt@3fa09c")]
pub struct Restore {
    /// The file, and (the beginning of) a version's id from `starfish log`.
    #[arg(value_name = "PATH@VERSION")]
    what: String,
}

/// Say, or set, how long the swarm keeps what files were before.
///
/// It holds for all nodes and for versions that are there already: what has had its time is forgotten within the hour, and its
/// space is freed. Snapshots are kept until they are removed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  starfish retention --age 90d --count 100")]
pub struct Retention {
    /// Keep a version for this long after it was replaced or removed, such as 12h or 90d.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    age: Option<Duration>,
    /// Keep so many versions of a file at the most, up to 1000; 0 for none.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_VERSIONS)))]
    count: Option<u32>,
    /// As one JSON document.
    #[arg(long)]
    json: bool,
}

/// Keep a folder as it is now under a name, list what is kept, or let it go.
///
/// A snapshot is a copy that shares all contents: it costs names only. It is an ordinary folder below /.snapshots.
#[derive(Clone, Debug, clap::Args)]
pub struct Snapshot {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// Keep a folder (or file) as it is now.
    Create {
        /// The snapshot's name.
        name: String,
        /// What to keep.
        path: String,
    },
    /// List what is kept.
    Ls,
    /// Let a snapshot go.
    Rm {
        /// Its name.
        name: String,
    },
}

impl Log {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        let path = context.cwd.resolve(&self.path)?;
        let versions = context.client.versions(&path).await?;
        if self.json {
            context.print_json(&versions).await?;
            return Ok(0);
        }
        let mut table = Table::new(["VERSION", "SIZE", "WRITTEN", "UNTIL"]);
        for version in versions {
            table.row([
                version.id,
                human::bytes(version.size),
                human::time(version.since_ms),
                version.until_ms.map_or_else(|| "now".to_owned(), human::time),
            ]);
        }
        context.print(table.to_string().trim_end()).await?;
        Ok(0)
    }
}

impl Restore {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<i32> {
        let (path, version) = self
            .what
            .rsplit_once('@')
            .context("a version is named as PATH@VERSION; see starfish log PATH")?;
        context.client.restore(&context.cwd.resolve(path)?, version).await?;
        Ok(0)
    }
}

impl Retention {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        let mut retention = context.client.retention().await?;
        if self.age.is_some() || self.count.is_some() {
            retention.age_ms = self.age.map_or(retention.age_ms, millis);
            retention.count = self.count.unwrap_or(retention.count);
            context.client.set_retention(retention).await?;
        }
        if self.json {
            context.print_json(&retention).await?;
        } else {
            let age = human::duration(Duration::from_millis(retention.age_ms));
            context.print(format!("versions are kept for {age}, {} of a file", retention.count)).await?;
        }
        Ok(0)
    }
}

impl Snapshot {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        let (tree, all) = (context.tree(), VfsPath::parse(SNAPSHOTS)?);
        match self.what {
            What::Create { name, path } => {
                tree.mkdir(&all, Parents::Create).await?;
                tree.copy(&context.cwd.resolve(&path)?, &all.join(&name)?).await?;
            }
            What::Rm { name } => tree.remove(&all.join(&name)?, Removal::Recursive).await?,
            What::Ls => {
                let kept = if tree.stat(&all).await.is_ok() { tree.list(&all).await? } else { Vec::new() };
                for entry in kept {
                    context.print(entry.name).await?;
                }
            }
        }
        Ok(0)
    }
}
