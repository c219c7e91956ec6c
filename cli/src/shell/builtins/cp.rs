//! `cp`: contents are shared, so a copy costs names only.

use super::{Builtin, Context, Failure, Outcome, transfer};
use crate::shell::fs::vfs::Kind;

/// Arguments of `cp`.
#[derive(Debug, clap::Args)]
pub(super) struct Cp {
    /// Copy directories with all that is below them
    #[arg(short, long, visible_short_alias = 'R')]
    recursive: bool,
    /// As -r: links, modes and times are kept in any case
    #[arg(short, long)]
    archive: bool,
    /// Changes nothing: modes and times are kept in any case
    #[arg(short)]
    preserve: bool,
    /// Changes nothing: what is there is replaced in any case
    #[arg(short, long)]
    force: bool,
    /// Sources, and at the end the target
    #[arg(required = true, num_args = 2..)]
    paths: Vec<String>,
}

impl Builtin for Cp {
    const NAME: &'static str = "cp";
    const ABOUT: &'static str = "Copy files and directories";

    async fn run(self, mut context: Context) -> Outcome {
        let (sources, target) = transfer::sources_and_target(&context, &self.paths).await?;
        for source in sources {
            if let Err(failure) = self.copy(&context, source, &target).await {
                context.complain(Self::NAME, failure).await?;
            }
        }
        context.done()
    }
}

impl Cp {
    async fn copy(&self, context: &Context, source: &str, target: &transfer::Target) -> Result<(), Failure> {
        let recursive = self.recursive || self.archive;
        let from = context.path(source)?;
        let to = target.place(&from)?;
        // Without -r a link stands for its file; with it, links are copied as links.
        let (from, entry) = if recursive {
            (from.clone(), context.vfs.stat(&from).await?)
        } else {
            context.follow(&from).await?
        };
        if entry.kind == Kind::Dir && !recursive {
            return Err(Failure::Refused(format!("{from}: is a directory (-r copies it)")));
        }
        if from == to {
            return Err(Failure::Refused(format!("{from}: source and target are the same")));
        }
        Ok(context.vfs.copy(&from, &to).await?)
    }
}
