//! The shared memory through a running node.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use http::header::{IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Method};

use starfish_memory::SpaceSettings;

use super::connection::{Answer, RequestBody, empty, full, streamed};
use super::{Client, ClientError, request};
use crate::percent;
use crate::wire::{
    Changed, Counted, Deleted, ExpireRequest, FieldBody, FieldsChanged, FieldsRequest, IncrementRequest,
    KeyKindBody, KeyValueBody, Length, MemberBody, MembersChanged, MembersRequest, NameBody,
    RestoreValueRequest, SpaceBody, VersionBody, WatchEvent, WriteBody,
};

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
        Ok(self.entry(key).await?.map(|entry| entry.value))
    }

    /// The value of a key with its version, if there is one.
    pub async fn entry(&self, key: &[u8]) -> Result<Option<RemoteEntry>, ClientError> {
        let Some(opened) = self.open(key).await? else { return Ok(None) };
        let RemoteValue { len: _, version, expires_ms, answer } = opened;
        Ok(Some(RemoteEntry { version, expires_ms, value: answer.bytes().await? }))
    }

    /// The value of a key whose bytes are still to come, if there is one.
    pub async fn open(&self, key: &[u8]) -> Result<Option<RemoteValue>, ClientError> {
        let answer = self.client.send(request(Method::GET, &self.at(key), empty())).await;
        Ok(if_there(answer)?.map(RemoteValue::new))
    }

    /// The same for a field.
    pub async fn open_field(&self, key: &[u8], field: &[u8]) -> Result<Option<RemoteValue>, ClientError> {
        let answer = self.client.send(request(Method::GET, &self.field_at(key, field), empty())).await;
        Ok(if_there(answer)?.map(RemoteValue::new))
    }

    /// Sets a key, for `ttl` or for good. It is on the node's disk when this returns.
    pub async fn set(&self, key: &[u8], value: Bytes, ttl: Option<Duration>) -> Result<(), ClientError> {
        let ttl = ttl.map_or(RemoteLifetime::Forever, RemoteLifetime::For);
        self.set_if(key, value, ttl, &Precondition::None).await.map(drop)
    }

    /// Sets a key if the precondition holds; says whether it did.
    pub async fn set_if(
        &self,
        key: &[u8],
        value: Bytes,
        lifetime: RemoteLifetime,
        precondition: &Precondition,
    ) -> Result<bool, ClientError> {
        self.put(key, full(value), lifetime, precondition).await
    }

    /// The same with a value that comes in parts. If it breaks off, nothing is set.
    pub async fn set_streamed(
        &self,
        key: &[u8],
        value: impl Stream<Item = Result<Bytes, io::Error>> + Send + 'static,
        lifetime: RemoteLifetime,
        precondition: &Precondition,
    ) -> Result<bool, ClientError> {
        self.put(key, streamed(value), lifetime, precondition).await
    }

    async fn put(
        &self,
        key: &[u8],
        body: RequestBody,
        lifetime: RemoteLifetime,
        precondition: &Precondition,
    ) -> Result<bool, ClientError> {
        let query = match lifetime {
            RemoteLifetime::Forever => String::new(),
            RemoteLifetime::For(ttl) => format!("?ttl_ms={}", ttl.as_millis()),
            RemoteLifetime::Keep => "?keep_ttl=true".to_owned(),
        };
        let mut request = request(Method::PUT, &format!("{}{query}", self.at(key)), body);
        precondition.add_to(request.headers_mut());
        if_met(self.client.send(request).await)
    }

    /// Deletes the value of a key if the precondition holds; says whether it did.
    pub async fn delete_if(&self, key: &[u8], precondition: &Precondition) -> Result<bool, ClientError> {
        let mut request = request(Method::DELETE, &self.at(key), empty());
        precondition.add_to(request.headers_mut());
        if_met(self.client.send(request).await)
    }

    /// Adds to the end of a value, and gives how long it is then.
    pub async fn append(&self, key: &[u8], more: Bytes) -> Result<u64, ClientError> {
        let path = format!("{}/append", self.at(key));
        let answer = self.client.send(request(Method::POST, &path, full(more))).await?;
        answer.json::<Length>().await.map(|answer| answer.length)
    }

    /// Changes how long a value counts, `None` for good; says whether there was one.
    pub async fn expire(&self, key: &[u8], ttl: Option<Duration>) -> Result<bool, ClientError> {
        let ttl_ms = ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        let path = format!("{}/expire", self.at(key));
        self.client.post::<Changed>(&path, &ExpireRequest { ttl_ms }).await.map(|answer| answer.changed)
    }

    /// Writes all of it, or none.
    pub async fn write(&self, writes: &[WriteBody]) -> Result<(), ClientError> {
        self.client.order(&format!("/api/v1/mem/{}", self.name), &writes).await
    }

    /// The fields of a key, in order.
    pub async fn fields(&self, key: &[u8]) -> Result<Vec<FieldBody>, ClientError> {
        self.client.get(&format!("{}/fields", self.at(key))).await
    }

    /// The value of a field, if there is one.
    pub async fn field(&self, key: &[u8], field: &[u8]) -> Result<Option<Bytes>, ClientError> {
        let answer = self.client.send(request(Method::GET, &self.field_at(key, field), empty())).await;
        match if_there(answer)? {
            Some(answer) => answer.bytes().await.map(Some),
            None => Ok(None),
        }
    }

    /// The versions of a value (with an empty `field`) or of a field that are kept, the newest first; `None` if there is
    /// no such key.
    pub async fn versions(&self, key: &[u8], field: &[u8]) -> Result<Option<Vec<VersionBody>>, ClientError> {
        let path = format!("{}/versions?field={}", self.at(key), percent::encode(field));
        let answer = self.client.send(request(Method::GET, &path, empty())).await;
        match if_there(answer)? {
            Some(answer) => answer.json().await.map(Some),
            None => Ok(None),
        }
    }

    /// The value in one version whose bytes are still to come, if there is one.
    pub async fn open_version(
        &self,
        key: &[u8],
        field: &[u8],
        version: &str,
    ) -> Result<Option<RemoteValue>, ClientError> {
        let version = percent::encode(version.as_bytes());
        let path = format!("{}/versions/{version}?field={}", self.at(key), percent::encode(field));
        let answer = self.client.send(request(Method::GET, &path, empty())).await;
        Ok(if_there(answer)?.map(RemoteValue::new))
    }

    /// Makes an old version the current one; false if there is no such version.
    pub async fn restore(&self, key: &[u8], field: &[u8], version: &str) -> Result<bool, ClientError> {
        let (path, version) = (format!("{}/restore", self.at(key)), version.to_owned());
        let body = RestoreValueRequest { version, field: Bytes::copy_from_slice(field) };
        match self.client.order(&path, &body).await {
            Err(ClientError::Refused(problem)) if problem.body.code == "no-such-key" => Ok(false),
            done => done.map(|()| true),
        }
    }

    /// What the space is asked to do.
    pub async fn settings(&self) -> Result<SpaceBody, ClientError> {
        self.client.get(&format!("/api/v1/spaces/{}", self.name)).await
    }

    /// Asks it of the space, on all nodes.
    pub async fn set_settings(&self, settings: &SpaceSettings) -> Result<SpaceBody, ClientError> {
        self.client.put(&format!("/api/v1/spaces/{}", self.name), settings).await
    }

    /// Sets a field to a value that comes in parts. If it breaks off, nothing is set.
    pub async fn set_field_streamed(
        &self,
        key: &[u8],
        field: &[u8],
        value: impl Stream<Item = Result<Bytes, io::Error>> + Send + 'static,
    ) -> Result<(), ClientError> {
        let request = request(Method::PUT, &self.field_at(key, field), streamed(value));
        self.client.send(request).await?.done().await
    }

    /// Deletes fields, all at once; says how many there were.
    pub async fn delete_fields(
        &self,
        key: &[u8],
        fields: impl IntoIterator<Item = impl Into<Bytes>>,
    ) -> Result<u64, ClientError> {
        let request = FieldsRequest { delete: names(fields) };
        let changed: FieldsChanged = self.client.post(&format!("{}/fields", self.at(key)), &request).await?;
        Ok(changed.deleted)
    }

    /// Adds to a field, and gives what it is then.
    pub async fn incr_field(&self, key: &[u8], field: &[u8], by: i64) -> Result<i64, ClientError> {
        let path = format!("{}/incr", self.field_at(key, field));
        self.client.post::<Counted>(&path, &IncrementRequest { by }).await.map(|answer| answer.value)
    }

    /// The members of a key, in order.
    pub async fn members(&self, key: &[u8]) -> Result<Vec<MemberBody>, ClientError> {
        self.client.get(&format!("{}/members", self.at(key))).await
    }

    /// Whether it is a member.
    pub async fn is_member(&self, key: &[u8], member: &[u8]) -> Result<bool, ClientError> {
        let answer = self.client.send(request(Method::GET, &self.member_at(key, member), empty())).await;
        match if_there(answer)? {
            Some(answer) => answer.done().await.map(|()| true),
            None => Ok(false),
        }
    }

    /// Adds members; says how many are new. Up to 4,096 are there all at once.
    pub async fn add_members(
        &self,
        key: &[u8],
        members: impl IntoIterator<Item = impl Into<Bytes>>,
    ) -> Result<u64, ClientError> {
        let request = MembersRequest { add: names(members), remove: Vec::new() };
        self.change_members(key, &request).await.map(|changed| changed.added)
    }

    /// Removes members; says how many there were. Up to 4,096 go all at once.
    pub async fn remove_members(
        &self,
        key: &[u8],
        members: impl IntoIterator<Item = impl Into<Bytes>>,
    ) -> Result<u64, ClientError> {
        let request = MembersRequest { add: Vec::new(), remove: names(members) };
        self.change_members(key, &request).await.map(|changed| changed.removed)
    }

    async fn change_members(
        &self,
        key: &[u8],
        request: &MembersRequest,
    ) -> Result<MembersChanged, ClientError> {
        self.client.post(&format!("{}/members", self.at(key)), request).await
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
        self.client.get(&self.page(prefix, (None, None), after, limit)).await
    }

    /// One page of all keys that begin with `prefix`, whatever they hold, not before the first and not from the second of
    /// two keys on.
    pub async fn keys(
        &self,
        prefix: &[u8],
        bounds: (Option<&[u8]>, Option<&[u8]>),
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<KeyKindBody>, ClientError> {
        self.client.get(&(self.page(prefix, bounds, after, limit) + "&kinds=true")).await
    }

    /// Where a page of keys is.
    fn page(
        &self,
        prefix: &[u8],
        (from, to): (Option<&[u8]>, Option<&[u8]>),
        after: Option<&[u8]>,
        limit: usize,
    ) -> String {
        let bound = |name: &str, key: Option<&[u8]>| {
            key.map(|key| format!("&{name}={}", percent::encode(key))).unwrap_or_default()
        };
        let bounds = bound("from", from) + &bound("to", to) + &bound("after", after);
        format!("/api/v1/mem/{}?prefix={}&limit={limit}{bounds}", self.name, percent::encode(prefix))
    }

    /// The keys that begin with `prefix` as they are, and then every change.
    pub async fn watch(&self, prefix: &[u8]) -> Result<RemoteWatch, ClientError> {
        self.watch_from(prefix, None).await
    }

    /// Goes on behind a cursor of another watch of this node, if there is one.
    pub async fn watch_from(&self, prefix: &[u8], cursor: Option<&str>) -> Result<RemoteWatch, ClientError> {
        let mut path = format!("/api/v1/watch/{}?prefix={}", self.name, percent::encode(prefix));
        if let Some(cursor) = cursor {
            path = format!("{path}&cursor={}", percent::encode(cursor.as_bytes()));
        }
        let answer = self.client.send(request(Method::GET, &path, empty())).await?;
        Ok(RemoteWatch { what: path, lines: answer.lines(MAX_EVENT_LINE).boxed(), cursor: None, event: None })
    }

    fn field_at(&self, key: &[u8], field: &[u8]) -> String {
        format!("{}/fields/{}", self.at(key), percent::encode(field))
    }

    fn member_at(&self, key: &[u8], member: &[u8]) -> String {
        format!("{}/members/{}", self.at(key), percent::encode(member))
    }

    fn at(&self, key: &[u8]) -> String {
        format!("/api/v1/mem/{}/{}", self.name, percent::encode(key))
    }
}

