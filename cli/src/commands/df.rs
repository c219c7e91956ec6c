//! `starfish df`: what the files take.

use super::Context;
use crate::output::human;
use crate::output::table::Table;

/// Show how much the swarm's files take, here and in all.
#[derive(Clone, Debug, clap::Args)]
pub struct Df {
    /// As one JSON document.
    #[arg(long)]
    json: bool,
}

impl Df {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        let usage = context.client.usage().await?;
        if self.json {
            context.print_json(&usage).await?;
            return Ok(0);
        }
        let mut table = Table::default();
        table
            .row(["tree".to_owned(), format!("{} files and links, {} directories", usage.files, usage.dirs)]);
        let here = format!("{} in {} blobs", human::bytes(usage.bytes), usage.blobs);
        table.row(["on this node".to_owned(), here]);
        let disk = format!("{} free of {}", human::bytes(usage.free), human::bytes(usage.total));
        table.row(["its disk".to_owned(), disk]);
        context.print(table.to_string().trim_end()).await?;
        Ok(0)
    }
}
