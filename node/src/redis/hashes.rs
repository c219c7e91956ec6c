//! Named fields of a key: a hash.

use bytes::Bytes;
use starfish_memory::{IncrementError, KeyKind, Space, WriteError};

use super::args::Args;
use super::command::{Access, Command};
use super::cursors::Cursors;
use super::keys::{Scan, require};
use super::refusal::Refusal;
use super::reply::Reply;

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
        Ok(Command::Hashes(Self::Set { key: args.next()?, fields: args.pairs()? }))
    }

    pub(super) fn get(mut args: Args) -> Parsed {
        Ok(Command::Hashes(Self::Get { key: args.next()?, field: args.next()? }))
    }

    pub(super) fn get_many(mut args: Args) -> Parsed {
        Ok(Command::Hashes(Self::GetMany { key: args.next()?, fields: args.all() }))
    }

    pub(super) fn get_all(mut args: Args) -> Parsed {
        Ok(Command::Hashes(Self::GetAll(args.next()?)))
    }

    pub(super) fn del(mut args: Args) -> Parsed {
        Ok(Command::Hashes(Self::Del { key: args.next()?, fields: args.all() }))
    }

    pub(super) fn len(mut args: Args) -> Parsed {
        Ok(Command::Hashes(Self::Len(args.next()?)))
    }

    pub(super) fn incr_by(mut args: Args) -> Parsed {
        Ok(Command::Hashes(Self::IncrBy { key: args.next()?, field: args.next()?, by: args.integer()? }))
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

    pub(super) async fn run(self, space: &Space, cursors: &Cursors) -> Result<Reply, Refusal> {
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
                let mut values = Vec::with_capacity(fields.len());
                for field in fields {
                    values.push(Reply::value(space.field(&key, &field).await?));
                }
                if values.iter().all(|value| *value == Reply::Null) {
                    require(space, &key, KeyKind::Fields).await?;
                }
                Reply::Array(values)
            }
            Self::GetAll(key) => {
                let pair = |(field, value)| (Reply::Bytes(field), Reply::Bytes(value));
                Reply::Map(fields(space, &key).await?.into_iter().map(pair).collect())
            }
            Self::Del { key, fields } => Reply::count(space.delete_fields(&key, fields).await?),
            Self::Len(key) => Reply::count(fields(space, &key).await?.len()),
            Self::IncrBy { key, field, by } => match space.incr_field(&key, &field, by).await {
                Err(WriteError::Increment(IncrementError::NotAnInteger)) => {
                    return Err(Refusal::FieldNotAnInteger);
                }
                total => Reply::Integer(total?),
            },
            Self::Scan { key, scan } => scan_fields(space, cursors, &key, scan).await?,
        })
    }
}

/// The fields of a key that holds no other thing.
async fn fields(space: &Space, key: &[u8]) -> Result<Vec<(Bytes, Bytes)>, Refusal> {
    let fields = space.fields(key).await?;
    if fields.is_empty() {
        require(space, key, KeyKind::Fields).await?;
    }
    Ok(fields)
}

async fn scan_fields(space: &Space, cursors: &Cursors, key: &[u8], scan: Scan) -> Result<Reply, Refusal> {
    let after = cursors.resume(scan.cursor)?;
    let fields = fields(space, key).await?;
    // They are in order.
    let first = after.map_or(0, |after| fields.partition_point(|(field, _)| *field <= after));
    let page = fields.get(first..).unwrap_or_default();
    let page = page.get(..scan.count).unwrap_or(page);
    let last = page.last().filter(|_| first + page.len() < fields.len()).map(|(field, _)| field.clone());
    let fitting = page.iter().filter(|(field, _)| scan.fits(field));
    let found = fitting.flat_map(|(field, value)| [field.clone(), value.clone()]);
    Ok(cursors.page(last, Reply::values(found)))
}
