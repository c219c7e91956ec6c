//! `tree`

use super::{Builtin, Context, Failure, Outcome};
use crate::shell::fs::path::VfsPath;
use crate::shell::fs::vfs::Kind;

/// Arguments of `tree`.
#[derive(Debug, clap::Args)]
pub(super) struct Tree {
    /// Names that begin with a dot, too
    #[arg(short, long)]
    all: bool,
    /// How many levels to go down
    #[arg(short = 'L', long, default_value_t = usize::MAX, hide_default_value = true)]
    level: usize,
    /// Where to begin
    #[arg(default_value = ".")]
    path: String,
}

/// A line still to print: an entry of the tree with what stands before it.
struct Branch {
    path: VfsPath,
    name: String,
    kind: Kind,
    /// What stands before this line, and before the lines below it.
    own: String,
    below: String,
    level: usize,
}

impl Builtin for Tree {
    const NAME: &'static str = "tree";
    const ABOUT: &'static str = "Show a directory and what is below it";

    async fn run(self, mut context: Context) -> Outcome {
        let (path, entry) = context.follow(&context.path(&self.path)?).await?;
        let root = Branch {
            path,
            name: self.path.clone(),
            kind: entry.kind,
            own: String::new(),
            below: String::new(),
            level: 0,
        };
        let mut waiting = vec![root];
        while let Some(branch) = waiting.pop() {
            context.line(format!("{}{}", branch.own, branch.name)).await?;
            if branch.kind == Kind::Dir && branch.level < self.level {
                waiting.extend(self.children(&context, &branch).await?);
            }
        }
        context.done()
    }
}

impl Tree {
    /// What is in a directory, the last first: it waits on a stack.
    async fn children(&self, context: &Context, branch: &Branch) -> Result<Vec<Branch>, Failure> {
        let entries = context.vfs.list(&branch.path).await?;
        let shown = entries.into_iter().filter(|entry| self.all || !entry.name.starts_with('.'));
        let mut children = Vec::new();
        for (from_end, entry) in shown.rev().enumerate() {
            let (own, below) = if from_end == 0 { ("└── ", "    ") } else { ("├── ", "│   ") };
            children.push(Branch {
                path: branch.path.join(&entry.name)?,
                name: entry.name,
                kind: entry.kind,
                own: format!("{}{own}", branch.below),
                below: format!("{}{below}", branch.below),
                level: branch.level + 1,
            });
        }
        Ok(children)
    }
}
