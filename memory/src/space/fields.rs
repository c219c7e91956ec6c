//! A key's named fields: a hash.

use bytes::Bytes;

use super::{MAX_BATCH_BYTES, MAX_BATCH_CELLS, Space, blocking, check_names, is_users};
use crate::{
    blobs::ByteStream,
    cell::{Cell, Content, Draft, RESERVED_FIELD},
    clock::now_ms,
    codec,
    counter::{self, IncrementError},
    keeper::Arrival,
    store::ReadError,
    value::{Payload, Value},
    writer::WriteError,
};

/// No user's field sorts before this, and all others of a key do.
pub(super) const FIRST_FIELD: [u8; 1] = [RESERVED_FIELD + 1];

impl Space {
    /// The named fields of `key` and their values, in order, without the bytes of large ones.
    pub async fn fields(&self, key: &[u8]) -> Result<Vec<(Bytes, Value)>, ReadError> {
        let (space, key) = (self.clone(), key.to_vec());
        blocking(move || {
            let now_ms = now_ms();
            let prefix = codec::key_prefix(&space.name, &key);
            let mut fields = Vec::new();
            for cell in space.memory.shared().store.scan(&prefix, &prefix) {
                let cell = cell?;
                if let Some(value) = cell.live_value(now_ms).filter(|_| is_named(&cell.field)) {
                    fields.push((cell.field, value));
                }
            }
            Ok(fields)
        })
        .await
    }

    /// The value of one field. A large one is fetched, and held in memory as a whole.
    pub async fn field(&self, key: &[u8], field: &[u8]) -> Result<Option<Bytes>, ReadError> {
        let arrival = Arrival::begin();
        loop {
            let Some(value) = self.field_value(key, field)? else { return Ok(None) };
            let whole = self.memory.whole_value(value).await;
            if !arrival.may_come(&whole) {
                return whole.map(Some);
            }
            Arrival::pause().await;
        }
    }

    /// The value of one field and its bytes, from wherever they are.
    pub async fn open_field(
        &self,
        key: &[u8],
        field: &[u8],
    ) -> Result<Option<(Value, ByteStream)>, ReadError> {
        let arrival = Arrival::begin();
        loop {
            let Some(value) = self.field_value(key, field)? else { return Ok(None) };
            let content = self.content_of(&value).await;
            if !arrival.may_come(&content) {
                return content.map(|content| Some((value, content)));
            }
            Arrival::pause().await;
        }
    }

    fn field_value(&self, key: &[u8], field: &[u8]) -> Result<Option<Value>, ReadError> {
        if !is_named(field) {
            return Ok(None);
        }
        let cell = self.memory.shared().store.cell(&codec::address(&self.name, key, field))?;
        Ok(cell.and_then(|cell| cell.live_value(now_ms())))
    }

    /// Gives fields of `key` their values, all at once; returns how many are new.
    pub async fn set_fields(&self, key: &[u8], fields: Vec<(Bytes, Bytes)>) -> Result<usize, WriteError> {
        for (field, _) in &fields {
            check_names(key, field)?;
            check_named(field)?;
        }
        let mut contents = Vec::with_capacity(fields.len());
        for (field, value) in fields {
            contents.push((field, self.memory.payload(value).await?.into_content()));
        }
        self.change_cells(key, contents.into_iter()).await.map(|changed| changed.added)
    }

    /// Gives a field of `key` a value that was made before ([`crate::Memory::stash`]); says whether the field is new.
    pub async fn set_field_payload(
        &self,
        key: &[u8],
        field: Bytes,
        value: Payload,
    ) -> Result<bool, WriteError> {
        check_names(key, &field)?;
        check_named(&field)?;
        value.check_fresh()?;
        let content = value.into_content();
        self.change_cells(key, [(field, content)].into_iter()).await.map(|changed| changed.added > 0)
    }

