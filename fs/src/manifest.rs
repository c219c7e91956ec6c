//! What a file is: its size, its hash, and the segments that it is made of, in order.
//!
//! A manifest says *what* the bytes are and never *where* they lie, so it does not change when nodes come and go.
//! Where a segment's bytes (or, once files are erasure-coded, its shards) are kept is computed or recorded apart
//! from it. Manifests come from peers and disks, so decoding checks every size before it trusts any.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::chunk::MAX_SEGMENT;
use crate::hash::BlobHash;

// WIRE: magic and version, then postcard of (size, hash, segments).
const MAGIC: &[u8; 4] = b"sfm1";

/// The longest encoded manifest that is read: about 1.8 million segments, a file of some 3.6 TiB.
pub const MAX_MANIFEST: usize = 64 << 20;

/// The least that one segment takes in an encoded manifest: a hash and one byte of length.
const MIN_ENCODED_SEGMENT: usize = 33;

/// One piece of a file, a blob of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The blob's name.
    pub hash: BlobHash,
    /// Its length, from 1 to [`MAX_SEGMENT`].
    pub len: u32,
}

/// A file's content, by segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    size: u64,
    hash: BlobHash,
    segments: Vec<Segment>,
}

/// Part of one segment, as a range read needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Position of the segment in the file, from 0.
    pub index: usize,
    /// The segment.
    pub segment: Segment,
    /// The bytes wanted of it.
    pub range: Range<u64>,
}

/// Why bytes are not a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Longer than [`MAX_MANIFEST`].
    #[error("manifest of {0} bytes is longer than {MAX_MANIFEST}")]
    TooLong(usize),
    /// Not a manifest, or of a version that this program does not know.
    #[error("not a manifest of a known version")]
    UnknownVersion,
    /// The bytes after the version are malformed.
    #[error("malformed manifest")]
    Malformed,
    /// A segment is empty or longer than [`MAX_SEGMENT`].
    #[error("segment of {0} bytes is not between 1 and {MAX_SEGMENT}")]
    SegmentSize(u32),
    /// The segments do not add up to the size.
    #[error("segments add up to {sum} bytes, not to {size}")]
    WrongSum {
        /// The claimed size.
        size: u64,
        /// The sum of the segments.
        sum: u64,
    },
}

impl Manifest {
    /// A manifest of `segments`, which make up a file with that `hash`.
    pub fn new(hash: BlobHash, segments: Vec<Segment>) -> Self {
        let size = segments.iter().map(|segment| u64::from(segment.len)).sum();
        Self { size, hash, segments }
    }

    /// The file's length.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// BLAKE3 of the whole file.
    pub fn hash(&self) -> BlobHash {
        self.hash
    }

    /// The segments in order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The parts of segments that make up `range`, which is cut to the file's end.
    pub fn slices(&self, range: Range<u64>) -> Vec<Slice> {
        let mut slices = Vec::new();
        let mut start = 0;
        for (index, segment) in self.segments.iter().enumerate() {
            let end = start + u64::from(segment.len);
            let (from, to) = (range.start.max(start), range.end.min(end));
            if from < to {
                slices.push(Slice { index, segment: *segment, range: from - start..to - start });
            }
            if end >= range.end {
                break;
            }
            start = end;
        }
        slices
    }

    /// The bytes that are stored and named by hash.
    pub fn encode(&self) -> Result<Vec<u8>, ManifestError> {
        let body = (self.size, self.hash, &self.segments);
        let bytes = postcard::to_extend(&body, MAGIC.to_vec()).map_err(|_| ManifestError::Malformed)?;
        if bytes.len() > MAX_MANIFEST {
            return Err(ManifestError::TooLong(bytes.len()));
        }
        Ok(bytes)
    }

