//! Erasure coding of one segment: any `k` of its shards give it back.
//!
//! The code depends on the segment's length alone and never on who is in the swarm. So shards that were once made
//! stay good for ever: when nodes come and go, shards move or further ones are made, and nothing is coded anew.
//! Shards below `k` are the segment itself, cut evenly (the last ones padded with zeros); those from `k` on are
//! parity (Reed-Solomon over 16-bit symbols, `reed-solomon-simd`). With `k` = 1, every shard is the segment.
//!
//! `k` is large, so that shards can be spread evenly over any number of nodes: with `k` = 240, every swarm of 2 to
//! 64 nodes can lose any half of itself at an overhead of at most 2.09 times (see [`crate::place`]).
//!
//! Shards carry no proof of their own. What is decoded is checked against the segment's hash, which tells whether all
//! of them were right.
//!
//! Coding is fast while what it works on fits a core's cache, so shards are coded a stripe at a time. That changes no
//! bit of them.

mod engine;

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use reed_solomon_simd::engine::DefaultEngine;
use reed_solomon_simd::rate::{LowRateDecoder, LowRateEncoder, RateDecoder, RateEncoder};

use engine::Remembering;

/// The most data shards that a segment is cut into.
// WIRE: this and [`MIN_SHARD`] say how a segment of a given length is cut, on every node and for ever.
pub(crate) const MAX_DATA: u16 = 240;
/// Segments are not cut into shards of fewer bytes, but for the rounding.
const MIN_SHARD: u64 = 4096;
/// Bytes of each shard that are coded at a time: of 512 shards, the most that are decoded from, they make 768 KiB. The
/// code works on 64 bytes together, so a multiple of that gives the same shards as all at once.
const STRIPE: usize = 1536;
/// Shards are numbered below this. More than [`crate::place`] ever asks for.
pub(crate) const MAX_SHARDS: u16 = 2048;

/// How a segment of some length is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code {
    len: usize,
    k: u16,
    shard_len: usize,
}

/// Shards cannot be coded or decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodeError {
    /// Fewer shards than the code needs.
    #[error("{have} shards are not enough, {need} are needed")]
    TooFew {
        /// Different ones at hand.
        have: usize,
        /// Needed.
        need: u16,
    },
    /// A shard of a wrong length or number, or a segment of a length that it was not said to have.
    #[error("a shard does not fit the code")]
    Misfit,
}

impl Code {
    /// The code for segments of `len` bytes.
    pub(crate) fn of(len: u64) -> Self {
        let k = len.div_ceil(MIN_SHARD).clamp(1, MAX_DATA.into());
        // The code works on 16-bit symbols.
        let shard_len = if k == 1 { len } else { len.div_ceil(k).next_multiple_of(2) };
        Self { len: len as usize, k: k as u16, shard_len: shard_len as usize }
    }

    /// How many shards give the segment back.
    pub(crate) fn k(self) -> u16 {
        self.k
    }

    /// The length of each shard, in bytes.
    pub(crate) fn shard_len(self) -> usize {
        self.shard_len
    }

    /// The shards `wanted` of `segment`, in their order.
    pub(crate) fn shards(self, segment: &Bytes, wanted: &[u16]) -> Result<Vec<Bytes>, CodeError> {
        if segment.len() != self.len || wanted.iter().any(|index| *index >= MAX_SHARDS) {
            return Err(CodeError::Misfit);
        }
        if self.k == 1 {
            return Ok(vec![segment.clone(); wanted.len()]);
        }
        let parity_end = wanted.iter().max().map_or(0, |last| (last + 1).saturating_sub(self.k));
        let parity = self.parity(segment, parity_end)?;
        let shard = |index: &u16| match index.checked_sub(self.k) {
            None => self.data(segment, *index),
            Some(position) => parity[usize::from(position)].clone(),
        };
        Ok(wanted.iter().map(shard).collect())
    }

