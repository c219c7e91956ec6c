//! Asking other nodes for shards, and giving them shards to keep.
//!
//! [`wire`] is what is said, [`serve`] the answering side, [`score`] whom to ask first. Streams are kept open and used
//! again, since opening one costs a round trip.

pub(crate) mod score;
pub(crate) mod serve;
pub(crate) mod wire;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use starfish_dht::rpc::{MAX_FRAME, MessageError, read_message, write_message};
use starfish_dht::{Network, OpenError, PeerId, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::code::Code;
use crate::gather::proof::answer_len;
use crate::hash::BlobHash;
use crate::index_set::IndexSet;
use crate::store::Bundle;
use crate::tree::{Inode, Stamp};
use score::Scores;
use wire::{Ask, Given, Held, Kept, MAX_ITEMS, Part, Shortfall, Stretch, Want};

/// Idle streams kept for each peer.
const MAX_IDLE: usize = 16;
/// How long a peer may take for an answer, or for the next piece of a long one.
const PATIENCE: Duration = Duration::from_secs(15);
/// How much a peer must at least send within [`PATIENCE`].
const READ_STEP: usize = 256 * 1024;
/// How much is asked of a stream at once. It has some packets' worth, as a rule, and clears all that it is given to fill.
const READ_AT_ONCE: usize = 32 * 1024;
/// The most that is reserved for what a peer says will come: more than the shards of most segments.
const MAX_RESERVED: usize = 8 << 20;

/// The other nodes, as far as shards go. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    network: Network,
    idle: Arc<Mutex<HashMap<PeerId, Vec<Stream>>>>,
    scores: Arc<Mutex<Scores>>,
}

/// Why a peer did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// No stream to it.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The exchange broke.
    #[error("the exchange with {peer} broke")]
    Broken {
        /// Who was asked.
        peer: PeerId,
        /// What went wrong.
        #[source]
        source: MessageError,
    },
    /// It took too long.
    #[error("{0} did not answer in time")]
    TimedOut(PeerId),
    /// It answered something else.
    #[error("{0} answered what was not asked")]
    Senseless(PeerId),
}

impl Peers {
    pub(crate) fn new(network: Network) -> Self {
        Self { network, idle: Arc::default(), scores: Arc::default() }
    }

    /// This node.
    pub(crate) fn local(&self) -> PeerId {
        self.network.local_peer()
    }

    /// What `peer` holds of these segments.
    pub(crate) async fn survey(&self, peer: PeerId, segments: &[BlobHash]) -> Result<Vec<Held>, AskError> {
        let mut all = Vec::with_capacity(segments.len());
        for part in segments.chunks(MAX_ITEMS) {
            let held: Vec<Held> = self.call(peer, &Ask::Survey(part.to_vec())).await?;
            if held.len() != part.len() {
                return Err(AskError::Senseless(peer));
            }
            all.extend(held);
        }
        Ok(all)
    }

    /// Shards that `peer` gives, and whether it has the whole.
    pub(crate) async fn fetch(&self, peer: PeerId, want: Want) -> Result<(Bundle, bool), AskError> {
        let (len, indices, limit) = (want.len, want.indices, usize::from(want.limit));
        let ask = Ask::Fetch(want);
        self.exchange(peer, &ask, async move |stream| {
            let given: Given = receive(stream).await?;
            let part = Part { segment: BlobHash::from_bytes([0; 32]), len, indices: given.indices };
            let is_asked = given.indices.minus(&indices).is_empty() && given.indices.len() <= limit;
            let body_len = part.body_len().filter(|_| is_asked).ok_or_else(misfit)?;
            let body = read_body(stream, body_len).await?;
            let bundle = Bundle::from_body(len, &given.indices, body).ok_or_else(misfit)?;
            Ok((bundle, given.has_whole))
        })
        .await
    }

    /// What `peer` says of a part of a segment, and of which data shards it speaks.
    pub(crate) async fn prove(&self, peer: PeerId, stretch: Stretch) -> Result<(IndexSet, Bytes), AskError> {
        let ask = Ask::Prove(stretch.clone());
        self.exchange(peer, &ask, async move |stream| {
            let Given { indices, .. } = receive(stream).await?;
            let data = IndexSet::range(0..Code::of(stretch.len).k());
            let wanted = stretch.wanted().filter(|_| indices.minus(&data).is_empty()).ok_or_else(misfit)?;
            let body = read_body(stream, answer_len(stretch.len, &indices, &wanted)).await?;
            Ok((indices, body))
        })
        .await
    }

    /// Has `peer` keep shards; what became of each, when they outlive a crash there.
    pub(crate) async fn push(
        &self,
        peer: PeerId,
        bundles: &[(BlobHash, Bundle)],
    ) -> Result<Vec<Kept>, AskError> {
        let count = u16::try_from(bundles.len()).unwrap_or(u16::MAX);
        let kept: Vec<Kept> = self
            .exchange(peer, &Ask::Push(count), async |stream| {
                for (segment, bundle) in bundles.iter().take(count.into()) {
                    let (len, indices) = (bundle.segment_len(), bundle.indices());
                    let offer = Part { segment: *segment, len, indices };
                    in_time(write_message(stream, &offer)).await?;
                    for shard in bundle.shards().values() {
                        in_time(async { Ok(stream.write_all(shard).await?) }).await?;
                    }
                }
                in_time(async { Ok(stream.flush().await?) }).await?;
                receive(stream).await
            })
            .await?;
        if kept.len() == bundles.len() { Ok(kept) } else { Err(AskError::Senseless(peer)) }
    }

