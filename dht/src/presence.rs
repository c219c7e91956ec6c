//! Who is alive, with what to offer: a pure state machine.
//!
//! Every node announces itself every [`BEACON_EVERY`]; who has been silent for [`ALIVE_FOR`] counts as gone. Times
//! are the receiver's own monotonic clock, so nobody's wall clock matters. A beacon carries a sequence number
//! that grows with every beacon and every restart, so that an old one that gossip delivers late changes nothing.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};

/// How often a node says that it is there.
pub const BEACON_EVERY: Duration = Duration::from_secs(2);
/// After three missed beacons a node counts as gone, unless it is connected.
pub const ALIVE_FOR: Duration = Duration::from_secs(7);
/// After this long without a word, a node is forgotten here (the peer book still knows its addresses).
const FORGET_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Members remembered; the swarm is meant for some hundreds.
const MAX_MEMBERS: usize = 4_096;
/// Addresses taken from one beacon.
pub const MAX_ADDRESSES: usize = 16;
/// The longest zone and version text that is kept, in bytes.
const MAX_TEXT: usize = 64;

/// What a node says about itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Beacon {
    /// Grows with every beacon; begins with the wall clock in milliseconds at the node's start.
    pub sequence: u64,
    /// Where it can be dialled.
    pub addresses: Vec<Multiaddr>,
    /// What it has and how busy it is.
    pub capacity: Capacity,
    /// The version of its program.
    pub version: String,
    /// Its zone label; empty for none.
    pub zone: String,
    /// It leaves for good, now.
    pub leaving: bool,
    /// It is going to leave, and gives what it holds to others until then: nobody should give it anything.
    pub retiring: bool,
}

/// What a node can give, for placement and scheduling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Capacity {
    /// Processor cores.
    pub cores: u16,
    /// Tasks that it can run at once, and runs now.
    pub slots: u16,
    /// Of the slots, those in use.
    pub busy_slots: u16,
    /// Bytes that its storage may still take.
    pub free_bytes: u64,
    /// Bytes that its storage holds.
    pub used_bytes: u64,
}

/// One member as this node sees it.
#[derive(Clone, Debug)]
pub struct Member {
    /// Who.
    pub peer: PeerId,
    /// Its latest beacon.
    pub beacon: Beacon,
    /// Whether it is connected, or was heard of lately.
    pub alive: bool,
    /// Time since it was last heard of.
    pub silent_for: Duration,
    /// Whether there is a connection to it now.
    pub connected: bool,
}

/// The table of members.
#[derive(Debug, Default)]
pub struct Presence {
    members: HashMap<PeerId, Seen>,
}

#[derive(Debug)]
struct Seen {
    beacon: Beacon,
    heard: Instant,
    connected: bool,
}

/// What a beacon told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing: it is older than what is known, malformed, or the table is full.
    Stale,
    /// A member known already.
    Known,
    /// Somebody new, or back after an absence.
    New,
}

impl Presence {
    /// Takes a beacon of `peer` that arrived at `now`.
    pub fn hear(&mut self, peer: PeerId, beacon: Beacon, now: Instant) -> Heard {
        if beacon.addresses.len() > MAX_ADDRESSES
            || beacon.version.len() > MAX_TEXT
            || beacon.zone.len() > MAX_TEXT
        {
            return Heard::Stale;
        }
        let is_full = self.members.len() >= MAX_MEMBERS;
        match self.members.get_mut(&peer) {
            Some(seen) if beacon.sequence <= seen.beacon.sequence => Heard::Stale,
            Some(seen) => {
                let was_alive = seen.is_alive(now);
                (seen.beacon, seen.heard) = (beacon, now);
                if was_alive { Heard::Known } else { Heard::New }
            }
            None if is_full => Heard::Stale,
            None => {
                self.members.insert(peer, Seen { beacon, heard: now, connected: false });
                Heard::New
            }
        }
    }

    /// A connection to `peer` came up.
    pub fn connected(&mut self, peer: PeerId, now: Instant) {
        if self.members.len() >= MAX_MEMBERS && !self.members.contains_key(&peer) {
            return;
        }
        let seen = self.members.entry(peer).or_insert_with(|| Seen {
            beacon: Beacon::default(),
            heard: now,
            connected: true,
        });
        (seen.connected, seen.heard) = (true, now);
    }

