//! Comparing notes with a peer, as the one who begins.
//!
//! First one hash over everything: between nodes that agree, that is all. Otherwise the fingerprints of the shards
//! say where they differ. A shard that one side does not have at all is sent page by page; the others are compared
//! by range-based set reconciliation (`negentropy`), which finds d differences among n cells in about d·log n bytes.
//! Then each side gets the cells that it lacks, in pages, and merges them as it merges everything.

use negentropy::{Id, Negentropy, NegentropyStorageVector};
use starfish_dht::PeerId;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    codec::Digest,
    fingerprint::{SHARDS, Shard},
    intake::{self, Authorship},
    memory::Memory,
    replica::{self, MAX_COMPARED, Outgoing, ReplicaError},
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
    let mut round = Round { memory, peer, link };
    let outcome = round.run().await?;
    // Both have what they wanted; that the peer is already gone changes nothing.
    let _ = round.link.close().await;
    Ok(outcome)
}

struct Round<'a, S> {
    memory: &'a Memory,
    peer: PeerId,
    link: Link<'a, S>,
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

    /// Fetches the cells with these digests.
    async fn want(&mut self, mut digests: Vec<Digest>) -> Result<(), RoundError> {
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
            self.merge(page).await?;
            digests.drain(..served);
            digests.extend(rest);
        }
        Ok(())
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
        let mut rest = digests;
        while !rest.is_empty() {
            let chunk = rest[..rest.len().min(MAX_WANTED)].to_vec();
            let outgoing =
                replica::blocking(self.memory.shared(), move |shared| replica::page_of(shared, &chunk))
                    .await?;
            self.send(&outgoing).await?;
            // A page always holds at least one cell, whatever its size.
            rest = &rest[outgoing.served.max(1)..];
        }
        Ok(())
    }

    /// Sends a whole shard.
    async fn give(&mut self, shard: u8) -> Result<(), RoundError> {
        let mut after = None;
        loop {
            let outgoing = replica::blocking(self.memory.shared(), move |shared| {
                replica::page_after(shared, shard, after)
            })
            .await?;
            self.send(&outgoing).await?;
            if outgoing.next.is_none() {
                return Ok(());
            }
            after = outgoing.next;
        }
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
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::vec, prelude::*};
    use tempfile::TempDir;

    use super::*;
    use crate::{answer::answer, cell::Cell, cell::tests::any_cell, memory::Memory, space::Space};

    struct Node {
        peer: PeerId,
        memory: Memory,
        _dir: TempDir,
    }

    fn node() -> Node {
        let (peer, dir) = (PeerId::random(), tempfile::tempdir().unwrap());
        Node { peer, memory: Memory::open(dir.path(), &peer).unwrap(), _dir: dir }
    }

    fn space(node: &Node) -> Space {
        node.memory.space("app").unwrap()
    }

    async fn fill(node: &Node, keys: std::ops::Range<usize>, size: usize) {
        let keys: Vec<usize> = keys.collect();
        for chunk in keys.chunks(200) {
            let mut batch = space(node).batch();
            for key in chunk {
                batch.put(format!("k{key}"), "", vec![b'v'; size]);
            }
            node.memory.commit(batch).await.unwrap();
        }
    }

    /// One comparison, over a pipe.
    async fn sync(asking: &Node, asked: &Node) -> Outcome {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let answering = answer(&asked.memory, asking.peer, theirs);
        let (outcome, answered) = tokio::join!(compare(&asking.memory, asked.peer, ours), answering);
        answered.unwrap();
        outcome.unwrap()
    }

    fn agree(a: &Node, b: &Node) -> bool {
        a.memory.digest() == b.memory.digest()
    }

    fn traffic(node: &Node) -> u64 {
        let stats = node.memory.stats();
        stats.sync_bytes_sent + stats.sync_bytes_received
    }

    #[tokio::test]
    async fn nothing_to_say_takes_less_than_200_bytes() {
        let (a, b) = (node(), node());
        fill(&a, 0..500, 10).await;
        assert_eq!(sync(&a, &b).await, Outcome::Exchanged);
        assert!(agree(&a, &b));
        let before = traffic(&a);
        assert_eq!(sync(&a, &b).await, Outcome::Agreed);
        assert!(traffic(&a) - before < 200, "{}", traffic(&a) - before);
    }

    #[tokio::test]
    async fn both_sides_get_what_they_lack_whoever_begins() {
        let (a, b) = (node(), node());
        fill(&a, 0..600, 10).await;
        fill(&b, 400..1000, 10).await;
        sync(&a, &b).await;
        assert!(agree(&a, &b));
        assert_eq!(space(&a).scan(b"", None, 2000).await.unwrap().len(), 1000);
        space(&b).delete(b"k1").await.unwrap();
        space(&a).set(b"k2", "new".into(), None).await.unwrap();
        sync(&b, &a).await;
        assert!(agree(&a, &b));
        assert_eq!(space(&a).get(b"k1").await.unwrap(), None);
        assert_eq!(space(&b).get(b"k2").await.unwrap().unwrap(), "new");
    }

    #[tokio::test]
    async fn pages_carry_more_than_a_frame_can_hold() {
        let (a, b) = (node(), node());
        fill(&a, 0..600, 15_000).await;
        sync(&b, &a).await;
        assert!(agree(&a, &b));
        fill(&a, 0..300, 15_001).await;
        sync(&b, &a).await;
        assert!(agree(&a, &b));
        fill(&b, 300..600, 15_002).await;
        sync(&b, &a).await;
        assert!(agree(&a, &b));
    }

    #[tokio::test]
    async fn a_few_differences_among_many_cells_cost_a_few_bytes() {
        let (a, b) = (node(), node());
        fill(&a, 0..10_000, 10).await;
        sync(&b, &a).await;
        fill(&a, 0..20, 10).await;
        let before = traffic(&b);
        sync(&b, &a).await;
        assert!(agree(&a, &b));
        // The fingerprints of all shards are 11 KiB of it.
        assert!(traffic(&b) - before < 32 * 1024, "{}", traffic(&b) - before);
    }

    #[tokio::test]
    async fn a_peer_that_talks_nonsense_is_left_alone() {
        use tokio::io::AsyncWriteExt;

        let node = node();
        fill(&node, 0..10, 10).await;
        for noise in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xFF; 64], &[0, 0, 0, 3, 9, 9, 9], &[0, 0, 0, 1]] {
            let (mut ours, theirs) = tokio::io::duplex(1024);
            ours.write_all(noise).await.unwrap();
            ours.shutdown().await.unwrap();
            assert!(answer(&node.memory, PeerId::random(), theirs).await.is_err(), "{noise:?}");
        }
    }

    #[tokio::test]
    async fn malformed_and_future_cells_are_refused_counted_and_named() {
        let (a, b) = (node(), node());
        let mut future = any_value(&a);
        future.stamp.time += 3600 << 32;
        let good = any_value(&a);
        let mut page = crate::page::Page::new(&[], 4096);
        for cell in [&future, &good] {
            page.push(&crate::codec::encode(cell).unwrap());
        }
        let mut page = page.into_bytes();
        page.extend_from_slice(&[3, b'?', 0, 0, 0]);
        let admitted = intake::admit(b.memory.shared(), &page, &a.peer, Authorship::Anybody);
        assert_eq!(admitted, [good.clone()]);
        let stats = b.memory.stats();
        assert_eq!((stats.refused_future, stats.refused_malformed), (1, 1));
        assert_eq!(stats.offenders[0].author, a.memory.author());

        let stranger = PeerId::random();
        let mut page = crate::page::Page::new(&[], 4096);
        page.push(&crate::codec::encode(&good).unwrap());
        assert!(intake::admit(b.memory.shared(), &page.into_bytes(), &stranger, Authorship::Own).is_empty());
        assert_eq!(b.memory.stats().refused_author, 1);
    }

    fn any_value(author: &Node) -> Cell {
        Cell {
            space: crate::SpaceName::new("app").unwrap(),
            key: "k".into(),
            field: "".into(),
            stamp: crate::Stamp { time: author.memory.shared().clock.tick(), author: author.memory.author() },
            content: crate::Content::Value("v".into()),
            expires_ms: None,
        }
    }

    fn held(node: &Node) -> BTreeSet<(Vec<u8>, Vec<u8>)> {
        let mut all = BTreeSet::new();
        for name in ["a", "b"] {
            let visit = &mut |cell: &Cell| {
                let encoded = crate::codec::encode(cell).unwrap();
                all.insert((encoded.address, encoded.record));
            };
            node.memory.space(name).unwrap().for_each_cell(b"", visit).unwrap();
        }
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// The reference model: a map from address to the greatest version.
        #[test]
        fn replicas_agree_with_the_model_whatever_arrived_in_whatever_order(
            first in vec(vec(any_cell(), 0..5), 0..6), second in vec(vec(any_cell(), 0..5), 0..6),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (a, b) = (node(), node());
                let mut model = std::collections::BTreeMap::<Vec<u8>, Cell>::new();
                for (node, batches) in [(&a, &first), (&b, &second)] {
                    for batch in batches {
                        node.memory.merge(batch.clone()).await.unwrap();
                    }
                    // Duplicates and old news change nothing.
                    for batch in batches.iter().rev() {
                        node.memory.merge(batch.clone()).await.unwrap();
                    }
                }
                for cell in first.iter().chain(&second).flatten() {
                    let address = crate::codec::encode(cell).unwrap().address;
                    if model.get(&address).is_none_or(|held| cell.supersedes(held)) {
                        model.insert(address, cell.clone());
                    }
                }
                sync(&a, &b).await;
                let model: BTreeSet<_> = model
                    .iter()
                    .map(|(address, cell)| (address.clone(), crate::codec::encode(cell).unwrap().record))
                    .collect();
                assert_eq!(held(&a), model);
                assert_eq!(held(&b), model);
                assert!(agree(&a, &b));
            });
        }
    }

    #[test]
    fn large_shards_are_compared_a_few_at_a_time() {
        let mut shard = Shard { cells: 30_000, ..Shard::default() };
        let ours = vec![shard; SHARDS];
        shard.cells += 1;
        let mut theirs = vec![shard; SHARDS];
        theirs[7].cells = 0;
        let plan = plan(&ours, &theirs);
        assert_eq!(plan.give, [7]);
        assert!(plan.pull.is_empty());
        assert_eq!(plan.reconcile.iter().map(Vec::len).max(), Some(2));
        assert_eq!(plan.reconcile.concat().len(), SHARDS - 1);
    }
}