    /// Has `from` give shards to `to`; whether it did, for each.
    pub(crate) async fn move_shards(
        &self,
        from: PeerId,
        to: PeerId,
        parts: Vec<Part>,
    ) -> Result<Vec<bool>, AskError> {
        self.booleans(from, parts.len(), &Ask::Move(to, parts)).await
    }

    /// Has `peer` keep shards no longer; whether it agreed, for each.
    pub(crate) async fn release(
        &self,
        peer: PeerId,
        kept_by: Option<PeerId>,
        parts: Vec<Part>,
    ) -> Result<Vec<bool>, AskError> {
        self.booleans(peer, parts.len(), &Ask::Release(kept_by, parts)).await
    }

    /// Whether `peer` has seen this content of inodes, or newer.
    pub(crate) async fn known(&self, peer: PeerId, cells: &[(Inode, Stamp)]) -> Result<Vec<bool>, AskError> {
        self.booleans(peer, cells.len(), &Ask::Known(cells.to_vec())).await
    }

    /// What is remembered of peers.
    pub(crate) fn scores(&self) -> MutexGuard<'_, Scores> {
        self.scores.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `peer` knows to be below full durability.
    pub(crate) async fn report(&self, peer: PeerId) -> Result<Shortfall, AskError> {
        self.call(peer, &Ask::Report).await
    }

    async fn booleans(&self, peer: PeerId, n: usize, ask: &Ask) -> Result<Vec<bool>, AskError> {
        let answers: Vec<bool> = self.call(peer, ask).await?;
        if answers.len() == n { Ok(answers) } else { Err(AskError::Senseless(peer)) }
    }

    async fn call<R: DeserializeOwned>(&self, peer: PeerId, ask: &Ask) -> Result<R, AskError> {
        self.exchange(peer, ask, async |stream| receive(stream).await).await
    }

    async fn exchange<R, F>(&self, peer: PeerId, ask: &Ask, rest: F) -> Result<R, AskError>
    where
        F: AsyncFnOnce(&mut Stream) -> Result<R, MessageError>,
    {
        let mut stream = self.stream(peer, ask).await?;
        let answered = rest(&mut stream).await;
        match answered {
            Ok(answer) => {
                self.scores().answered(&peer);
                self.keep(peer, stream);
                Ok(answer)
            }
            Err(MessageError::Io(error)) if error.kind() == io::ErrorKind::TimedOut => {
                self.scores().stalled(peer, Instant::now());
                Err(AskError::TimedOut(peer))
            }
            Err(source) => Err(AskError::Broken { peer, source }),
        }
    }

    /// A stream on which the question has been asked: one that is open already, if it still takes a question.
    async fn stream(&self, peer: PeerId, ask: &Ask) -> Result<Stream, AskError> {
        while let Some(mut stream) = self.take_idle(peer) {
            if in_time(write_message(&mut stream, ask)).await.is_ok() {
                return Ok(stream);
            }
        }
        let mut stream = self.network.open(peer, wire::NAME).await?;
        match in_time(write_message(&mut stream, ask)).await {
            Ok(()) => Ok(stream),
            Err(source) => Err(AskError::Broken { peer, source }),
        }
    }

    fn take_idle(&self, peer: PeerId) -> Option<Stream> {
        self.idle().get_mut(&peer).and_then(Vec::pop)
    }

    fn keep(&self, peer: PeerId, stream: Stream) {
        let mut idle = self.idle();
        let streams = idle.entry(peer).or_default();
        if streams.len() < MAX_IDLE {
            streams.push(stream);
        }
    }

    /// Forgets the streams to peers that are not connected any more.
    pub(crate) fn tidy(&self) {
        self.idle().retain(|peer, _| self.network.is_connected(peer));
    }

    fn idle(&self) -> MutexGuard<'_, HashMap<PeerId, Vec<Stream>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn receive<R: DeserializeOwned>(stream: &mut Stream) -> Result<R, MessageError> {
    in_time(read_message(stream, MAX_FRAME)).await
}

async fn send<T: Serialize>(stream: &mut Stream, message: &T) -> Result<(), MessageError> {
    in_time(write_message(stream, message)).await
}

/// Reads bytes that a peer announced; the system gives memory as they come.
async fn read_body<R: AsyncRead + Unpin>(stream: &mut R, len: usize) -> Result<Bytes, MessageError> {
    let mut body = BytesMut::with_capacity(len.min(MAX_RESERVED));
    while body.len() < len {
        let step = len.min(body.len() + READ_STEP);
        in_time(async {
            while body.len() < step {
                let left = (step - body.len()).min(READ_AT_ONCE);
                if stream.read_buf(&mut (&mut body).limit(left)).await? == 0 {
                    return Err(MessageError::Io(io::ErrorKind::UnexpectedEof.into()));
                }
            }
            Ok(())
        })
        .await?;
    }
    Ok(body.freeze())
}

async fn in_time<T>(work: impl Future<Output = Result<T, MessageError>>) -> Result<T, MessageError> {
    let late = || MessageError::Io(io::ErrorKind::TimedOut.into());
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| Err(late()))
}

fn misfit() -> MessageError {
    MessageError::Io(io::Error::new(io::ErrorKind::InvalidData, "the answer does not fit the question"))
}
