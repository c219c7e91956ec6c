//! One segment on its way: whom to ask for which of its shards, and what to do with what they give.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use starfish_dht::PeerId;

use super::{GatherError, HEDGE, Segments};
use crate::code::{Code, MAX_SHARDS};
use crate::hash::BlobHash;
use crate::index_set::IndexSet;
use crate::peers::AskError;
use crate::peers::wire::Want;
use crate::place::{loads, order};
use crate::store::{Bundle, Kind};

/// Own parity is worth decoding if it saves fetching this share of a segment: coding costs what the transfer of an eighth
/// costs on a machine's own loopback, and less than that elsewhere.
const WORTH_DECODING: u16 = 8;

type Answer = (PeerId, Want, Result<(Bundle, bool), AskError>);

/// One segment on its way.
pub(super) struct Gathering<'a> {
    segments: &'a Segments,
    segment: BlobHash,
    len: u64,
    code: Code,
    /// Who gave what; this node's own shards are under `None`.
    given: HashMap<Option<PeerId>, BTreeMap<u16, Bytes>>,
    have: IndexSet,
    /// Peers that have not been asked, those to be asked first at the end.
    fresh: Vec<PeerId>,
    /// Peers that were asked and have not answered, with the time of the question.
    waiting: HashMap<PeerId, Instant>,
    /// Peers that have answered and may have more.
    willing: Vec<PeerId>,
    with_whole: Vec<PeerId>,
    asked: HashSet<PeerId>,
    pub(super) has_fetched: bool,
}

impl<'a> Gathering<'a> {
    pub(super) fn new(segments: &'a Segments, segment: BlobHash, len: u64) -> Self {
        let others = (segments.others)();
        let mut fresh: Vec<PeerId> = order(&segment, &others).iter().map(|other| other.peer).collect();
        let now = Instant::now();
        let scores = segments.peers.scores();
        fresh.sort_by_key(|peer| !scores.is_trusted(peer, now));
        fresh.reverse();
        drop(scores);
        Self {
            segments,
            segment,
            len,
            code: Code::of(len),
            given: HashMap::new(),
            have: IndexSet::default(),
            fresh,
            waiting: HashMap::new(),
            willing: Vec::new(),
            with_whole: Vec::new(),
            asked: HashSet::new(),
            has_fetched: false,
        }
    }

    pub(super) fn failure(&self) -> GatherError {
        let (have, need) = (self.have.len(), self.code.k());
        GatherError { segment: self.segment, have, need, asked: self.asked.len() }
    }

    pub(super) async fn take_local(&mut self) {
        if let Ok(Some(bundle)) = self.segments.store.shards(self.segment).await
            && bundle.segment_len() == self.len
        {
            self.take(None, &bundle);
        }
    }

    fn take(&mut self, from: Option<PeerId>, bundle: &Bundle) {
        for (index, bytes) in bundle.shards() {
            if !self.have.contains(*index) {
                self.have.insert(*index);
                self.given.entry(from).or_default().insert(*index, bytes.clone());
            }
        }
    }

    fn missing(&self) -> usize {
        usize::from(self.code.k()).saturating_sub(self.have.len())
    }

    /// Asks in waves. A further one goes out when the one before is answered and was not enough, when it keeps
    /// everybody waiting, or when what came does not decode. Nobody who was asked is given up.
    pub(super) async fn run(&mut self) -> Option<Bytes> {
        let mut answers = FuturesUnordered::new();
        loop {
            if self.missing() == 0
                && let Some(bytes) = self.decode().await
            {
                return Some(bytes);
            }
            if answers.is_empty() || self.missing() == 0 {
                let wave = self.wave();
                if wave.is_empty() && answers.is_empty() {
                    return None;
                }
                wave.into_iter().for_each(|(peer, want)| answers.push(self.ask(peer, want)));
            }
            match tokio::time::timeout(HEDGE, answers.next()).await {
                Ok(Some(answer)) => self.on_answer(answer),
                Ok(None) => {}
                Err(_) => {
                    self.note_stalled();
                    self.wave().into_iter().for_each(|(peer, want)| answers.push(self.ask(peer, want)));
                }
            }
        }
    }

