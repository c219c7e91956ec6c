//! `mv`

use super::{Builtin, Context, Failure, Outcome, transfer};

/// Arguments of `mv`.
#[derive(Debug, clap::Args)]
pub(super) struct Mv {
    /// Refuse to replace what is there
    #[arg(short, long, overrides_with = "force")]
    no_clobber: bool,
    /// Replace what is there, as without it; the last of -n and -f counts
    #[arg(short, long, overrides_with = "no_clobber")]
    force: bool,
    /// Sources, and at the end the target
    #[arg(required = true, num_args = 2..)]
    paths: Vec<String>,
}

impl Builtin for Mv {
    const NAME: &'static str = "mv";
    const ABOUT: &'static str = "Move or rename files and directories";

    async fn run(self, mut context: Context) -> Outcome {
        let (sources, target) = transfer::sources_and_target(&context, &self.paths).await?;
        for source in sources {
            if let Err(failure) = self.rename(&context, source, &target).await {
                context.complain(Self::NAME, failure).await?;
            }
        }
        context.done()
    }
}

impl Mv {
    async fn rename(
        &self,
        context: &Context,
        source: &str,
        target: &transfer::Target,
    ) -> Result<(), Failure> {
        let from = context.path(source)?;
        let to = target.place(&from)?;
        if self.no_clobber && context.vfs.stat(&to).await.is_ok() {
            return Err(Failure::Refused(format!("{to}: already exists")));
        }
        Ok(context.vfs.rename(&from, &to).await?)
    }
}
