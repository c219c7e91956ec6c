//! `stat`

use super::ls::mode;
use super::{Builtin, Context, Failure, Outcome};
use crate::output::human;
use crate::output::table::Table;
use crate::shell::fs::path::VfsPath;
use crate::shell::fs::vfs::{Entry, Kind};

/// Arguments of `stat`.
#[derive(Debug, clap::Args)]
pub(super) struct Stat {
    /// What links lead to, not the links
    #[arg(short = 'L', long)]
    dereference: bool,
    /// One JSON array
    #[arg(long)]
    json: bool,
    /// What to describe
    #[arg(required = true)]
    paths: Vec<String>,
}

#[derive(Debug, serde::Serialize)]
struct Described {
    path: VfsPath,
    #[serde(flatten)]
    entry: Entry,
}

impl Builtin for Stat {
    const NAME: &'static str = "stat";
    const ABOUT: &'static str = "Describe files and directories";

    async fn run(self, mut context: Context) -> Outcome {
        let mut all = Vec::new();
        for path in &self.paths {
            match self.describe(&context, path).await {
                Ok(described) if self.json => all.push(described),
                Ok(described) => context.text(&table(&described).to_string()).await?,
                Err(failure) => context.complain(Self::NAME, failure).await?,
            }
        }
        if self.json {
            context.json(&all).await?;
        }
        context.done()
    }
}

impl Stat {
    async fn describe(&self, context: &Context, path: &str) -> Result<Described, Failure> {
        let path = context.path(path)?;
        if self.dereference {
            let (path, entry) = context.follow(&path).await?;
            return Ok(Described { path, entry });
        }
        let entry = context.vfs.stat(&path).await?;
        Ok(Described { path, entry })
    }
}

fn table(described: &Described) -> Table {
    let Described { path, entry } = described;
    let kind = match entry.kind {
        Kind::File => "file",
        Kind::Dir => "directory",
        Kind::Symlink => "symbolic link",
    };
    let mut table = Table::default();
    table.row(["path:", path.as_str()]);
    table.row(["kind:", kind]);
    if entry.kind != Kind::Dir {
        table.row(["size:".to_owned(), format!("{} ({} bytes)", human::bytes(entry.size), entry.size)]);
    }
    table.row(["mode:".to_owned(), format!("{:04o} ({})", entry.mode, mode(entry))]);
    table.row(["changed:".to_owned(), format!("{} UTC", human::time(entry.mtime_ms))]);
    if let Some(target) = &entry.target {
        table.row(["target:", target]);
    }
    if let Some(hash) = &entry.hash {
        table.row(["hash:", hash]);
    }
    table.row(["inode:", &entry.inode]);
    table
}
