//! The keys of a space, in order, page by page.
//!
//! A page begins behind the last key of the one before, so it is the same whatever is written meanwhile: no key that
//! is there all the time is left out or seen twice.

use bytes::Bytes;

use super::{
    KeyValue, Space, blocking,
    fields::{FIRST_FIELD, is_live_field},
    is_users,
    members::{MEMBERS, is_live_member},
};
use crate::{
    cell::Cell,
    clock::now_ms,
    codec,
    counter::{self, KeyState},
    store::ReadError,
    value::Value,
};

/// Cells that are looked at where the caller is, rather than on a thread that may wait for the disk.
const LOOKED_AT_ONCE: usize = 64;

/// Which keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRange {
    /// Those that begin so.
    pub prefix: Bytes,
    /// Not those before this one.
    pub from: Option<Bytes>,
    /// Not this one and those behind it.
    pub to: Option<Bytes>,
    /// Only those behind this one: the last of the page before.
    pub after: Option<Bytes>,
}

/// What a key holds. After a partition it may be more than one of them; then the first counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// A plain value or counter.
    Value,
    /// Named fields.
    Fields,
    /// Members.
    Members,
}

/// A key, what it holds, and its value if that is a plain one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The key.
    pub key: Bytes,
    /// What it holds.
    pub kind: KeyKind,
    /// Its plain value.
    pub value: Option<Value>,
}

/// What the cells of one key come to.
#[derive(Debug, Default)]
struct Seen {
    state: KeyState,
    has_fields: bool,
    has_members: bool,
}

impl KeyRange {
    /// The keys that begin with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        Self { prefix: Bytes::copy_from_slice(prefix), ..Self::default() }
    }
}

impl Seen {
    fn take(&mut self, cell: Cell, now_ms: u64) {
        self.has_fields |= is_live_field(&cell, now_ms);
        self.has_members |= is_live_member(&cell, now_ms);
        self.state.take(cell);
    }

    fn kind(&self, now_ms: u64) -> Option<KeyKind> {
        if self.state.value(now_ms).is_some() { Some(KeyKind::Value) } else { self.other_kind() }
    }

    fn holding(&self, key: Bytes, now_ms: u64) -> Option<Holding> {
        match self.state.value(now_ms) {
            Some(value) => Some(Holding { key, kind: KeyKind::Value, value: Some(value) }),
            None => self.other_kind().map(|kind| Holding { key, kind, value: None }),
        }
    }

    fn other_kind(&self) -> Option<KeyKind> {
        let fields = self.has_fields.then_some(KeyKind::Fields);
        fields.or_else(|| self.has_members.then_some(KeyKind::Members))
    }
}

impl Space {
    /// Up to `limit` keys that begin with `prefix` and have a plain value, from the first one behind `after`.
    pub async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<KeyValue>, ReadError> {
        let range = KeyRange { after: after.map(Bytes::copy_from_slice), ..KeyRange::prefix(prefix) };
        self.scan_range(range, limit).await
    }

    /// Up to `limit` keys of a range that have a plain value.
    pub async fn scan_range(&self, range: KeyRange, limit: usize) -> Result<Vec<KeyValue>, ReadError> {
        let pick = |key, seen: Seen, now_ms| Some(KeyValue { key, value: seen.state.value(now_ms)? });
        self.page(range, limit, pick).await
    }

    /// Up to `limit` keys of a range, whatever they hold.
    pub async fn keys(&self, range: KeyRange, limit: usize) -> Result<Vec<(Bytes, KeyKind)>, ReadError> {
        self.page(range, limit, |key, seen, now_ms| Some((key, seen.kind(now_ms)?))).await
    }

    /// The same with the values of those that have a plain one, all of one moment.
    pub async fn holdings(&self, range: KeyRange, limit: usize) -> Result<Vec<Holding>, ReadError> {
        self.page(range, limit, |key, seen, now_ms| seen.holding(key, now_ms)).await
    }

