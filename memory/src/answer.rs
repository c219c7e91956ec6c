//! Comparing notes with a peer, as the one who was asked.
//!
//! Nothing is remembered between requests but the set under comparison, and that only to save reading it again.

use std::time::Instant;

use negentropy::{Negentropy, NegentropyStorageVector};
use starfish_dht::PeerId;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    clock::now_ms,
    codec::Digest,
    intake::{self, Authorship},
    memory::{Memory, Shared},
    reconcile::RoundError,
    replica::{self, Outgoing, Sent},
    wire::{Link, LinkError, MAX_WANTED, Request, Response},
};

/// Answers `peer` until it ends the exchange.
pub(crate) async fn answer<S>(memory: &Memory, peer: PeerId, stream: S) -> Result<(), RoundError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let link = Link::new(stream, &memory.shared().counters);
    let mut answerer = Answerer { memory, peer, link, compared: None, sent: Sent::default() };
    loop {
        let frame = match answerer.link.receive().await {
            Ok(frame) => frame,
            Err(LinkError::Ended) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        answerer.answer(postcard::from_bytes(&frame).map_err(LinkError::from)?).await?;
    }
}

struct Answerer<'a, S> {
    memory: &'a Memory,
    peer: PeerId,
    link: Link<'a, S>,
    compared: Option<Compared>,
    sent: Sent,
}

/// A set under comparison.
struct Compared {
    shards: Vec<u8>,
    versions: Negentropy<'static, NegentropyStorageVector>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Answerer<'_, S> {
    async fn answer(&mut self, request: Request<'_>) -> Result<(), RoundError> {
        match request {
            Request::Compare { root } => self.compare(root).await,
            Request::Reconcile { shards, message } => self.reconcile(shards, message).await,
            Request::Want { digests } => self.want(digests).await,
            Request::Pull { shard, after } => self.pull(shard, after).await,
            Request::Push { page } => self.take(page).await,
        }
    }

    async fn compare(&mut self, root: [u8; 32]) -> Result<(), RoundError> {
        let ours = self.memory.fingerprints();
        let response = match ours.root() == root {
            true => {
                self.memory.shared().horizon.agreed(self.peer, now_ms(), Instant::now());
                Response::Same
            }
            false => Response::Differ { shards: ours.shards().to_vec() },
        };
        Ok(self.link.send(&response).await?)
    }

    async fn reconcile(&mut self, shards: &[u8], message: &[u8]) -> Result<(), RoundError> {
        let distinct = shards.is_sorted_by(|a, b| a < b);
        if !distinct || replica::too_many(&self.memory.fingerprints(), shards) {
            return self.refuse().await;
        }
        let mut compared = match self.compared.take().filter(|compared| compared.shards == shards) {
            Some(compared) => compared,
            None => {
                let group = shards.to_vec();
                let shared = self.memory.shared();
                let versions =
                    replica::blocking(shared, move |shared| replica::versions(shared, &group)).await?;
                Compared { shards: shards.to_vec(), versions }
            }
        };
        let Ok(message) = compared.versions.reconcile(message) else { return self.refuse().await };
        self.compared = Some(compared);
        Ok(self.link.send(&Response::Reconciled { message: &message }).await?)
    }

    async fn want(&mut self, digests: Vec<Digest>) -> Result<(), RoundError> {
        if digests.len() > MAX_WANTED {
            return self.refuse().await;
        }
        let (shared, floor) = (self.memory.shared(), self.floor());
        let sent = std::mem::take(&mut self.sent);
        let read = move |shared: &Shared| replica::page_of(shared, &digests, floor, sent);
        let outgoing = replica::blocking(shared, read).await?;
        self.send(outgoing).await
    }

    async fn pull(&mut self, shard: u8, after: Option<Digest>) -> Result<(), RoundError> {
        let (shared, floor) = (self.memory.shared(), self.floor());
        let sent = std::mem::take(&mut self.sent);
        let read = move |shared: &Shared| replica::page_after(shared, shard, after, floor, sent);
        let outgoing = replica::blocking(shared, read).await?;
        self.send(outgoing).await
    }

    async fn take(&mut self, page: &[u8]) -> Result<(), RoundError> {
        let cells = intake::admit(self.memory.shared(), page, &self.peer, Authorship::Anybody);
        if !cells.is_empty() {
            self.memory.merge(cells).await?;
        }
        Ok(self.link.send(&Response::Taken).await?)
    }

    /// What this node is to bury when it begins itself, it does not hand out; nobody can make it bury by asking.
    fn floor(&self) -> Option<u64> {
        self.memory.shared().horizon.floor(&self.peer, now_ms())
    }

    async fn send(&mut self, outgoing: Outgoing) -> Result<(), RoundError> {
        let Outgoing { page, served, next, sent } = outgoing;
        self.sent = sent;
        let served = u32::try_from(served).unwrap_or(u32::MAX);
        Ok(self.link.send(&Response::Cells { page: &page, served, next }).await?)
    }

    async fn refuse(&mut self) -> Result<(), RoundError> {
        Ok(self.link.send(&Response::Refused).await?)
    }
}
