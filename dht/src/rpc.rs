//! Typed messages on a stream, and calls made of them.
//!
//! WIRE: a frame is its length (4 bytes, big endian) and as many bytes; a message is a frame of postcard. A call is one
//! message each way on a stream of its own.

use std::io;

use libp2p::PeerId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::streams::OpenError;

/// The longest frame, in bytes. What is longer is split, or streamed.
pub const MAX_FRAME: usize = 4 * 1024 * 1024;
/// Room that is reserved before any byte of a frame has arrived: a claimed length costs nobody memory.
const INITIAL_CAPACITY: usize = 64 * 1024;

/// Why a message could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The stream broke or ended.
    #[error("the stream broke")]
    Io(#[from] io::Error),
    /// A frame is longer than allowed.
    #[error("message of {length} bytes is longer than {limit}")]
    TooLong {
        /// Its length.
        length: usize,
        /// The most that is taken.
        limit: usize,
    },
    /// The bytes are no such message.
    #[error("message is malformed")]
    Malformed(#[source] postcard::Error),
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No stream to the peer.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Question or answer did not get through.
    #[error("call of {protocol} to {peer} failed")]
    Message {
        /// Who was asked.
        peer: PeerId,
        /// What.
        protocol: &'static str,
        /// What went wrong.
        #[source]
        source: MessageError,
    },
    /// The peer took too long.
    #[error("{peer} did not answer {protocol} within {seconds} s")]
    TimedOut {
        /// Who was asked.
        peer: PeerId,
        /// What.
        protocol: &'static str,
        /// The limit.
        seconds: u64,
    },
}

/// Reads one frame of at most `limit` bytes; `None` at the end of the stream.
pub async fn read_frame<R: AsyncRead + Unpin>(
    reader: &mut R,
    limit: usize,
) -> Result<Option<Vec<u8>>, MessageError> {
    let mut header = [0; 4];
    match reader.read_exact(&mut header[..1]).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    reader.read_exact(&mut header[1..]).await?;
    let claimed = u32::from_be_bytes(header);
    let length = usize::try_from(claimed).unwrap_or(usize::MAX);
    if length > limit {
        return Err(MessageError::TooLong { length, limit });
    }
    let mut frame = Vec::with_capacity(length.min(INITIAL_CAPACITY));
    let read = reader.take(claimed.into()).read_to_end(&mut frame).await?;
    if read < length { Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()) } else { Ok(Some(frame)) }
}

/// Writes one frame, without flushing.
pub async fn write_frame<W: AsyncWrite + Unpin>(writer: &mut W, frame: &[u8]) -> Result<(), MessageError> {
    let too_long = MessageError::TooLong { length: frame.len(), limit: MAX_FRAME };
    let length = u32::try_from(frame.len()).map_err(|_| too_long)?;
    writer.write_all(&length.to_be_bytes()).await?;
    writer.write_all(frame).await?;
    Ok(())
}

/// Reads one message of at most `limit` bytes; an ended stream is an error.
pub async fn read_message<T: DeserializeOwned, R: AsyncRead + Unpin>(
    reader: &mut R,
    limit: usize,
) -> Result<T, MessageError> {
    let frame = read_frame(reader, limit).await?;
    let frame = frame.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
    postcard::from_bytes(&frame).map_err(MessageError::Malformed)
}

/// Writes one message and flushes.
pub async fn write_message<T: Serialize, W: AsyncWrite + Unpin>(
    writer: &mut W,
    message: &T,
) -> Result<(), MessageError> {
    let frame = postcard::to_stdvec(message).map_err(MessageError::Malformed)?;
    if frame.len() > MAX_FRAME {
        return Err(MessageError::TooLong { length: frame.len(), limit: MAX_FRAME });
    }
    write_frame(writer, &frame).await?;
    Ok(writer.flush().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_cross_a_stream() {
        let (mut near, mut far) = tokio::io::duplex(16);
        let sent = vec!["a".to_owned(); 100];
        let writer = write_message(&mut near, &sent);
        let (written, read) = tokio::join!(writer, read_message::<Vec<String>, _>(&mut far, MAX_FRAME));
        written.unwrap();
        assert_eq!(read.unwrap(), sent);
    }

    #[tokio::test]
    async fn hostile_lengths_cost_nothing() {
        let mut claim = &b"\xff\xff\xff\xff"[..];
        assert!(matches!(read_frame(&mut claim, MAX_FRAME).await, Err(MessageError::TooLong { .. })));
        let mut truncated = &b"\x00\x10\x00\x00abc"[..];
        assert!(matches!(read_frame(&mut truncated, MAX_FRAME).await, Err(MessageError::Io(_))));
        let mut nothing = &b""[..];
        assert!(read_frame(&mut nothing, MAX_FRAME).await.unwrap().is_none());
    }
}
