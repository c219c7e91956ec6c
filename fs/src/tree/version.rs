//! What a file was before: the contents that were replaced, beside the one that holds.
//!
//! A content that is replaced is kept in a field of its own, named by the stamp with which it was written. So two nodes
//! that replace the same content at once keep it once. The content of a file that was removed stays where it is.

use serde::{Deserialize, Serialize};

use super::cell::{Content, Field, Mode, Stamp};

/// The first byte of the fields that hold old contents.
// WIRE: then the stamp: time (8 bytes, big endian) and author (16 bytes).
const PREFIX: u8 = b'v';

/// A content that holds no longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Old {
    pub(crate) content: Content,
    pub(crate) mode: Mode,
    /// When it was replaced, in milliseconds since the Unix epoch.
    pub(crate) until_ms: u64,
}

/// The most old contents of a file that can be asked for: each is a cell of memory on every node.
pub const MAX_VERSIONS: u32 = 1000;

/// How long old contents are kept: in all of the swarm alike, since what one node forgets is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// After this many milliseconds they may go, ...
    pub age_ms: u64,
    /// ... and of one file no more than so many are kept, up to [`MAX_VERSIONS`].
    pub count: u32,
}

impl Default for Retention {
    /// 30 days and 32.
    fn default() -> Self {
        Self { age_ms: 30 * 24 * 3600 * 1000, count: 32 }
    }
}

impl Retention {
    /// What is written down may come from anybody.
    pub(crate) fn is_sound(&self) -> bool {
        self.count <= MAX_VERSIONS
    }
}

impl Field for Old {
    // Never written under this name alone.
    const NAME: &'static [u8] = &[PREFIX];

    fn is_sound(&self) -> bool {
        self.content.is_sound() && self.mode.is_sound()
    }
}

/// The field for a content with this stamp.
pub(crate) fn field(stamp: Stamp) -> Vec<u8> {
    [&[PREFIX][..], &stamp.time.to_be_bytes(), &stamp.author].concat()
}

/// The stamp of the content in a field of this name; `None` for other fields.
pub(crate) fn stamp_of(field: &[u8]) -> Option<Stamp> {
    let (prefix, rest) = field.split_first()?;
    let (time, author) = rest.split_first_chunk::<8>()?;
    let author: [u8; 16] = author.try_into().ok()?;
    (*prefix == PREFIX).then(|| Stamp { time: u64::from_be_bytes(*time), author })
}

/// A stamp's time in milliseconds since the Unix epoch: its upper half counts seconds, its lower half parts of one.
pub(crate) fn millis(stamp: Stamp) -> u64 {
    (stamp.time >> 32) * 1000 + (((stamp.time & 0xffff_ffff) * 1000) >> 32)
}

/// Which of old contents, given by when each was replaced, have had their time.
pub(crate) fn expired(until_ms: &[u64], now_ms: u64, retention: Retention) -> Vec<bool> {
    let mut newest: Vec<usize> = (0..until_ms.len()).collect();
    newest.sort_by_key(|position| std::cmp::Reverse(until_ms[*position]));
    let mut expired = vec![false; until_ms.len()];
    for (rank, position) in newest.into_iter().enumerate() {
        let is_old = now_ms.saturating_sub(until_ms[position]) > retention.age_ms;
        expired[position] = is_old || rank >= retention.count as usize;
    }
    expired
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_name_their_stamps() {
        let stamp = Stamp { time: (1_700_000_000 << 32) + (1 << 31), author: [7; 16] };
        assert_eq!(stamp_of(&field(stamp)), Some(stamp));
        assert_eq!(millis(stamp), 1_700_000_000_500);
        for other in [&b"n"[..], b"c", b"v", b"v1234567"] {
            assert_eq!(stamp_of(other), None);
        }
    }

    #[test]
    fn the_old_and_the_many_have_had_their_time() {
        let retention = Retention { age_ms: 100, count: 2 };
        assert_eq!(expired(&[950, 890, 990, 970], 1000, retention), [true, true, false, false]);
        assert_eq!(expired(&[880], 1000, retention), [true]);
        assert_eq!(expired(&[], 1000, retention), [false; 0]);
    }
}
