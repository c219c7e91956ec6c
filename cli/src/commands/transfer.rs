//! What `put` and `get` share: progress while they copy, and one line at the end.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use starfish_node::fs::copying::{Remark, Summary};

use super::Context;
use crate::output::{human, progress};

/// A transfer under way.
pub(super) struct Transfer {
    bar: ProgressBar,
    start: Instant,
    drawn: Mutex<Instant>,
}

impl Transfer {
    pub(super) fn start(what: &str, total_bytes: Option<u64>) -> Self {
        let start = Instant::now();
        Self { bar: progress::bytes(what, total_bytes), start, drawn: Mutex::new(start) }
    }

    /// Shows how far it is, at most every tenth of a second.
    pub(super) fn show(&self, summary: &Summary) {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        if drawn.elapsed() >= Duration::from_millis(100) {
            *drawn = Instant::now();
            self.bar.set_position(summary.bytes);
        }
    }

    /// Says what was copied, if a person looks on, and in any case what was not, or not as one.
    pub(super) async fn finish(self, summary: &Summary, context: &mut Context) -> anyhow::Result<()> {
        self.bar.finish_and_clear();
        for (path, remark) in &summary.remarks {
            let line = match remark {
                Remark::PassedOver => {
                    format!("passed over {}: neither file, folder nor link", path.display())
                }
                Remark::Vanished => {
                    format!("passed over {}: it was gone before it could be copied", path.display())
                }
                Remark::Changed => format!("warning: {} changed while it was copied", path.display()),
            };
            context.io.stderr.line(line).await?;
        }
        let more = summary.n_remarks - summary.remarks.len() as u64;
        if more > 0 {
            context.io.stderr.line(format!("and {more} more like that")).await?;
        }
        if context.io.stderr.is_terminal() {
            let elapsed = self.start.elapsed();
            let per_second = summary.bytes as f64 / elapsed.as_secs_f64().max(0.001);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a positive rate, shown rounded"
            )]
            let rate = human::bytes(per_second as u64);
            let files =
                if summary.files == 1 { "1 file".to_owned() } else { format!("{} files", summary.files) };
            let took = format!("{:.1} s", elapsed.as_secs_f64());
            let line = format!("on this disk: {files}, {} in {took} ({rate}/s)", human::bytes(summary.bytes));
            context.io.stderr.line(line).await?;
        }
        Ok(())
    }
}
