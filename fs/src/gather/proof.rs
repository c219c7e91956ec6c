//! A part of a segment with what proves it. Pure.
//!
//! A segment's name is the root of its BLAKE3 tree. So whoever reads a part needs the bytes of the chunks (1 KiB) that it
//! touches, and of all the rest only the hashes of the subtrees beside the way up. No holder of shards can make all of
//! those, but each can make the hashes of what lies within its own data shards, and send the bytes of chunks that lie
//! across their borders. Together that is a part and its proof, for as long as all data shards are there; nothing more
//! than shards is stored for it.
//!
//! Both sides walk the tree in the same way, so what is sent needs no description: holder and reader know from the
//! holder's shards which bytes and hashes follow each other ([`pieces`]).

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};
use bytes::Bytes;

use crate::code::Code;
use crate::hash::BlobHash;
use crate::index_set::IndexSet;
use crate::store::Bundle;

/// The leaves of the tree.
const CHUNK: u64 = blake3::CHUNK_LEN as u64;
/// A subtree's hash.
const HASH: usize = blake3::OUT_LEN;

/// What a holder says of one place in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// These bytes.
    Bytes(Range<u64>),
    /// The hash of the subtree over these bytes.
    Hash(Range<u64>),
}

/// What was said so far about a segment of which a part is read.
#[derive(Debug)]
pub(super) struct Proof {
    segment: BlobHash,
    len: u64,
    wanted: Range<u64>,
    /// Data shards that were spoken for.
    heard: IndexSet,
    bytes: BTreeMap<u64, Bytes>,
    hashes: HashMap<(u64, u64), ChainingValue>,
}

/// Whether a part of a segment of this length can be proved at all.
pub(crate) fn is_provable(len: u64, wanted: &Range<u64>) -> bool {
    len > CHUNK && Code::of(len).k() > 1 && wanted.start < wanted.end && wanted.end <= len
}

/// What a holder of `bundle` sends to whoever reads `wanted`, which is provable; its parity does not matter.
pub(crate) fn answer(bundle: &Bundle, wanted: &Range<u64>) -> Vec<u8> {
    let mut body = Vec::new();
    for piece in pieces(bundle.segment_len(), &bundle.indices(), wanted) {
        match piece {
            Piece::Bytes(range) => visit(bundle, &range, |bytes| body.extend_from_slice(bytes)),
            Piece::Hash(range) => {
                let mut hasher = blake3::Hasher::new();
                hasher.set_input_offset(range.start);
                visit(bundle, &range, |bytes| {
                    hasher.update(bytes);
                });
                body.extend_from_slice(&hasher.finalize_non_root());
            }
        }
    }
    body
}

/// How long the answer of a holder of these data shards is.
pub(crate) fn answer_len(len: u64, indices: &IndexSet, wanted: &Range<u64>) -> usize {
    pieces(len, indices, wanted).iter().map(Piece::len).sum()
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(range) => (range.end - range.start) as usize,
            Self::Hash(_) => HASH,
        }
    }
}

impl Proof {
    /// `wanted` is provable.
    pub(super) fn new(segment: BlobHash, len: u64, wanted: Range<u64>) -> Self {
        let (heard, bytes, hashes) = (IndexSet::default(), BTreeMap::new(), HashMap::new());
        Self { segment, len, wanted, heard, bytes, hashes }
    }

    /// A holder of these shards sent what [`answer`] makes; nothing of another length is taken.
    pub(super) fn add(&mut self, indices: &IndexSet, mut body: Bytes) {
        let pieces = pieces(self.len, indices, &self.wanted);
        if pieces.iter().map(Piece::len).sum::<usize>() != body.len() {
            return;
        }
        for piece in pieces {
            let said = body.split_to(piece.len());
            match piece {
                Piece::Bytes(range) => {
                    let known = self.bytes.entry(range.start).or_default();
                    if known.len() < said.len() {
                        *known = said;
                    }
                }
                Piece::Hash(range) => {
                    if let Ok(hash) = said.as_ref().try_into() {
                        self.hashes.insert((range.start, range.end), hash);
                    }
                }
            }
        }
        self.heard = self.heard.union(indices);
    }

    /// Whether all data shards were spoken for, so that there is something to be held against the segment's name.
    pub(super) fn is_complete(&self) -> bool {
        IndexSet::range(0..Code::of(self.len).k()).minus(&self.heard).is_empty()
    }

