//! `starfish leave`: ends this node's membership.

use super::{Context, down};

/// Leave the swarm and stop the node.
///
/// The others are told. What this node kept of the swarm is put aside in its data folder, since it may be the
/// only copy of somebody's file; the next `starfish up` founds a new swarm or joins one.
#[derive(Clone, Debug, clap::Args)]
pub struct Leave {}

impl Leave {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        context.client.leave().await?;
        context.io.stderr.line("left the swarm").await?;
        // It stops by itself, after it has told the others.
        down::wait_until_stopped(&mut context).await
    }
}
