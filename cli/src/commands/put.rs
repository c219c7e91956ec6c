//! `starfish put`: from this machine into the tree.

use std::path::PathBuf;

use anyhow::Context as _;
use futures::StreamExt;
use starfish_node::fs::copying::{Summary, import_dir, import_file};
use tokio_util::io::ReaderStream;

use super::Context;
use super::durable;
use super::transfer::Transfer;
use crate::shell::fs::path::VfsPath;
use crate::shell::fs::vfs::{Attributes, Kind, Parents, Vfs, VfsError};

/// Copy a file or folder of this machine into the tree.
///
/// Missing directories are made. Modes, times, links and empty folders come along. First everything is on this node's
/// disk; then it is spread over the swarm, until any half of the members that are there may vanish. Ctrl-C after the
/// first point loses nothing: the node goes on. Set-uid, set-gid and sticky bits are kept with the mode and shown; a
/// mount does not obey the first two, and `get` leaves them out, as the owner is not kept.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  starfish put photo.jpg /photos/\n  starfish put ~/src /src\n  dmesg | starfish put - /logs/dmesg"
)]
pub struct Put {
    /// What to copy; `-` is standard input.
    source: PathBuf,
    /// Where to; a directory that is there takes a file under its own name, and what a folder holds beside what it has.
    destination: String,
    /// When to end: as soon as it is on this node's disk, or when it is at full durability.
    #[arg(long, value_enum, default_value_t = Until::Durable, value_name = "POINT")]
    wait: Until,
}

/// When a file counts as put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Until {
    /// It is on this node's disk.
    Local,
    /// Any half of the members may vanish.
    Durable,
}

impl Put {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        let tree = context.tree();
        let to = context.cwd.resolve(&self.destination)?;
        if self.source.as_os_str() == "-" {
            make_parents(&*tree, &to).await?;
            let input = ReaderStream::with_capacity(context.io.stdin.clone(), 64 << 10);
            let what = "cannot read standard input";
            let input =
                input.map(move |chunk| chunk.map_err(|source| VfsError::Io { what: what.into(), source }));
            tree.write(&to, input.boxed(), Attributes::default()).await?;
            return self.wait(&mut context, &to).await;
        }
        let metadata = tokio::fs::metadata(&self.source)
            .await
            .with_context(|| format!("cannot read {}", self.source.display()))?;
        let to = self.place(&*tree, to).await?;
        make_parents(&*tree, &to).await?;
        let total = metadata.is_file().then_some(metadata.len());
        let transfer = Transfer::start(&self.source.display().to_string(), total);
        let on_progress = |summary: &Summary| transfer.show(summary);
        let summary = if metadata.is_dir() {
            import_dir(&self.source, &*tree, &to, &on_progress).await?
        } else {
            import_file(&self.source, &*tree, &to, &on_progress).await?
        };
        transfer.finish(&summary, &mut context).await?;
        self.wait(&mut context, &to).await
    }

    async fn wait(&self, context: &mut Context, to: &VfsPath) -> anyhow::Result<i32> {
        if self.wait == Until::Durable {
            durable::wait(context, to).await?;
        }
        Ok(0)
    }

    /// As `cp` does: a directory that is there takes a file under its own name. A folder becomes the directory that is
    /// named, or is merged into it, so that putting it again brings it up to date.
    async fn place(&self, tree: &dyn Vfs, to: VfsPath) -> anyhow::Result<VfsPath> {
        if self.source.is_dir() {
            return Ok(to);
        }
        let into_directory = self.destination.ends_with('/')
            || tree.stat(&to).await.is_ok_and(|entry| entry.kind == Kind::Dir);
        if !into_directory {
            return Ok(to);
        }
        let name = self.source.file_name().context("the source has no name")?;
        let name = name.to_str().context("the source's name is not UTF-8")?;
        Ok(to.join(name)?)
    }
}

async fn make_parents(tree: &dyn Vfs, path: &VfsPath) -> Result<(), VfsError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    match tree.mkdir(&parent, Parents::Create).await {
        // A file that is in the way is there, and that is not what is wrong with it.
        Err(VfsError::Exists { path }) => Err(VfsError::NotADirectory { path }),
        made => made.map(|_| ()),
    }
}
