//! `starfish umount`: takes away what `starfish mount` made.

use std::path::PathBuf;

use starfish_node::fs::mount::{self, Force};

use super::Context;

/// Take a mount of the tree away.
///
/// It works on a mount whose process or node is gone, too.
#[derive(Clone, Debug, clap::Args)]
pub struct Umount {
    /// The folder.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Also when programs use it; what they have open may be of no use to them then.
    #[arg(long)]
    force: bool,
}

impl Umount {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        let force = if self.force { Force::Always } else { Force::WhenUnused };
        mount::unmount(&self.folder, force).await?;
        context.io.stderr.line(format!("{} is not mounted any more", self.folder.display())).await?;
        Ok(0)
    }
}
