//! `rmdir`

use super::{Builtin, Context, Failure, Outcome};
use crate::shell::fs::vfs::{Kind, Removal, VfsError};

/// Arguments of `rmdir`.
#[derive(Debug, clap::Args)]
pub(super) struct Rmdir {
    /// Directories to remove
    #[arg(required = true)]
    paths: Vec<String>,
}

impl Builtin for Rmdir {
    const NAME: &'static str = "rmdir";
    const ABOUT: &'static str = "Remove empty directories";

    async fn run(self, mut context: Context) -> Outcome {
        for path in &self.paths {
            if let Err(failure) = remove(&context, path).await {
                context.complain(Self::NAME, failure).await?;
            }
        }
        context.done()
    }
}

async fn remove(context: &Context, path: &str) -> Result<(), Failure> {
    let path = context.path(path)?;
    if context.vfs.stat(&path).await?.kind != Kind::Dir {
        return Err(VfsError::NotADirectory { path }.into());
    }
    Ok(context.vfs.remove(&path, Removal::Single).await?)
}