    /// The segment, of any `k` different shards.
    pub(crate) fn decode(self, shards: &BTreeMap<u16, Bytes>) -> Result<Bytes, CodeError> {
        if shards.iter().any(|(index, bytes)| bytes.len() != self.shard_len || *index >= MAX_SHARDS) {
            return Err(CodeError::Misfit);
        }
        if shards.len() < usize::from(self.k) {
            return Err(CodeError::TooFew { have: shards.len(), need: self.k });
        }
        if self.k == 1 {
            return shards.values().next().cloned().ok_or(CodeError::Misfit);
        }
        let mut segment = BytesMut::with_capacity(self.shard_len * usize::from(self.k));
        let mut missing = Vec::new();
        for index in 0..self.k {
            let start = segment.len();
            match shards.get(&index) {
                Some(shard) => segment.extend_from_slice(shard),
                None => {
                    segment.resize(start + self.shard_len, 0);
                    missing.push(index);
                }
            }
        }
        if !missing.is_empty() {
            let restored = self.restore(shards, &missing, &mut segment);
            engine::forget();
            restored?;
        }
        segment.truncate(self.len);
        Ok(segment.freeze())
    }

    /// Fills in the data shards that are missing.
    fn restore(
        self,
        shards: &BTreeMap<u16, Bytes>,
        missing: &[u16],
        segment: &mut [u8],
    ) -> Result<(), CodeError> {
        let k = usize::from(self.k);
        let parity: Vec<_> = shards.range(self.k..).take(missing.len()).collect();
        let n = parity.last().map_or(0, |(index, _)| usize::from(**index) + 1 - k);
        let misfit = |_| CodeError::Misfit;
        let mut decoder = LowRateDecoder::new(k, n, STRIPE.min(self.shard_len), Remembering::new(), None)
            .map_err(misfit)?;
        for stripe in self.stripes() {
            decoder.reset(k, n, stripe.len()).map_err(misfit)?;
            for (index, bytes) in shards.range(..self.k) {
                decoder.add_original_shard((*index).into(), &bytes[stripe.clone()]).map_err(misfit)?;
            }
            for (index, bytes) in &parity {
                let position = usize::from(**index) - k;
                decoder.add_recovery_shard(position, &bytes[stripe.clone()]).map_err(misfit)?;
            }
            let result = decoder.decode().map_err(misfit)?;
            for index in missing {
                let restored = result.restored_original((*index).into()).ok_or(CodeError::Misfit)?;
                let start = usize::from(*index) * self.shard_len + stripe.start;
                segment[start..start + stripe.len()].copy_from_slice(restored);
            }
        }
        Ok(())
    }

    /// The parts of each shard that are coded one after the other.
    fn stripes(self) -> impl Iterator<Item = Range<usize>> {
        (0..self.shard_len).step_by(STRIPE).map(move |start| start..(start + STRIPE).min(self.shard_len))
    }

    /// One data shard, padded.
    fn data(self, segment: &Bytes, index: u16) -> Bytes {
        let start = (usize::from(index) * self.shard_len).min(self.len);
        let end = (start + self.shard_len).min(self.len);
        let part = segment.slice(start..end);
        if part.len() == self.shard_len {
            return part;
        }
        let mut padded = BytesMut::with_capacity(self.shard_len);
        padded.extend_from_slice(&part);
        padded.resize(self.shard_len, 0);
        padded.freeze()
    }

