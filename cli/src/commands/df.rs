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
        table.row(["content".to_owned(), human::bytes(usage.content)]);
        let overhead = match usage.content {
            0 => String::new(),
            content => format!(" ({:.2} times the content)", usage.swarm as f64 / content as f64),
        };
        let all = format!("{} on {} nodes{overhead}", human::bytes(usage.swarm), usage.members);
        table.row(["kept".to_owned(), all]);
        // Twice the content, or as often as there are members for short files, is what the files of the tree come to.
        let needed = usage.content.saturating_mul(usage.members.max(3)).saturating_add(1 << 20);
        if usage.swarm > needed {
            let why = "more than the tree needs: older versions (30 days), or what is not collected yet";
            table.row(["", why]);
        }
        let here = format!("{}, and {} cached", human::bytes(usage.bytes), human::bytes(usage.cached));
        table.row(["on this node".to_owned(), here]);
        let disk = format!("{} free of {}", human::bytes(usage.free), human::bytes(usage.total));
        table.row(["its disk".to_owned(), disk]);
        context.print(table.to_string().trim_end()).await?;
        Ok(0)
    }
}
