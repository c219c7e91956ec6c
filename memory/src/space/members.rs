//! A key's members: a set. Each member is a field of its own, so those added on different nodes all stay; of an
//! addition and a removal of one member at the same time, the later counts.

use bytes::Bytes;

use super::{MAX_BATCH_BYTES, MAX_BATCH_CELLS, Space, blocking, check_lengths, check_names};
use crate::{
    cell::{Cell, Content, MAX_FIELD, RESERVED_FIELD},
    clock::now_ms,
    codec,
    store::ReadError,
    writer::WriteError,
};

/// After the reserved byte: a member's field. The member follows.
const MEMBER: u8 = b's';
/// What the fields of members begin with.
pub(super) const MEMBERS: [u8; 2] = [RESERVED_FIELD, MEMBER];
/// Longest member of a set, in bytes.
pub const MAX_MEMBER: usize = MAX_FIELD - 2;

impl Space {
    /// The members of `key`, in order.
    pub async fn members(&self, key: &[u8]) -> Result<Vec<Bytes>, ReadError> {
        let (space, key) = (self.clone(), key.to_vec());
        blocking(move || {
            let now_ms = now_ms();
            let key_prefix = codec::key_prefix(&space.name, &key);
            let start = codec::address(&space.name, &key, &MEMBERS);
            let mut members = Vec::new();
            for cell in space.memory.shared().store.scan(&start, &key_prefix) {
                let cell = cell?;
                let Some(member) = member_of(&cell.field) else { break };
                if cell.is_live(now_ms) {
                    members.push(cell.field.slice_ref(member));
                }
            }
            Ok(members)
        })
        .await
    }

    /// Whether `member` is one of `key`.
    #[expect(clippy::unused_async, reason = "one lookup; callers await all that reads")]
    pub async fn is_member(&self, key: &[u8], member: &[u8]) -> Result<bool, ReadError> {
        let address = codec::address(&self.name, key, &field_of(member));
        let cell = self.memory.shared().store.cell(&address)?;
        Ok(cell.is_some_and(|cell| cell.is_live(now_ms())))
    }

    /// Adds members to `key`; returns how many are new. As many as a batch takes ([`MAX_BATCH_CELLS`]) are there all at once, more
    /// of them come in several.
    pub async fn add_members(&self, key: &[u8], members: Vec<Bytes>) -> Result<usize, WriteError> {
        let mut added = 0;
        let fields = named(key, &members)?;
        for some in fields.chunks(at_once(key, &fields)) {
            let cells = some.iter().map(|field| (field.clone(), Content::Value(Bytes::new())));
            added += self.change_cells(key, cells).await?.added;
        }
        Ok(added)
    }

    /// Adds members to `key` and removes others, all or none; returns how many were new, and how many there were of those
    /// that are gone. One that is to be added and removed is removed.
    pub async fn change_members(
        &self,
        key: &[u8],
        added: Vec<Bytes>,
        removed: Vec<Bytes>,
    ) -> Result<(usize, usize), WriteError> {
        let (added, removed) = (named(key, &added)?, checked(key, &removed)?);
        let added = added.into_iter().map(|field| (field, Content::Value(Bytes::new())));
        let removed = removed.into_iter().map(|field| (field, Content::Tombstone));
        self.change_cells(key, added.chain(removed)).await.map(|changed| (changed.added, changed.removed))
    }

    /// Removes members of `key`; returns how many there were. They go as they come with [`Space::add_members`].
    pub async fn remove_members(&self, key: &[u8], members: Vec<Bytes>) -> Result<usize, WriteError> {
        let mut removed = 0;
        let fields = checked(key, &members)?;
        for some in fields.chunks(at_once(key, &fields)) {
            let cells = some.iter().map(|field| (field.clone(), Content::Tombstone));
            removed += self.change_cells(key, cells).await?.removed;
        }
        Ok(removed)
    }
}

/// How many of these fields one batch takes.
fn at_once(key: &[u8], fields: &[Bytes]) -> usize {
    let longest = fields.iter().map(Bytes::len).max().unwrap_or(0);
    (MAX_BATCH_BYTES / (key.len() + longest).max(1)).clamp(1, MAX_BATCH_CELLS)
}

/// The fields of members to be added: none is empty, nor is their key.
fn named(key: &[u8], members: &[Bytes]) -> Result<Vec<Bytes>, WriteError> {
    if !members.is_empty() {
        check_names(key, &[])?;
    }
    match members.iter().any(Bytes::is_empty) {
        true => Err(WriteError::Empty { what: "member" }),
        false => checked(key, members),
    }
}

/// The fields of members to be removed.
fn checked(key: &[u8], members: &[Bytes]) -> Result<Vec<Bytes>, WriteError> {
    let field = |member: &Bytes| match member.len() {
        ..=MAX_MEMBER => Ok(field_of(member)),
        len => Err(WriteError::MemberTooLong { len }),
    };
    check_lengths(key, &[])?;
    members.iter().map(field).collect()
}

fn field_of(member: &[u8]) -> Bytes {
    [&MEMBERS, member].concat().into()
}

/// The member that a field stands for.
pub(super) fn member_in(field: &Bytes) -> Option<Bytes> {
    member_of(field).map(|member| field.slice_ref(member))
}

fn member_of(field: &[u8]) -> Option<&[u8]> {
    field.strip_prefix(&MEMBERS)
}

/// Whether a cell is a member that is there.
pub(super) fn is_live_member(cell: &Cell, now_ms: u64) -> bool {
    member_of(&cell.field).is_some() && cell.is_live(now_ms)
}

/// Whether a field is a member's.
pub(super) fn is_member_field(field: &[u8]) -> bool {
    member_of(field).is_some()
}
