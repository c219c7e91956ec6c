//! `starfish doc find`.

use starfish_node::memory::Explain;
use starfish_node::wire::FindRequest;

use super::parse_query;
use crate::commands::Context;

/// What to find, and what to show of it.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct FindArgs {
    /// The collection.
    collection: String,
    /// Which documents, such as {"age": {"$gte": 3}, "tags": "x"}; all if it is missing.
    query: Option<String>,
    /// In which order: places with commas between them, `-` in front for the greatest first.
    #[arg(long, allow_hyphen_values = true, value_name = "PLACES")]
    sort: Option<String>,
    /// Show these places only, or with `-` in front of each all but these.
    #[arg(long, allow_hyphen_values = true, value_name = "PLACES")]
    fields: Option<String>,
    /// Show at most so many.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// Go on behind the page that ended with this cursor.
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// Say how they are found instead of what they are.
    #[arg(long)]
    explain: bool,
    /// As one JSON document: documents, next and explain.
    #[arg(long)]
    json: bool,
}

impl FindArgs {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let Self { collection, query, sort, fields, limit, after, explain, json } = self;
        let query = query.as_deref().map(parse_query).transpose()?;
        let request = FindRequest { query, sort, fields, limit: Some(limit), after };
        let answer = context.client.documents(&collection).find(&request).await?;
        match (json, explain) {
            (true, true) => return context.print_json(&answer.explain).await,
            (true, false) => return context.print_json(&answer).await,
            (false, true) => return context.print(in_words(&answer.explain)).await,
            (false, false) => {}
        }
        for found in &answer.documents {
            context.print(format!("{}\t{}", found.id, found.document)).await?;
        }
        if let Some(next) = &answer.next {
            context.io.stderr.line(format!("there is more: --after {next}")).await?;
        }
        Ok(())
    }
}

fn in_words(explain: &Explain) -> String {
    let Explain { index, building, examined, matched } = explain;
    let how = match index {
        Some(name) => format!("index {name}"),
        None => "scan".to_owned(),
    };
    let waiting = match building.as_slice() {
        [] => String::new(),
        names => format!("; not built yet: {}", names.join(", ")),
    };
    format!("{how}: {examined} documents looked at, {matched} match{waiting}")
}