fn names(names: impl IntoIterator<Item = impl Into<Bytes>>) -> Vec<NameBody> {
    names.into_iter().map(|name| NameBody(name.into())).collect()
}

/// A value and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteEntry {
    /// The value.
    pub value: Bytes,
    /// What a later write may name.
    pub version: String,
    /// Unix time in milliseconds from which it no longer counts.
    pub expires_ms: Option<u64>,
}

/// A value whose bytes are still to come.
#[derive(Debug)]
pub struct RemoteValue {
    /// How long it is, in bytes.
    pub len: u64,
    /// What a later write may name; empty for fields.
    pub version: String,
    /// Unix time in milliseconds from which it no longer counts.
    pub expires_ms: Option<u64>,
    answer: Answer,
}

impl RemoteValue {
    fn new(answer: Answer) -> Self {
        let header = |name: &str| {
            answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let len = header("content-length").parse().unwrap_or(0);
        let version = header("etag").trim_matches('"').to_owned();
        let expires_ms = header("x-starfish-expires-ms").parse().ok();
        Self { len, version, expires_ms, answer }
    }

    /// Its bytes as they come. If they break off, the last item is an error.
    pub fn chunks(self) -> impl Stream<Item = Result<Bytes, ClientError>> + Send + 'static {
        self.answer.chunks()
    }
}

