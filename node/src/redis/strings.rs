//! Plain values: texts of any bytes, and integers that many count at once.
//!
//! `SET` and `MSET` do not look at what a key holds: they are one job for the writer and need no read. What they write
//! over a hash or a set counts at once; the fields or members are below it until the key is deleted.

use std::time::Duration;

use bytes::Bytes;
use futures::future::poll_immediate;
use starfish_memory::{
    Change, Condition, Entry, KeyKind, Lifetime, MAX_KEY, MAX_LARGE, MAX_VALUE, Memory, Put, Space, Value,
};

use super::args::Args;
use super::clock;
use super::command::{Access, Command};
use super::decimal::{self, float};
use super::expiry;
use super::keys::require;
use super::refusal::Refusal;
use super::reply::Reply;

/// A command of plain values.
#[derive(Debug)]
pub(super) enum Strings {
    Get(Bytes),
    GetMany(Vec<Bytes>),
    GetDel(Bytes),
    Len(Bytes),
    Set { key: Bytes, value: Bytes, how: How },
    SetMany(Vec<(Bytes, Bytes)>),
    Append { key: Bytes, more: Bytes },
    Incr { key: Bytes, by: i64 },
    IncrByFloat { key: Bytes, by: Bytes },
}

/// The options of a `SET`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct How {
    lifetime: Option<Lifetime>,
    condition: Condition,
    gives_before: bool,
}

/// How a command's parser gives what it has read.
type Parsed = Result<Command, Refusal>;

impl Strings {
    pub(super) fn get(mut args: Args) -> Parsed {
        Ok(Command::Strings(Self::Get(args.next()?)))
    }

    pub(super) fn get_many(args: Args) -> Parsed {
        Ok(Command::Strings(Self::GetMany(args.all())))
    }

    pub(super) fn get_del(mut args: Args) -> Parsed {
        Ok(Command::Strings(Self::GetDel(args.next()?)))
    }

    pub(super) fn len(mut args: Args) -> Parsed {
        Ok(Command::Strings(Self::Len(args.next()?)))
    }

    pub(super) fn set(mut args: Args) -> Parsed {
        let (key, value) = (args.next()?, args.next()?);
        Ok(Command::Strings(Self::Set { key, value, how: How::read(args)? }))
    }

    pub(super) fn set_many(args: Args) -> Parsed {
        Ok(Command::Strings(Self::SetMany(args.pairs()?)))
    }

    pub(super) fn append(mut args: Args) -> Parsed {
        Ok(Command::Strings(Self::Append { key: args.next()?, more: args.next()? }))
    }

    pub(super) fn incr(mut args: Args) -> Parsed {
        Ok(Command::Strings(Self::Incr { key: args.next()?, by: 1 }))
    }

    pub(super) fn decr(mut args: Args) -> Parsed {
        Ok(Command::Strings(Self::Incr { key: args.next()?, by: -1 }))
    }

    pub(super) fn incr_by(mut args: Args) -> Parsed {
        Ok(Command::Strings(Self::Incr { key: args.next()?, by: args.integer()? }))
    }

    pub(super) fn decr_by(mut args: Args) -> Parsed {
        let (key, by) = (args.next()?, args.integer()?);
        let by = by.checked_neg().ok_or(Refusal::Overflow)?;
        Ok(Command::Strings(Self::Incr { key, by }))
    }

    pub(super) fn incr_by_float(mut args: Args) -> Parsed {
        let (key, by) = (args.next()?, args.next()?);
        match float(&by) {
            Some(_) => Ok(Command::Strings(Self::IncrByFloat { key, by })),
            None => Err(Refusal::NotAFloat),
        }
    }

    /// The write that it is, if nothing depends on what was there before and one cell takes it.
    pub(super) fn into_put(self) -> Result<Put, Self> {
        match self {
            Self::Set { key, value, how }
                if how.is_plain() && key.len() <= MAX_KEY && value.len() <= MAX_VALUE =>
            {
                Ok(Put { key, value, ttl: how.ttl() })
            }
            other => Err(other),
        }
    }

