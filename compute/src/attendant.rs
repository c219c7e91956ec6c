//! Answers what a guest asks of its node, as far as it was granted.
//!
//! One [`Attendant`] serves one guest, for as long as its task runs; what they all stand on is [`Outside`]. Every
//! question is held against the grants, so a worker process that a guest has taken over gets nothing more.

use std::sync::{Arc, OnceLock, Weak};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use starfish_memory::{Condition, KeyKind, KeyRange, Lifetime, Memory, Space, Stamp};

use self::exchange::Exchanges;
use self::http_client::HttpClient;
use crate::ask::{Ask, Bucket, KEYS_PER_PAGE, MAX_ASKED_VALUE, Told};
use crate::function::Functions;
use crate::in_words;
use crate::reach::Reach;
use crate::task::Access;
use crate::wire::Chunk;

mod exchange;
mod http_client;

/// What guests can be let to reach.
#[derive(Debug)]
pub(crate) struct Outside {
    memory: Memory,
    /// Nothing where this node lets no program out.
    http: Option<HttpClient>,
    functions: OnceLock<Weak<Functions>>,
}

/// See the [module](self).
pub(crate) struct Attendant {
    outside: Arc<Outside>,
    reach: Vec<Reach>,
    exchanges: Exchanges,
}

impl Outside {
    /// Guests may send requests to hosts that they were granted if `lets_out`.
    pub(crate) fn new(memory: Memory, lets_out: bool) -> Result<Self, rustls::Error> {
        let http = lets_out.then(HttpClient::new).transpose()?;
        Ok(Self { memory, http, functions: OnceLock::new() })
    }

    /// From here on guests can call functions.
    pub(crate) fn set_functions(&self, functions: &Arc<Functions>) {
        let _ = self.functions.set(Arc::downgrade(functions));
    }
}

impl Attendant {
    pub(crate) fn new(outside: Arc<Outside>, reach: &[Reach]) -> Self {
        Self { outside, reach: reach.to_vec(), exchanges: Exchanges::default() }
    }

    pub(crate) async fn answer(&self, ask: Ask) -> Told {
        match ask {
            Ask::Bucket { name, about } => {
                let granted = self.reach.iter().find_map(|reach| match reach {
                    Reach::Memory { space, access } if **space == *name => Some(*access),
                    _ => None,
                });
                let (Some(access), Ok(space)) = (granted, self.outside.memory.space(&name)) else {
                    return Told::Denied;
                };
                if access == Access::ReadOnly && writes(&about) {
                    return Told::Denied;
                }
                look_into(&space, about).await.unwrap_or_else(Told::Failed)
            }
            Ask::Send { exchange, head } => self.send(exchange, *head).await,
            Ask::Part { exchange, part: Chunk(part) } => self.exchanges.send_part(exchange, part).await,
            Ask::Read { exchange } => self.exchanges.read(exchange).await,
            Ask::Close { exchange } => {
                self.exchanges.close(exchange);
                Told::Done
            }
        }
    }
}

fn writes(about: &Bucket) -> bool {
    match about {
        Bucket::Set { .. } | Bucket::Delete { .. } | Bucket::Increment { .. } | Bucket::Swap { .. } => true,
        Bucket::Open
        | Bucket::Get { .. }
        | Bucket::Exists { .. }
        | Bucket::Keys { .. }
        | Bucket::Versioned { .. } => false,
    }
}

async fn look_into(space: &Space, about: Bucket) -> Result<Told, String> {
    fn failed(error: impl std::error::Error + 'static) -> String {
        in_words(&error)
    }
    let told = match about {
        Bucket::Open => Told::Done,
        Bucket::Get { key } => Told::Value(read(space, &key).await?.map(|(_, value)| value)),
        Bucket::Set { key, value: Chunk(value) } => {
            space.set(key.as_bytes(), value, None).await.map_err(failed)?;
            Told::Done
        }
        Bucket::Delete { key } => {
            space.delete(key.as_bytes()).await.map_err(failed)?;
            Told::Done
        }
        Bucket::Exists { key } => Told::Yes(space.value(key.as_bytes()).await.map_err(failed)?.is_some()),
        Bucket::Keys { after } => keys(space, after).await?,
        Bucket::Increment { key, by } => Told::Number(space.incr(key.as_bytes(), by).await.map_err(failed)?),
        Bucket::Versioned { key } => Told::Versioned(read(space, &key).await?),
        Bucket::Swap { key, version, value: Chunk(value) } => {
            let condition = match version {
                Some(version) => Condition::Version(version.parse::<Stamp>().map_err(failed)?),
                None => Condition::Absent,
            };
            let put = space.put(key.as_bytes(), value, Lifetime::Keep, condition).await.map_err(failed)?;
            Told::Yes(put.version.is_some())
        }
    };
    Ok(told)
}

/// A value with its version, unless it is too long for a guest.
async fn read(space: &Space, key: &str) -> Result<Option<(String, Chunk)>, String> {
    let opened = space.open(key.as_bytes()).await.map_err(|error| in_words(&error))?;
    let Some((entry, mut content)) = opened else { return Ok(None) };
    if entry.value.len() > MAX_ASKED_VALUE as u64 {
        return Err(format!(
            "the value is longer than the {} KiB that a program is given",
            MAX_ASKED_VALUE >> 10
        ));
    }
    let mut value = BytesMut::new();
    while let Some(part) = content.next().await {
        value.extend_from_slice(&part.map_err(|error| in_words(&error))?);
    }
    Ok(Some((entry.version.to_string(), Chunk(value.freeze()))))
}

/// A page of keys that are text and have a value. Others have no name here.
async fn keys(space: &Space, after: Option<String>) -> Result<Told, String> {
    let mut after = after.map(Bytes::from);
    let mut keys = Vec::new();
    loop {
        let range = KeyRange { after: after.take(), ..KeyRange::prefix(b"") };
        let page = space.keys(range, KEYS_PER_PAGE).await.map_err(|error| in_words(&error))?;
        let is_last = page.len() < KEYS_PER_PAGE;
        after = page.last().map(|(key, _)| key.clone());
        let values = page.into_iter().filter(|(_, kind)| *kind == KeyKind::Value);
        keys.extend(values.filter_map(|(key, _)| String::from_utf8(key.to_vec()).ok()));
        if is_last || !keys.is_empty() {
            return Ok(Told::Keys { keys, more: !is_last });
        }
    }
}