/// How long a value is to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteLifetime {
    /// For good.
    Forever,
    /// So long from now on.
    For(Duration),
    /// As long as the value before.
    Keep,
}

/// What must hold for a write to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    None,
    /// The key has no value.
    Absent,
    /// The key has a value.
    Present,
    /// The key has the value of this version.
    Version(String),
}

impl Precondition {
    fn add_to(&self, headers: &mut HeaderMap) {
        let (name, value) = match self {
            Self::None => return,
            Self::Absent => (IF_NONE_MATCH, HeaderValue::from_static("*")),
            Self::Present => (IF_MATCH, HeaderValue::from_static("*")),
            // What is no header value is no version either, and the node says so.
            Self::Version(version) => (
                IF_MATCH,
                HeaderValue::from_str(&format!("\"{version}\"")).unwrap_or(HeaderValue::from_static("\"\"")),
            ),
        };
        headers.insert(name, value);
    }
}

fn if_there(answer: Result<Answer, ClientError>) -> Result<Option<Answer>, ClientError> {
    match answer {
        Err(ClientError::Refused(problem)) if problem.body.code == "no-such-key" => Ok(None),
        answer => answer.map(Some),
    }
}

fn if_met(answer: Result<Answer, ClientError>) -> Result<bool, ClientError> {
    match answer {
        Err(ClientError::Refused(problem)) if problem.body.code == "changed" => Ok(false),
        answer => answer.map(|_| true),
    }
}

/// Changes as they come, for as long as this is held.
#[must_use]
pub struct RemoteWatch {
    what: String,
    lines: BoxStream<'static, Result<String, ClientError>>,
    cursor: Option<String>,
    /// One whose end has not been read.
    event: Option<WatchEvent>,
}

impl RemoteWatch {
    /// The next event; `None` when the node stops.
    pub async fn next(&mut self) -> Result<Option<WatchEvent>, ClientError> {
        while let Some(line) = self.lines.try_next().await? {
            // Each of our events is one line of data and perhaps its cursor; the others are comments.
            if let Some(json) = line.strip_prefix("data:") {
                let event = serde_json::from_str(json);
                self.event = Some(event.map_err(|error| self.nonsense(error.into()))?);
            } else if let Some(cursor) = line.strip_prefix("id:") {
                self.cursor = Some(cursor.trim().to_owned());
            } else if line.is_empty()
                && let Some(event) = self.event.take()
            {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Where another watch of this node goes on behind the last event; `None` while it is told what there is.
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
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