    fn ask(&self, peer: PeerId, want: Want) -> impl Future<Output = Answer> + use<> {
        let peers = self.segments.peers.clone();
        async move {
            let answer = peers.fetch(peer, want.clone()).await;
            (peer, want, answer)
        }
    }

    /// The next questions: first for what is likely to be enough; then for any shards, of those who have answered, and of
    /// those who were not asked; then for what a whole copy gives; at last of those who are known to stall or to lie.
    fn wave(&mut self) -> Vec<(PeerId, Want)> {
        let any = IndexSet::range(0..MAX_SHARDS).minus(&self.have);
        let missing = self.missing().max(1);
        if self.code.k() == 1 {
            let peers = self.next_fresh(2);
            return self.questions(peers, any, 1, true);
        }
        let trusted = self.n_trusted();
        if self.asked.is_empty() {
            return self.first_wave(trusted.max(1), any);
        }
        if !self.willing.is_empty() {
            let peers = std::mem::take(&mut self.willing);
            let each = missing.div_ceil(peers.len()) + 1;
            return self.questions(peers, any, each, false);
        }
        if trusted > 0 {
            let peers = self.next_fresh(trusted);
            return self.questions(peers, any, missing.div_ceil(trusted) + 1, false);
        }
        if let Some(peer) = self.with_whole.pop() {
            let data = IndexSet::range(0..self.code.k()).minus(&self.have);
            return self.questions(vec![peer], data, data.len(), true);
        }
        let peers = self.next_fresh(usize::MAX);
        self.questions(peers, any, missing, false)
    }

    /// The parity that is here saves as much fetching. Where that is worth decoding, as few peers as are likely to have
    /// the rest are asked for the rest: each reads and checks all that it holds of the segment, however little it gives.
    /// Otherwise all are asked for the data shards, of which each has others.
    fn first_wave(&mut self, trusted: usize, any: IndexSet) -> Vec<(PeerId, Want)> {
        let data = IndexSet::range(0..self.code.k());
        let own_parity = self.have.minus(&data).len();
        if own_parity < usize::from((self.code.k() / WORTH_DECODING).max(1)) {
            let peers = self.next_fresh(trusted);
            let wanted = data.minus(&self.have);
            return self.questions(peers, wanted, wanted.len(), false);
        }
        let share = loads(self.code.k(), self.fresh.len() + 1).last().copied().unwrap_or(1).max(1);
        let missing = self.missing();
        let peers = self.next_fresh(missing.div_ceil(share.into()).clamp(1, trusted));
        let each = missing.div_ceil(peers.len().max(1));
        self.questions(peers, any, each, false)
    }

    /// Peers that were not asked and are not known to stall or to lie; they come first.
    fn n_trusted(&self) -> usize {
        let (now, scores) = (Instant::now(), self.segments.peers.scores());
        self.fresh.iter().filter(|peer| scores.is_trusted(peer, now)).count()
    }

    fn next_fresh(&mut self, n: usize) -> Vec<PeerId> {
        let rest = self.fresh.len().saturating_sub(n);
        self.fresh.split_off(rest)
    }

    fn questions(
        &mut self,
        peers: Vec<PeerId>,
        indices: IndexSet,
        limit: usize,
        from_whole: bool,
    ) -> Vec<(PeerId, Want)> {
        if indices.is_empty() {
            return Vec::new();
        }
        self.asked.extend(&peers);
        let now = Instant::now();
        let limit = u16::try_from(limit).unwrap_or(u16::MAX);
        let want = Want { segment: self.segment, len: self.len, indices, limit, from_whole };
        self.waiting.extend(peers.iter().map(|peer| (*peer, now)));
        peers.into_iter().map(|peer| (peer, want.clone())).collect()
    }

    fn note_stalled(&mut self) {
        // When nobody answers, it is the network that is slow.
        if self.willing.is_empty() {
            return;
        }
        self.note_waiting(HEDGE);
    }

