//! `mkdir`

use super::{Builtin, Context, Failure, Outcome};
use crate::shell::fs::vfs::Parents;

/// Arguments of `mkdir`.
#[derive(Debug, clap::Args)]
pub(super) struct Mkdir {
    /// Make missing parents, and take a directory that is there
    #[arg(short, long)]
    parents: bool,
    /// Say what was made
    #[arg(short, long)]
    verbose: bool,
    /// Directories to make
    #[arg(required = true)]
    paths: Vec<String>,
}

impl Builtin for Mkdir {
    const NAME: &'static str = "mkdir";
    const ABOUT: &'static str = "Make directories";

    async fn run(self, mut context: Context) -> Outcome {
        let parents = if self.parents { Parents::Create } else { Parents::MustExist };
        for path in &self.paths {
            match make(&context, path, parents).await {
                Err(failure) => context.complain(Self::NAME, failure).await?,
                Ok(()) if self.verbose => context.line(format!("made {path}")).await?,
                Ok(()) => {}
            }
        }
        context.done()
    }
}

async fn make(context: &Context, path: &str, parents: Parents) -> Result<(), Failure> {
    context.vfs.mkdir(&context.path(path)?, parents).await?;
    Ok(())
}
