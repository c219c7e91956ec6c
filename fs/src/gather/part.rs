//! Reading a part of a segment without the rest: only the bytes that it touches are fetched, and what proves them.
//!
//! That takes an answer of whoever holds data shards, so it is for readers who want little and come back seldom. Who reads
//! on, or comes back often, gets the whole segment, and from then on what it reads is here.

use std::ops::Range;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::proof::{Proof, answer, is_provable};
use super::{GatherError, HEDGE, Segments, lock};
use crate::code::Code;
use crate::hash::BlobHash;
use crate::manifest::Segment;
use crate::peers::wire::Stretch;
use crate::recent::Recent;

/// Shorter segments are fetched whole: that is as fast.
const MIN_LEN: u64 = 64 << 10;
/// Once this share of a segment was read in parts, the whole is fetched instead.
const WHOLE_FROM: u64 = 4;
/// Who goes on within this distance of where it stopped reads the file, and not a part of it.
const NEAR: u64 = 64 << 10;
/// Segments of which parts were read lately that are remembered.
const MAX_PARTED: usize = 1024;

/// What was read in parts lately.
#[derive(Debug, Default)]
pub(super) struct Parts(Recent<Parted, MAX_PARTED>);

#[derive(Clone, Copy, Debug, Default)]
struct Parted {
    fetched: u64,
    end: u64,
}

impl Segments {
    /// A part of a segment, without the rest of it where that saves something.
    pub(crate) async fn get_part(&self, segment: Segment, wanted: Range<u64>) -> Result<Bytes, GatherError> {
        let len = u64::from(segment.len);
        let part = async |segments: &Self| {
            let whole = segments.get(segment.hash, len).await?;
            Ok(whole.slice(wanted.start as usize..wanted.end as usize))
        };
        let is_short = len < MIN_LEN || (wanted.end - wanted.start) * WHOLE_FROM > len;
        if is_short || !is_provable(len, &wanted) || self.is_at_hand(&segment) {
            return part(self).await;
        }
        if !lock(&self.parts).is_worth_it(segment.hash, len, &wanted) {
            return part(self).await;
        }
        let mut proved = std::pin::pin!(self.prove(segment, wanted.clone()));
        match tokio::time::timeout(HEDGE, &mut proved).await {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => part(self).await,
            // Somebody stalls. Others may have enough for the whole.
            Err(_) => {
                let mut whole = std::pin::pin!(part(self));
                tokio::select! {
                    Some(bytes) = proved => Ok(bytes),
                    whole = &mut whole => whole,
                }
            }
        }
    }

    /// Whether nothing must be fetched for a segment, or nearly nothing.
    fn is_at_hand(&self, segment: &Segment) -> bool {
        self.hot(&segment.hash).is_some()
            || self.held_bytes(segment).is_ok_and(|held| held >= u64::from(segment.len))
    }

    /// Asks all for what they know of a part. `None` if that does not make the part, or not the right one; who lied is
    /// found when the whole is fetched.
    async fn prove(&self, segment: Segment, wanted: Range<u64>) -> Option<Bytes> {
        let len = u64::from(segment.len);
        let mut proof = Proof::new(segment.hash, len, wanted.clone());
        if let Ok(Some(bundle)) = self.store.shards(segment.hash).await
            && bundle.segment_len() == len
        {
            let own = wanted.clone();
            let data = bundle.only(&(0..Code::of(len).k()).collect());
            let indices = data.indices();
            let body = tokio::task::spawn_blocking(move || answer(&data, &own)).await.ok()?;
            proof.add(&indices, body.into());
        }
        let stretch = Stretch { segment: segment.hash, len, start: wanted.start, end: wanted.end };
        let others = (self.others)();
        let ask = |peer| self.peers.prove(peer, stretch.clone());
        let mut answers: FuturesUnordered<_> = others.iter().map(|other| ask(other.peer)).collect();
        while !proof.is_complete()
            && let Some(answer) = answers.next().await
        {
            let Ok((indices, body)) = answer else { continue };
            self.fetched_bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
            lock(&self.parts).fetched(segment.hash, body.len() as u64);
            proof.add(&indices, body);
        }
        let part = proof.is_complete().then(|| tokio::task::spawn_blocking(move || proof.part()))?;
        part.await.ok()?
    }
}

impl Parts {
    /// Whether a part of this segment should be fetched by itself. It is taken for read.
    fn is_worth_it(&mut self, segment: BlobHash, len: u64, wanted: &Range<u64>) -> bool {
        let Some(known) = self.0.get_mut(&segment) else {
            return self.0.note(segment, Parted { fetched: 0, end: wanted.end });
        };
        let goes_on = (known.end.saturating_sub(NEAR)..=known.end + NEAR).contains(&wanted.start);
        known.end = wanted.end;
        !goes_on && known.fetched * WHOLE_FROM < len
    }

    fn fetched(&mut self, segment: BlobHash, bytes: u64) {
        if let Some(known) = self.0.get_mut(&segment) {
            known.fetched += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_on_or_comes_back_often_gets_the_whole() {
        let (mut parts, len) = (Parts::default(), 1 << 20);
        let (a, b) = (BlobHash::of(b"a"), BlobHash::of(b"b"));
        assert!(parts.is_worth_it(a, len, &(0..1000)));
        assert!(parts.is_worth_it(b, len, &(1000..2000)), "another segment");
        assert!(parts.is_worth_it(a, len, &(500_000..501_000)), "far from there");
        assert!(!parts.is_worth_it(a, len, &(501_000..502_000)), "behind what was read");
        parts.fetched(a, len / 4);
        assert!(!parts.is_worth_it(a, len, &(900_000..901_000)), "a quarter was fetched by now");
        for n in 0..MAX_PARTED as u64 {
            parts.is_worth_it(BlobHash::of(&n.to_le_bytes()), len, &(0..10));
        }
        assert!(parts.0.len() <= MAX_PARTED && parts.0.get_mut(&a).is_none());
    }
}
