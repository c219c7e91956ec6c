//! Comparing notes with a peer, as the one who begins.
//!
//! First one hash over everything: between nodes that agree, that is all. Otherwise the fingerprints of the shards
//! say where they differ. A shard that one side does not have at all is sent page by page; the others are compared
//! by range-based set reconciliation (`negentropy`), which finds d differences among n cells in about d·log n bytes.
//! Then each side gets the cells that it lacks, in pages, and merges them as it merges everything.

use std::time::Instant;

use negentropy::{Id, Negentropy, NegentropyStorageVector};
use starfish_dht::PeerId;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    clock::now_ms,
    codec::Digest,
    fingerprint::{SHARDS, Shard},
    intake::{self, Authorship},
    memory::{Memory, Shared},
    replica::{self, MAX_COMPARED, Outgoing, ReplicaError, Sent},
    wire::{Link, LinkError, MAX_WANTED, Request, Response},
    writer::WriteError,
};

/// Steps of one negentropy exchange. It halves ranges by sixteen, so an honest peer is done in a fraction of this.
const MAX_STEPS: usize = 1024;

/// How a comparison ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Both held the same.
    Agreed,
    /// They did not, and have exchanged what the other lacked.
    Exchanged,
}

/// Why a comparison ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoundError {
    #[error("talking with the peer failed")]
    Link(#[from] LinkError),
    #[error("reading this node's cells failed")]
    Replica(#[from] ReplicaError),
    #[error("storing the peer's cells failed")]
    Write(#[from] WriteError),
    #[error("the peer's {0} makes no sense")]
    Nonsense(&'static str),
    #[error("the peer refused to {0}")]
    Refused(&'static str),
}

/// Compares notes with `peer` over `stream`.
pub(crate) async fn compare<S>(memory: &Memory, peer: PeerId, stream: S) -> Result<Outcome, RoundError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let link = Link::new(stream, &memory.shared().counters);
    let (horizon, began_ms, began) = (&memory.shared().horizon, now_ms(), Instant::now());
    let mut round =
        Round { memory, peer, link, floor: horizon.floor(&peer, began_ms), sent: Sent::default() };
    let outcome = round.run().await?;
    horizon.agreed(peer, began_ms, began);
    memory.shared().has_compared(began);
    // Both have what they wanted; that the peer is already gone changes nothing.
    let _ = round.link.close().await;
    Ok(outcome)
}

/// Fetches cells that `peer` has told of, and all that were written together with them. Whether there was anything.
pub(crate) async fn fetch<S>(
    memory: &Memory,
    peer: PeerId,
    stream: S,
    digests: Vec<Digest>,
) -> Result<bool, RoundError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let link = Link::new(stream, &memory.shared().counters);
    let mut round = Round { memory, peer, link, floor: None, sent: Sent::default() };
    let has_come = round.want(digests).await?;
    let _ = round.link.close().await;
    Ok(has_come)
}

struct Round<'a, S> {
    memory: &'a Memory,
    peer: PeerId,
    link: Link<'a, S>,
    /// The two have been apart for long: what the peer lacks of what is older is deleted here, too.
    floor: Option<u64>,
    sent: Sent,
}

/// What to do about the shards that differ.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// The peer has nothing of these.
    give: Vec<u8>,
    /// We have nothing of these.
    pull: Vec<u8>,
    /// Both have some; compared together group by group.
    reconcile: Vec<Vec<u8>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Round<'_, S> {
    async fn run(&mut self) -> Result<Outcome, RoundError> {
        let ours = self.memory.fingerprints();
        let frame = self.link.ask(&Request::Compare { root: ours.root() }).await?;
        let theirs = match parse(&frame)? {
            Response::Same => return Ok(Outcome::Agreed),
            Response::Differ { shards } if shards.len() == SHARDS => shards,
            _ => return Err(RoundError::Nonsense("answer to a comparison")),
        };
        let plan = plan(ours.shards(), &theirs);
        for group in plan.reconcile {
            self.reconcile(&group).await?;
        }
        for shard in plan.pull {
            self.pull(shard).await?;
        }
        for shard in plan.give {
            self.give(shard).await?;
        }
        Ok(Outcome::Exchanged)
    }

    async fn reconcile(&mut self, shards: &[u8]) -> Result<(), RoundError> {
        let group = shards.to_vec();
        let mut versions =
            replica::blocking(self.memory.shared(), move |shared| replica::versions(shared, &group)).await?;
        let mut message = versions.initiate().map_err(ReplicaError::from)?;
        for _ in 0..MAX_STEPS {
            let frame = self.link.ask(&Request::Reconcile { shards, message: &message }).await?;
            let answer = match parse(&frame)? {
                Response::Reconciled { message } => message,
                Response::Refused => return Err(RoundError::Refused("compare shards")),
                _ => return Err(RoundError::Nonsense("step of reconciliation")),
            };
            let step = Step::take(&mut versions, answer)?;
            self.want(step.need).await?;
            self.push(&step.have).await?;
            match step.next {
                Some(next) => message = next,
                None => return Ok(()),
            }
        }
        Err(RoundError::Nonsense("reconciliation without end"))
    }

    /// Fetches the cells with these digests; says whether there were any.
    async fn want(&mut self, mut digests: Vec<Digest>) -> Result<bool, RoundError> {
        let mut has_come = false;
        while !digests.is_empty() {
            let rest = digests.split_off(digests.len().min(MAX_WANTED));
            let wanted = digests.len();
            let frame = self.link.ask(&Request::Want { digests: digests.clone() }).await?;
            let (page, served) = match parse(&frame)? {
                Response::Cells { page, served, next: _ } => (page, served as usize),
                _ => return Err(RoundError::Nonsense("answer to a wish")),
            };
            if served == 0 || served > wanted {
                return Err(RoundError::Nonsense("count of cells"));
            }
            has_come |= !page.is_empty();
            self.merge(page).await?;
            digests.drain(..served);
            digests.extend(rest);
        }
        Ok(has_come)
    }

    /// Fetches a whole shard.
    async fn pull(&mut self, shard: u8) -> Result<(), RoundError> {
        let mut after: Option<Digest> = None;
        loop {
            let frame = self.link.ask(&Request::Pull { shard, after }).await?;
            let Response::Cells { page, served: _, next } = parse(&frame)? else {
                return Err(RoundError::Nonsense("page of a shard"));
            };
            self.merge(page).await?;
            match next {
                None => return Ok(()),
                Some(_) if next > after => after = next,
                Some(_) => return Err(RoundError::Nonsense("page that goes backwards")),
            }
        }
    }

    /// Sends the cells with these digests.
    async fn push(&mut self, digests: &[Digest]) -> Result<(), RoundError> {
        self.bury(digests).await?;
        let (mut rest, floor) = (digests, self.floor);
        while !rest.is_empty() {
            let chunk = rest[..rest.len().min(MAX_WANTED)].to_vec();
            let sent = std::mem::take(&mut self.sent);
            let read = move |shared: &Shared| replica::page_of(shared, &chunk, floor, sent);
            let outgoing = replica::blocking(self.memory.shared(), read).await?;
            self.send(&outgoing).await?;
            self.sent = outgoing.sent;
            // A page always holds at least one cell, whatever its size.
            rest = &rest[outgoing.served.max(1)..];
        }
        Ok(())
    }

    /// Sends a whole shard.
    async fn give(&mut self, shard: u8) -> Result<(), RoundError> {
        self.bury_shard(shard).await?;
        let (mut after, floor) = (None, self.floor);
        loop {
            let sent = std::mem::take(&mut self.sent);
            let read = move |shared: &Shared| replica::page_after(shared, shard, after, floor, sent);
            let outgoing = replica::blocking(self.memory.shared(), read).await?;
            self.send(&outgoing).await?;
            self.sent = outgoing.sent;
            if outgoing.next.is_none() {
                return Ok(());
            }
            after = outgoing.next;
        }
    }

    async fn bury_shard(&mut self, shard: u8) -> Result<(), RoundError> {
        let mut after = None;
        while self.floor.is_some() {
            let versions = self.memory.shared().index.after(shard, after, MAX_WANTED);
            let digests: Vec<Digest> = versions.into_iter().map(|(digest, _)| digest).collect();
            let Some(last) = digests.last() else { break };
            after = Some(*last);
            self.bury(&digests).await?;
        }
        Ok(())
    }

    /// Deletes what both held when they last agreed, and the peer no longer has.
    async fn bury(&mut self, digests: &[Digest]) -> Result<(), RoundError> {
        let Some(floor) = self.floor else { return Ok(()) };
        for digests in digests.chunks(MAX_WANTED) {
            let digests = digests.to_vec();
            let read = move |shared: &Shared| replica::burials(shared, &digests, floor);
            let burials = replica::blocking(self.memory.shared(), read).await?;
            if !burials.is_empty() {
                tracing::info!(peer = %self.peer, n = burials.len(), "deleted what was deleted while this node was away");
                self.memory.merge(burials).await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self, outgoing: &Outgoing) -> Result<(), RoundError> {
        if outgoing.page.is_empty() {
            return Ok(());
        }
        let frame = self.link.ask(&Request::Push { page: &outgoing.page }).await?;
        match parse(&frame)? {
            Response::Taken => Ok(()),
            Response::Refused => Err(RoundError::Refused("take cells")),
            _ => Err(RoundError::Nonsense("answer to cells")),
        }
    }

    async fn merge(&mut self, page: &[u8]) -> Result<(), RoundError> {
        let cells = intake::admit(self.memory.shared(), page, &self.peer, Authorship::Anybody);
        if !cells.is_empty() {
            self.memory.merge(cells).await?;
        }
        Ok(())
    }
}

/// What one step of negentropy has found.
struct Step {
    have: Vec<Digest>,
    need: Vec<Digest>,
    next: Option<Vec<u8>>,
}

impl Step {
    fn take(
        versions: &mut Negentropy<'static, NegentropyStorageVector>,
        answer: &[u8],
    ) -> Result<Self, RoundError> {
        let (mut have, mut need) = (Vec::new(), Vec::new());
        let next = versions
            .reconcile_with_ids(answer, &mut have, &mut need)
            .map_err(|_| RoundError::Nonsense("step of reconciliation"))?;
        let digests = |ids: Vec<Id>| ids.into_iter().map(Id::to_bytes).collect();
        Ok(Self { have: digests(have), need: digests(need), next })
    }
}

fn parse(frame: &[u8]) -> Result<Response<'_>, RoundError> {
    Ok(postcard::from_bytes(frame).map_err(LinkError::from)?)
}

fn plan(ours: &[Shard], theirs: &[Shard]) -> Plan {
    let mut plan = Plan::default();
    let (mut group, mut cells) = (Vec::new(), 0);
    for (number, (ours, theirs)) in (0..=u8::MAX).zip(ours.iter().zip(theirs)) {
        if ours == theirs {
            continue;
        }
        match (ours.cells, theirs.cells) {
            (_, 0) => plan.give.push(number),
            (0, _) => plan.pull.push(number),
            (a, b) => {
                let compared = u64::from(a.max(b));
                if cells + compared > MAX_COMPARED && !group.is_empty() {
                    plan.reconcile.push(std::mem::take(&mut group));
                    cells = 0;
                }
                group.push(number);
                cells += compared;
            }
        }
    }
    if !group.is_empty() {
        plan.reconcile.push(group);
    }
    plan
}

#[cfg(test)]
mod tests;
