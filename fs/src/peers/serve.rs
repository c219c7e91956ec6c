//! Answering what other nodes ask about shards.
//!
//! Whatever comes is held against this node's own view: it keeps only what the placement can give to it, from members
//! that may store, while there is room; and it gives up only what it has seen that another holds, or what is more than
//! its share.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use starfish_dht::membership::Right;
use starfish_dht::presence::Member;
use starfish_dht::rpc::{MAX_FRAME, MessageError, read_message};
use starfish_dht::{Incoming, Network, PeerId, Stream};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::wire::{Ask, Given, Held, Kept, MAX_ITEMS, MAX_PUSH, Offer, Part, Shortfall, Stretch, Want};
use super::{Peers, in_time, misfit, read_body, receive, send};
use crate::code::Code;
use crate::gather::proof::answer;
use crate::hash::BlobHash;
use crate::holders::{Handed, Holders};
use crate::index_set::IndexSet;
use crate::members::View;
use crate::place::loads;
use crate::store::{Bundle, Store, cut};
use crate::tree::{Inode, Stamp};

/// Exchanges at the same time; further streams wait unread.
const MAX_EXCHANGES: usize = 256;
/// The most bytes of a push that are held until they go to the disk together.
const MAX_INTAKE: usize = 1 << 20;
/// How long a stream may stay open with nobody asking anything.
const IDLE: Duration = Duration::from_secs(300);

/// What this node has to answer with.
pub(crate) trait Desk: Send + Sync + 'static {
    /// The members, now.
    fn view(&self) -> View;
    /// All other members that are known.
    fn members(&self) -> Vec<Member>;
    /// How many files this node knows to be below full durability.
    fn report(&self) -> Shortfall;
    /// Whether this content of an inode, or newer, is in the tree here.
    fn knows(&self, inode: &Inode, stamp: Stamp) -> bool;
    /// Brings what is known of the tree to the disk; whether it is there.
    fn flush(&self) -> BoxFuture<'_, bool>;
}

/// Answers until `stopping`.
pub(crate) async fn serve(
    mut incoming: Incoming,
    network: Network,
    store: Store,
    peers: Peers,
    desk: Arc<dyn Desk>,
    stopping: CancellationToken,
) {
    let (slots, exchanges) = (Arc::new(Semaphore::new(MAX_EXCHANGES)), TaskTracker::new());
    let holders = Holders::new(store.clone(), peers.clone());
    let clerk = Arc::new(Clerk { network, store, peers, holders, desk });
    let accept = async {
        while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
            let Some((peer, stream)) = incoming.next().await else { break };
            let (clerk, stopping) = (Arc::clone(&clerk), stopping.clone());
            exchanges.spawn(async move {
                if let Some(Err(error)) = stopping.run_until_cancelled(clerk.answer_all(peer, stream)).await {
                    tracing::debug!(%peer, %error, "an exchange about shards ended early");
                }
                drop(slot);
            });
        }
    };
    stopping.run_until_cancelled(accept).await;
    exchanges.close();
    exchanges.wait().await;
}

/// Shards of one push on their way to the disk, some at a time.
#[derive(Default)]
struct Intake {
    answers: Vec<Kept>,
    /// With the position of the answer, which is that they failed until they are kept.
    bundles: Vec<(usize, BlobHash, Bundle)>,
    bytes: usize,
}

impl Intake {
    fn is_full(&self) -> bool {
        self.bytes >= MAX_INTAKE
    }

    fn has(&self, segment: &BlobHash) -> bool {
        // Few: what is full goes to the disk.
        self.bundles.iter().any(|(_, present, _)| present == segment)
    }

    fn add(&mut self, segment: BlobHash, bundle: Bundle) {
        self.bytes += bundle.shards().values().map(Bytes::len).sum::<usize>();
        self.bundles.push((self.answers.len(), segment, bundle));
        self.answers.push(Kept::Failed);
    }
}

struct Clerk {
    network: Network,
    store: Store,
    peers: Peers,
    holders: Holders,
    desk: Arc<dyn Desk>,
}

