//! `starfish share`: a link that lets others read a path.

use std::time::Duration;

use starfish_node::wire::ShareRequest;

use super::Context;

/// Make a link that lets others read a file or folder, with curl or a browser.
///
/// Whoever has the link reads the path and what is below it, and nothing else, until it expires. Every member answers
/// it: on another machine, put that node's address in place of this one's. `starfish revoke LINK` ends it early.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  starfish share /photos\n  starfish share /report.pdf --expires 1h")]
pub struct Share {
    /// What others may read.
    path: String,
    /// How long the link is good for, such as 10m, 12h or 7d.
    #[arg(long, default_value = "1d", value_parser = super::task::parse_duration)]
    expires: Duration,
    /// As one JSON document.
    #[arg(long)]
    json: bool,
}

impl Share {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        let path = context.cwd.resolve(&self.path)?;
        let request = ShareRequest { path, expires_s: Some(self.expires.as_secs()) };
        let share = context.client.share(&request).await?;
        if self.json {
            context.print_json(&share).await?;
        } else {
            context.print(&share.url).await?;
        }
        Ok(0)
    }
}
