//! `rm`

use super::{Builtin, Context, Failure, Outcome};
use crate::shell::fs::vfs::{Kind, Removal, VfsError};

/// Arguments of `rm`.
#[derive(Debug, clap::Args)]
pub(super) struct Rm {
    /// Remove directories with all that is below them
    #[arg(short, long, visible_short_alias = 'R')]
    recursive: bool,
    /// What is not there is fine
    #[arg(short, long)]
    force: bool,
    /// What to remove
    #[arg(required_unless_present = "force")]
    paths: Vec<String>,
}

impl Builtin for Rm {
    const NAME: &'static str = "rm";
    const ABOUT: &'static str = "Remove files and directories";

    async fn run(self, mut context: Context) -> Outcome {
        for path in &self.paths {
            match self.remove(&context, path).await {
                Err(Failure::Vfs(VfsError::NotFound { .. })) if self.force => {}
                Err(failure) => context.complain(Self::NAME, failure).await?,
                Ok(()) => {}
            }
        }
        context.done()
    }
}

impl Rm {
    async fn remove(&self, context: &Context, path: &str) -> Result<(), Failure> {
        let path = context.path(path)?;
        if self.recursive {
            return Ok(context.vfs.remove(&path, Removal::Recursive).await?);
        }
        if context.vfs.stat(&path).await?.kind == Kind::Dir {
            return Err(Failure::Refused(format!("{path}: is a directory (-r removes it)")));
        }
        Ok(context.vfs.remove(&path, Removal::Single).await?)
    }
}