impl Clerk {
    async fn answer_all(&self, peer: PeerId, mut stream: Stream) -> Result<(), MessageError> {
        loop {
            let asked = tokio::time::timeout(IDLE, read_message(&mut stream, MAX_FRAME)).await;
            let ask = match asked {
                Ok(Ok(ask)) => ask,
                // The end of the stream, or silence: there are no more questions.
                Ok(Err(MessageError::Io(_))) | Err(_) => return Ok(()),
                Ok(Err(error)) => return Err(error),
            };
            match ask {
                Ask::Survey(segments) => send(&mut stream, &self.survey(&segments)?).await?,
                Ask::Fetch(want) => self.give(&mut stream, &want).await?,
                Ask::Prove(stretch) => self.prove(&mut stream, &stretch).await?,
                Ask::Push(count) => self.take(peer, &mut stream, count).await?,
                Ask::Move(to, parts) => {
                    let handed = self.holders.hand_over(to, &bounded(parts)?).await;
                    let is_over = handed.iter().map(|handed| *handed == Handed::Over);
                    send(&mut stream, &is_over.collect::<Vec<_>>()).await?;
                }
                Ask::Release(kept_by, parts) => {
                    send(&mut stream, &self.release(kept_by, &bounded(parts)?).await).await?;
                }
                Ask::Report => send(&mut stream, &self.desk.report()).await?,
                Ask::Known(cells) => {
                    let cells = bounded(cells)?;
                    let mut known: Vec<bool> =
                        cells.iter().map(|(inode, stamp)| self.desk.knows(inode, *stamp)).collect();
                    // Who asks will tell that they outlive any half of the machines.
                    if known.contains(&true) && !self.desk.flush().await {
                        known.fill(false);
                    }
                    send(&mut stream, &known).await?;
                }
            }
        }
    }

    fn survey(&self, segments: &[BlobHash]) -> Result<Vec<Held>, MessageError> {
        if segments.len() > MAX_ITEMS {
            return Err(misfit());
        }
        let held = segments.iter().map(|segment| {
            Ok(Held { indices: self.store.held(segment)?, is_publishing: self.store.is_kept(segment)? })
        });
        held.collect()
    }

    async fn give(&self, stream: &mut Stream, want: &Want) -> Result<(), MessageError> {
        let has_whole = self.store.has(&want.segment)?;
        let bundle = match self.shards_for(want).await? {
            Some(bundle) => {
                bundle.only(&bundle.indices().intersection(&want.indices).first(want.limit.into()))
            }
            None => Bundle::new(want.len, std::collections::BTreeMap::new()).ok_or_else(misfit)?,
        };
        send(stream, &Given { indices: bundle.indices(), has_whole }).await?;
        for shard in bundle.shards().values() {
            in_time(async { Ok(stream.write_all(shard).await?) }).await?;
        }
        in_time(async { Ok(stream.flush().await?) }).await
    }

    /// Says of a part of a segment what its data shards here say of it.
    async fn prove(&self, stream: &mut Stream, stretch: &Stretch) -> Result<(), MessageError> {
        let wanted = stretch.wanted().ok_or_else(misfit)?;
        let (segment, len) = (stretch.segment, stretch.len);
        let data = IndexSet::range(0..Code::of(len).k());
        let mut want = Want { segment, len, indices: data, limit: Code::of(len).k(), from_whole: false };
        // Who has no shards may still have the whole, on its way to others.
        want.from_whole = self.store.held(&segment)?.is_empty();
        let shards = self.shards_for(&want).await?.map(|bundle| bundle.only(&data));
        let Some(bundle) = shards else {
            return send(stream, &Given { indices: IndexSet::default(), has_whole: false }).await;
        };
        let given = Given { indices: bundle.indices(), has_whole: false };
        let answering = tokio::task::spawn_blocking(move || answer(&bundle, &wanted));
        let body = answering.await.map_err(|error| MessageError::Io(std::io::Error::other(error)))?;
        send(stream, &given).await?;
        in_time(async { Ok(stream.write_all(&body).await?) }).await?;
        in_time(async { Ok(stream.flush().await?) }).await
    }

    /// The shards that a question can be answered from.
    async fn shards_for(&self, want: &Want) -> Result<Option<Bundle>, MessageError> {
        if want.from_whole
            && let Some(whole) = self.store.get(want.segment).await?
        {
            // Data shards alone: parity is not made for a reader.
            let is_data = |index: &u16| *index < Code::of(want.len).k() || Code::of(want.len).k() == 1;
            let indices = want.indices.first(want.limit.into()).iter().filter(is_data).collect();
            return Ok(cut(whole, vec![((), indices)]).await.and_then(|cut| Some(cut.into_iter().next()?.1)));
        }
        let is_held = !self.store.held(&want.segment)?.intersection(&want.indices).is_empty();
        if !is_held {
            return Ok(None);
        }
        let bundle = self.store.shards(want.segment).await?;
        Ok(bundle.filter(|bundle| bundle.segment_len() == want.len))
    }