    /// Reads what [`Manifest::encode`] wrote, trusting nothing in it.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_MANIFEST {
            return Err(ManifestError::TooLong(bytes.len()));
        }
        let body = bytes.strip_prefix(MAGIC).ok_or(ManifestError::UnknownVersion)?;
        let malformed = |_| ManifestError::Malformed;
        let ((size, hash, count), rest) =
            postcard::take_from_bytes::<(u64, BlobHash, u64)>(body).map_err(malformed)?;
        if count > (rest.len() / MIN_ENCODED_SEGMENT) as u64 {
            return Err(ManifestError::Malformed);
        }
        let mut segments = Vec::with_capacity(count as usize);
        let mut rest = rest;
        for _ in 0..count {
            let (segment, after) = postcard::take_from_bytes::<Segment>(rest).map_err(malformed)?;
            if segment.len == 0 || segment.len as usize > MAX_SEGMENT {
                return Err(ManifestError::SegmentSize(segment.len));
            }
            segments.push(segment);
            rest = after;
        }
        if !rest.is_empty() {
            return Err(ManifestError::Malformed);
        }
        let manifest = Self::new(hash, segments);
        if manifest.size != size {
            return Err(ManifestError::WrongSum { size, sum: manifest.size });
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn manifest(lengths: &[u32]) -> Manifest {
        let segment = |len: &u32| Segment { hash: BlobHash::of(&len.to_le_bytes()), len: *len };
        Manifest::new(BlobHash::of(b"file"), lengths.iter().map(segment).collect())
    }

    #[test]
    fn the_format_never_moves() {
        let bytes = manifest(&[3, 300]).encode().unwrap();
        let hash = |bytes: &[u8]| BlobHash::of(bytes).as_bytes().to_vec();
        let expected = [
            b"sfm1".to_vec(),
            vec![0xaf, 0x02], // size 303
            hash(b"file"),
            vec![2], // segments
            hash(&3u32.to_le_bytes()),
            vec![3],
            hash(&300u32.to_le_bytes()),
            vec![0xac, 0x02],
        ];
        assert_eq!(bytes, expected.concat());
    }

    #[test]
    fn lies_are_found() {
        let good = manifest(&[3, 300]).encode().unwrap();
        assert_eq!(Manifest::decode(b"sfm2"), Err(ManifestError::UnknownVersion));
        assert_eq!(Manifest::decode(&good[..good.len() - 1]), Err(ManifestError::Malformed));
        assert_eq!(Manifest::decode(&[good.clone(), vec![0]].concat()), Err(ManifestError::Malformed));
        let mut wrong_size = good;
        wrong_size[4] ^= 1;
        assert_eq!(Manifest::decode(&wrong_size), Err(ManifestError::WrongSum { size: 302, sum: 303 }));
        let empty = manifest(&[0]).encode().unwrap();
        assert_eq!(Manifest::decode(&empty), Err(ManifestError::SegmentSize(0)));
        let huge_count = [b"sfm1".as_slice(), &[0], &[7; 32], &[0xff, 0xff, 0xff, 0xff, 0x0f]].concat();
        assert_eq!(Manifest::decode(&huge_count), Err(ManifestError::Malformed));
    }

    #[test]
    fn a_range_touches_only_its_segments() {
        let slices = manifest(&[10, 20, 30]).slices(15..31);
        let touched: Vec<_> = slices.into_iter().map(|slice| (slice.index, slice.range)).collect();
        assert_eq!(touched, [(1, 5..20), (2, 0..1)]);
        assert_eq!(manifest(&[10]).slices(10..20), []);
        assert_eq!(manifest(&[]).slices(0..u64::MAX), []);
    }

    proptest! {
        #[test]
        fn encoding_round_trips(lengths in prop::collection::vec(1..=MAX_SEGMENT as u32, 0..50)) {
            let manifest = manifest(&lengths);
            prop_assert_eq!(Manifest::decode(&manifest.encode().unwrap()).unwrap(), manifest);
        }

        #[test]
        fn decoding_garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Manifest::decode(&[MAGIC.as_slice(), &bytes].concat());
        }

        #[test]
        fn slices_cover_the_range_exactly(
            lengths in prop::collection::vec(1..50u32, 0..10), start in 0..300u64, len in 0..300u64,
        ) {
            let manifest = manifest(&lengths);
            let covered: u64 =
                manifest.slices(start..start + len).iter().map(|slice| slice.range.end - slice.range.start).sum();
            let wanted = (start + len).min(manifest.size()).saturating_sub(start);
            prop_assert_eq!(covered, wanted);
        }
    }
}
