//! What a keeper and a node that works for it say to each other, and the items that go with a slice.
//!
//! WIRE. The runner opens a stream and asks; the keeper answers with a slice, or that there is none. While it works
//! the runner gives signs of life; what has ended it writes into memory as receipts, and tells the keeper, who would
//! otherwise hear of it a moment later. Dropping the stream gives back what has not ended.

use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use starfish_dht::PeerId;

use super::definition::Kept;
use crate::board::Millis;
use crate::series;
use crate::task::JobId;

/// The stream between a keeper and a runner.
pub(crate) const SLICE_PROTOCOL: &str = "/starfish/compute-slice/3";
/// Items of one slice together: with them, a message is within its bounds.
const MAX_ITEMS_BYTES: usize = 256 << 10;
/// Runs of tasks in one [`FromRunner::Near`]; more would be no news of where to begin.
pub(crate) const MAX_NEAR: usize = 4096;

/// From the node that works.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum FromRunner {
    /// Give me some of this batch; and whatever I had before, I am through with.
    Next(JobId),
    /// I have the files of these tasks of it, or most of their bytes.
    Near { job: JobId, tasks: Vec<Range<u64>> },
    /// I have these tasks of a keeper that is gone.
    Resume { job: JobId, generation: u32, range: Range<u64> },
    /// I am still at it.
    Beat,
    /// There is a receipt of these tasks.
    Ended { range: Range<u64>, elapsed_us: u64 },
    /// This task took its worker process with it; I go on behind it.
    Lost { task: u64, why: String },
}

/// From the keeper.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum FromKeeper {
    Slice(Slice),
    /// There is nothing to do at the moment.
    Later,
    /// There is nothing more to do.
    Over,
    /// I do not keep it; ask this one, if any.
    NotMine(Option<PeerId>),
}

/// Some tasks of a batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Slice {
    pub(crate) generation: u32,
    pub(crate) start: u64,
    pub(crate) items: SliceItems,
    /// How long what has ended may wait to be written down.
    pub(crate) span: Millis,
}

/// The items of some tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SliceItems {
    /// So many without an item.
    None(u64),
    Numbers(Range<u64>),
    Texts(Vec<String>),
}

impl SliceItems {
    pub(crate) fn count(&self) -> u64 {
        match self {
            Self::None(count) => *count,
            Self::Numbers(range) => range.end.saturating_sub(range.start),
            Self::Texts(texts) => texts.len() as u64,
        }
    }

    /// Those from `at` on, where they are items that make a series.
    pub(crate) fn series(&self, at: u64) -> Option<series::Items> {
        match self {
            Self::None(_) => None,
            Self::Numbers(range) => Some(series::Items::Numbers(range.start.saturating_add(at)..range.end)),
            Self::Texts(texts) => {
                let rest = texts.get(usize::try_from(at).ok()?..)?;
                Some(series::Items::Texts(rest.to_vec()))
            }
        }
    }

    /// The item of the task so far from the start.
    pub(crate) fn get(&self, at: u64) -> Option<String> {
        match self {
            Self::None(_) => None,
            Self::Numbers(range) => Some(range.start.saturating_add(at).to_string()),
            Self::Texts(texts) => usize::try_from(at).ok().and_then(|at| texts.get(at)).cloned(),
        }
    }
}

/// The items of a batch, at hand.
#[derive(Debug)]
pub(crate) enum AtHand {
    One,
    Range(Range<u64>),
    /// Texts one behind the other, and where each ends.
    Texts(Bytes, Vec<u32>),
}

impl AtHand {
    /// `file` is read where there is a list.
    pub(crate) fn new(kept: &Kept, file: Bytes) -> Option<Self> {
        Some(match kept {
            Kept::One => Self::One,
            Kept::Range(range) => Self::Range(range.clone()),
            Kept::Lines { count, .. } | Kept::Files { count, .. } => {
                let ends = file.iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(at, _)| at);
                let ends: Vec<u32> = ends.map(u32::try_from).collect::<Result<_, _>>().ok()?;
                if ends.len() as u64 != *count || std::str::from_utf8(&file).is_err() {
                    return None;
                }
                Self::Texts(file, ends)
            }
        })
    }

    /// The items of some tasks, or of the first of them if they are long.
    pub(crate) fn of(&self, tasks: &Range<u64>) -> SliceItems {
        match self {
            Self::One => SliceItems::None(tasks.end - tasks.start),
            Self::Range(range) => {
                let number = |task| range.start.saturating_add(task);
                SliceItems::Numbers(number(tasks.start)..number(tasks.end))
            }
            Self::Texts(..) => {
                let mut bytes = 0;
                let texts = tasks.clone().map_while(|task| self.text(task)).take_while(|text| {
                    let is_first = bytes == 0;
                    bytes += text.len() + 4;
                    is_first || bytes <= MAX_ITEMS_BYTES
                });
                SliceItems::Texts(texts.map(str::to_owned).collect())
            }
        }
    }

    /// The item of one task.
    pub(crate) fn item(&self, task: u64) -> Option<String> {
        match self {
            Self::One => None,
            Self::Range(range) => Some(range.start.saturating_add(task).to_string()),
            Self::Texts(..) => self.text(task).map(str::to_owned),
        }
    }

    fn text(&self, task: u64) -> Option<&str> {
        let Self::Texts(bytes, ends) = self else { return None };
        let at = usize::try_from(task).ok()?;
        let start = match at.checked_sub(1) {
            Some(before) => *ends.get(before)? as usize + 1,
            None => 0,
        };
        std::str::from_utf8(bytes.get(start..*ends.get(at)? as usize)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Digest;

    fn lines(count: u64) -> Kept {
        Kept::Lines { count, texts: Digest([0; 32]) }
    }

    #[test]
    fn the_items_of_a_slice_are_those_of_its_tasks() {
        let texts = AtHand::new(&lines(4), Bytes::from_static(b"one\0\0three\0fo ur\0")).unwrap();
        let some = texts.of(&(1..4));
        assert_eq!(some, SliceItems::Texts(vec![String::new(), "three".into(), "fo ur".into()]));
        assert_eq!((some.count(), some.get(1).as_deref(), some.get(3)), (3, Some("three"), None));
        assert_eq!(texts.item(0).as_deref(), Some("one"));
        assert_eq!(texts.item(4), None);
        let range = AtHand::new(&Kept::Range(100..200), Bytes::new()).unwrap();
        assert_eq!(range.of(&(5..7)).get(1).as_deref(), Some("106"));
        assert!(AtHand::new(&lines(2), Bytes::from_static(b"one\0")).is_none());
        assert!(AtHand::new(&lines(1), Bytes::from_static(b"\xff\0")).is_none());
    }

    #[test]
    fn long_items_make_a_short_slice() {
        let file = format!("{}\0", "x".repeat(100_000)).repeat(5);
        let texts = AtHand::new(&lines(5), file.into()).unwrap();
        assert_eq!(texts.of(&(0..5)).count(), 2);
        let file = format!("{}\0", "x".repeat(MAX_ITEMS_BYTES + 1)).repeat(2);
        let texts = AtHand::new(&lines(2), file.into()).unwrap();
        assert_eq!(texts.of(&(0..2)).count(), 1, "a slice has a task in any case");
    }
}
