//! Typed messages over a byte stream: to worker processes over pipes, to other nodes over streams.
//!
//! A message is its length in four bytes and then postcard. The length is checked before anything is
//! allocated, since the other side may be a hostile guest or peer.

use std::marker::PhantomData;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

/// The longest message: a task with all of its arguments, or a piece of a stream.
pub(crate) const MAX_MESSAGE: usize = 1 << 20;
/// How much of a stream goes into one message: a pipe's capacity on Linux.
pub(crate) const CHUNK: usize = 64 << 10;

/// Why a message could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// The stream broke, or a message was longer than [`MAX_MESSAGE`].
    #[error("the stream broke")]
    Stream(#[from] std::io::Error),
    /// The bytes are not a message, or a message has no bytes.
    #[error("malformed message")]
    Malformed(#[from] postcard::Error),
    /// The stream ended where more was due.
    #[error("the stream ended early")]
    Ended,
}

/// The sending half.
#[derive(Debug)]
pub(crate) struct Sender<W> {
    frames: FramedWrite<W, LengthDelimitedCodec>,
}

impl<W: AsyncWrite + Unpin> Sender<W> {
    pub(crate) fn new(stream: W) -> Self {
        Self { frames: FramedWrite::new(stream, codec()) }
    }

    /// Sends one message and flushes it. Not cancel-safe: a message may be left half sent.
    pub(crate) async fn send(&mut self, message: &impl Serialize) -> Result<(), WireError> {
        Ok(self.frames.send(encode(message)?).await?)
    }

    /// Sends one message together with the next one. Not cancel-safe either.
    pub(crate) async fn send_with_next(&mut self, message: &impl Serialize) -> Result<(), WireError> {
        Ok(self.frames.feed(encode(message)?).await?)
    }

    /// Ends the stream in order, so that what was sent last arrives as well.
    pub(crate) async fn finish(mut self) {
        // Whoever is at the other end may be gone already, and has then seen the end.
        let _ = self.frames.get_mut().shutdown().await;
    }
}

/// The receiving half.
#[derive(Debug)]
pub(crate) struct Receiver<R, T> {
    frames: FramedRead<R, LengthDelimitedCodec>,
    message: PhantomData<fn() -> T>,
}

impl<R: AsyncRead + Unpin, T: DeserializeOwned> Receiver<R, T> {
    pub(crate) fn new(stream: R) -> Self {
        Self { frames: FramedRead::new(stream, codec()), message: PhantomData }
    }

    /// The next message, or `None` where the stream ends between two. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<T>, WireError> {
        match self.frames.next().await {
            Some(frame) => Ok(Some(postcard::from_bytes(&frame?)?)),
            None => Ok(None),
        }
    }

    /// The next message, where the end would be an error. Cancel-safe.
    pub(crate) async fn expect(&mut self) -> Result<T, WireError> {
        self.next().await?.ok_or(WireError::Ended)
    }
}

/// One message as bytes, without its length.
pub(crate) fn encode(message: &impl Serialize) -> Result<Bytes, WireError> {
    Ok(Bytes::from(postcard::to_stdvec(message)?))
}

fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().length_field_type::<u32>().max_frame_length(MAX_MESSAGE).new_codec()
}

/// A piece of a stream. Serialised as one run of bytes, not as a sequence of numbers.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Chunk(pub(crate) Bytes);

impl std::fmt::Debug for Chunk {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} bytes", self.0.len())
    }
}

impl Serialize for Chunk {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Chunk {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytewise;
        impl Visitor<'_> for Bytewise {
            type Value = Chunk;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Chunk, E> {
                Ok(Chunk(Bytes::copy_from_slice(bytes)))
            }
        }
        deserializer.deserialize_bytes(Bytewise)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_arrive_whole_and_in_order() {
        let (one, two) = tokio::io::duplex(64);
        let mut sender = Sender::new(one);
        let sending = tokio::spawn(async move {
            for size in [0, 1, 1000, CHUNK] {
                sender.send(&Chunk(vec![7; size].into())).await.unwrap();
            }
        });
        let mut receiver = Receiver::<_, Chunk>::new(two);
        for size in [0, 1, 1000, CHUNK] {
            assert_eq!(receiver.expect().await.unwrap().0.len(), size);
        }
        sending.await.unwrap();
        assert!(receiver.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_huge_length_is_refused_before_anything_is_allocated() {
        let bytes: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0];
        let mut receiver = Receiver::<_, Chunk>::new(bytes);
        assert!(matches!(receiver.next().await, Err(WireError::Stream(_))));
    }
}
