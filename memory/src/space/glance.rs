//! What is quick: a look at a key that waits for nothing, and plain writes that share one way to the disk.

use std::time::Duration;

use bytes::Bytes;

use super::{Lifetime, Space, check_names};
use crate::{
    cell::{Content, Draft, MAX_VALUE, REGISTER},
    clock::now_ms,
    codec, counter,
    hot::{Found, Plain},
    writer::WriteError,
};

/// What one look at a key tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Glance {
    /// It has this value.
    Value(Bytes),
    /// There is no such key, of whatever kind.
    Nothing,
    /// It takes more than a look: the key was counted, holds something else, is large or cannot be read at once.
    More,
}

/// A key and the value it is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The key.
    pub key: Bytes,
    /// The value, of at most [`MAX_VALUE`] bytes.
    pub value: Bytes,
    /// How long it counts; for good if missing.
    pub ttl: Option<Duration>,
}

impl Space {
    /// Looks at the value of `key`.
    pub fn glance(&self, key: &[u8]) -> Glance {
        // It is the address of the value as well, whose field is empty.
        let (prefix, store) = (codec::key_prefix(&self.name, key), &self.memory.shared().store);
        match store.plain_value(&prefix, now_ms()) {
            // Nodes may have counted on top of an integer.
            Ok(Found::Plain(Plain { value, .. }))
                if counter::parse_integer(&value).is_none() || store.was_all(&prefix) =>
            {
                Glance::Value(value)
            }
            Ok(Found::Nothing) if store.was_all(&prefix) || store.scan(&prefix, &prefix).next().is_none() => {
                Glance::Nothing
            }
            Ok(_) | Err(_) => Glance::More,
        }
    }

    /// Does these writes in their order. Each stands by itself, and others may see some of them before all; but they take
    /// one commit, and all fail if that fails.
    pub async fn put_each(&self, puts: Vec<Put>) -> Result<(), WriteError> {
        let mut drafts = Vec::with_capacity(puts.len());
        for Put { key, value, ttl } in puts {
            check_names(&key, &REGISTER)?;
            if value.len() > MAX_VALUE {
                return Err(WriteError::ValueTooLong { len: value.len() as u64 });
            }
            let expires_ms = ttl.map_or(Lifetime::Forever, Lifetime::For).expires_ms(None);
            let (space, content) = (self.name.clone(), Content::Value(value));
            drafts.push(Draft { space, key, field: REGISTER, content, expires_ms, renews: None });
        }
        self.memory.write_each(drafts).await
    }
}
