//! Members of a key: a set. What is added on different nodes all stays.

use bytes::Bytes;
use starfish_memory::{KeyKind, Space};

use super::args::Args;
use super::command::{Access, Command};
use super::keys::require;
use super::refusal::Refusal;
use super::reply::Reply;

/// As many members, however long, are one batch.
const MAX_AT_ONCE: usize = 2000;

/// A command of members.
#[derive(Debug)]
pub(super) enum Sets {
    Add { key: Bytes, members: Vec<Bytes> },
    Remove { key: Bytes, members: Vec<Bytes> },
    Members(Bytes),
    IsMember { key: Bytes, member: Bytes },
    Len(Bytes),
}

type Parsed = Result<Command, Refusal>;

impl Sets {
    pub(super) fn add(mut args: Args) -> Parsed {
        Ok(Command::Sets(Self::Add { key: args.next()?, members: args.names("member")? }))
    }

    pub(super) fn remove(mut args: Args) -> Parsed {
        Ok(Command::Sets(Self::Remove { key: args.next()?, members: args.all() }))
    }

    pub(super) fn members(mut args: Args) -> Parsed {
        Ok(Command::Sets(Self::Members(args.next()?)))
    }

    pub(super) fn is_member(mut args: Args) -> Parsed {
        Ok(Command::Sets(Self::IsMember { key: args.next()?, member: args.name("member")? }))
    }

    pub(super) fn len(mut args: Args) -> Parsed {
        Ok(Command::Sets(Self::Len(args.next()?)))
    }

    pub(super) fn access(&self) -> Access {
        match self {
            Self::Add { key, .. } | Self::Remove { key, .. } => Access::writes(key, Some(KeyKind::Members)),
            Self::Members(key) | Self::IsMember { key, .. } | Self::Len(key) => Access::reads(key),
        }
    }

    /// Whether it takes more than one job for the writer: then nothing may be begun behind it before it is done.
    pub(super) fn takes_steps(&self) -> bool {
        match self {
            Self::Add { members, .. } | Self::Remove { members, .. } => members.len() > MAX_AT_ONCE,
            Self::Members(_) | Self::IsMember { .. } | Self::Len(_) => false,
        }
    }

    pub(super) async fn run(self, space: &Space) -> Result<Reply, Refusal> {
        Ok(match self {
            Self::Add { key, members } => Reply::count(space.add_members(&key, members).await?),
            Self::Remove { key, members } => Reply::count(space.remove_members(&key, members).await?),
            Self::Members(key) => Reply::Set(Reply::values(members(space, &key).await?)),
            Self::IsMember { key, member } => {
                let is_member = space.is_member(&key, &member).await?;
                if !is_member {
                    require(space, &key, KeyKind::Members).await?;
                }
                Reply::Integer(is_member.into())
            }
            Self::Len(key) => Reply::count(members(space, &key).await?.len()),
        })
    }
}

/// The members of a key that holds no other thing.
async fn members(space: &Space, key: &[u8]) -> Result<Vec<Bytes>, Refusal> {
    let members = space.members(key).await?;
    if members.is_empty() {
        require(space, key, KeyKind::Members).await?;
    }
    Ok(members)
}