    /// The part, if what was said is true.
    pub(super) fn part(&self) -> Option<Bytes> {
        let middle = left_subtree_len(self.len);
        let (left, right) = (self.hash_of(0..middle)?, self.hash_of(middle..self.len)?);
        let root = merge_subtrees_root(&left, &right, Mode::Hash);
        (BlobHash::from(root) == self.segment).then(|| self.collect(&self.wanted))?
    }

    fn hash_of(&self, node: Range<u64>) -> Option<ChainingValue> {
        // A hash never stands for what is wanted: nobody is asked for one there.
        if let Some(hash) = self.hashes.get(&(node.start, node.end)) {
            return Some(*hash);
        }
        if node.end - node.start <= CHUNK {
            let bytes = self.collect(&node)?;
            let mut hasher = blake3::Hasher::new();
            hasher.set_input_offset(node.start).update(&bytes);
            return Some(hasher.finalize_non_root());
        }
        let middle = node.start + left_subtree_len(node.end - node.start);
        let (left, right) = (self.hash_of(node.start..middle)?, self.hash_of(middle..node.end)?);
        Some(merge_subtrees_non_root(&left, &right, Mode::Hash))
    }

    /// Bytes that were sent, from as many pieces as it takes.
    fn collect(&self, range: &Range<u64>) -> Option<Bytes> {
        let mut collected = Vec::with_capacity((range.end - range.start) as usize);
        let mut at = range.start;
        while at < range.end {
            // What begins last may end first, where holders have the same.
            let rest_of = |(start, bytes): (&u64, &'_ Bytes)| {
                let bytes = bytes.slice((at - start).min(bytes.len() as u64) as usize..);
                (!bytes.is_empty()).then_some(bytes)
            };
            let rest = self.bytes.range(..=at).rev().find_map(rest_of)?;
            let part = &rest[..rest.len().min((range.end - at) as usize)];
            collected.extend_from_slice(part);
            at += part.len() as u64;
        }
        Some(collected.into())
    }
}

/// What a holder of these shards says, in order.
fn pieces(len: u64, indices: &IndexSet, wanted: &Range<u64>) -> Vec<Piece> {
    let mut pieces = Vec::new();
    walk(0..len, &runs(len, indices), wanted, &mut pieces);
    pieces
}

/// The bytes of the segment that lie in data shards with these numbers, as few ranges as there can be.
fn runs(len: u64, indices: &IndexSet) -> Vec<Range<u64>> {
    let code = Code::of(len);
    let shard_len = code.shard_len() as u64;
    let mut runs: Vec<Range<u64>> = Vec::new();
    for index in indices.iter().take_while(|index| *index < code.k()) {
        let start = (u64::from(index) * shard_len).min(len);
        let end = (start + shard_len).min(len);
        // Short segments may end before their last shards do.
        if start == end {
            break;
        }
        match runs.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => runs.push(start..end),
        }
    }
    runs
}

fn walk(node: Range<u64>, runs: &[Range<u64>], wanted: &Range<u64>, pieces: &mut Vec<Piece>) {
    let first = runs.partition_point(|run| run.end <= node.start);
    let end = runs.partition_point(|run| run.start < node.end);
    let runs = runs.get(first..end).unwrap_or(&[]);
    if runs.is_empty() {
        return;
    }
    let mut owned = runs.iter().map(|run| run.start.max(node.start)..run.end.min(node.end));
    let is_whole = owned.clone().any(|part| part == node);
    let is_wanted = wanted.start < node.end && node.start < wanted.end;
    if is_whole && !is_wanted {
        return pieces.push(Piece::Hash(node));
    }
    if node.end - node.start <= CHUNK {
        return owned.by_ref().for_each(|part| match pieces.last_mut() {
            Some(Piece::Bytes(last)) if last.end == part.start => last.end = part.end,
            _ => pieces.push(Piece::Bytes(part)),
        });
    }
    let middle = node.start + left_subtree_len(node.end - node.start);
    walk(node.start..middle, runs, wanted, pieces);
    walk(middle..node.end, runs, wanted, pieces);
}

