//! `starfish leave`: ends this node's membership.

use std::time::Duration;

use anyhow::Context as _;

use super::{Context, down};
use crate::output::progress;

/// How often the progress is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Leave the swarm and stop the node.
///
/// First the others are given all that they need of what this node keeps; breaking that off with Ctrl-C is safe, and the
/// node stays. What is left here afterwards is put aside in the data folder; the next `starfish up` founds a new swarm
/// or joins one.
#[derive(Clone, Debug, clap::Args)]
pub struct Leave {
    /// Leave at once. What only this node has is lost to the others.
    #[arg(long)]
    force: bool,
}

impl Leave {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        if !self.force {
            hand_over(&context).await.context("still a member")?;
        }
        context.client.leave().await?;
        context.io.stderr.line("left the swarm").await?;
        // It stops by itself, after it has told the others.
        down::wait_until_stopped(&mut context).await
    }
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