    pub(super) fn access(&self) -> Access {
        match self {
            Self::Get(key) | Self::Len(key) => Access::reads(key),
            Self::GetMany(keys) => Access::Reads(keys.clone()),
            Self::Set { key, how, .. } if !how.gives_before => Access::writes(key, None),
            Self::SetMany(pairs) => Access::Writes(pairs.iter().map(|(key, _)| key.clone()).collect(), None),
            Self::GetDel(key)
            | Self::Set { key, .. }
            | Self::Append { key, .. }
            | Self::Incr { key, .. }
            | Self::IncrByFloat { key, .. } => Access::writes(key, Some(KeyKind::Value)),
        }
    }

    /// Whether it takes more than one job for the writer: then nothing may be begun behind it before it is done.
    pub(super) async fn takes_steps(&self, space: &Space) -> Result<bool, Refusal> {
        Ok(match self {
            // To write over a hash or a set on a condition takes a look at the key first, as does what cannot be told at once.
            Self::Set { key, value, how } => {
                value.len() > MAX_VALUE
                    || (how.asks_for_key()
                        && !matches!(
                            poll_immediate(Box::pin(space.kind(key))).await,
                            Some(Ok(None | Some(KeyKind::Value)))
                        ))
            }
            Self::SetMany(pairs) => pairs.iter().any(|(_, value)| value.len() > MAX_VALUE),
            Self::Append { key, more } => {
                let before = space.value(key).await?.map_or(0, |value| value.len());
                before + more.len() as u64 > MAX_VALUE as u64
            }
            _ => false,
        })
    }

    /// Whether what it does depends on writes to its key that are under way.
    pub(super) fn builds_on(&self) -> bool {
        matches!(self, Self::Append { .. })
    }

    pub(super) async fn run(self, memory: &Memory, space: &Space) -> Result<Reply, Refusal> {
        Ok(match self {
            Self::Get(key) => Reply::value(read(space, &key).await?),
            Self::GetMany(keys) => {
                let mut values = Together::default();
                for (key, value) in keys.iter().zip(space.values(&keys).await?) {
                    values.push(match value {
                        Some(Value::Inline(value)) => Some(value),
                        // Its bytes may have been let go of since, if it was replaced.
                        Some(Value::Large(_)) => space.get(key).await?,
                        None => None,
                    })?;
                }
                Reply::Array(values.0)
            }
            Self::Len(key) => match space.value(&key).await? {
                Some(value) => Reply::length(value.len()),
                None => {
                    require(space, &key, KeyKind::Value).await?;
                    Reply::count(0)
                }
            },
            Self::GetDel(key) => {
                let outcome = space.remove(&key, Condition::Always).await?;
                before(memory, outcome.before).await?
            }
            Self::Set { key, value, how } => set(memory, space, &key, value, how).await?,
            Self::SetMany(pairs) => {
                let mut batch = space.batch();
                for (key, value) in pairs {
                    batch.put(key, Bytes::new(), value);
                }
                memory.commit(batch).await?;
                Reply::OK
            }
            Self::Append { key, more } => Reply::length(space.append(&key, more).await?),
            Self::Incr { key, by } => Reply::Integer(space.incr(&key, by).await?),
            Self::IncrByFloat { key, by } => incr_by_float(space, &key, by).await?,
        })
    }
}

impl How {
    fn read(mut args: Args) -> Result<Self, Refusal> {
        let mut how = Self::default();
        while let Some(option) = args.option() {
            let before = how.lifetime;
            match option.as_str() {
                "NX" | "XX" if how.condition != Condition::Always => return Err(Refusal::Syntax),
                "NX" => how.condition = Condition::Absent,
                "XX" => how.condition = Condition::Present,
                "GET" => how.gives_before = true,
                "KEEPTTL" => how.lifetime = Some(Lifetime::Keep),
                "EX" => how.lifetime = Some(Lifetime::For(expiry::lasting(&mut args, 1000)?)),
                "PX" => how.lifetime = Some(Lifetime::For(expiry::lasting(&mut args, 1)?)),
                "EXAT" => how.lifetime = Some(Lifetime::Until(millis(expiry::until(&mut args, 1000)?))),
                "PXAT" => how.lifetime = Some(Lifetime::Until(millis(expiry::until(&mut args, 1)?))),
                _ => return Err(Refusal::Syntax),
            }
            let sets_lifetime = !matches!(option.as_str(), "NX" | "XX" | "GET");
            if sets_lifetime && before.is_some() {
                return Err(Refusal::Syntax);
            }
        }
        Ok(how)
    }

