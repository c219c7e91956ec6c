//! Where the bytes of large values lie: what this crate needs of whoever keeps them.

use std::{fmt, pin::Pin, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};

use crate::value::BlobName;

/// The bytes of a value, in order. An error ends the stream.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, BlobError>> + Send>>;

/// Bytes that are at hand, as a stream.
pub fn stream_of(bytes: Bytes) -> ByteStream {
    stream::iter((!bytes.is_empty()).then_some(Ok(bytes))).boxed()
}

/// Keeps bytes under names, for the whole swarm.
#[async_trait]
pub trait Blobs: Send + Sync + fmt::Debug {
    /// Keeps all of `content` under a name that nobody has used before. When it returns, they are on this node's disk.
    async fn put(&self, name: BlobName, content: ByteStream) -> Result<(), BlobError>;

    /// What is kept under a name, if its BLAKE3 hash is this one.
    async fn fetch(&self, name: BlobName, hash: &[u8; 32]) -> Result<ByteStream, BlobError>;

    /// Keeps the same bytes under a second name, without carrying them.
    async fn copy(&self, from: BlobName, to: BlobName) -> Result<(), BlobError>;

    /// Lets go of what is kept under a name, for everybody. That there is nothing is no error.
    async fn remove(&self, name: BlobName) -> Result<(), BlobError>;

    /// All names, as this node knows them.
    async fn names(&self) -> Result<Vec<BlobName>, BlobError>;
}

/// Why the bytes of a value cannot be kept or given.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BlobError {
    /// Nothing is known of that name.
    #[error("the value's bytes are not known here (yet)")]
    NotFound,
    /// They are known, but nobody who has them can be reached now.
    #[error("nobody who has the value's bytes can be reached now")]
    Unavailable(#[source] Cause),
    /// There is no room for them.
    #[error("no space left for the value")]
    NoSpace(#[source] Cause),
    /// There is nobody who keeps large values.
    #[error("this node keeps no values over {} bytes", crate::MAX_VALUE)]
    NoKeeper,
    /// Too much is being read at once.
    #[error("too many large values are being read at once, try again")]
    Busy,
    /// Where the bytes come from, or go to, failed.
    #[error("the value's bytes cannot be carried")]
    Failed(#[source] Cause),
}

/// What made it fail.
pub type Cause = Arc<dyn std::error::Error + Send + Sync>;
