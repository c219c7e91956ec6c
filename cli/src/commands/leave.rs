//! `starfish leave`: ends this node's membership.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

use super::{Context, down};
use crate::output::progress;

/// How often the progress is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Leave the swarm and stop the node.
///
/// First the others are given all that they need of what this node keeps; breaking that off with Ctrl-C is safe, and the
/// node stays. The last one that is there does not leave files or keys behind unless --force says so.
///
/// What is left here afterwards is put aside in the data folder as left-SWARM-TIME; the next `starfish up` founds a new
/// swarm or joins one. To be back in the old one: `starfish down`, put `swarm` out of the way, name that folder `swarm`,
/// `starfish up`.
#[derive(Clone, Debug, clap::Args)]
pub struct Leave {
    /// Leave at once. What only this node has is lost to the others, and put aside here.
    #[arg(long)]
    force: bool,
}

impl Leave {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        if !self.force {
            hand_over(&context).await.context("still a member")?;
        }
        let before = put_aside(&context);
        context.client.leave().await?;
        context.io.stderr.line("left the swarm").await?;
        // It stops by itself, after it has told the others.
        let status = down::wait_until_stopped(&mut context).await?;
        for folder in put_aside(&context).difference(&before) {
            let swarm = context.client.data_dir().swarm();
            let line = format!(
                "what it kept is put aside in {}; to come back, rename that to {} while no node runs there",
                folder.display(),
                swarm.display()
            );
            context.io.stderr.line(line).await?;
        }
        Ok(status)
    }
}

/// The folders of swarms that were left.
fn put_aside(context: &Context) -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir(context.client.data_dir().path()).into_iter().flatten().flatten();
    let left = entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"left-"));
    left.map(|entry| entry.path()).collect()
}

async fn hand_over(context: &Context) -> anyhow::Result<()> {
    let bar = progress::bytes("handing over", None);
    let client = context.client.clone();
    let handing_over = client.hand_over();
    tokio::pin!(handing_over);
    loop {
        tokio::select! {
            done = &mut handing_over => {
                bar.finish_and_clear();
                return Ok(done?);
            }
            () = tokio::time::sleep(LOOK) => {
                let progress = context.client.handover().await?;
                bar.set_length(progress.total);
                bar.set_position(progress.done.min(progress.total));
            }
        }
    }
}
