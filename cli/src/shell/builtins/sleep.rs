//! `sleep`

use std::time::Duration;

use super::{Builtin, Context, Failure, Outcome};

/// Arguments of `sleep`.
#[derive(Debug, clap::Args)]
pub(super) struct Sleep {
    /// Seconds, or a number with s, m or h
    time: String,
}

impl Builtin for Sleep {
    const NAME: &'static str = "sleep";
    const ABOUT: &'static str = "Wait";

    async fn run(self, context: Context) -> Outcome {
        let time =
            parse(&self.time).ok_or_else(|| Failure::Usage(format!("{:?} is not a time", self.time)))?;
        tokio::time::sleep(time).await;
        context.done()
    }
}

fn parse(text: &str) -> Option<Duration> {
    let (number, unit) = match text.char_indices().next_back()? {
        (at, 's') => (&text[..at], 1.0),
        (at, 'm') => (&text[..at], 60.0),
        (at, 'h') => (&text[..at], 3600.0),
        _ => (text, 1.0),
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()
}
