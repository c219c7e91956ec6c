//! What two nodes say when they compare notes, and the link they say it over.
//!
//! The one who began asks, the other answers: one frame each, in turn. So neither can flood the other, and the memory
//! that a comparison takes is a frame or two on each side.

use std::{future::Future, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::{codec::Digest, fingerprint::Shard, stats::Counters};

/// The protocol that comparisons speak.
pub(crate) const PROTOCOL: &str = "/starfish/memory-sync/1";

/// Bytes of cells in one frame. Large enough that a round trip to the other side of the world is well used.
pub(crate) const MAX_PAGE: usize = 1024 * 1024;

/// Bytes of the cells of one batch, which are sent together: twice the largest, for names with many zero bytes and for the
/// versions that a space keeps, and room for what stands around each cell.
pub(crate) const MAX_WHOLE: usize = 20 * 1024 * 1024;

/// Cells of one batch, with the versions that a space keeps.
pub(crate) const MAX_MATES: usize = 2 * crate::space::MAX_BATCH_CELLS;

/// Bytes of one frame: a page, or a batch, and what stands around it.
const MAX_FRAME: usize = MAX_WHOLE + 4096;

/// Cells that may be asked for by digest in one frame (32 KiB).
pub(crate) const MAX_WANTED: usize = 1024;

/// How long one frame may take. A peer that is slower is busy or gone; there will be another round.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes that the codec puts before a frame.
const FRAME_HEADER: u64 = 4;

// WIRE: the order of the variants is the protocol.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request<'a> {
    /// Do you hold what I hold? Answered by `Same` or `Differ`.
    Compare { root: [u8; 32] },
    /// One step of negentropy over the cells of these shards. Answered by `Reconciled`.
    Reconcile {
        #[serde(borrow, with = "serde_bytes")]
        shards: &'a [u8],
        #[serde(borrow, with = "serde_bytes")]
        message: &'a [u8],
    },
    /// Send these cells. Answered by `Cells`, with as many of them, from the first on, as fit.
    Want { digests: Vec<Digest> },
    /// Send all cells of a shard, from the first digest after this one. Answered by `Cells`.
    Pull { shard: u8, after: Option<Digest> },
    /// Take these cells. Answered by `Taken` once they are stored.
    Push {
        #[serde(borrow, with = "serde_bytes")]
        page: &'a [u8],
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Response<'a> {
    Same,
    Differ {
        shards: Vec<Shard>,
    },
    Reconciled {
        #[serde(borrow, with = "serde_bytes")]
        message: &'a [u8],
    },
    /// `served` is how many of the wanted digests were gone through; `next` is where to go on in a shard.
    Cells {
        #[serde(borrow, with = "serde_bytes")]
        page: &'a [u8],
        served: u32,
        next: Option<Digest>,
    },
    Taken,
    /// The request asks for more than this node does.
    Refused,
}

/// Why a link ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("the peer took longer than {PATIENCE:?}")]
    Slow,
    #[error("the connection broke")]
    Broken(#[from] std::io::Error),
    #[error("the peer ended the exchange")]
    Ended,
    #[error("the peer's message does not parse")]
    Malformed(#[from] postcard::Error),
}

/// A stream of counted frames.
pub(crate) struct Link<'a, S> {
    frames: Framed<S, LengthDelimitedCodec>,
    counters: &'a Counters,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Link<'a, S> {
    pub(crate) fn new(stream: S, counters: &'a Counters) -> Self {
        let codec = LengthDelimitedCodec::builder().max_frame_length(MAX_FRAME).new_codec();
        Self { frames: Framed::new(stream, codec), counters }
    }

    pub(crate) async fn send<T: Serialize>(&mut self, message: &T) -> Result<(), LinkError> {
        let frame = Bytes::from(postcard::to_stdvec(message)?);
        self.counters.sync_bytes_sent.add(FRAME_HEADER + frame.len() as u64);
        in_time(async { Ok(self.frames.send(frame).await?) }).await
    }

    pub(crate) async fn receive(&mut self) -> Result<BytesMut, LinkError> {
        let frame = in_time(async { self.frames.next().await.ok_or(LinkError::Ended) }).await??;
        self.counters.sync_bytes_received.add(FRAME_HEADER + frame.len() as u64);
        Ok(frame)
    }

    /// Sends a request and returns the frame of its response.
    pub(crate) async fn ask(&mut self, request: &Request<'_>) -> Result<BytesMut, LinkError> {
        self.send(request).await?;
        self.receive().await
    }

    pub(crate) async fn close(mut self) -> Result<(), LinkError> {
        in_time(async { Ok(SinkExt::<Bytes>::close(&mut self.frames).await?) }).await
    }
}

async fn in_time<T>(step: impl Future<Output = Result<T, LinkError>>) -> Result<T, LinkError> {
    tokio::time::timeout(PATIENCE, step).await.unwrap_or(Err(LinkError::Slow))
}
