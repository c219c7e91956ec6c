//! The members that files are spread over, as this node sees them. Pure.

use std::time::Duration;

use starfish_dht::PeerId;
use starfish_dht::presence::{ALIVE_FOR, Member};

use crate::hash::BlobHash;
use crate::place::{Candidate, loads, order};

/// So long after it was heard of last, a member that does not count as alive has fallen silent a moment ago: five seconds more than
/// who says nothing counts as alive, which is also what a member whose connection broke has behind it from the first.
const FALTERS_FOR: Duration = ALIVE_FOR.saturating_add(Duration::from_secs(5));

/// Who is there, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// Members that can be given shards and asked for them, this node among them, in the order of their names.
    pub(crate) alive: Vec<Candidate>,
    /// Members that fell silent a short while ago: they may come back with all that they hold.
    pub(crate) away: Vec<PeerId>,
    /// Members that are about to leave and hand over what they hold.
    pub(crate) leaving: Vec<PeerId>,
}

impl View {
    /// What `members` (all others that are known) look like to `local`. Who is silent for longer than `grace` is gone.
    pub(crate) fn of(local: Candidate, members: &[Member], grace: Duration) -> Self {
        let mut view = Self { alive: vec![local], ..Self::default() };
        for member in members {
            if member.beacon.leaving {
                continue;
            }
            if member.alive && member.beacon.retiring {
                view.leaving.push(member.peer);
            } else if member.alive {
                view.alive.push(Candidate { peer: member.peer, zone: member.beacon.zone.clone() });
            } else if member.silent_for < grace {
                view.away.push(member.peer);
            }
        }
        view.alive.sort_by_key(|member| member.peer);
        view
    }

    /// The living members' names.
    pub(crate) fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.alive.iter().map(|member| member.peer)
    }

    /// Whether `peer` may be given so many shards of a segment: no more than would be its share if two thirds of the
    /// swarm were gone, since whoever gives them may know of losses that this node has not noticed; and its share once
    /// more, since it may hold others from another time, which are dropped only later.
    pub(crate) fn may_hold(&self, peer: &PeerId, segment: &BlobHash, k: u16, shards: usize) -> bool {
        let fewest = loads(k, self.alive.len().div_ceil(3));
        let now = loads(k, self.alive.len());
        let most = |loads: &[u16]| loads.iter().max().map_or(0, |share| usize::from(*share));
        if shards > most(&fewest) + most(&now) {
            return false;
        }
        // Of a short segment only some hold anything. They may be others in another's view, but not by much.
        let holders = now.iter().filter(|share| **share > 0).count();
        let slack = self.alive.len() / 2 + 1;
        order(segment, &self.alive).iter().take(holders + slack).any(|member| member.peer == *peer)
    }
}

/// Those of `members` (all others that are known) that fell silent a moment ago. They may be gone, or be connected anew, as after a
/// restart of theirs or of this node; which of it shows within seconds.
pub(crate) fn faltering(members: &[Member]) -> impl Iterator<Item = PeerId> {
    let is_faltering =
        |member: &&Member| !member.alive && !member.beacon.leaving && member.silent_for < FALTERS_FOR;
    members.iter().filter(is_faltering).map(|member| member.peer)
}

/// Whether as many of them fell silent a moment ago as are left, this node among them: then it may be this node that is cut off.
pub(crate) fn may_be_cut_off(members: &[Member]) -> bool {
    faltering(members).count() > members.iter().filter(|member| member.alive).count()
}

#[cfg(test)]
mod tests {
    use starfish_dht::presence::Beacon;

    use super::*;

    fn member(alive: bool, retiring: bool, silent_for: u64) -> Member {
        Member {
            peer: PeerId::random(),
            beacon: Beacon { retiring, ..Beacon::default() },
            alive,
            silent_for: Duration::from_secs(silent_for),
            connected: alive,
        }
    }

    #[test]
    fn the_silent_are_away_for_a_while_and_then_gone() {
        let local = Candidate { peer: PeerId::random(), zone: String::new() };
        let members = [
            member(true, false, 0),
            member(false, false, 5),
            member(false, false, 50),
            member(true, true, 0),
        ];
        let view = View::of(local, &members, Duration::from_secs(10));
        assert_eq!(view.alive.len(), 2);
        assert_eq!(view.away, [members[1].peer]);
        assert_eq!(view.leaving, [members[3].peer]);
    }

    #[test]
    fn who_sees_half_fall_silent_doubts_itself_for_a_moment() {
        let silent = |n: usize, seconds: u64| {
            (0..n).map(move |_| member(false, false, ALIVE_FOR.as_secs() + seconds)).collect::<Vec<_>>()
        };
        let alive = || member(true, false, 0);
        assert!(may_be_cut_off(&silent(1, 0)), "from the only other one");
        assert!(!may_be_cut_off(&silent(1, 6)), "it is gone");
        assert!(may_be_cut_off(&[silent(2, 0), vec![alive()]].concat()), "from half");
        assert!(!may_be_cut_off(&[silent(2, 0), vec![alive(), alive()]].concat()), "most are there");
        assert!(!may_be_cut_off(&[]));
    }

    #[test]
    fn nobody_is_given_more_than_a_third_of_the_swarm_would_need() {
        let all = (0..8).map(|_| Candidate { peer: PeerId::random(), zone: String::new() });
        let view = View { alive: all.collect(), ..View::default() };
        let (peer, segment) = (view.alive[0].peer, BlobHash::of(b"segment"));
        assert!(view.may_hold(&peer, &segment, 240, 60), "its share of eight");
        assert!(view.may_hold(&peer, &segment, 240, 160 + 60), "its share of three, and what it had");
        assert!(!view.may_hold(&peer, &segment, 240, 160 + 61));
        assert!(!view.may_hold(&PeerId::random(), &segment, 240, 1), "a stranger");
    }
}
