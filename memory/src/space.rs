//! Spaces: named sets of keys, and what can be done with a key.

mod fields;
mod glance;
mod keys;
mod members;
mod register;
pub(crate) mod told;

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;

use self::members::is_member_field;
use crate::{
    cell::{Cell, Content, Draft, MAX_FIELD, MAX_KEY, REGISTER, RESERVED_FIELD, SpaceName, Stamp},
    changes::Cursor,
    clock::now_ms,
    codec,
    counter::{self, KeyState},
    keeper::Arrival,
    memory::Memory,
    store::ReadError,
    value::{Payload, Value},
    watch::Watch,
    writer::WriteError,
};

pub use glance::{Glance, Put};
pub use keys::{Holding, KeyKind, KeyRange};
pub use members::MAX_MEMBER;
pub use register::{Change, Condition, Entry, Lifetime, Outcome};

/// Cells of one batch. A batch is held in memory, and holds up the writes behind it.
pub const MAX_BATCH_CELLS: usize = 4096;

/// Bytes of one batch: keys, fields and values together.
pub const MAX_BATCH_BYTES: usize = 4 * 1024 * 1024;

/// A key and what it is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// Its plain value, or the decimal text of a counter.
    pub value: Value,
}

/// A named set of keys. Cheap to clone.
///
/// A key has a plain value (`get`, `set`), which may be an integer that many count at once (`incr`), and beside it any
/// number of named fields ([`Batch`], [`Space::fields`]) and members ([`Space::members`]).
#[derive(Clone, Debug)]
pub struct Space {
    memory: Memory,
    name: SpaceName,
}

impl Space {
    pub(crate) fn new(memory: Memory, name: SpaceName) -> Self {
        Self { memory, name }
    }

    /// Its name.
    pub fn name(&self) -> &SpaceName {
        &self.name
    }

    /// What `key` is worth. A large value is fetched, and held in memory as a whole.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        // What nearly every key has takes a look at one cell.
        match self.glance(key) {
            Glance::Value(value) => return Ok(Some(value)),
            Glance::Nothing => return Ok(None),
            Glance::More => {}
        }
        let arrival = Arrival::begin();
        loop {
            let whole = match self.read(key) {
                Ok(Some(value)) => self.memory.whole_value(value).await.map(Some),
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            };
            if !arrival.may_come(&whole) {
                return whole;
            }
            Arrival::pause().await;
        }
    }

    /// What several keys are worth, all at one moment, without the bytes of large values: a batch is seen in all of them or in none.
    pub async fn values(&self, keys: &[Bytes]) -> Result<Vec<Option<Value>>, ReadError> {
        let store = &self.memory.shared().store;
        let states = Arrival::wait_for(|| store.key_states(&self.name, keys.iter().map(Bytes::as_ref)));
        let now_ms = now_ms();
        Ok(states.await?.iter().map(|state| state.value(now_ms)).collect())
    }

    /// What `key` is worth, without the bytes of a large value.
    pub async fn value(&self, key: &[u8]) -> Result<Option<Value>, ReadError> {
        Arrival::wait_for(|| self.read(key)).await
    }

    /// Gives `key` a value, for good or for as long as `ttl`.
    pub async fn set(&self, key: &[u8], value: Bytes, ttl: Option<Duration>) -> Result<Stamp, WriteError> {
        let value = self.memory.payload(value).await?;
        self.set_payload(key, value, ttl).await
    }

    /// The same with a value that was made before ([`Memory::stash`]).
    pub async fn set_payload(
        &self,
        key: &[u8],
        value: Payload,
        ttl: Option<Duration>,
    ) -> Result<Stamp, WriteError> {
        check_names(key, &REGISTER)?;
        let expires_ms = ttl.map_or(Lifetime::Forever, Lifetime::For).expires_ms(None);
        let draft = self.draft(key, REGISTER, Content::Tombstone);
        let (stamp, ()) = self
            .memory
            .update(move |_| {
                value.check_fresh()?;
                Ok((vec![Draft { expires_ms, content: value.into_content(), ..draft }], ()))
            })
            .await?;
        Ok(stamp)
    }

    /// Deletes `key`: its value, all of its fields and its members. Returns whether there was anything to delete.
    pub async fn delete(&self, key: &[u8]) -> Result<bool, WriteError> {
        check_lengths(key, &REGISTER)?;
        let (space, key) = (self.clone(), Bytes::copy_from_slice(key));
        let (_, existed) = self
            .memory
            .update(move |view| {
                let now_ms = now_ms();
                let cells = view.cells(&space.name, &key)?;
                let live = |cell: &&Cell| cell.is_live(now_ms);
                let mut fields: Vec<Bytes> = cells
                    .iter()
                    .filter(live)
                    .map(|cell| cell.field.clone())
                    .filter(|field| is_users(field) || is_member_field(field))
                    .collect();
                // What was counted has no register of its own, but ends with a new one.
                if !fields.contains(&REGISTER) && state_of(cells).value(now_ms).is_some() {
                    fields.push(REGISTER);
                }
                let tombstone = |field| space.draft(&key, field, Content::Tombstone);
                let drafts: Vec<Draft> = fields.into_iter().map(tombstone).collect();
                let existed = !drafts.is_empty();
                Ok((drafts, existed))
            })
            .await?;
        Ok(existed)
    }

    /// Adds `by` to `key` and returns what it is worth now. A key without a value counts from zero. Increments made
    /// on several nodes at once add up; each returns what its own node knows.
    pub async fn incr(&self, key: &[u8], by: i64) -> Result<i64, WriteError> {
        check_names(key, &REGISTER)?;
        let (space, key) = (self.clone(), Bytes::copy_from_slice(key));
        let slot = self.memory.shared().slot.name();
        let (_, total) = self
            .memory
            .update(move |view| {
                let (contribution, total) =
                    view.key_state(&space.name, &key)?.increment(slot, by, now_ms())?;
                let content = contribution.to_content().map_err(|_| codec::MalformedCell::Record)?;
                Ok((vec![space.draft(&key, counter::field_of(slot), content)], total))
            })
            .await?;
        Ok(total)
    }

    /// Follows the keys that begin with `prefix`: first those there are, then every change.
    pub fn watch(&self, prefix: &[u8]) -> Watch {
        Watch::new(self.clone(), Bytes::copy_from_slice(prefix))
    }

    /// Goes on following them behind `cursor`, where another watch of this node stopped. If it is too far back, it begins
    /// with [`crate::Event::Lagged`] and a snapshot.
    pub fn watch_from(&self, prefix: &[u8], cursor: Cursor) -> Watch {
        Watch::resume(self.clone(), Bytes::copy_from_slice(prefix), cursor)
    }

    /// An empty batch of writes to this space, for [`Memory::commit`].
    pub fn batch(&self) -> Batch {
        Batch { space: self.name.clone(), cells: BTreeMap::new() }
    }

    /// Visits every cell, tombstones too, of the keys that begin with `prefix`, in order. It reads from the disk and
    /// does not return before it is through.
    pub fn for_each_cell(&self, prefix: &[u8], visit: &mut dyn FnMut(&Cell)) -> Result<(), ReadError> {
        let prefix = codec::scan_prefix(&self.name, prefix);
        for cell in self.memory.shared().store.scan(&prefix, &prefix) {
            visit(&cell?);
        }
        Ok(())
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The value without waiting: most keys are read with one lookup, and only integers and keys without a plain
    /// value may have been counted.
    pub(crate) fn read(&self, key: &[u8]) -> Result<Option<Value>, ReadError> {
        let store = &self.memory.shared().store;
        let register = store.cell(&codec::address(&self.name, key, &REGISTER))?;
        let now_ms = now_ms();
        if let Some(value) = register.as_ref().and_then(|register| register.live(now_ms))
            && counter::parse_integer(value).is_none()
        {
            return Ok(Some(Value::Inline(value.clone())));
        }
        Ok(store.key_state(&self.name, key)?.value(now_ms))
    }

    fn draft(&self, key: &[u8], field: Bytes, content: Content) -> Draft {
        let key = Bytes::copy_from_slice(key);
        Draft { space: self.name.clone(), key, field, content, expires_ms: None, renews: None }
    }
}

