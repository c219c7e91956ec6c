//! What nodes gossip about jobs: small bulletins of what they can take on and what they keep.
//!
//! WIRE: bulletins travel as postcard behind one byte of version.

use serde::{Deserialize, Serialize};
use starfish_dht::PeerId;

use crate::board::Terms;
use crate::task::JobId;

/// The version that this node speaks; bulletins of another are ignored.
const VERSION: u8 = 1;
/// Notices in one gossip message: with the longest name each is under 200 bytes, so all fit in 16 KiB.
const MAX_NOTICES: usize = 64;
/// The longest name that travels; lists show no more of it anyway.
pub(crate) const MAX_NAME_BYTES: usize = 64;

/// What one node says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bulletin {
    /// What it can take on.
    pub capacity: Capacity,
    /// What it keeps, or those of its jobs that there is news of.
    pub notices: Vec<Notice>,
}

/// What a node can take on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Tasks that it runs at a time.
    pub slots: u32,
    /// How many more it would take now.
    pub free: u32,
    /// The most memory that one task may have there.
    pub memory_bytes: u64,
}

/// News of one job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Which.
    pub job: JobId,
    /// Grows with every change, so that old news is told from new.
    pub revision: u64,
    /// What it asks for.
    pub terms: Terms,
    /// Where it stands.
    pub stage: Stage,
}

/// Where a job stands, as others are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Waits for a node.
    Pending,
    /// A node runs it.
    Running {
        /// Which.
        by: PeerId,
    },
    /// It is over.
    Ended {
        /// Whether it exited with code 0.
        well: bool,
    },
}

impl Bulletin {
    /// As many bulletins as `notices` need, at least one.
    pub(crate) fn split(capacity: Capacity, notices: Vec<Notice>) -> Vec<Self> {
        if notices.is_empty() {
            return vec![Self { capacity, notices }];
        }
        notices.chunks(MAX_NOTICES).map(|some| Self { capacity, notices: some.to_vec() }).collect()
    }

    /// As it travels.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        let mut bytes = vec![VERSION];
        bytes.extend(postcard::to_stdvec(self)?);
        Ok(bytes)
    }

    /// What a peer sent, if it makes sense.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let bulletin: Self =
            if *version == VERSION { postcard::from_bytes(rest).ok()? } else { return None };
        let short = bulletin.notices.iter().all(|notice| notice.terms.name.len() <= MAX_NAME_BYTES);
        short.then_some(bulletin)
    }
}

/// As much of `name` as travels.
pub(crate) fn short_name(name: &str) -> String {
    let mut end = name.len().min(MAX_NAME_BYTES);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(number: u8) -> Notice {
        let terms =
            Terms { name: "n".repeat(MAX_NAME_BYTES), on: Some(PeerId::random()), memory_bytes: u64::MAX };
        let stage = Stage::Running { by: PeerId::random() };
        Notice { job: JobId([number; 16]), revision: u64::MAX, terms, stage }
    }

    #[test]
    fn a_full_bulletin_fits_into_a_gossip_message() {
        let capacity = Capacity { slots: u32::MAX, free: u32::MAX, memory_bytes: u64::MAX };
        let bulletins = Bulletin::split(capacity, (0..=255).map(notice).collect());
        assert_eq!(bulletins.len(), 4);
        for bulletin in bulletins {
            let bytes = bulletin.encode().unwrap();
            assert!(bytes.len() <= 16 << 10, "{} bytes", bytes.len());
            assert_eq!(Bulletin::decode(&bytes), Some(bulletin));
        }
    }

    #[test]
    fn what_makes_no_sense_is_ignored() {
        assert_eq!(Bulletin::decode(&[]), None);
        assert_eq!(Bulletin::decode(&[2, 0, 0, 0, 0]), None);
        assert_eq!(Bulletin::decode(&[1, 0xff, 0xff]), None);
        let mut long = notice(0);
        long.terms.name.push('x');
        let capacity = Capacity { slots: 1, free: 1, memory_bytes: 1 };
        let bytes = Bulletin { capacity, notices: vec![long] }.encode().unwrap();
        assert_eq!(Bulletin::decode(&bytes), None);
    }

    #[test]
    fn names_are_cut_between_characters() {
        assert_eq!(short_name("short"), "short");
        assert_eq!(short_name(&"ä".repeat(40)).len(), 64);
        assert_eq!(short_name(&format!("x{}", "ä".repeat(40))).len(), 63);
    }
}
