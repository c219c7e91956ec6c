//! A key's plain value: reading it with its version, and writing what depends on it.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;

use super::{Space, check_names};
use crate::{
    blobs::{ByteStream, stream_of},
    cell::{Content, MAX_VALUE, REGISTER, Stamp},
    clock::now_ms,
    counter::KeyState,
    keeper::Arrival,
    store::ReadError,
    value::{Payload, Value},
    writer::WriteError,
};

/// How often a large value that depends on the one before is made anew because that has changed meanwhile.
const MAX_ATTEMPTS: usize = 8;

/// A plain value and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The value, or the decimal text of a counter.
    pub value: Value,
    /// What a later write may name, to happen only if nothing else came in between.
    pub version: Stamp,
    /// Unix time in milliseconds from which the value no longer counts.
    pub expires_ms: Option<u64>,
}

/// When a write happens. It is decided on this node: another half of a partition may decide otherwise at the same
/// time, and then the later write counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// In any case.
    #[default]
    Always,
    /// If the key has no value.
    Absent,
    /// If the key has a value.
    Present,
    /// If the key has the value of this version.
    Version(Stamp),
}

/// How long a value counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lifetime {
    /// For good.
    #[default]
    Forever,
    /// So long from now on.
    For(Duration),
    /// Until this Unix time in milliseconds.
    Until(u64),
    /// As long as the value that was there.
    Keep,
}

/// What a write of a plain value comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Everything stays.
    Keep,
    /// The key has this value.
    Set {
        /// The value, of at most [`MAX_VALUE`](crate::MAX_VALUE) bytes.
        value: Bytes,
        /// How long it counts.
        lifetime: Lifetime,
    },
    /// The value that is there counts so long, if it lies in its cell ([`Space::expire`] does it for larger ones as well). It takes
    /// nothing from what is written or counted elsewhere at the same time.
    Last(Lifetime),
    /// The key has no value. Its fields and members stay.
    Delete,
}

/// What a write comes to, as a cell has it.
enum Write {
    Keep,
    Last(Lifetime),
    Set { content: Content, lifetime: Lifetime },
    Delete,
}

/// What became of a conditional write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The version that was written; `None` if the condition did not hold.
    pub version: Option<Stamp>,
    /// What was there before.
    pub before: Option<Entry>,
}

impl Condition {
    fn holds(self, before: Option<&Entry>) -> bool {
        match self {
            Self::Always => true,
            Self::Absent => before.is_none(),
            Self::Present => before.is_some(),
            Self::Version(version) => before.is_some_and(|before| before.version == version),
        }
    }
}

impl Lifetime {
    pub(super) fn expires_ms(self, before: Option<&Entry>) -> Option<u64> {
        match self {
            Self::Forever => None,
            Self::For(time) => {
                Some(now_ms().saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
            }
            Self::Until(expires_ms) => Some(expires_ms),
            Self::Keep => before.and_then(|before| before.expires_ms),
        }
    }
}

impl Space {
    /// The plain value of `key` with its version.
    pub async fn entry(&self, key: &[u8]) -> Result<Option<Entry>, ReadError> {
        let store = &self.memory.shared().store;
        Arrival::wait_for(|| Ok(entry_of(&store.key_state(&self.name, key)?))).await
    }

    /// The plain value of `key` and its bytes, from wherever they are.
    pub async fn open(&self, key: &[u8]) -> Result<Option<(Entry, ByteStream)>, ReadError> {
        let arrival = Arrival::begin();
        loop {
            let Some(entry) = self.entry(key).await? else { return Ok(None) };
            let content = self.content_of(&entry.value).await;
            if !arrival.may_come(&content) {
                return content.map(|content| Some((entry, content)));
            }
            Arrival::pause().await;
        }
    }

    /// The bytes of a value that was read here, from wherever they are.
    pub async fn content_of(&self, value: &Value) -> Result<ByteStream, ReadError> {
        match value {
            Value::Inline(bytes) => Ok(stream_of(bytes.clone())),
            Value::Large(large) => self.memory.open_value(large).await,
        }
    }

    /// Gives `key` a value if the condition holds.
    pub async fn put(
        &self,
        key: &[u8],
        value: Bytes,
        lifetime: Lifetime,
        condition: Condition,
    ) -> Result<Outcome, WriteError> {
        let value = self.memory.payload(value).await?;
        self.put_payload(key, value, lifetime, condition).await
    }

    /// The same with a value that was made before ([`crate::Memory::stash`]).
    pub async fn put_payload(
        &self,
        key: &[u8],
        value: Payload,
        lifetime: Lifetime,
        condition: Condition,
    ) -> Result<Outcome, WriteError> {
        let large = value.large();
        let outcome = self
            .write(key, move |before| {
                value.check_fresh()?;
                let change = match condition.holds(before) {
                    true => Write::Set { content: value.into_content(), lifetime },
                    false => Write::Keep,
                };
                Ok((change, before.cloned()))
            })
            .await;
        if !matches!(outcome, Ok((Some(_), _))) {
            self.memory.discard(large);
        }
        let (version, before) = outcome?;
        Ok(Outcome { version, before })
    }

    /// Deletes the plain value of `key` if the condition holds.
    pub async fn remove(&self, key: &[u8], condition: Condition) -> Result<Outcome, WriteError> {
        let (version, before) = self
            .modify(key, move |before| {
                let deletes = before.is_some() && condition.holds(before);
                Ok((if deletes { Change::Delete } else { Change::Keep }, before.cloned()))
            })
            .await?;
        Ok(Outcome { version, before })
    }

