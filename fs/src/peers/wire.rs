//! What nodes ask of each other about shards.
//!
//! WIRE: on a stream, questions and answers take turns, each a message of [`starfish_dht::rpc`]; the bytes of shards
//! follow the message that announces them, one shard after the other. The asker ends the stream when it has no more
//! questions.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use starfish_dht::PeerId;

use crate::code::Code;
use crate::gather::proof::is_provable;
use crate::hash::BlobHash;
use crate::index_set::IndexSet;
use crate::manifest::MAX_MANIFEST;
use crate::tree::{Inode, Stamp};

/// The protocol's name on the network.
// WIRE: the number changes with the format behind it.
pub(crate) const NAME: &str = "/starfish/shards/1";

/// Things that one question may be about.
pub(crate) const MAX_ITEMS: usize = 2048;
/// The most bytes of shards in one push.
pub(crate) const MAX_PUSH: usize = 96 << 20;

/// A question.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// What do you hold of these segments? Answer: as many [`Held`].
    Survey(Vec<BlobHash>),
    /// Give me shards. Answer: [`Given`], and their bytes.
    Fetch(Want),
    /// Keep these. After it, as often as it says: [`Offer`], and the bytes. Answer: as many [`Kept`].
    Push(u16),
    /// Give these to that peer, and keep them no longer. Answer: as many booleans.
    Move(PeerId, Vec<Part>),
    /// Keep these no longer: that peer has them, or if nobody is named, there are more than needed. Answer: as many
    /// booleans.
    Release(Option<PeerId>, Vec<Part>),
    /// How many files do you know to be below full durability? Answer: [`Shortfall`].
    Report,
    /// Have you seen this content of these inodes, or newer? Answer: as many booleans.
    Known(Vec<(Inode, Stamp)>),
    /// Give me this part of a segment as far as it lies in your data shards, and prove what you can of it. Answer:
    /// [`Given`], and what [`crate::gather::proof`] makes of those shards.
    Prove(Stretch),
}

/// Files below full durability that one node knows of: those that it wrote and those that it looks after.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortfall {
    /// How many.
    pub files: u64,
    /// Of them, those that cannot be read now: too few of their shards are reachable.
    pub unreadable: u64,
    /// Why, in words, with the number of files for each reason.
    pub why: Vec<(String, u64)>,
    /// Members that have not looked after their files since somebody came or went, or that do not answer: what they
    /// know is not counted, or of before.
    pub looking: u64,
}

/// Shards that are asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Want {
    pub(crate) segment: BlobHash,
    pub(crate) len: u64,
    /// Any of these, ...
    pub(crate) indices: IndexSet,
    /// ... but no more than so many.
    pub(crate) limit: u16,
    /// Data shards may be cut from the whole, if that is there.
    pub(crate) from_whole: bool,
}

/// Some bytes of a segment, from `start` on and before `end`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Stretch {
    pub(crate) segment: BlobHash,
    pub(crate) len: u64,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// Some shards of a segment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) segment: BlobHash,
    pub(crate) len: u64,
    pub(crate) indices: IndexSet,
}

/// What a node holds of a segment.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) indices: IndexSet,
    /// The whole is here and not yet at full durability: this node is at work on it.
    pub(crate) is_publishing: bool,
}

/// The shards that follow.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Given {
    pub(crate) indices: IndexSet,
    /// The whole is here as well.
    pub(crate) has_whole: bool,
}

/// Shards to keep; their bytes follow.
pub(crate) type Offer = Part;

/// What became of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kept {
    /// They are on this disk.
    Yes,
    /// They are not this node's to keep, as it sees the swarm, or not this peer's to give.
    NotMine,
    /// There is no room for them.
    NoRoom,
    /// Writing them failed.
    Failed,
}

impl Kept {
    /// Why a holder does not keep what it was offered, as the end of a sentence about it.
    pub(crate) fn why_not(self) -> &'static str {
        match self {
            Self::NoRoom => "has no room",
            Self::NotMine => "has as much of it as it may, or sees other members",
            Self::Yes | Self::Failed => "cannot be reached, or could not write",
        }
    }
}

impl Stretch {
    /// What is asked for, if it can be proved.
    pub(crate) fn wanted(&self) -> Option<Range<u64>> {
        let wanted = self.start..self.end;
        (self.len <= MAX_MANIFEST as u64 && is_provable(self.len, &wanted)).then_some(wanted)
    }
}

impl Part {
    /// The bytes of all its shards; `None` if it makes no sense.
    pub(crate) fn body_len(&self) -> Option<usize> {
        let is_sound = self.len > 0 && self.len <= MAX_MANIFEST as u64;
        is_sound.then(|| Code::of(self.len).shard_len() * self.indices.len())
    }
}
