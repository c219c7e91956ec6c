//! Which members hold how many shards of a segment. Pure: the same on every node that sees the same members.
//!
//! **The promise.** Of `N` members any ⌊N/2⌋ may vanish at once, and every segment can still be decoded. Whoever is
//! lost, the survivors hold at least as many shards as the ⌈N/2⌉ members with the fewest; so the promise is
//!
//! > the ⌈N/2⌉ smallest loads add up to `k` or more  ([`survives`]).
//!
//! Even loads reach that with the fewest shards; no code can do it with less than 2 times the data when `N` is even.
//! The number of shards is never lowered when the swarm shrinks by one or two: an odd swarm could do with fewer, but
//! then every join would have to make parity anew instead of moving what is there.
//!
//! Above [`CERTAIN`] members even loads become coarse (a member holds a shard or two), so there the promise is that of
//! a random half, kept with a probability of loss below [`RISK`] (the exact hypergeometric tail).
//!
//! Who comes first for a segment is decided by rendezvous hashing (Thaler and Ravishankar 1998), spread over zones.

use std::collections::HashMap;

use starfish_dht::PeerId;

use crate::hash::BlobHash;

/// Up to this many members every choice of half is survived.
pub(crate) const CERTAIN: usize = 64;
/// The highest probability, per segment, that a random half of more members takes too much with it.
const RISK: f64 = 1e-9;

/// A member that shards can be given to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) peer: PeerId,
    /// Its zone label; empty for none.
    pub(crate) zone: String,
}

/// The order of members for a segment: who comes first holds the first data shards.
pub(crate) fn order<'a>(segment: &BlobHash, members: &'a [Candidate]) -> Vec<&'a Candidate> {
    let mut ranked: Vec<_> = members.iter().map(|member| (score(segment, &member.peer), member)).collect();
    ranked.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    // The first of each zone, then the second of each, and so on.
    let mut seen: HashMap<&str, usize> = HashMap::new();
    let mut rounds: Vec<_> = ranked
        .into_iter()
        .map(|(_, member)| {
            let round = match member.zone.as_str() {
                "" => 0,
                zone => {
                    let count = seen.entry(zone).or_default();
                    *count += 1;
                    *count - 1
                }
            };
            (round, member)
        })
        .collect();
    rounds.sort_by_key(|(round, _)| *round);
    rounds.into_iter().map(|(_, member)| member).collect()
}

/// The one member that looks after something named by `hash`, among those that are there.
pub(crate) fn steward<'a>(hash: &BlobHash, members: impl Iterator<Item = &'a PeerId>) -> Option<&'a PeerId> {
    members.max_by_key(|peer| score(hash, peer))
}

fn score(hash: &BlobHash, peer: &PeerId) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(hash.as_bytes()).update(&peer.to_bytes());
    *hasher.finalize().as_bytes()
}

/// How many shards each of `members` holds, those first in the order first, of a segment of `k` data shards.
pub(crate) fn loads(k: u16, members: usize) -> Vec<u16> {
    if members == 0 {
        return Vec::new();
    }
    spread(shard_count(usize::from(k), members), members)
}

/// The same where only `holders` of the members have room. `None` if the loss of half of all could take all of them.
pub(crate) fn loads_among(k: u16, holders: usize, members: usize) -> Option<Vec<u16>> {
    if holders == members {
        return Some(loads(k, members));
    }
    let left = holders.checked_sub(members / 2).filter(|left| *left > 0)?;
    Some(spread(even_count(k.into(), holders, left), holders))
}

fn spread(n: usize, members: usize) -> Vec<u16> {
    let (each, over) = (n / members, n % members);
    (0..members).map(|position| (each + usize::from(position < over)) as u16).collect()
}

/// Whether `k` shards are left of `loads` after the loss of any `lost` of the members.
pub(crate) fn survives(k: u16, loads: &[u16], lost: usize) -> bool {
    let mut sorted: Vec<usize> = loads.iter().map(|load| usize::from(*load)).collect();
    sorted.sort_unstable();
    sorted.iter().take(loads.len().saturating_sub(lost)).sum::<usize>() >= usize::from(k)
}

/// How many shards a segment has in a swarm of so many members.
fn shard_count(k: usize, members: usize) -> usize {
    let certain = |members| certain_count(k, members);
    if members <= CERTAIN {
        return (1..=members).map(certain).max().unwrap_or(k);
    }
    let (mut low, mut high) = (k, certain(members));
    // Further shards never raise the risk, so the fewest that will do are found by halving.
    while low < high {
        let middle = low.midpoint(high);
        if risk(k, members, middle) < RISK { high = middle } else { low = middle + 1 }
    }
    high
}

/// The fewest shards with which `members` survive every choice of half.
fn certain_count(k: usize, members: usize) -> usize {
    even_count(k, members, members - members / 2)
}

/// The fewest shards, spread evenly over `members`, of which the `left` smallest loads are `k` or more.
fn even_count(k: usize, members: usize, left: usize) -> usize {
    let (each, rest) = (k / left, k % left);
    // With loads of `each` and `each + 1`, the `left` smallest must hold `rest` of the larger ones.
    members * each + if rest == 0 { 0 } else { members - left + rest }
}