/// The bytes of a range that lies within the data shards of `bundle`, shard by shard.
fn visit(bundle: &Bundle, range: &Range<u64>, mut each: impl FnMut(&[u8])) {
    let shard_len = Code::of(bundle.segment_len()).shard_len() as u64;
    let mut at = range.start;
    while at < range.end {
        let (index, offset) = (at / shard_len, (at % shard_len) as usize);
        let shard = u16::try_from(index).ok().and_then(|index| bundle.shards().get(&index));
        let Some(rest) = shard.and_then(|shard| shard.get(offset..)) else { return };
        let part = &rest[..rest.len().min((range.end - at) as usize)];
        each(part);
        at += part.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(len: usize) -> Bytes {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(b"proof").finalize_xof().fill(&mut bytes);
        bytes.into()
    }

    fn bundle(segment: &Bytes, indices: &[u16]) -> Bundle {
        let len = segment.len() as u64;
        let shards = Code::of(len).shards(segment, indices).unwrap();
        Bundle::new(len, indices.iter().copied().zip(shards).collect()).unwrap()
    }

    /// What holders of these shards say.
    fn proof(segment: &Bytes, holders: &[Vec<u16>], wanted: &Range<u64>) -> (Proof, usize) {
        let mut proof = Proof::new(BlobHash::of(segment), segment.len() as u64, wanted.clone());
        let mut sent = 0;
        for indices in holders {
            let bundle = bundle(segment, indices);
            let body = answer(&bundle, wanted);
            assert_eq!(body.len(), answer_len(segment.len() as u64, &bundle.indices(), wanted));
            sent += body.len();
            proof.add(&bundle.indices(), body.into());
        }
        (proof, sent)
    }

    #[test]
    fn a_part_costs_little_more_than_itself() {
        let segment = sample(2 << 20);
        let k = Code::of(2 << 20).k();
        let thirds: Vec<Vec<u16>> =
            (0..3).map(|third| (k / 3 * third..k / 3 * (third + 1)).collect()).collect();
        let wanted = 1_000_000..1_001_024;
        let (proof, sent) = proof(&segment, &thirds, &wanted);
        assert!(proof.is_complete());
        assert_eq!(proof.part(), Some(segment.slice(1_000_000..1_001_024)));
        assert!(sent < 8 << 10, "{sent} bytes");
    }

    #[test]
    fn a_lie_or_a_gap_is_no_proof() {
        let segment = sample(100_000);
        let k = Code::of(100_000).k();
        let halves = [(0..k / 2).collect::<Vec<_>>(), (k / 2..k).collect()];
        let wanted = 50_000..50_100;
        let (missing, _) = proof(&segment, &halves[..1], &wanted);
        assert!(!missing.is_complete());
        assert_eq!(missing.part(), None);
        let body = answer(&bundle(&segment, &halves[1]), &wanted);
        for at in 0..body.len() {
            let (mut lied, _) = proof(&segment, &halves[..1], &wanted);
            let mut wrong = body.clone();
            wrong[at] ^= 1;
            lied.add(&halves[1].iter().copied().collect(), wrong.into());
            assert_eq!(lied.part(), None, "byte {at}");
        }
        let (mut cut, _) = proof(&segment, &halves[..1], &wanted);
        cut.add(&halves[1].iter().copied().collect(), Bytes::from(body).slice(1..));
        assert!(!cut.is_complete());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_part_is_proved_by_any_division_of_the_data(
            len in 4097usize..300_000,
            start in any::<prop::sample::Index>(),
            wanted_len in 1u64..20_000,
            holders in prop::collection::vec(0usize..5, 240),
        ) {
            let segment = sample(len);
            let k = Code::of(len as u64).k();
            let start = start.index(len) as u64;
            let wanted = start..(start + wanted_len).min(len as u64);
            // Some shards are held twice, as while they are moved.
            let mut shares = vec![Vec::new(); 5];
            for index in 0..k {
                let holder = holders[usize::from(index)];
                shares[holder].push(index);
                if index % 7 == 0 {
                    shares[(holder + 1) % 5].push(index);
                }
            }
            shares.retain(|share| !share.is_empty());
            let (proof, _) = proof(&segment, &shares, &wanted);
            prop_assert!(proof.is_complete());
            prop_assert_eq!(proof.part(), Some(segment.slice(wanted.start as usize..wanted.end as usize)));
        }
    }
}