    /// Deletes fields of `key`; returns how many there were.
    pub async fn delete_fields(&self, key: &[u8], fields: Vec<Bytes>) -> Result<usize, WriteError> {
        for field in &fields {
            check_named(field)?;
        }
        self.change_cells(key, fields.into_iter().map(|field| (field, Content::Tombstone)))
            .await
            .map(|changed| changed.removed)
    }

    /// Adds `by` to a field and returns what it is then. A field is one value: of what two nodes add at once, the later
    /// result counts. What many count together is a key of its own ([`Space::incr`]).
    pub async fn incr_field(&self, key: &[u8], field: &[u8], by: i64) -> Result<i64, WriteError> {
        check_names(key, field)?;
        check_named(field)?;
        let (space, key, field) = (self.clone(), Bytes::copy_from_slice(key), Bytes::copy_from_slice(field));
        let (_, total) = self
            .memory
            .update(move |view| {
                let cell = view.cell(&space.name, &key, &field)?;
                let before = match cell.and_then(|cell| cell.live_value(now_ms())) {
                    Some(Value::Inline(value)) => {
                        counter::parse_integer(&value).ok_or(IncrementError::NotAnInteger)?
                    }
                    Some(Value::Large(_)) => return Err(IncrementError::NotAnInteger.into()),
                    None => 0,
                };
                let total = before.checked_add(by).ok_or(IncrementError::Overflow)?;
                let content = Content::Value(total.to_string().into());
                Ok((vec![space.draft(&key, field, content)], total))
            })
            .await?;
        Ok(total)
    }

    /// Writes cells of one key together. A tombstone is only written over a value.
    pub(super) async fn change_cells(
        &self,
        key: &[u8],
        cells: impl Iterator<Item = (Bytes, Content)>,
    ) -> Result<Changed, WriteError> {
        let mut cells: Vec<(Bytes, Content)> = cells.collect();
        let bytes = cells.iter().map(|(field, _)| key.len() + field.len()).sum();
        if cells.len() > MAX_BATCH_CELLS || bytes > MAX_BATCH_BYTES {
            return Err(WriteError::BatchTooLarge { cells: cells.len(), bytes });
        }
        // Of two for one field the later counts.
        cells.reverse();
        cells.sort_by(|a, b| a.0.cmp(&b.0));
        cells.dedup_by(|later, kept| later.0 == kept.0);
        let (space, key) = (self.clone(), Bytes::copy_from_slice(key));
        let (_, changed) = self
            .memory
            .update(move |view| {
                let (mut drafts, mut changed) = (Vec::<Draft>::new(), Changed::default());
                for (field, content) in cells {
                    let cell = view.cell(&space.name, &key, &field)?;
                    let was_there = cell.as_ref().is_some_and(|cell| cell.is_live(now_ms()));
                    match content {
                        Content::Value(_) | Content::Large(_) | Content::Kept(_) => {
                            changed.added += usize::from(!was_there)
                        }
                        Content::Tombstone if !was_there => continue,
                        Content::Tombstone => changed.removed += 1,
                    }
                    drafts.push(space.draft(&key, field, content));
                }
                Ok((drafts, changed))
            })
            .await?;
        Ok(changed)
    }
}

/// What writing some cells of a key has changed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Changed {
    pub(super) added: usize,
    pub(super) removed: usize,
}

fn check_named(field: &[u8]) -> Result<(), WriteError> {
    match field {
        [] => Err(WriteError::Empty { what: "field" }),
        field if is_users(field) => Ok(()),
        _ => Err(WriteError::ReservedField),
    }
}

/// Whether a field is a user's, and not the plain value.
pub(super) fn is_named(field: &[u8]) -> bool {
    !field.is_empty() && is_users(field)
}

/// Whether a cell is a named field that has a value.
pub(super) fn is_live_field(cell: &Cell, now_ms: u64) -> bool {
    is_named(&cell.field) && cell.is_live(now_ms)
}
