//! `ls`

use std::cmp::Reverse;

use super::{Builtin, Context, Failure, Outcome};
use crate::output::columns::columns;
use crate::output::style::{ColorChoice, Style};
use crate::output::table::Table;
use crate::output::{human, terminal_width};
use crate::shell::fs::path::VfsPath;
use crate::shell::fs::vfs::{Entry, Kind};

/// Arguments of `ls`.
#[derive(Debug, clap::Args)]
pub(super) struct Ls {
    /// One entry a line, with mode, size and time (UTC)
    #[arg(short)]
    long: bool,
    /// Names that begin with a dot, too
    #[arg(short, long)]
    all: bool,
    /// Directories themselves, not what is in them
    #[arg(short, long)]
    directory: bool,
    /// One name a line
    #[arg(short = '1')]
    one: bool,
    /// Newest first
    #[arg(short = 't')]
    by_time: bool,
    /// Largest first
    #[arg(short = 'S')]
    by_size: bool,
    /// The other way round
    #[arg(short, long)]
    reverse: bool,
    /// Sizes in bytes
    #[arg(long)]
    bytes: bool,
    /// One JSON array of all entries, each with its path
    #[arg(long)]
    json: bool,
    /// What to list
    #[arg(default_value = ".")]
    paths: Vec<String>,
}

/// An entry and how it is called in the list.
#[derive(Debug, serde::Serialize)]
struct Listed {
    path: VfsPath,
    #[serde(skip)]
    shown: String,
    #[serde(flatten)]
    entry: Entry,
}

impl Builtin for Ls {
    const NAME: &'static str = "ls";
    const ABOUT: &'static str = "List directories";
    const EXAMPLES: &'static str = "  ls -l /logs\n  ls --json / ";

    async fn run(self, mut context: Context) -> Outcome {
        let mut single = Vec::new();
        let mut directories = Vec::new();
        for path in &self.paths {
            match self.look(&context, path).await {
                Ok((listed, None)) => single.push(listed),
                Ok((_, Some(entries))) => directories.push((path, entries)),
                Err(failure) => context.complain(Self::NAME, failure).await?,
            }
        }
        if self.json {
            let all: Vec<Listed> = self
                .sorted(single)
                .into_iter()
                .chain(directories.into_iter().flat_map(|(_, entries)| entries))
                .collect();
            context.json(&all).await?;
            return context.done();
        }
        let mut gap = !single.is_empty();
        let single = self.sorted(single);
        self.print(&mut context, &single).await?;
        for (path, entries) in &directories {
            if self.paths.len() > 1 {
                context.text(&format!("{}{path}:\n", if gap { "\n" } else { "" })).await?;
            }
            gap = true;
            self.print(&mut context, entries).await?;
        }
        context.done()
    }
}

impl Ls {
    /// The entry that `name` stands for and, if its content is to be listed, that.
    async fn look(&self, context: &Context, name: &str) -> Result<(Listed, Option<Vec<Listed>>), Failure> {
        let path = context.path(name)?;
        let entry = context.vfs.stat(&path).await?;
        let listed = Listed { path: path.clone(), shown: name.to_owned(), entry };
        let through_link = !self.long || name.ends_with('/');
        let directory = match listed.entry.kind {
            _ if self.directory => None,
            Kind::Dir => Some(path),
            Kind::Symlink if through_link => context
                .follow(&path)
                .await
                .ok()
                .filter(|(_, entry)| entry.kind == Kind::Dir)
                .map(|(path, _)| path),
            Kind::Symlink | Kind::File => None,
        };
        let Some(directory) = directory else { return Ok((listed, None)) };
        let mut entries = Vec::new();
        for entry in context.vfs.list(&directory).await? {
            if self.all || !entry.name.starts_with('.') {
                entries.push(Listed { path: directory.join(&entry.name)?, shown: entry.name.clone(), entry });
            }
        }
        Ok((listed, Some(self.sorted(entries))))
    }

    fn sorted(&self, mut entries: Vec<Listed>) -> Vec<Listed> {
        if self.by_size {
            entries.sort_by_key(|listed| Reverse(listed.entry.size));
        } else if self.by_time {
            entries.sort_by_key(|listed| Reverse(listed.entry.mtime_ms));
        } else {
            entries.sort_by(|a, b| a.shown.cmp(&b.shown));
        }
        if self.reverse {
            entries.reverse();
        }
        entries
    }

    async fn print(&self, context: &mut Context, entries: &[Listed]) -> Result<(), Failure> {
        let terminal = context.io.stdout.is_terminal();
        let colour = ColorChoice::Auto.applies(terminal);
        let text = if self.long {
            self.table(entries, colour).to_string()
        } else if terminal && !self.one {
            // Laid out without colour: escape codes have no width, but the layout would count them.
            let names: Vec<String> = entries.iter().map(decorated).collect();
            columns(&names, terminal_width())
        } else {
            entries.iter().map(|listed| format!("{}\n", listed.shown)).collect()
        };
        context.text(&text).await
    }

    fn table(&self, entries: &[Listed], colour: bool) -> Table {
        let mut table = Table::default().right_aligned(&[1]);
        for listed in entries {
            let entry = &listed.entry;
            let size = match (entry.kind, self.bytes) {
                (Kind::Dir, _) => "-".to_owned(),
                (_, true) => entry.size.to_string(),
                (_, false) => human::bytes(entry.size),
            };
            let name = match entry.kind {
                Kind::Dir => Style::Directory.paint(&listed.shown, colour),
                Kind::File | Kind::Symlink => listed.shown.clone(),
            };
            let target = entry.target.as_ref().map(|target| format!(" -> {target}")).unwrap_or_default();
            table.row([mode(entry), size, human::time(entry.mtime_ms), format!("{name}{target}")]);
        }
        table
    }
}

fn decorated(listed: &Listed) -> String {
    let mark = match listed.entry.kind {
        Kind::Dir => "/",
        Kind::Symlink => "@",
        Kind::File => "",
    };
    format!("{}{mark}", listed.shown)
}

/// `drwxr-xr-x`
pub(super) fn mode(entry: &Entry) -> String {
    let kind = match entry.kind {
        Kind::Dir => 'd',
        Kind::Symlink => 'l',
        Kind::File => '-',
    };
    let bits = (0..9).map(|at| if entry.mode & (0o400 >> at) == 0 { '-' } else { ['r', 'w', 'x'][at % 3] });
    std::iter::once(kind).chain(bits).collect()
}
