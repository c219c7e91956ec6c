//! The shared memory through a running node.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use http::Method;

use super::connection::{empty, full};
use super::{Client, ClientError, request};
use crate::percent;
use crate::wire::{Counted, Deleted, IncrementRequest, KeyValueBody, WatchEvent};

/// The longest line of a watch: an event with the largest key and value, escaped, several times over.
const MAX_EVENT_LINE: usize = 64 << 10;

/// One space of the shared memory, over the API.
#[derive(Clone, Debug)]
pub struct RemoteSpace {
    client: Client,
    name: String,
}

impl Client {
    /// The space `name`; the node checks the name at the first call.
    pub fn space(&self, name: &str) -> RemoteSpace {
        RemoteSpace { client: self.clone(), name: percent::encode(name.as_bytes()) }
    }
}

impl RemoteSpace {
    /// The value of a key, if there is one.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ClientError> {
        match self.client.send(request(Method::GET, &self.at(key), empty())).await {
            Ok(answer) => answer.bytes().await.map(Some),
            Err(ClientError::Refused(problem)) if problem.body.code == "no-such-key" => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets a key, for `ttl` or for good. It is on the node's disk when this returns.
    pub async fn set(&self, key: &[u8], value: Bytes, ttl: Option<Duration>) -> Result<(), ClientError> {
        let mut path = self.at(key);
        if let Some(ttl) = ttl {
            path.push_str(&format!("?ttl_ms={}", ttl.as_millis()));
        }
        self.client.send(request(Method::PUT, &path, full(value))).await?.done().await
    }

    /// Deletes a key; says whether there was one.
    pub async fn delete(&self, key: &[u8]) -> Result<bool, ClientError> {
        let answer = self.client.send(request(Method::DELETE, &self.at(key), empty())).await?;
        answer.json::<Deleted>().await.map(|answer| answer.deleted)
    }

    /// Adds to a counter, and gives what it is then.
    pub async fn incr(&self, key: &[u8], by: i64) -> Result<i64, ClientError> {
        let path = format!("{}/incr", self.at(key));
        self.client.post::<Counted>(&path, &IncrementRequest { by }).await.map(|answer| answer.value)
    }

    /// One page of the keys that begin with `prefix`, in order; the next one begins after its last key.
    pub async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<KeyValueBody>, ClientError> {
        let after = after.map(|key| format!("&after={}", percent::encode(key))).unwrap_or_default();
        let prefix = percent::encode(prefix);
        self.client.get(&format!("/api/v1/mem/{}?prefix={prefix}&limit={limit}{after}", self.name)).await
    }

    /// The keys that begin with `prefix` as they are, and then every change.
    pub async fn watch(&self, prefix: &[u8]) -> Result<RemoteWatch, ClientError> {
        let path = format!("/api/v1/watch/{}?prefix={}", self.name, percent::encode(prefix));
        let answer = self.client.send(request(Method::GET, &path, empty())).await?;
        Ok(RemoteWatch { what: path, chunks: answer.chunks().boxed(), buffer: BytesMut::new() })
    }

    fn at(&self, key: &[u8]) -> String {
        format!("/api/v1/mem/{}/{}", self.name, percent::encode(key))
    }
}

/// Changes as they come, for as long as this is held.
#[must_use]
pub struct RemoteWatch {
    what: String,
    chunks: BoxStream<'static, Result<Bytes, ClientError>>,
    buffer: BytesMut,
}

impl RemoteWatch {
    /// The next event; `None` when the node stops.
    pub async fn next(&mut self) -> Result<Option<WatchEvent>, ClientError> {
        loop {
            while let Some(line) = self.line() {
                // Each of our events is one line; the others are comments and separators.
                if let Some(json) = line.strip_prefix(b"data:") {
                    return serde_json::from_slice(json)
                        .map(Some)
                        .map_err(|error| self.nonsense(error.into()));
                }
            }
            if self.buffer.len() > MAX_EVENT_LINE {
                return Err(self.nonsense("an event is too long".into()));
            }
            match self.chunks.try_next().await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }

    fn line(&mut self) -> Option<BytesMut> {
        let end = self.buffer.iter().position(|byte| *byte == b'\n')?;
        let line = self.buffer.split_to(end);
        self.buffer.advance(1);
        Some(line)
    }

    fn nonsense(&self, source: Box<dyn std::error::Error + Send + Sync>) -> ClientError {
        ClientError::Nonsense { what: self.what.clone(), source }
    }
}

impl std::fmt::Debug for RemoteWatch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RemoteWatch").field("what", &self.what).finish_non_exhaustive()
    }
}
