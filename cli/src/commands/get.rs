//! `starfish get`: from the tree to this machine.

use std::path::PathBuf;

use anyhow::Context as _;
use futures::TryStreamExt;
use starfish_node::fs::copying::{Summary, export_dir, export_file};
use tokio::io::AsyncWriteExt;

use super::Context;
use super::transfer::Transfer;
use crate::shell::fs::path::VfsPath;
use crate::shell::fs::vfs::{Kind, Vfs};

/// Copy a file or folder of the tree to this machine.
///
/// A file appears under its name when it is whole. A long one that broke off is gone on with by the same command.
/// A link is written through; devices and pipes are refused. Set-uid and set-gid bits are not kept.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  starfish get /photos/photo.jpg .\n  starfish get /src ~/src\n  starfish get /logs/dmesg - | less"
)]
pub struct Get {
    /// What to copy.
    source: String,
    /// Where to; `-` is standard output. A folder that is there takes a file under its own name, and what a directory holds
    /// beside what it has.
    destination: PathBuf,
}

impl Get {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        let tree = context.tree();
        let from = context.cwd.resolve(&self.source)?;
        if self.destination.as_os_str() == "-" {
            let mut content = tree.read(&from, 0..u64::MAX).await?;
            while let Some(chunk) = content.try_next().await? {
                context.io.stdout.write_all(&chunk).await?;
            }
            context.io.stdout.flush().await?;
            return Ok(0);
        }
        let entry = tree.stat(&from).await?;
        let total = (entry.kind == Kind::File).then_some(entry.size);
        let transfer = Transfer::start(from.as_str(), total);
        let on_progress = |summary: &Summary| transfer.show(summary);
        let summary = if is_directory(&*tree, &from).await? {
            export_dir(&*tree, &from, &self.destination, &on_progress).await?
        } else {
            export_file(&*tree, &from, &self.place(&from)?, &on_progress).await?
        };
        transfer.finish(&summary, &mut context).await?;
        Ok(0)
    }

    fn place(&self, from: &VfsPath) -> anyhow::Result<PathBuf> {
        let into_folder =
            self.destination.is_dir() || self.destination.as_os_str().as_encoded_bytes().ends_with(b"/");
        if !into_folder {
            return Ok(self.destination.clone());
        }
        Ok(self.destination.join(from.name().context("the source has no name")?))
    }
}

/// A link to a directory is copied as the directory.
async fn is_directory(tree: &dyn Vfs, path: &VfsPath) -> anyhow::Result<bool> {
    match tree.stat(path).await?.kind {
        Kind::Dir => Ok(true),
        Kind::File => Ok(false),
        Kind::Symlink => Ok(tree.list(path).await.is_ok()),
    }
}
