//! `rm`

use super::{Builtin, Context, Failure, Outcome};
use crate::shell::fs::vfs::{Kind, Removal};

/// Arguments of `rm`.
#[derive(Debug, clap::Args)]
pub(super) struct Rm {
    /// Remove directories with all that is below them
    #[arg(short, long, visible_short_alias = 'R')]
    recursive: bool,
    /// What is not there is fine
    #[arg(short, long)]
    force: bool,
    /// Say what was removed
    #[arg(short, long)]
    verbose: bool,
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
                Err(failure) if self.force && failure.is_missing() => {}
                Err(failure) => context.complain(Self::NAME, failure).await?,
                Ok(()) if self.verbose => context.line(format!("removed {path}")).await?,
                Ok(()) => {}
            }
        }
        context.done()
    }
}

impl Rm {
    async fn remove(&self, context: &Context, path: &str) -> Result<(), Failure> {
        let named = path;
        let path = context.path(named)?;
        if ends_in_dots(named) {
            return Err(Failure::Refused(format!(
                "{named}: `.` and `..` are not removed; name the directory"
            )));
        }
        if self.recursive {
            return Ok(context.vfs.remove(&path, Removal::Recursive).await?);
        }
        if context.vfs.stat(&path).await?.kind == Kind::Dir {
            return Err(Failure::Refused(format!("{path}: is a directory (-r removes it)")));
        }
        Ok(context.vfs.remove(&path, Removal::Single).await?)
    }
}

/// Whether the last name is `.` or `..`: POSIX refuses both, and whoever writes them rarely means the directory itself.
fn ends_in_dots(named: &str) -> bool {
    matches!(named.trim_end_matches('/').rsplit('/').next(), Some("." | ".."))
}
