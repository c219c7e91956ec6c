//! One stream of the swarm's network as the two halves that `iroh-blobs` speaks over.
//!
//! Each half gives up when its peer stalls, so a peer that connects and falls silent holds nothing for long.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use iroh::endpoint::VarInt;
use iroh_blobs::util::{RecvStream, SendStream};
use tokio_util::compat::Compat;

/// How long a peer may take to accept or to send one piece (at most 16 KiB) before the transfer is given up.
const STALL: Duration = Duration::from_secs(10);

/// How much is read at a time towards a length that is a peer's word or a protocol's upper bound.
const READ_STEP: usize = 16 * 1024;

/// Splits a stream. The halves are `Sync` though the stream is not, which the protocol's futures need.
pub(super) fn halves<S: AsyncRead + AsyncWrite>(stream: Compat<S>) -> (Receiving<S>, Sending<S>) {
    let (reader, writer) = stream.into_inner().split();
    (Receiving(reader), Sending(writer))
}

/// The half that bytes come from.
#[derive(Debug)]
pub(super) struct Receiving<S>(ReadHalf<S>);

/// The half that bytes go to.
#[derive(Debug)]
pub(super) struct Sending<S>(WriteHalf<S>);

impl<S: AsyncRead + AsyncWrite + Unpin + Send> RecvStream for Receiving<S> {
    async fn recv_bytes(&mut self, len: usize) -> io::Result<Bytes> {
        // Grows as bytes come: `len` is only a bound, up to 1 MiB for a request of 40 bytes.
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let start = bytes.len();
            bytes.resize(len.min(start + READ_STEP), 0);
            let read = in_time(self.0.read(&mut bytes[start..])).await?;
            bytes.truncate(start + read);
            if read == 0 {
                break;
            }
        }
        Ok(bytes.into())
    }

    async fn recv_bytes_exact(&mut self, len: usize) -> io::Result<Bytes> {
        let bytes = self.recv_bytes(len).await?;
        if bytes.len() == len { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    async fn recv_exact(&mut self, target: &mut [u8]) -> io::Result<()> {
        in_time(self.0.read_exact(target)).await
    }

    fn stop(&mut self, _code: VarInt) -> io::Result<()> {
        // There are no codes on our streams; dropping both halves tells the peer.
        Ok(())
    }

    fn id(&self) -> u64 {
        0
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> SendStream for Sending<S> {
    async fn send_bytes(&mut self, bytes: Bytes) -> io::Result<()> {
        self.send(&bytes).await
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        in_time(self.0.write_all(bytes)).await
    }

    async fn sync(&mut self) -> io::Result<()> {
        // Called when all is sent. The reader waits for the end of the stream, so this half must be closed.
        in_time(self.0.close()).await
    }

    fn reset(&mut self, _code: VarInt) -> io::Result<()> {
        Ok(())
    }

    async fn stopped(&mut self) -> io::Result<Option<VarInt>> {
        // Only asked while a peer observes a blob, which is refused.
        std::future::pending().await
    }

    fn id(&self) -> u64 {
        0
    }
}

async fn in_time<T>(transfer: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(STALL, transfer).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