    /// Who was asked so long ago and has not answered is not asked first for a while.
    fn note_waiting(&self, long: Duration) {
        let now = Instant::now();
        let mut scores = self.segments.peers.scores();
        for (peer, _) in self.waiting.iter().filter(|(_, since)| now - **since >= long) {
            scores.stalled(*peer, now);
        }
    }

    fn on_answer(&mut self, (peer, want, answer): Answer) {
        let asked = self.waiting.remove(&peer);
        match answer {
            Ok((bundle, has_whole)) => {
                let given = bundle.shards().len();
                if given > 0 {
                    // Who was asked much earlier was overtaken.
                    let took = asked.map_or(Duration::ZERO, |since| since.elapsed());
                    self.note_waiting(took + HEDGE);
                    self.has_fetched = true;
                    let bytes = bundle.shards().values().map(|shard| shard.len() as u64).sum();
                    self.segments.fetched_bytes.fetch_add(bytes, Ordering::Relaxed);
                    self.take(Some(peer), &bundle);
                }
                // Who gave all that it was allowed to give, or was asked for data alone, may have more.
                let is_first = want.indices.len() <= usize::from(self.code.k()) && !want.from_whole;
                if is_first || (given > 0 && given == usize::from(want.limit)) {
                    self.willing.push(peer);
                }
                if has_whole && !want.from_whole && !self.with_whole.contains(&peer) {
                    self.with_whole.push(peer);
                }
            }
            Err(error) => {
                tracing::debug!(%peer, segment = %self.segment.short(), %error, "no shards");
                if matches!(error, AskError::Open(_)) {
                    self.segments.peers.scores().stalled(peer, Instant::now());
                }
            }
        }
    }

    /// The segment's bytes, if what there is gives them. Who lied is forgotten with all that it gave.
    async fn decode(&mut self) -> Option<Bytes> {
        let (code, segment) = (self.code, self.segment);
        let given = self.given.clone();
        let decoded = tokio::task::spawn_blocking(move || decode_without_liars(code, &segment, &given)).await;
        let (bytes, liars) = decoded.ok()??;
        for liar in liars {
            self.given.remove(&liar);
            let Some(peer) = liar else {
                // Own shards passed their check when they were read: they were wrong when they came.
                let _ = self.segments.store.remove(Kind::Shards, segment).await;
                continue;
            };
            let times = self.segments.peers.scores().lied(peer, Instant::now());
            tracing::warn!(%peer, %segment, times, "a peer gave wrong bytes");
        }
        Some(bytes)
    }
}

/// Decodes with all givers, then without each in turn, and names those whose shards do not fit the result.
fn decode_without_liars(
    code: Code,
    segment: &BlobHash,
    given: &HashMap<Option<PeerId>, BTreeMap<u16, Bytes>>,
) -> Option<(Bytes, Vec<Option<PeerId>>)> {
    let decode = |suspect: Option<&Option<PeerId>>| {
        let decoded = code.decode(&all_but(given, suspect)).ok();
        decoded.filter(|bytes| BlobHash::of(bytes) == *segment)
    };
    // If everything together decodes, nobody lied as far as it mattered.
    if let Some(bytes) = decode(None) {
        return Some((bytes, Vec::new()));
    }
    let bytes = given.keys().find_map(|suspect| decode(Some(suspect)))?;
    let lied = |shards: &BTreeMap<u16, Bytes>| {
        let indices: Vec<u16> = shards.keys().copied().collect();
        code.shards(&bytes, &indices).is_ok_and(|right| right.iter().ne(shards.values()))
    };
    let liars = given.iter().filter(|(_, shards)| lied(shards)).map(|(giver, _)| *giver).collect();
    Some((bytes, liars))
}

fn all_but(
    given: &HashMap<Option<PeerId>, BTreeMap<u16, Bytes>>,
    without: Option<&Option<PeerId>>,
) -> BTreeMap<u16, Bytes> {
    let kept = given.iter().filter(|(giver, _)| Some(*giver) != without);
    kept.flat_map(|(_, shards)| shards.iter().map(|(index, bytes)| (*index, bytes.clone()))).collect()
}