    /// How long the value counts from now on, if it does not last or stay as it was.
    fn ttl(self) -> Option<Duration> {
        match self.lifetime? {
            Lifetime::For(time) => Some(time),
            // A time that is over makes it a value that is over.
            Lifetime::Until(ms) => Some(Duration::from_millis(ms.saturating_sub(clock::now_ms()))),
            Lifetime::Forever | Lifetime::Keep => None,
        }
    }

    /// Whether it depends on there being a key, whatever that holds.
    fn asks_for_key(self) -> bool {
        self.condition != Condition::Always && !self.gives_before
    }

    /// Whether nothing depends on what was there before.
    fn is_plain(self) -> bool {
        let Self { lifetime, condition, gives_before } = self;
        lifetime != Some(Lifetime::Keep) && condition == Condition::Always && !gives_before
    }
}

async fn set(memory: &Memory, space: &Space, key: &[u8], value: Bytes, how: How) -> Result<Reply, Refusal> {
    let How { lifetime, condition, gives_before } = how;
    if how.is_plain() {
        space.set(key, value, how.ttl()).await?;
        return Ok(Reply::OK);
    }
    let holds_other = how.asks_for_key() && space.kind(key).await?.is_some_and(|kind| kind != KeyKind::Value);
    let condition = match (holds_other, condition) {
        (true, Condition::Absent) => return Ok(Reply::Null),
        (true, _) => Condition::Always,
        (false, condition) => condition,
    };
    let outcome = space.put(key, value, lifetime.unwrap_or_default(), condition).await?;
    Ok(match (gives_before, outcome.version) {
        (true, _) => before(memory, outcome.before).await?,
        (false, Some(_)) => Reply::OK,
        (false, None) => Reply::Null,
    })
}

/// What a number begins with.
static ZERO: Bytes = Bytes::from_static(b"0");

async fn incr_by_float(space: &Space, key: &[u8], by: Bytes) -> Result<Reply, Refusal> {
    let (_, sum) = space
        .modify(key, move |before| {
            let before = match before {
                Some(before) => before.value.inline().filter(|value| float(value).is_some()),
                None => Some(&ZERO),
            };
            let sum = before.ok_or(Refusal::NotAFloat);
            let sum = sum.and_then(|before| decimal::sum(before, &by).ok_or(Refusal::NotFinite));
            Ok(match sum.map(Bytes::from) {
                Ok(value) => (Change::Set { value: value.clone(), lifetime: Lifetime::Keep }, Ok(value)),
                Err(refusal) => (Change::Keep, Err(refusal)),
            })
        })
        .await?;
    sum.map(Reply::Bytes)
}

/// The value that was there before. Its bytes stay for a while.
async fn before(memory: &Memory, before: Option<Entry>) -> Result<Reply, Refusal> {
    match before {
        Some(before) => Ok(Reply::Bytes(memory.whole_value(before.value).await?)),
        None => Ok(Reply::Null),
    }
}

/// Values that go into one answer: as long, all together, as one may be.
#[derive(Default)]
pub(super) struct Together(pub(super) Vec<Reply>, u64);

impl Together {
    pub(super) fn push(&mut self, value: Option<Bytes>) -> Result<(), Refusal> {
        self.1 += value.as_ref().map_or(0, |value| value.len() as u64);
        if self.1 > MAX_LARGE {
            return Err(Refusal::TooMuchTogether(MAX_LARGE));
        }
        self.0.push(Reply::value(value));
        Ok(())
    }
}

/// The plain value of a key that holds no other thing.
async fn read(space: &Space, key: &[u8]) -> Result<Option<Bytes>, Refusal> {
    let value = space.get(key).await?;
    if value.is_none() {
        require(space, key, KeyKind::Value).await?;
    }
    Ok(value)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
