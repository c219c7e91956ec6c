//! Cutting a file into segments where its content says so.
//!
//! Content-defined cuts (FastCDC) move with the bytes: an insertion changes the segments it touches and leaves
//! the rest as they were, so versions and copies of a file share segments. The cutter is pure and incremental:
//! bytes go in as they come, finished segments come out, and no more than one segment's worth of bytes (plus
//! what one push brought) is ever held.

use bytes::{Bytes, BytesMut};
use fastcdc::v2020::FastCDC;

// WIRE: the three sizes decide where every file is cut. A change harms nobody's data, but files written before and
// after it would no longer share segments. Powers of two, because the masks of `fastcdc` differ between its
// variants for any other size.

/// No segment but a file's last is shorter.
pub(crate) const MIN_SEGMENT: usize = 1 << 20;
/// What segments of random data come near to.
pub(crate) const AVG_SEGMENT: usize = 2 << 20;
/// No segment is longer; also the most that a reader must hold to verify one.
pub(crate) const MAX_SEGMENT: usize = 4 << 20;

/// Collects bytes and gives back segments.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    buffer: BytesMut,
}

impl Cutter {
    /// Adds bytes to the end of what waits to be cut.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether the next cut is certain whatever follows.
    pub(crate) fn is_ready(&self) -> bool {
        self.buffer.len() >= MAX_SEGMENT
    }

    /// The next segment, once its end is certain.
    pub(crate) fn next_segment(&mut self) -> Option<Bytes> {
        if self.is_ready() { self.cut() } else { None }
    }

    /// The next segment of what is left, when no more bytes will follow; `None` at the end.
    pub(crate) fn next_last_segment(&mut self) -> Option<Bytes> {
        if self.buffer.is_empty() { None } else { self.cut() }
    }

    fn cut(&mut self) -> Option<Bytes> {
        let window = &self.buffer[..self.buffer.len().min(MAX_SEGMENT)];
        let (_, end) = FastCDC::new(window, MIN_SEGMENT, AVG_SEGMENT, MAX_SEGMENT).cut(0, window.len());
        Some(self.buffer.split_to(end).freeze())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that are the same for ever, on every machine: BLAKE3 in its extendable-output mode.
    fn sample(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(b"starfish").finalize_xof().fill(&mut bytes);
        bytes
    }

    fn segments(bytes: &[u8], push: usize) -> Vec<Bytes> {
        let mut cutter = Cutter::default();
        let mut segments = Vec::new();
        for part in bytes.chunks(push) {
            cutter.push(part);
            segments.extend(std::iter::from_fn(|| cutter.next_segment()));
        }
        segments.extend(std::iter::from_fn(|| cutter.next_last_segment()));
        segments
    }

    #[test]
    fn cut_points_never_move() {
        let lengths: Vec<usize> = segments(&sample(16 << 20), 1 << 20).iter().map(Bytes::len).collect();
        assert_eq!(lengths, GOLDEN);
    }

    // WIRE: what `fastcdc` 5.0 made of 16 MiB when segments were first written.
    const GOLDEN: &[usize] = &[2_601_639, 1_183_738, 2_318_559, 2_416_597, 4_194_304, 3_176_442, 885_937];

    #[test]
    fn an_insertion_changes_only_what_it_touches() {
        let before = sample(24 << 20);
        let mut after = before.clone();
        after.splice(5_000_000..5_000_000, *b"something new");
        let before = segments(&before, 1 << 20);
        let after = segments(&after, 1 << 20);
        let shared = after.iter().filter(|segment| before.contains(segment)).count();
        assert!(shared + 3 >= after.len(), "{shared} of {} segments are shared", after.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn segments_are_the_file_and_do_not_depend_on_how_it_came(
            len in 0usize..(9 << 20),
            push in 1usize..(3 << 20),
        ) {
            let bytes = sample(len);
            let cut = segments(&bytes, push.max(4096));
            prop_assert_eq!(cut.concat(), bytes.clone());
            prop_assert_eq!(&cut, &segments(&bytes, 1 << 20));
            for (index, segment) in cut.iter().enumerate() {
                prop_assert!(segment.len() <= MAX_SEGMENT);
                prop_assert!(segment.len() >= MIN_SEGMENT || index + 1 == cut.len());
            }
        }
    }
}
