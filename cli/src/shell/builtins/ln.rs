//! `ln -s`

use super::{Builtin, Context, Failure, Outcome};
use crate::shell::fs::path::{PathError, VfsPath};
use crate::shell::fs::vfs::{Removal, VfsError};

/// Arguments of `ln`.
#[derive(Debug, clap::Args)]
pub(super) struct Ln {
    /// Make a symbolic link (the only kind there is)
    #[arg(short, long)]
    symbolic: bool,
    /// Replace a file or link that is there
    #[arg(short, long)]
    force: bool,
    /// What the link says
    target: String,
    /// The link to make; in a directory, it gets the target's name
    link: String,
}

impl Builtin for Ln {
    const NAME: &'static str = "ln";
    const ABOUT: &'static str = "Make a symbolic link";
    const EXAMPLES: &'static str = "  ln -s /data/today.csv /latest.csv";

    async fn run(self, context: Context) -> Outcome {
        if !self.symbolic {
            return Err(Failure::Usage("the tree has no hard links; use -s".to_owned()));
        }
        if self.target.is_empty() {
            return Err(PathError::Empty.into());
        }
        let link = self.place(&context).await?;
        if self.force {
            match context.vfs.remove(&link, Removal::Single).await {
                Ok(()) | Err(VfsError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        context.vfs.symlink(&link, &self.target).await?;
        context.done()
    }
}

impl Ln {
    async fn place(&self, context: &Context) -> Result<VfsPath, Failure> {
        let link = context.path(&self.link)?;
        if !context.is_dir(&link).await {
            return Ok(link);
        }
        let name = self.target.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        Ok(link.join(name)?)
    }
}
