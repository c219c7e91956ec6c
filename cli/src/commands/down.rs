//! `starfish down`: stops the node of a data folder.

use std::time::{Duration, Instant};

use anyhow::bail;
use starfish_node::{ClientError, NodeLock, RuntimeInfo};

use super::Context;

/// A node stops within five seconds; the rest is for a slow machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// Stop the node; its files, keys and membership stay.
#[derive(Clone, Debug, clap::Args)]
pub struct Down {}

impl Down {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        match context.client.stop().await {
            // It may be gone before it has said that it goes.
            Ok(()) | Err(ClientError::Interrupted { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        wait_until_stopped(&mut context).await
    }
}

/// Waits until the node of this folder is gone, and says so.
pub(super) async fn wait_until_stopped(context: &mut Context) -> anyhow::Result<i32> {
    let dir = context.client.data_dir().clone();
    let info = RuntimeInfo::read(&dir);
    let start = Instant::now();
    while NodeLock::is_held(&dir) {
        if start.elapsed() > PATIENCE {
            let pid = info.map(|info| info.pid.to_string()).unwrap_or_default();
            bail!(
                "the node was told to stop and has not done so within {} s (pid {pid})",
                PATIENCE.as_secs()
            );
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    context.io.stderr.line("the node has stopped").await?;
    Ok(0)
}