    /// The last connection to `peer` went down. A node that dies takes its connections with it, so it must be heard
    /// of again to count as alive: others may still be connected to it and pass its beacons on.
    pub fn disconnected(&mut self, peer: &PeerId, now: Instant) {
        if let Some(seen) = self.members.get_mut(peer) {
            seen.connected = false;
            seen.heard = now.checked_sub(ALIVE_FOR).unwrap_or(now);
        }
    }

    /// Forgets one member for good: it left, or was revoked.
    pub fn remove(&mut self, peer: &PeerId) {
        self.members.remove(peer);
    }

    /// Forgets who has been silent for a day.
    pub fn tick(&mut self, now: Instant) {
        self.members.retain(|_, seen| seen.connected || now.duration_since(seen.heard) < FORGET_AFTER);
    }

    /// All members known, in the order of their PeerIds.
    pub fn members(&self, now: Instant) -> Vec<Member> {
        let mut members: Vec<Member> = self
            .members
            .iter()
            .map(|(peer, seen)| Member {
                peer: *peer,
                beacon: seen.beacon.clone(),
                alive: seen.is_alive(now),
                silent_for: now.saturating_duration_since(seen.heard),
                connected: seen.connected,
            })
            .collect();
        members.sort_by_key(|member| member.peer);
        members
    }
}

impl Seen {
    fn is_alive(&self, now: Instant) -> bool {
        !self.beacon.leaving && (self.connected || now.saturating_duration_since(self.heard) < ALIVE_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beacon(sequence: u64) -> Beacon {
        Beacon { sequence, ..Beacon::default() }
    }

    #[test]
    fn silence_means_gone_and_a_word_means_back() {
        let (mut presence, peer, start) = (Presence::default(), PeerId::random(), Instant::now());
        assert_eq!(presence.hear(peer, beacon(1), start), Heard::New);
        assert!(presence.members(start + ALIVE_FOR / 2)[0].alive);
        let later = start + ALIVE_FOR * 2;
        assert!(!presence.members(later)[0].alive);
        assert_eq!(presence.hear(peer, beacon(2), later), Heard::New);
        assert!(presence.members(later)[0].alive);
    }

    #[test]
    fn a_late_or_repeated_beacon_does_not_revive() {
        let (mut presence, peer, start) = (Presence::default(), PeerId::random(), Instant::now());
        presence.hear(peer, beacon(5), start);
        let later = start + ALIVE_FOR * 2;
        assert_eq!(presence.hear(peer, beacon(5), later), Heard::Stale);
        assert_eq!(presence.hear(peer, beacon(4), later), Heard::Stale);
        assert!(!presence.members(later)[0].alive);
    }

    #[test]
    fn a_broken_connection_counts_until_others_tell_of_the_peer() {
        let (mut presence, peer, start) = (Presence::default(), PeerId::random(), Instant::now());
        presence.connected(peer, start);
        presence.hear(peer, beacon(1), start);
        presence.disconnected(&peer, start);
        assert!(!presence.members(start)[0].alive);
        presence.hear(peer, beacon(2), start);
        assert!(presence.members(start)[0].alive);
    }

    #[test]
    fn a_flood_of_strangers_is_bounded() {
        let (mut presence, now) = (Presence::default(), Instant::now());
        for _ in 0..MAX_MEMBERS + 100 {
            presence.hear(PeerId::random(), beacon(1), now);
        }
        assert_eq!(presence.members(now).len(), MAX_MEMBERS);
        presence.tick(now + FORGET_AFTER);
        assert!(presence.members(now).is_empty());
    }

    #[test]
    fn oversized_beacons_are_refused() {
        let (mut presence, now) = (Presence::default(), Instant::now());
        let endless = Beacon { zone: "z".repeat(MAX_TEXT + 1), ..beacon(1) };
        assert_eq!(presence.hear(PeerId::random(), endless, now), Heard::Stale);
    }
}
