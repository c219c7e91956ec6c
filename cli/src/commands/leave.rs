//! `starfish leave`: ends this node's membership.

use super::{Context, down::Down};

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
        // The node stops by itself; this only waits for it.
        match (Down {}).run(context.clone()).await {
            Err(error) if super::failure::status(&error) == super::failure::NOT_RUNNING => Ok(0),
            ended => ended,
        }
    }
}