    /// The first `n` parity shards. Each is the same whatever `n` is: the low-rate code makes them chunk by chunk.
    fn parity(self, segment: &Bytes, n: u16) -> Result<Vec<Bytes>, CodeError> {
        if n == 0 {
            return Ok(Vec::new());
        }
        let (k, count) = (usize::from(self.k), usize::from(n));
        let misfit = |_| CodeError::Misfit;
        let data: Vec<Bytes> = (0..self.k).map(|index| self.data(segment, index)).collect();
        let mut encoder =
            LowRateEncoder::new(k, count, STRIPE.min(self.shard_len), DefaultEngine::new(), None)
                .map_err(misfit)?;
        // One allocation for all of them.
        let mut all = BytesMut::zeroed(count * self.shard_len);
        for stripe in self.stripes() {
            encoder.reset(k, count, stripe.len()).map_err(misfit)?;
            for shard in &data {
                encoder.add_original_shard(&shard[stripe.clone()]).map_err(misfit)?;
            }
            let result = encoder.encode().map_err(misfit)?;
            for (shard, coded) in all.chunks_exact_mut(self.shard_len).zip(result.recovery_iter()) {
                shard[stripe.clone()].copy_from_slice(coded);
            }
        }
        let mut all = all.freeze();
        Ok((0..n).map(|_| all.split_to(self.shard_len)).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(len: usize) -> Bytes {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(b"code").finalize_xof().fill(&mut bytes);
        bytes.into()
    }

    fn shards(segment: &Bytes, wanted: &[u16]) -> BTreeMap<u16, Bytes> {
        let code = Code::of(segment.len() as u64);
        wanted.iter().copied().zip(code.shards(segment, wanted).unwrap()).collect()
    }

    #[test]
    fn the_code_never_moves() {
        let segment = sample(20_000);
        let all: Vec<u16> = (0..12).collect();
        let mut hasher = blake3::Hasher::new();
        Code::of(20_000).shards(&segment, &all).unwrap().iter().for_each(|shard| {
            hasher.update(shard);
        });
        assert_eq!(Code::of(20_000), Code { len: 20_000, k: 5, shard_len: 4000 });
        assert_eq!(hasher.finalize().to_hex().as_str(), GOLDEN);
    }

    // WIRE: what `reed-solomon-simd` 3.1 made of these 20,000 bytes when shards were first written.
    const GOLDEN: &str = "c00345fcffd38ade77fe5cefaab5582a53890d6a4975f384961e920242d06409";

    #[test]
    fn a_parity_shard_is_the_same_however_many_are_made() {
        for len in [5_000, 100_000, 1 << 20] {
            let (segment, k) = (sample(len), Code::of(len as u64).k());
            let few = shards(&segment, &[k, k + 3]);
            let many = shards(&segment, &(k..k + 300).collect::<Vec<_>>());
            assert!(few.iter().all(|(index, shard)| many[index] == shard));
        }
    }

    #[test]
    fn stripes_change_no_bit() {
        // Shards of several stripes, the last of which is no multiple of 64 bytes.
        let segment = sample(2_000_000);
        let code = Code::of(2_000_000);
        assert!(code.shard_len() > 5 * STRIPE && !code.shard_len().is_multiple_of(64));
        let n = usize::from(code.k()) + 1;
        let mut encoder =
            LowRateEncoder::new(code.k().into(), n, code.shard_len(), DefaultEngine::new(), None).unwrap();
        (0..code.k()).for_each(|index| encoder.add_original_shard(code.data(&segment, index)).unwrap());
        let at_once = encoder.encode().unwrap();
        let parity: Vec<u16> = (code.k()..code.k() + n as u16).collect();
        let striped = code.shards(&segment, &parity).unwrap();
        assert!(striped.iter().map(Bytes::as_ref).eq(at_once.recovery_iter()));
        assert_eq!(code.decode(&shards(&segment, &parity)).unwrap(), segment);
    }

    #[test]
    fn too_little_or_misfitting_is_an_error_and_never_a_panic() {
        let segment = sample(100_000);
        let code = Code::of(100_000);
        let mut some = shards(&segment, &(0..code.k() - 1).collect::<Vec<_>>());
        assert_eq!(code.decode(&some), Err(CodeError::TooFew { have: 24, need: 25 }));
        some.insert(100, Bytes::from_static(b"short"));
        assert_eq!(code.decode(&some), Err(CodeError::Misfit));
        assert_eq!(code.shards(&segment, &[MAX_SHARDS]), Err(CodeError::Misfit));
        assert_eq!(Code::of(7).shards(&segment, &[0]), Err(CodeError::Misfit));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn any_k_shards_give_the_segment_back(
            len in prop_oneof![1usize..20_000, 1usize..(2 << 20)],
            seed in any::<u64>(),
        ) {
            let segment = sample(len);
            let code = Code::of(len as u64);
            let n = u64::from(code.k()) * 2 + 3;
            // A walk over the shards with a stride that meets each of them once.
            let stride = (1..n).map(|step| step * 2 + 1).find(|stride| gcd(*stride, n) == 1).unwrap_or(1);
            let chosen: Vec<u16> =
                (0..u64::from(code.k())).map(|step| ((seed % n + step * stride) % n) as u16).collect();
            prop_assert_eq!(code.decode(&shards(&segment, &chosen)).unwrap(), segment);
        }
    }

    fn gcd(a: u64, b: u64) -> u64 {
        if b == 0 { a } else { gcd(b, a % b) }
    }
}