    async fn take(&self, peer: PeerId, stream: &mut Stream, count: u16) -> Result<(), MessageError> {
        let view = self.desk.view();
        let may_store = self.network.rights_of(&peer).contains(Right::Store);
        let (mut intake, mut bytes) = (Intake::default(), 0);
        for _ in 0..count {
            let offer: Offer = receive(stream).await?;
            let body_len = offer.body_len().ok_or_else(misfit)?;
            bytes += body_len;
            if bytes > MAX_PUSH || usize::from(count) > MAX_ITEMS {
                return Err(misfit());
            }
            let body = read_body(stream, body_len).await?;
            // What is held of a segment is asked before more of it is added.
            if intake.is_full() || intake.has(&offer.segment) {
                self.add(&mut intake).await;
            }
            let judged = if may_store { self.judge(&view, &offer, body) } else { Err(Kept::NotMine) };
            match judged {
                Ok(bundle) => intake.add(offer.segment, bundle),
                Err(answer) => intake.answers.push(answer),
            }
        }
        self.add(&mut intake).await;
        let mut answers = intake.answers;
        if self.store.flush().await.is_err() {
            answers
                .iter_mut()
                .filter(|answer| **answer == Kept::Yes)
                .for_each(|answer| *answer = Kept::Failed);
        }
        send(stream, &answers).await
    }

    /// What is offered, if it is this node's to keep and not here.
    fn judge(&self, view: &View, offer: &Offer, body: Bytes) -> Result<Bundle, Kept> {
        let bundle = Bundle::from_body(offer.len, &offer.indices, body).ok_or(Kept::Failed)?;
        let held = self.store.held(&offer.segment).map_err(|_| Kept::Failed)?;
        let k = Code::of(offer.len).k();
        if k == 1 && !held.is_empty() {
            // One copy is as good as another.
            return Err(Kept::Yes);
        }
        let shards = held.union(&offer.indices).len();
        let local = self.network.local_peer();
        if view.may_hold(&local, &offer.segment, k, shards) { Ok(bundle) } else { Err(Kept::NotMine) }
    }

    /// Brings what was taken in to the disk.
    async fn add(&self, intake: &mut Intake) {
        let (positions, bundles): (Vec<_>, Vec<_>) =
            intake.bundles.drain(..).map(|(position, segment, bundle)| (position, (segment, bundle))).unzip();
        intake.bytes = 0;
        let segments: Vec<BlobHash> = bundles.iter().map(|(segment, _)| *segment).collect();
        if segments.is_empty() {
            return;
        }
        // Whatever is not said to be kept has failed.
        let added = self.store.add_all_shards(bundles).await.unwrap_or_default();
        for ((position, segment), added) in positions.into_iter().zip(segments).zip(added) {
            intake.answers[position] = match added {
                Ok(()) => Kept::Yes,
                Err(error) => {
                    tracing::warn!(segment = %segment.short(), %error, "shards that were offered are not kept");
                    let is_full = matches!(
                        error.kind(),
                        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
                    );
                    if is_full { Kept::NoRoom } else { Kept::Failed }
                }
            };
        }
    }

    /// Gives up shards: those that `kept_by` is seen to have, or with nobody named, those beyond this node's share.
    async fn release(&self, kept_by: Option<PeerId>, parts: &[Part]) -> Vec<bool> {
        let segments: Vec<BlobHash> = parts.iter().map(|part| part.segment).collect();
        let elsewhere = match kept_by {
            Some(peer) if peer != self.network.local_peer() => self.peers.survey(peer, &segments).await.ok(),
            _ => None,
        };
        let view = self.desk.view();
        let mut answers = Vec::with_capacity(parts.len());
        for (position, part) in parts.iter().enumerate() {
            let spare = match &elsewhere {
                Some(held) => part.indices.intersection(&held[position].indices),
                None if kept_by.is_none() => self.beyond_share(&view, part),
                None => IndexSet::default(),
            };
            let is_done = !spare.is_empty() && self.store.drop_shards(part.segment, spare).await.is_ok();
            answers.push(is_done);
        }
        answers
    }

    fn beyond_share(&self, view: &View, part: &Part) -> IndexSet {
        let held = self.store.held(&part.segment).unwrap_or_default();
        let shares = loads(Code::of(part.len).k(), view.alive.len());
        let share = shares.iter().max().map_or(usize::MAX, |share| usize::from(*share));
        let offered = held.intersection(&part.indices);
        offered.minus(&offered.first((share + offered.len()).saturating_sub(held.len())))
    }
}

fn bounded<T>(items: Vec<T>) -> Result<Vec<T>, MessageError> {
    if items.len() <= MAX_ITEMS { Ok(items) } else { Err(misfit()) }
}
