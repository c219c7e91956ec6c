//! `starfish doc`: documents that many edit at once.

mod edit;
mod find;

use std::io;

use bytes::Bytes;
use futures::TryStreamExt;
use serde_json::Value;
use starfish_node::client::RemoteCollection;
use starfish_node::unambiguous;
use starfish_node::wire::DocumentWritten;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::io::ReaderStream;

use super::Context;
use super::failure::NOT_FOUND;
use crate::output::table::Table;

/// The most that is read of standard input for one document, in bytes: more than any document may have, so that
/// the node says what is wrong.
const MAX_INPUT: u64 = 8 << 20;

/// Keep JSON documents in collections, find them, and edit them in many places at once.
///
/// A write is on this node's disk when the command ends, and on its way to every other node. Edits of one document that
/// are made on both sides of a broken network both stay.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  starfish doc put people ada '{\"name\": \"Ada\", \"born\": 1815}'\n  \
                        starfish doc patch people ada '{\"langs\": [\"en\"]}'\n  \
                        starfish doc edit people ada push /langs fr\n  \
                        starfish doc find people '{\"born\": {\"$lt\": 1900}}' --sort=-born --fields name\n  \
                        starfish doc index add people by-born /born\n  starfish doc export people > people.ndjson")]
pub struct Doc {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Action {
    /// Make a document equal to JSON, and print its id.
    Put {
        /// The collection.
        collection: String,
        /// The document's id; a new one if it is missing.
        id: Option<String>,
        /// The document; standard input if it is missing or `-`.
        json: Option<String>,
    },
    /// Print a document; exit with 4 if there is none.
    Get {
        /// The collection.
        collection: String,
        /// The document's id.
        id: String,
        /// What it and its history take, instead.
        #[arg(long)]
        cost: bool,
    },
    /// Change the members that a JSON merge patch names; null removes one.
    Patch {
        /// The collection.
        collection: String,
        /// The document's id.
        id: String,
        /// The patch; standard input if it is missing or `-`.
        json: Option<String>,
    },
    /// Edit one place of a document, or several at once.
    Edit {
        /// The collection.
        collection: String,
        /// The document's id.
        id: String,
        #[command(subcommand)]
        edit: edit::PlaceEdit,
    },
    /// Delete a document, or all that a query finds; exit with 4 if there was none.
    Rm {
        /// The collection.
        collection: String,
        /// The document's id.
        #[arg(required_unless_present = "query")]
        id: Option<String>,
        /// Delete what this query finds, and print how many that were.
        #[arg(long = "where", value_name = "QUERY", conflicts_with = "id")]
        query: Option<String>,
    },
    /// Print the documents that a query finds, one a line: the id, a tab, the document.
    Find(find::FindArgs),
    /// Add, list or remove the indexes of a collection.
    Index {
        #[command(subcommand)]
        action: IndexAction,
    },
    /// List the collections that have something in them.
    Collections {
        /// As one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Delete all documents of a collection, and its indexes.
    Drop {
        /// The collection.
        collection: String,
    },
    /// Print every document as a line of JSON: {"id": ..., "document": ...}.
    Export {
        /// The collection.
        collection: String,
        /// Only the documents that this query finds.
        query: Option<String>,
    },
    /// Put the documents that standard input has, one a line, as `export` prints them; the id may be missing.
    Import {
        /// The collection.
        collection: String,
    },
}

#[derive(Clone, Debug, clap::Subcommand)]
enum IndexAction {
    /// Declare an index. Every node builds it in the background.
    Add {
        /// The collection.
        collection: String,
        /// The index's name.
        name: String,
        /// The place in documents, such as /born or /home/city.
        path: String,
    },
    /// List the indexes, and whether this node can use them yet.
    Ls {
        /// The collection.
        collection: String,
        /// As one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Remove an index.
    Rm {
        /// The collection.
        collection: String,
        /// The index's name.
        name: String,
    },
}

impl Doc {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        let client = context.client.clone();
        match self.action {
            Action::Put { collection, id, json } => {
                // With one word it is the id, unless it can only be the document.
                let (id, json) = match (id, json) {
                    (Some(json), None) if json.starts_with('{') || json == "-" => (None, Some(json)),
                    words => words,
                };
                let json = input(&mut context, json).await?;
                let written = client.documents(&collection).put(id.as_deref(), json).await?;
                context.print(&written.id).await?;
                warn(&mut context, &written).await?;
            }
            Action::Get { collection, id, cost } => return get(&mut context, &collection, &id, cost).await,
            Action::Patch { collection, id, json } => {
                let json = input(&mut context, json).await?;
                let written = client.documents(&collection).patch(&id, json).await?;
                warn(&mut context, &written).await?;
            }
            Action::Edit { collection, id, edit } => {
                let edits = edit.edits(&mut context).await?;
                let written = client.documents(&collection).edit(&id, &edits).await?;
                warn(&mut context, &written).await?;
            }
            Action::Rm { collection, id, query } => {
                return remove(&mut context, &client.documents(&collection), id, query).await;
            }
            Action::Find(find) => find.run(&mut context).await?,
            Action::Index { action } => action.run(&mut context).await?,
            Action::Collections { json } => collections(&mut context, json).await?,
            Action::Drop { collection } => {
                let documents = client.documents(&collection).drop_all().await?;
                context.print(documents).await?;
            }
            Action::Export { collection, query } => {
                let query = query.as_deref().map(parse_query).transpose()?;
                let mut lines = Box::pin(client.documents(&collection).export(query.as_ref()).await?);
                while let Some(chunk) = lines.try_next().await? {
                    context.io.stdout.write_all(&chunk).await?;
                }
            }
            Action::Import { collection } => {
                let lines = ReaderStream::with_capacity(context.io.stdin.clone(), 64 << 10);
                let documents = client.documents(&collection).import(lines).await?;
                context.print(documents).await?;
            }
        }
        Ok(0)
    }
}

async fn get(context: &mut Context, collection: &str, id: &str, cost: bool) -> anyhow::Result<i32> {
    let collection = context.client.documents(collection);
    let found = match cost {
        true => collection.cost(id).await?.map(serde_json::to_value).transpose()?,
        false => collection.get(id).await?,
    };
    match found {
        Some(value) => {
            context.print_json(&value).await?;
            Ok(0)
        }
        None => Ok(NOT_FOUND),
    }
}

async fn remove(
    context: &mut Context,
    collection: &RemoteCollection,
    id: Option<String>,
    query: Option<String>,
) -> anyhow::Result<i32> {
    let found = match (id, query) {
        (_, Some(query)) => {
            let documents = collection.delete_where(parse_query(&query)?).await?;
            context.print(documents).await?;
            true
        }
        (Some(id), None) => collection.delete(&id).await?,
        (None, None) => false,
    };
    Ok(if found { 0 } else { NOT_FOUND })
}

async fn collections(context: &mut Context, json: bool) -> anyhow::Result<()> {
    let all = context.client.collections().await?;
    if json {
        return context.print_json(&all).await;
    }
    let mut table = Table::new(["COLLECTION", "DOCUMENTS", "INDEXES"]).right_aligned(&[1, 2]);
    for one in &all {
        table.row([one.name.clone(), one.documents.to_string(), one.indexes.to_string()]);
    }
    if table.is_empty() { Ok(()) } else { context.print(table.to_string().trim_end()).await }
}

impl IndexAction {
    async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        match self {
            Self::Add { collection, name, path } => {
                context.client.documents(&collection).add_index(&name, path.parse()?).await?;
                Ok(())
            }
            Self::Rm { collection, name } => {
                Ok(context.client.documents(&collection).remove_index(&name).await?)
            }
            Self::Ls { collection, json } => {
                let all = context.client.documents(&collection).indexes().await?;
                if json {
                    return context.print_json(&all).await;
                }
                let mut table = Table::new(["INDEX", "PATH", "STATE", "DOCUMENTS"]).right_aligned(&[3]);
                for index in &all {
                    let (name, path) = (index.definition.name.clone(), index.definition.path.to_string());
                    let state = serde_json::to_value(index.state)?;
                    let state = state.as_str().unwrap_or_default().to_owned();
                    table.row([name, path, state, index.documents.to_string()]);
                }
                if table.is_empty() { Ok(()) } else { context.print(table.to_string().trim_end()).await }
            }
        }
    }
}

/// The word, or all of standard input.
async fn input(context: &mut Context, word: Option<String>) -> io::Result<Bytes> {
    match word {
        Some(word) if word != "-" => Ok(word.into()),
        _ => {
            let mut text = Vec::new();
            (&mut context.io.stdin).take(MAX_INPUT).read_to_end(&mut text).await?;
            Ok(text.into())
        }
    }
}

fn parse_query(text: &str) -> anyhow::Result<Value> {
    unambiguous::parse(text.as_bytes()).map_err(|error| anyhow::anyhow!("the query is no JSON: {error}"))
}

async fn warn(context: &mut Context, written: &DocumentWritten) -> anyhow::Result<()> {
    if let Some(warning) = &written.warning {
        context.io.stderr.line(format!("warning: {warning}")).await?;
    }
    Ok(())
}