    /// Up to `limit` of what is picked from the keys of a range.
    async fn page<T: Send + 'static>(
        &self,
        range: KeyRange,
        limit: usize,
        pick: impl Fn(Bytes, Seen, u64) -> Option<T> + Send + 'static,
    ) -> Result<Vec<T>, ReadError> {
        let space = self.clone();
        blocking(move || {
            let (now_ms, mut found) = (now_ms(), Vec::new());
            space.each_key(&range, |key, seen| {
                found.extend(pick(key, seen, now_ms));
                found.len() < limit
            })?;
            found.truncate(limit);
            Ok(found)
        })
        .await
    }

    /// What `key` holds; `None` if there is no such key.
    pub async fn kind(&self, key: &[u8]) -> Result<Option<KeyKind>, ReadError> {
        // The way to another thread and back takes longer than a look at a few cells.
        if let Some(kind) = self.kind_among(key, LOOKED_AT_ONCE)? {
            return Ok(kind);
        }
        let (space, key) = (self.clone(), key.to_vec());
        blocking(move || Ok(space.kind_among(&key, usize::MAX)?.flatten())).await
    }

    /// The same by three looks, at so many cells each: what is live of one kind may lie behind much that is dead. `None` if that does
    /// not tell.
    fn kind_among(&self, key: &[u8], max: usize) -> Result<Option<Option<KeyKind>>, ReadError> {
        let (prefix, store) = (codec::key_prefix(&self.name, key), &self.memory.shared().store);
        if let Some(state) = store.value_alone(&prefix)? {
            return Ok(Some(state.value(now_ms()).map(|_| KeyKind::Value)));
        }
        let (mut state, mut has_more) = (KeyState::default(), false);
        for cell in store.scan(&prefix, &prefix) {
            let cell = cell?;
            // Those that decide the value come first.
            if !counter::decides_value(&cell.field) {
                has_more = true;
                break;
            }
            state.take(cell);
        }
        if state.value(now_ms()).is_some() {
            return Ok(Some(Some(KeyKind::Value)));
        }
        if !has_more {
            return Ok(Some(None));
        }
        let looks = [
            (&FIRST_FIELD[..], is_live_field as fn(&Cell, u64) -> bool, KeyKind::Fields),
            (&MEMBERS[..], is_live_member, KeyKind::Members),
        ];
        for (from, is_live, kind) in looks {
            match self.has_live(key, from, is_live, max)? {
                Some(true) => return Ok(Some(Some(kind))),
                Some(false) => {}
                None => return Ok(None),
            }
        }
        Ok(Some(None))
    }

    /// Whether one of the cells of `key` with such fields is there; `from` is the first of these fields. `None` if the first
    /// `max` are not and there are more.
    fn has_live(
        &self,
        key: &[u8],
        from: &[u8],
        is_live: fn(&Cell, u64) -> bool,
        max: usize,
    ) -> Result<Option<bool>, ReadError> {
        let (start, prefix) = (codec::address(&self.name, key, from), codec::key_prefix(&self.name, key));
        for (n, cell) in self.memory.shared().store.scan(&start, &prefix).enumerate() {
            let cell = cell?;
            if is_users(&cell.field) != is_users(from) {
                break;
            }
            if is_live(&cell, now_ms()) {
                return Ok(Some(true));
            }
            if n >= max {
                return Ok(None);
            }
        }
        Ok(Some(false))
    }

    /// Visits keys in order until told to stop.
    fn each_key(
        &self,
        range: &KeyRange,
        mut visit: impl FnMut(Bytes, Seen) -> bool,
    ) -> Result<(), ReadError> {
        let bounds = codec::scan_prefix(&self.name, &range.prefix);
        let from = range.from.as_ref().map(|from| codec::key_prefix(&self.name, from));
        let after = range.after.as_ref().map(|after| codec::after_key(&self.name, after));
        let start = [Some(bounds.clone()), from, after].into_iter().flatten().max().unwrap_or_default();
        let now_ms = now_ms();
        let mut open: Option<(Bytes, Seen)> = None;
        for cell in self.memory.shared().store.scan(&start, &bounds) {
            let cell = cell?;
            if range.to.as_ref().is_some_and(|to| cell.key >= *to) {
                break;
            }
            if open.as_ref().is_none_or(|(key, _)| *key != cell.key) {
                let done = open.replace((cell.key.clone(), Seen::default()));
                if done.is_some_and(|(key, seen)| !visit(key, seen)) {
                    return Ok(());
                }
            }
            if let Some((_, seen)) = &mut open {
                seen.take(cell, now_ms);
            }
        }
        if let Some((key, seen)) = open {
            visit(key, seen);
        }
        Ok(())
    }
}