/// The probability that a random half of `members` leaves fewer than `k` of `n` evenly spread shards.
fn risk(k: usize, members: usize, n: usize) -> f64 {
    let left = members - members / 2;
    let (each, over) = (n / members, n % members);
    // Survivors among the `over` members with one shard more: hypergeometric, and too few below this.
    let Some(needed) = k.checked_sub(left * each) else { return 0.0 };
    let ln_factorials = ln_factorials(members);
    let ln_choose = |n: usize, k: usize| ln_factorials[n] - ln_factorials[k] - ln_factorials[n - k];
    let whole = ln_choose(members, left);
    (0..needed.min(over + 1).min(left + 1))
        .filter(|drawn| left - drawn <= members - over)
        .map(|drawn| (ln_choose(over, drawn) + ln_choose(members - over, left - drawn) - whole).exp())
        .sum()
}

fn ln_factorials(n: usize) -> Vec<f64> {
    let mut sum = 0.0;
    std::iter::once(0.0)
        .chain((1..=n).map(|factor| {
            sum += (factor as f64).ln();
            sum
        }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::MAX_DATA;

    fn members(n: usize) -> Vec<Candidate> {
        (0..n).map(|_| Candidate { peer: PeerId::random(), zone: String::new() }).collect()
    }

    fn total(k: u16, members: usize) -> usize {
        loads(k, members).iter().map(|load| usize::from(*load)).sum()
    }

    #[test]
    fn every_choice_of_half_is_survived_up_to_64_members() {
        for members in 1..=CERTAIN {
            for k in 1..=MAX_DATA {
                let loads = loads(k, members);
                assert!(survives(k, &loads, members / 2), "{members} members, k = {k}: {loads:?}");
            }
        }
    }

    #[test]
    fn members_without_room_are_made_up_for_while_that_is_possible() {
        for members in 2..=20 {
            for holders in 1..members {
                match loads_among(MAX_DATA, holders, members) {
                    Some(loads) => assert!(survives(MAX_DATA, &loads, members / 2)),
                    None => assert!(holders <= members / 2),
                }
            }
        }
    }

    #[test]
    fn large_segments_cost_no_more_than_was_promised() {
        let cost = |members| total(MAX_DATA, members) as f64 / f64::from(MAX_DATA);
        for members in 2..=CERTAIN {
            assert!(cost(members) <= 2.1, "{} at {members} members", cost(members));
        }
        for members in CERTAIN + 1..=512 {
            assert!(cost(members) <= 2.5, "{} at {members} members", cost(members));
        }
    }

    #[test]
    fn a_random_half_of_a_large_swarm_takes_a_segment_with_it_less_than_once_in_a_billion() {
        for members in CERTAIN + 1..=512 {
            for k in [1, 2, 7, 30, 100, MAX_DATA] {
                let n = total(k, members);
                assert!(risk(k.into(), members, n) < RISK, "{members} members, k = {k}");
            }
        }
    }

    #[test]
    fn the_risk_is_the_one_that_counting_gives() {
        // 6 members, 3 survive; shards on 3 of them; lost when none of these three is left: 1 of 20 choices.
        assert!((risk(1, 6, 3) - 0.05).abs() < 1e-12);
        // Two or more of three are needed: 1 + 9 of 20 choices are too few.
        assert!((risk(2, 6, 3) - 0.5).abs() < 1e-12);
        assert!(risk(3, 6, 12).abs() < 1e-12);
    }

    #[test]
    fn most_members_keep_their_rank_when_one_comes() {
        let mut all = members(9);
        let segment = BlobHash::of(b"segment");
        let before: Vec<PeerId> = order(&segment, &all).iter().map(|member| member.peer).collect();
        let late = members(1).remove(0);
        all.push(late.clone());
        let mut after: Vec<PeerId> = order(&segment, &all).iter().map(|member| member.peer).collect();
        after.retain(|peer| *peer != late.peer);
        assert_eq!(before, after);
        assert_eq!(steward(&segment, after.iter()), after.first());
    }

    #[test]
    fn the_first_holders_are_in_different_zones() {
        let mut all = members(9);
        for (position, member) in all.iter_mut().enumerate() {
            member.zone = ["attic", "cellar", "shed"][position % 3].to_owned();
        }
        for text in ["a", "b", "c"] {
            let order = order(&BlobHash::of(text.as_bytes()), &all);
            let mut zones: Vec<&str> = order[..3].iter().map(|member| member.zone.as_str()).collect();
            zones.sort_unstable();
            assert_eq!(zones, ["attic", "cellar", "shed"]);
        }
    }

    #[test]
    fn large_swarms_are_placed_fast_enough() {
        assert_eq!(loads(1, 0), [0u16; 0]);
        assert_eq!(loads(1, 1), [1]);
        assert_eq!(loads(MAX_DATA, 2), [240, 240]);
        assert!(total(MAX_DATA, 4096) <= 1000);
    }
}
