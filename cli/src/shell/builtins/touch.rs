//! `touch`

use futures::stream::{self, StreamExt};

use super::{Builtin, Context, Failure, Outcome};
use crate::output::human;
use crate::shell::content;
use crate::shell::fs::vfs::{Attributes, VfsError};

/// Arguments of `touch`.
#[derive(Debug, clap::Args)]
pub(super) struct Touch {
    /// Make no new files
    #[arg(short = 'c', long)]
    no_create: bool,
    /// Files
    #[arg(required = true)]
    paths: Vec<String>,
}

impl Builtin for Touch {
    const NAME: &'static str = "touch";
    const ABOUT: &'static str = "Set files' times to now, making empty files where there are none";

    async fn run(self, mut context: Context) -> Outcome {
        for path in &self.paths {
            if let Err(failure) = self.touch(&context, path).await {
                context.complain(Self::NAME, failure).await?;
            }
        }
        context.done()
    }
}

impl Touch {
    async fn touch(&self, context: &Context, path: &str) -> Result<(), Failure> {
        let path = context.path(path)?;
        let now = Attributes { mode: None, mtime_ms: Some(human::now_ms()) };
        match context.follow(&path).await {
            Ok((path, _)) => context.vfs.set_attributes(&path, now).await?,
            Err(VfsError::NotFound { .. }) if self.no_create => return Ok(()),
            Err(VfsError::NotFound { .. }) => {
                let path = content::destination(&*context.vfs, &path).await?;
                context.vfs.write(&path, stream::empty().boxed(), now).await?
            }
            Err(error) => return Err(error.into()),
        };
        Ok(())
    }
}
