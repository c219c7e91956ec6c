//! `ls`

use std::cmp::Reverse;

use super::{Builtin, Context, Failure, Outcome};
use crate::output::columns::columns;
use crate::output::style::{ColorChoice, Style};
use crate::output::table::Table;
use crate::output::{human, terminal_width};
use crate::shell::fs::path::VfsPath;
use crate::shell::fs::vfs::{Entry, Kind};
use crate::shell::io::Output;

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
    #[arg(long, overrides_with = "human_readable")]
    bytes: bool,
    /// Sizes for people, as without it; the last of -h and --bytes counts
    #[arg(short = 'h', long, overrides_with = "bytes")]
    human_readable: bool,
    /// What is in the directories below, too
    #[arg(short = 'R', long)]
    recursive: bool,
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
                Ok((_, Some(directory))) => directories.push((path.clone(), directory)),
                Ok((listed, None)) => single.push(listed),
                Err(failure) => context.complain(Self::NAME, failure).await?,
            }
        }
        let single = self.sorted(single);
        let mut output = Shown { all: Vec::new(), is_first: true };
        if !single.is_empty() {
            self.show(&mut context, None, single, &mut output).await?;
        }
        let titled = self.recursive || self.paths.len() > 1;
        // The next to be listed is the last.
        directories.reverse();
        while let Some((shown, directory)) = directories.pop() {
            let entries = match self.entries(&context, &directory).await {
                Ok(entries) => entries,
                Err(failure) => {
                    context.complain(Self::NAME, failure).await?;
                    continue;
                }
            };
            if self.recursive {
                let below = entries.iter().filter(|listed| listed.entry.kind == Kind::Dir).rev();
                let named = |name: &str| format!("{}/{name}", shown.trim_end_matches('/'));
                directories.extend(below.map(|listed| (named(&listed.shown), listed.path.clone())));
            }
            self.show(&mut context, titled.then_some(shown.as_str()), entries, &mut output).await?;
        }
        if self.json {
            context.json(&output.all).await?;
        }
        context.done()
    }
}

/// What was listed so far.
struct Shown {
    /// All of it, where it becomes one document.
    all: Vec<Listed>,
    /// Nothing yet.
    is_first: bool,
}

impl Ls {
    /// The entry that `name` stands for and, if its content is to be listed, the directory where that is.
    async fn look(&self, context: &Context, name: &str) -> Result<(Listed, Option<VfsPath>), Failure> {
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
        Ok((listed, directory))
    }

    /// What is in a directory.
    async fn entries(&self, context: &Context, directory: &VfsPath) -> Result<Vec<Listed>, Failure> {
        let mut entries = Vec::new();
        for entry in context.vfs.list(directory).await? {
            if self.all || !entry.name.starts_with('.') {
                entries.push(Listed { path: directory.join(&entry.name)?, shown: entry.name.clone(), entry });
            }
        }
        Ok(self.sorted(entries))
    }

    /// Prints one list under its title, or keeps it for the document.
    async fn show(
        &self,
        context: &mut Context,
        title: Option<&str>,
        entries: Vec<Listed>,
        output: &mut Shown,
    ) -> Result<(), Failure> {
        if self.json {
            output.all.extend(entries);
            return Ok(());
        }
        if let Some(title) = title {
            let gap = if output.is_first { "" } else { "\n" };
            let title = context.io.stdout.printable(title).into_owned();
            context.text(&format!("{gap}{title}:\n")).await?;
        }
        output.is_first = false;
        self.print(context, &entries).await
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
            self.table(entries, colour, &context.io.stdout).to_string()
        } else if terminal && !self.one {
            // Laid out without colour: escape codes have no width, but the layout would count them.
            let names: Vec<String> =
                entries.iter().map(|listed| decorated(listed, &context.io.stdout)).collect();
            columns(&names, terminal_width())
        } else {
            let name = |listed: &Listed| context.io.stdout.printable(&listed.shown).into_owned() + "\n";
            entries.iter().map(name).collect()
        };
        context.text(&text).await
    }

    fn table(&self, entries: &[Listed], colour: bool, output: &Output) -> Table {
        let mut table = Table::default().right_aligned(&[1]);
        for listed in entries {
            let entry = &listed.entry;
            let size = match (entry.kind, self.bytes) {
                (Kind::Dir, _) => "-".to_owned(),
                (_, true) => entry.size.to_string(),
                (_, false) => human::bytes(entry.size),
            };
            let shown = output.printable(&listed.shown);
            let name = match entry.kind {
                Kind::Dir => Style::Directory.paint(&shown, colour),
                Kind::File | Kind::Symlink => shown.into_owned(),
            };
            let target = entry.target.as_ref().map(|target| format!(" -> {}", output.printable(target)));
            let target = target.unwrap_or_default();
            table.row_as_it_is([mode(entry), size, human::time(entry.mtime_ms), format!("{name}{target}")]);
        }
        table
    }
}

fn decorated(listed: &Listed, output: &Output) -> String {
    let mark = match listed.entry.kind {
        Kind::Dir => "/",
        Kind::Symlink => "@",
        Kind::File => "",
    };
    format!("{}{mark}", output.printable(&listed.shown))
}

/// `drwxr-xr-x`; set-uid and set-gid show as `s` and sticky as `t` where the `x` is, in capitals if that is not set.
pub(super) fn mode(entry: &Entry) -> String {
    let kind = match entry.kind {
        Kind::Dir => 'd',
        Kind::Symlink => 'l',
        Kind::File => '-',
    };
    let bit = |at: usize| {
        let is_set = entry.mode & (0o400 >> at) != 0;
        let special = match at {
            2 => (0o4000, 's'),
            5 => (0o2000, 's'),
            8 => (0o1000, 't'),
            _ => (0, '-'),
        };
        match (entry.mode & special.0 != 0, is_set) {
            (true, true) => special.1,
            (true, false) => special.1.to_ascii_uppercase(),
            (false, true) => ['r', 'w', 'x'][at % 3],
            (false, false) => '-',
        }
    };
    std::iter::once(kind).chain((0..9).map(bit)).collect()
}