/// Writes to one space that happen together. Of two writes to the same field the later counts.
#[derive(Clone, Debug)]
pub struct Batch {
    space: SpaceName,
    cells: BTreeMap<(Bytes, Bytes), Content>,
}

impl Batch {
    /// Gives a field of `key` a value; the empty field is the key's plain value.
    pub fn put(
        &mut self,
        key: impl Into<Bytes>,
        field: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> &mut Self {
        self.cells.insert((key.into(), field.into()), Content::Value(value.into()));
        self
    }

    /// Deletes a field of `key`.
    pub fn delete(&mut self, key: impl Into<Bytes>, field: impl Into<Bytes>) -> &mut Self {
        self.cells.insert((key.into(), field.into()), Content::Tombstone);
        self
    }

    /// How many cells it writes.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether it writes nothing.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    pub(crate) async fn into_drafts(self, memory: &Memory) -> Result<Vec<Draft>, WriteError> {
        let mut bytes = 0;
        for ((key, field), content) in &self.cells {
            let value = match content {
                Content::Value(value) => Some(value),
                Content::Tombstone | Content::Large(_) | Content::Kept(_) => None,
            };
            match value {
                Some(_) => check_names(key, field)?,
                None => check_lengths(key, field)?,
            }
            if !is_users(field) {
                return Err(WriteError::ReservedField);
            }
            bytes += key.len() + field.len() + value.map_or(0, Bytes::len);
        }
        if self.cells.len() > MAX_BATCH_CELLS || bytes > MAX_BATCH_BYTES {
            return Err(WriteError::BatchTooLarge { cells: self.cells.len(), bytes });
        }
        let mut drafts = Vec::with_capacity(self.cells.len());
        for ((key, field), content) in self.cells {
            let content = match content {
                Content::Value(value) => memory.payload(value).await?.into_content(),
                other => other,
            };
            drafts.push(Draft {
                space: self.space.clone(),
                key,
                field,
                content,
                expires_ms: None,
                renews: None,
            });
        }
        Ok(drafts)
    }
}

/// What may be written to: a key has a name.
fn check_names(key: &[u8], field: &[u8]) -> Result<(), WriteError> {
    match key {
        [] => Err(WriteError::Empty { what: "key" }),
        _ => check_lengths(key, field),
    }
}

/// What may be deleted: an empty name as well, which versions before this one let in.
fn check_lengths(key: &[u8], field: &[u8]) -> Result<(), WriteError> {
    if key.len() > MAX_KEY {
        return Err(WriteError::KeyTooLong { len: key.len() });
    }
    if field.len() > MAX_FIELD {
        return Err(WriteError::FieldTooLong { len: field.len() });
    }
    Ok(())
}

fn is_users(field: &[u8]) -> bool {
    field.first() != Some(&RESERVED_FIELD)
}

fn state_of(cells: Vec<Cell>) -> KeyState {
    let mut state = KeyState::default();
    cells.into_iter().for_each(|cell| state.take(cell));
    state
}

/// Runs a longer read where it holds up no other task.
async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ReadError> {
    tokio::task::spawn_blocking(read).await.map_err(|_| ReadError::Senseless)?
}
