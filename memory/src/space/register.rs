//! A key's plain value: reading it with its version, and writing what depends on it.

use std::time::Duration;

use bytes::Bytes;

use super::{Space, check_sizes};
use crate::{
    cell::{Content, REGISTER, Stamp},
    clock::now_ms,
    counter::KeyState,
    store::ReadError,
    writer::WriteError,
};

/// A plain value and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The value, or the decimal text of a counter.
    pub value: Bytes,
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
        /// The value.
        value: Bytes,
        /// How long it counts.
        lifetime: Lifetime,
    },
    /// The key has no value. Its fields and members stay.
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
    #[expect(
        clippy::unused_async,
        reason = "large values are to come from other nodes; callers await already"
    )]
    pub async fn entry(&self, key: &[u8]) -> Result<Option<Entry>, ReadError> {
        let state = self.memory.shared().store.key_state(&self.name, key)?;
        Ok(entry_of(&state))
    }

    /// Gives `key` a value if the condition holds.
    pub async fn put(
        &self,
        key: &[u8],
        value: Bytes,
        lifetime: Lifetime,
        condition: Condition,
    ) -> Result<Outcome, WriteError> {
        check_sizes(key, &REGISTER, Some(&value))?;
        let (version, before) = self
            .modify(key, move |before| {
                let change = match condition.holds(before) {
                    true => Change::Set { value, lifetime },
                    false => Change::Keep,
                };
                Ok((change, before.cloned()))
            })
            .await?;
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
    pub async fn append(&self, key: &[u8], more: Bytes) -> Result<usize, WriteError> {
        let (_, len) = self
            .modify(key, move |before| {
                let value: Bytes = match before {
                    Some(before) => [&before.value[..], &more[..]].concat().into(),
                    None => more,
                };
                let len = value.len();
                Ok((Change::Set { value, lifetime: Lifetime::Keep }, len))
            })
            .await?;
        Ok(len)
    }

    /// Changes how long the value of `key` counts; false if there is none. A counter goes on as a plain value: what is
    /// added elsewhere at the same time is lost.
    pub async fn expire(&self, key: &[u8], lifetime: Lifetime) -> Result<bool, WriteError> {
        let (written, ()) = self
            .modify(key, move |before| {
                let change = match before {
                    Some(before) => Change::Set { value: before.value.clone(), lifetime },
                    None => Change::Keep,
                };
                Ok((change, ()))
            })
            .await?;
        Ok(written.is_some())
    }

    /// Decides on what is there what is to be there, with no other write of this node in between. `decide` runs on the
    /// thread that writes: it must be quick. Returns the version that was written, and what `decide` answered.
    pub async fn modify<F, T>(&self, key: &[u8], decide: F) -> Result<(Option<Stamp>, T), WriteError>
    where
        F: FnOnce(Option<&Entry>) -> Result<(Change, T), WriteError> + Send + 'static,
        T: Send + 'static,
    {
        check_sizes(key, &REGISTER, None)?;
        let (space, key) = (self.clone(), Bytes::copy_from_slice(key));
        let (stamp, (written, answer)) = self
            .memory
            .update(move |view| {
                let before = entry_of(&view.key_state(&space.name, &key)?);
                let (change, answer) = decide(before.as_ref())?;
                let mut draft = space.draft(&key, REGISTER, Content::Tombstone);
                match change {
                    Change::Keep => return Ok((Vec::new(), (false, answer))),
                    Change::Delete => {}
                    Change::Set { value, lifetime } => {
                        check_sizes(&key, &REGISTER, Some(&value))?;
                        draft.expires_ms = lifetime.expires_ms(before.as_ref());
                        draft.content = Content::Value(value);
                    }
                }
                Ok((vec![draft], (true, answer)))
            })
            .await?;
        Ok((written.then_some(stamp), answer))
    }
}

fn entry_of(state: &KeyState) -> Option<Entry> {
    let value = state.value(now_ms())?;
    Some(Entry { value, version: state.version()?, expires_ms: state.expires_ms() })
}
