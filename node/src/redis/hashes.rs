//! Named fields of a key: a hash.

use bytes::Bytes;
use starfish_memory::{IncrementError, KeyKind, MAX_VALUE, Memory, Space, Value, WriteError};

use super::args::Args;
use super::command::{Access, Command};
use super::cursors::Cursors;
use super::keys::{Scan, require};
use super::refusal::Refusal;
use super::reply::Reply;
use super::strings::Together;

/// A command of fields.
#[derive(Debug)]
pub(super) enum Hashes {
    Set { key: Bytes, fields: Vec<(Bytes, Bytes)> },
    Get { key: Bytes, field: Bytes },
    GetMany { key: Bytes, fields: Vec<Bytes> },
    GetAll(Bytes),
    Del { key: Bytes, fields: Vec<Bytes> },
    Len(Bytes),
    IncrBy { key: Bytes, field: Bytes, by: i64 },
    Scan { key: Bytes, scan: Scan },
}

type Parsed = Result<Command, Refusal>;

impl Hashes {
    pub(super) fn set(mut args: Args) -> Parsed {
        let (key, fields) = (args.next()?, args.pairs()?);
        match fields.iter().any(|(field, _)| field.is_empty()) {
            true => Err(Refusal::Empty("field")),
            false => Ok(Command::Hashes(Self::Set { key, fields })),
        }
    }

    pub(super) fn get(mut args: Args) -> Parsed {
        Ok(Command::Hashes(Self::Get { key: args.next()?, field: args.name("field")? }))
    }

    pub(super) fn get_many(mut args: Args) -> Parsed {
        Ok(Command::Hashes(Self::GetMany { key: args.next()?, fields: args.names("field")? }))
    }

    pub(super) fn get_all(mut args: Args) -> Parsed {
        Ok(Command::Hashes(Self::GetAll(args.next()?)))
    }

    pub(super) fn del(mut args: Args) -> Parsed {
        Ok(Command::Hashes(Self::Del { key: args.next()?, fields: args.names("field")? }))
    }

    pub(super) fn len(mut args: Args) -> Parsed {
        Ok(Command::Hashes(Self::Len(args.next()?)))
    }

    pub(super) fn incr_by(mut args: Args) -> Parsed {
        Ok(Command::Hashes(Self::IncrBy {
            key: args.next()?,
            field: args.name("field")?,
            by: args.integer()?,
        }))
    }

    pub(super) fn scan(mut args: Args) -> Parsed {
        let key = args.next()?;
        match Scan::read(args)? {
            (scan, None) => Ok(Command::Hashes(Self::Scan { key, scan })),
            _ => Err(Refusal::Syntax),
        }
    }

    pub(super) fn access(&self) -> Access {
        match self {
            Self::Set { key, .. } | Self::Del { key, .. } | Self::IncrBy { key, .. } => {
                Access::writes(key, Some(KeyKind::Fields))
            }
            Self::Get { key, .. } | Self::GetMany { key, .. } | Self::Scan { key, .. } => Access::reads(key),
            Self::GetAll(key) | Self::Len(key) => Access::reads(key),
        }
    }

    /// Whether it takes more than one job for the writer: then nothing may be begun behind it before it is done.
    pub(super) fn takes_steps(&self) -> bool {
        match self {
            Self::Set { fields, .. } => fields.iter().any(|(_, value)| value.len() > MAX_VALUE),
            _ => false,
        }
    }

    pub(super) async fn run(
        self,
        memory: &Memory,
        space: &Space,
        cursors: &Cursors,
    ) -> Result<Reply, Refusal> {
        Ok(match self {
            Self::Set { key, fields } => Reply::count(space.set_fields(&key, fields).await?),
            Self::Get { key, field } => {
                let value = space.field(&key, &field).await?;
                if value.is_none() {
                    require(space, &key, KeyKind::Fields).await?;
                }
                Reply::value(value)
            }
            Self::GetMany { key, fields } => {
                let mut values = Together::default();
                for field in fields {
                    values.push(space.field(&key, &field).await?)?;
                }
                let values = values.0;
                if values.iter().all(|value| *value == Reply::Null) {
                    require(space, &key, KeyKind::Fields).await?;
                }
                Reply::Array(values)
            }
            Self::GetAll(key) => {
                let (names, values) = whole(memory, fields(space, &key).await?).await?;
                Reply::Map(names.into_iter().map(Reply::Bytes).zip(values).collect())
            }
            Self::Del { key, fields } => Reply::count(space.delete_fields(&key, fields).await?),
            Self::Len(key) => Reply::count(fields(space, &key).await?.len()),
            Self::IncrBy { key, field, by } => match space.incr_field(&key, &field, by).await {
                Err(WriteError::Increment(IncrementError::NotAnInteger)) => {
                    return Err(Refusal::FieldNotAnInteger);
                }
                total => Reply::Integer(total?),
            },
            Self::Scan { key, scan } => scan_fields(memory, space, cursors, &key, scan).await?,
        })
    }
}

/// The fields of a key that holds no other thing.
async fn fields(space: &Space, key: &[u8]) -> Result<Vec<(Bytes, Value)>, Refusal> {
    let fields = space.fields(key).await?;
    if fields.is_empty() {
        require(space, key, KeyKind::Fields).await?;
    }
    Ok(fields)
}

/// The names of fields, and their values with all bytes.
async fn whole(memory: &Memory, fields: Vec<(Bytes, Value)>) -> Result<(Vec<Bytes>, Vec<Reply>), Refusal> {
    let (mut names, mut values) = (Vec::with_capacity(fields.len()), Together::default());
    for (field, value) in fields {
        names.push(field);
        values.push(Some(memory.whole_value(value).await?))?;
    }
    Ok((names, values.0))
}

async fn scan_fields(
    memory: &Memory,
    space: &Space,
    cursors: &Cursors,
    key: &[u8],
    scan: Scan,
) -> Result<Reply, Refusal> {
    let after = cursors.resume(scan.cursor)?;
    let fields = fields(space, key).await?;
    // They are in order.
    let first = after.map_or(0, |after| fields.partition_point(|(field, _)| *field <= after));
    let page = fields.get(first..).unwrap_or_default();
    let page = page.get(..scan.count).unwrap_or(page);
    let last = page.last().filter(|_| first + page.len() < fields.len()).map(|(field, _)| field.clone());
    let fitting = page.iter().filter(|(field, _)| scan.fits(field)).cloned().collect();
    let (names, values) = whole(memory, fitting).await?;
    let found = names.into_iter().map(Reply::Bytes).zip(values).flat_map(|(name, value)| [name, value]);
    Ok(cursors.page(last, found.collect()))
}
