//! Waiting until what was written is at full durability.

use std::time::{Duration, Instant};

use super::Context;
use crate::output::progress;
use crate::shell::fs::path::VfsPath;

/// The pause between two looks: short at first, for small files are there at once.
const FIRST_LOOK: Duration = Duration::from_millis(5);
/// The longest pause.
const LOOK: Duration = Duration::from_millis(100);
/// After this long with nothing moving, a person is told why.
const SAY_WHY: Duration = Duration::from_secs(3);

/// Waits until everything at or below `path` that was written through this node can outlive any half of the members.
pub(super) async fn wait(context: &mut Context, path: &VfsPath) -> anyhow::Result<()> {
    let start = Instant::now();
    let first = context.client.waiting(path).await?;
    let is_seen = context.io.stderr.is_terminal();
    let bar = progress::bytes("spreading", Some(first.bytes));
    let (mut pause, mut left, mut moved, mut has_said) = (FIRST_LOOK, first.bytes, Instant::now(), false);
    let mut waiting = first;
    while waiting.files > 0 {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOK);
        waiting = context.client.waiting(path).await?;
        if waiting.bytes != left {
            (left, moved) = (waiting.bytes, Instant::now());
        }
        bar.set_position(bar.length().unwrap_or_default().saturating_sub(left));
        if let Some(why) = waiting.why.as_ref().filter(|_| !has_said && moved.elapsed() > SAY_WHY) {
            has_said = true;
            let line =
                format!("on this disk, and not at full durability yet: {why} (still trying; Ctrl-C is safe)");
            context.io.stderr.line(line).await?;
        }
    }
    bar.finish_and_clear();
    if is_seen {
        let line = format!("at full durability after {:.1} s", start.elapsed().as_secs_f64());
        context.io.stderr.line(line).await?;
    }
    Ok(())
}
