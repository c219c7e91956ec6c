//! What a key holds besides its value: fields and members.

use std::path::PathBuf;

use starfish_node::client::RemoteSpace;
use starfish_node::wire::{Base64, FieldBody, NameBody, WriteBody};

use super::{Context, NOT_FOUND, Source, found, names, print_bytes, print_value, readable};

#[derive(Clone, Debug, clap::Subcommand)]
pub(super) enum Held {
    /// Set fields of a key, all at once.
    Hset {
        /// The key.
        #[arg(value_parser = names::key)]
        key: String,
        /// Names and values, in turn.
        #[arg(required = true, allow_hyphen_values = true, value_names = ["FIELD", "VALUE"])]
        fields: Vec<String>,
        /// Take the value of one field from this file. Comes before the key.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Print a field of a key, or all of them as one JSON document (of a value over 16 KiB its size); exit with 4 if there
    /// is none.
    Hget {
        /// The key.
        #[arg(value_parser = names::key)]
        key: String,
        /// The field.
        #[arg(value_parser = names::field)]
        field: Option<String>,
        /// No newline: the bytes of the field and nothing else.
        #[arg(long, requires = "field")]
        raw: bool,
    },
    /// Delete fields of a key; exit with 4 if there was none of them.
    Hdel {
        /// The key.
        #[arg(value_parser = names::key)]
        key: String,
        /// The fields.
        #[arg(required = true, value_parser = names::field)]
        fields: Vec<String>,
    },
    /// Add to a field, and print what it is then. Unlike a counter, it keeps only the later of two nodes' results.
    Hincr {
        /// The key.
        #[arg(value_parser = names::key)]
        key: String,
        /// The field.
        #[arg(value_parser = names::field)]
        field: String,
        /// How much; may be negative.
        #[arg(default_value_t = 1, allow_negative_numbers = true)]
        by: i64,
    },
    /// Add members to a set, and print how many are new.
    Sadd {
        /// The key.
        #[arg(value_parser = names::key)]
        key: String,
        /// The members.
        #[arg(required = true, value_parser = names::member)]
        members: Vec<String>,
    },
    /// Remove members of a set; exit with 4 if there was none of them.
    Srem {
        /// The key.
        #[arg(value_parser = names::key)]
        key: String,
        /// The members.
        #[arg(required = true)]
        members: Vec<String>,
    },
    /// Print the members of a set, one a line; or with a MEMBER, exit with 0 if it is one and with 4 if not.
    Smembers {
        /// The key.
        #[arg(value_parser = names::key)]
        key: String,
        /// The member.
        #[arg(value_parser = names::member)]
        member: Option<String>,
    },
}

impl Held {
    pub(super) async fn run(self, context: &mut Context, space: &RemoteSpace) -> anyhow::Result<i32> {
        match self {
            Self::Hset { key, fields, file: None } => set_fields(space, &key, fields).await?,
            Self::Hset { key, fields, file: Some(file) } => {
                let [field] = fields.as_slice() else {
                    anyhow::bail!("with --file there must be the name of one field");
                };
                anyhow::ensure!(!field.is_empty(), "a field must not be empty");
                let value = Source::File(file).open(context).await?;
                space.set_field_streamed(key.as_bytes(), field.as_bytes(), value).await?;
            }
            Self::Hget { key, field: Some(field), raw } => {
                match space.open_field(key.as_bytes(), field.as_bytes()).await? {
                    Some(value) => print_value(context, value, raw).await?,
                    None => return Ok(NOT_FOUND),
                }
            }
            Self::Hget { key, field: None, .. } => {
                let fields = space.fields(key.as_bytes()).await?;
                if fields.is_empty() {
                    return Ok(NOT_FOUND);
                }
                let fields = fields.iter().map(|field| (readable(&field.field), shown(field)));
                let object: serde_json::Map<String, serde_json::Value> = fields.collect();
                context.print(serde_json::to_string(&object)?).await?;
            }
            Self::Hdel { key, fields } => {
                return Ok(found(space.delete_fields(key.as_bytes(), fields).await? > 0));
            }
            Self::Hincr { key, field, by } => {
                let value = space.incr_field(key.as_bytes(), field.as_bytes(), by).await?;
                context.print(value).await?;
            }
            Self::Sadd { key, members } => {
                let n_new = space.add_members(key.as_bytes(), members).await?;
                context.print(n_new).await?;
            }
            Self::Srem { key, members } => {
                return Ok(found(space.remove_members(key.as_bytes(), members).await? > 0));
            }
            Self::Smembers { key, member: Some(member) } => {
                return Ok(found(space.is_member(key.as_bytes(), member.as_bytes()).await?));
            }
            Self::Smembers { key, member: None } => {
                for member in space.members(key.as_bytes()).await? {
                    print_bytes(context, &member.member).await?;
                }
            }
        }
        Ok(0)
    }
}

/// A field's value in JSON: text, or the size of a large one.
fn shown(field: &FieldBody) -> serde_json::Value {
    match &field.value {
        Some(value) => readable(&value.0).into(),
        None => serde_json::json!({ "bytes": field.bytes }),
    }
}

async fn set_fields(space: &RemoteSpace, key: &str, fields: Vec<String>) -> anyhow::Result<()> {
    anyhow::ensure!(fields.len().is_multiple_of(2), "a field has no value: names and values come in turn");
    let mut writes = Vec::new();
    let mut rest = fields.into_iter();
    while let (Some(field), Some(value)) = (rest.next(), rest.next()) {
        anyhow::ensure!(!field.is_empty(), "a field must not be empty");
        let (field, value) = (Some(NameBody(field.into())), Some(Base64(value.into())));
        writes.push(WriteBody { key: key.to_owned().into(), field, value });
    }
    Ok(space.write(&writes).await?)
}
