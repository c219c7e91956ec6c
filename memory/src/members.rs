//! Who has a replica: a cell each in `sys`, so that all know of all, also of those who are away and whom they never met.
//!
//! Some things may only be forgotten once nobody can bring more of them: old epochs of documents, bytes of large values. So
//! each node enlists itself for as long as the horizon. Who was away for longer brings nothing old anyway.

use std::{
    str::FromStr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use starfish_dht::PeerId;

use crate::{
    cell::{Author, SpaceName},
    clock::now_ms,
    codec,
    memory::{Memory, Shared},
    store::ReadError,
    writer::WriteError,
};

// WIRE: all nodes must agree. The name of the peer follows.
const SPACE: &str = "sys";
const PREFIX: &[u8] = b"member/";

impl Memory {
    /// Tells all members of the swarm that the node `peer`, which must be this one, has a replica; if they were told and will
    /// not forget it soon, nothing is written. To be called time and again, some times within the horizon.
    pub async fn enlist(&self, peer: &PeerId) -> Result<(), WriteError> {
        let Ok(space) = self.space(SPACE) else { return Ok(()) };
        let horizon_ms = self.shared().horizon.length_ms();
        let key = key_of(peer);
        let address = codec::address(space.name(), &key, &[]);
        let until_ms = self.shared().store.cell(&address)?.and_then(|cell| cell.expires_ms);
        if until_ms.is_some_and(|until_ms| until_ms > now_ms().saturating_add(horizon_ms / 2)) {
            return Ok(());
        }
        let ttl = Duration::from_millis(horizon_ms);
        space.set(&key, Bytes::new(), Some(ttl)).await.map(drop)
    }

    /// The other nodes that have a replica, also those that are away now, as far as this one was told. Reads from the disk.
    pub fn members(&self) -> Result<Vec<PeerId>, ReadError> {
        Ok(self.shared().others()?.members)
    }

    /// Tells all that `peer` left for good: nobody need wait for what it may bring.
    pub async fn discharge(&self, peer: &PeerId) -> Result<(), WriteError> {
        let Ok(space) = self.space(SPACE) else { return Ok(()) };
        space.delete(&key_of(peer)).await.map(drop)
    }
}

fn key_of(peer: &PeerId) -> Vec<u8> {
    [PREFIX, peer.to_base58().as_bytes()].concat()
}

/// Other nodes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Others {
    /// Those that have a replica and were there within the horizon, as far as they have enlisted.
    pub(crate) members: Vec<PeerId>,
    /// Those that left, or have been away for longer.
    pub(crate) left: Vec<PeerId>,
}

impl Shared {
    /// What is known of other nodes.
    pub(crate) fn others(&self) -> Result<Others, ReadError> {
        let mut others = Others::default();
        let Ok(space) = SpaceName::new(SPACE) else { return Ok(others) };
        let (prefix, now_ms) = (codec::scan_prefix(&space, PREFIX), now_ms());
        for cell in self.store.scan(&prefix, &prefix) {
            let cell = cell?;
            let name = cell.key.strip_prefix(PREFIX).and_then(|name| str::from_utf8(name).ok());
            let Some(peer) = name.and_then(|name| PeerId::from_str(name).ok()) else { continue };
            if cell.field.is_empty() && Author::of(&peer) != self.author {
                let which = if cell.is_live(now_ms) { &mut others.members } else { &mut others.left };
                which.push(peer);
            }
        }
        Ok(others)
    }

    /// Whether each of the others knows what this replica knew then, and this one what they had written before they knew
    /// that. Of a replica that is not whole nothing is known.
    pub(crate) fn has_met_all_since(&self, since: Instant) -> bool {
        self.met_all()(since)
    }

    /// The same for many times, by who the others are now.
    pub(crate) fn met_all(&self) -> impl Fn(Instant) -> bool {
        let others = if self.is_incomplete() { None } else { self.others().ok() };
        move |since| {
            let met = |others| self.horizon.has_met_all_since(others, since, now_ms());
            others.as_ref().is_some_and(met)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_has_enlisted_is_known_after_a_crash_and_must_be_met() {
        let dir = tempfile::tempdir().unwrap();
        let (me, other) = (PeerId::random(), PeerId::random());
        let memory = Memory::open(dir.path(), &me).unwrap();
        memory.enlist(&me).await.unwrap();
        let since = Instant::now();
        assert!(memory.shared().has_met_all_since(since), "alone");
        memory.enlist(&other).await.unwrap();
        assert_eq!(memory.shared().others().unwrap().members, [other]);
        assert!(!memory.shared().has_met_all_since(since), "the other was not met");
        drop(memory);
        // What was met is only remembered in a file that a crash may leave behind.
        let _ = std::fs::remove_file(dir.path().join(Memory::MET));
        let memory = Memory::open(dir.path(), &me).unwrap();
        assert!(!memory.shared().has_met_all_since(since));
        for _ in 0..2 {
            memory.shared().horizon.agreed(other, now_ms(), Instant::now());
        }
        assert!(memory.shared().has_met_all_since(since));
        assert!(!memory.shared().has_met_all_since(Instant::now()));
        memory.discharge(&other).await.unwrap();
        assert!(memory.shared().has_met_all_since(Instant::now()), "who left brings nothing more");
    }

    #[tokio::test]
    async fn to_enlist_again_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let me = PeerId::random();
        let memory = Memory::open(dir.path(), &me).unwrap();
        memory.enlist(&me).await.unwrap();
        let digest = memory.digest();
        memory.enlist(&me).await.unwrap();
        assert_eq!(memory.digest(), digest);
    }
}