    /// Adds `more` behind the value of `key`, and returns how long it is then, in bytes. What is appended on two nodes
    /// at once does not add up: the later value counts. For that there are documents.
    pub async fn append(&self, key: &[u8], more: Bytes) -> Result<u64, WriteError> {
        let added = more.clone();
        let (_, len) = self
            .write(key, move |before| {
                let value: Bytes = match before.map(|before| &before.value) {
                    Some(Value::Inline(before)) => [&before[..], &added[..]].concat().into(),
                    Some(Value::Large(_)) => return Ok((Write::Keep, None)),
                    None => added,
                };
                if value.len() > MAX_VALUE {
                    return Ok((Write::Keep, None));
                }
                let len = value.len() as u64;
                let content = Content::Value(value);
                Ok((Write::Set { content, lifetime: Lifetime::Keep }, Some(len)))
            })
            .await?;
        match len {
            Some(len) => Ok(len),
            None => self.append_large(key, more).await,
        }
    }

    /// The same if it does not fit a cell then. The result is made beside the writer, and counts if nothing came in between.
    async fn append_large(&self, key: &[u8], more: Bytes) -> Result<u64, WriteError> {
        for _ in 0..MAX_ATTEMPTS {
            let (content, condition) = match self.open(key).await? {
                Some((entry, content)) => (content, Condition::Version(entry.version)),
                None => (stream_of(Bytes::new()), Condition::Absent),
            };
            let content = content.chain(stream_of(more.clone())).boxed();
            let value = self.memory.stash(content).await?;
            let len = value.len();
            if self.put_payload(key, value, Lifetime::Keep, condition).await?.version.is_some() {
                return Ok(len);
            }
        }
        Err(WriteError::Contended)
    }

    /// Changes how long the value of `key` counts; false if there is none. What is written or added elsewhere at the same time
    /// stands; only a value of more than [`MAX_VALUE`] bytes is written anew, and the later write counts.
    pub async fn expire(&self, key: &[u8], lifetime: Lifetime) -> Result<bool, WriteError> {
        let (written, large) = self
            .write(key, move |before| {
                let change = match before.map(|before| &before.value) {
                    Some(Value::Inline(_)) => (Write::Last(lifetime), None),
                    Some(Value::Large(_)) => (Write::Keep, before.cloned()),
                    None => (Write::Keep, None),
                };
                Ok(change)
            })
            .await?;
        match large {
            Some(entry) => self.expire_large(key, entry, lifetime).await,
            None => Ok(written.is_some()),
        }
    }

    /// The same for a large value: each version of it has its bytes under a name of its own.
    async fn expire_large(
        &self,
        key: &[u8],
        mut entry: Entry,
        lifetime: Lifetime,
    ) -> Result<bool, WriteError> {
        for _ in 0..MAX_ATTEMPTS {
            let value = self.memory.copy_of(entry.value).await?;
            let condition = Condition::Version(entry.version);
            if self.put_payload(key, value, lifetime, condition).await?.version.is_some() {
                return Ok(true);
            }
            match self.entry(key).await? {
                Some(now) => entry = now,
                None => return Ok(false),
            }
        }
        Err(WriteError::Contended)
    }

    /// Decides on what is there what is to be there, with no other write of this node in between. `decide` runs on the
    /// thread that writes: it must be quick. Returns the version that was written, and what `decide` answered.
    pub async fn modify<F, T>(&self, key: &[u8], decide: F) -> Result<(Option<Stamp>, T), WriteError>
    where
        F: FnOnce(Option<&Entry>) -> Result<(Change, T), WriteError> + Send + 'static,
        T: Send + 'static,
    {
        self.write(key, move |before| {
            let (change, answer) = decide(before)?;
            let change = match change {
                Change::Keep => Write::Keep,
                Change::Last(lifetime) => Write::Last(lifetime),
                Change::Delete => Write::Delete,
                Change::Set { value, .. } if value.len() > MAX_VALUE => {
                    return Err(WriteError::ValueTooLong { len: value.len() as u64 });
                }
                Change::Set { value, lifetime } => Write::Set { content: Content::Value(value), lifetime },
            };
            Ok((change, answer))
        })
        .await
    }

    async fn write<F, T>(&self, key: &[u8], decide: F) -> Result<(Option<Stamp>, T), WriteError>
    where
        F: FnOnce(Option<&Entry>) -> Result<(Write, T), WriteError> + Send + 'static,
        T: Send + 'static,
    {
        check_names(key, &REGISTER)?;
        let (space, key) = (self.clone(), Bytes::copy_from_slice(key));
        let (stamp, (written, answer)) = self
            .memory
            .update(move |view| {
                let state = view.key_state(&space.name, &key)?;
                let before = entry_of(&state);
                let (change, answer) = decide(before.as_ref())?;
                let mut draft = space.draft(&key, REGISTER, Content::Tombstone);
                match change {
                    Write::Keep => return Ok((Vec::new(), (false, answer))),
                    Write::Delete => {}
                    Write::Last(lifetime) => {
                        let Some((content, origin)) = state.renewed(now_ms()) else {
                            return Ok((Vec::new(), (false, answer)));
                        };
                        (draft.content, draft.renews) = (content, Some(Box::new(origin)));
                        draft.expires_ms = lifetime.expires_ms(before.as_ref());
                    }
                    Write::Set { content, lifetime } => {
                        draft.expires_ms = lifetime.expires_ms(before.as_ref());
                        draft.content = content;
                    }
                }
                Ok((vec![draft], (true, answer)))
            })
            .await?;
        Ok((written.then_some(stamp), answer))
    }
}

fn entry_of(state: &KeyState) -> Option<Entry> {
    let now_ms = now_ms();
    let value = state.value(now_ms)?;
    Some(Entry { value, version: state.version()?, expires_ms: state.expires_ms(now_ms) })
}
