//! Whom to ask for a call: the less loaded of two nodes, by chance. Pure.
//!
//! Two random choices keep the fullest node within `log log n` of the mean (Mitzenmacher, "The Power of Two Choices in
//! Randomized Load Balancing", 2001), although what is known of the others' slots is some seconds old.

use std::collections::BTreeSet;

use starfish_dht::PeerId;

use super::version::FunctionName;
use crate::batch::docket::rendezvous;
use crate::id::half;
use crate::notice::Capacity;
use crate::task::JobId;

/// Nodes that are asked for one call in a row.
pub const MAX_ASKED: usize = 4;

/// What is known of a node that could take a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub node: PeerId,
    /// What it said that it could take on.
    pub capacity: Capacity,
}

/// Whether a call is to begin at once, or may wait for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Only nodes with a free slot are asked.
    Now,
    /// Any node that has slots at all.
    CanWait,
}

/// The nodes to ask for a call that needs so much memory, in this order. `draw` gives a number below the one that it is
/// given.
pub fn order(
    mut candidates: Vec<Candidate>,
    memory_bytes: u64,
    urgency: Urgency,
    mut draw: impl FnMut(usize) -> usize,
) -> Vec<PeerId> {
    candidates.retain(|Candidate { capacity, .. }| {
        let has_slot = if urgency == Urgency::Now { capacity.free > 0 } else { capacity.slots > 0 };
        has_slot && capacity.memory_bytes >= memory_bytes
    });
    let mut chosen = Vec::new();
    while chosen.len() < MAX_ASKED && !candidates.is_empty() {
        let one = draw(candidates.len());
        let other = (one + draw(candidates.len()).max(1)) % candidates.len();
        let is_freer = candidates[other].capacity.free > candidates[one].capacity.free;
        chosen.push(candidates.swap_remove(if is_freer { other } else { one }).node);
    }
    chosen
}

/// The nodes that run the calls of a function which is to have so many: those of `able` that come first in its rendezvous
/// order, so that all nodes name the same, and few change when one comes or goes.
pub fn homes(name: &FunctionName, able: impl IntoIterator<Item = PeerId>, replicas: u16) -> BTreeSet<PeerId> {
    let id = JobId(half(blake3::hash(name.as_str().as_bytes())));
    rendezvous(&id, able).into_iter().take(usize::from(replicas)).collect()
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn candidate(free: u32, memory_bytes: u64) -> Candidate {
        Candidate { node: PeerId::random(), capacity: Capacity { slots: 4, free, memory_bytes } }
    }

    #[test]
    fn only_nodes_that_can_take_it_are_asked_and_each_once() {
        let mut chance = StdRng::seed_from_u64(1);
        let all = [candidate(0, 10), candidate(1, 10), candidate(2, 9), candidate(3, 10)];
        let mut now = order(all.to_vec(), 10, Urgency::Now, |n| chance.random_range(0..n));
        now.sort();
        let mut wanted = [all[1].node, all[3].node];
        wanted.sort();
        assert_eq!(now, wanted);
        assert_eq!(order(all.to_vec(), 10, Urgency::CanWait, |n| chance.random_range(0..n)).len(), 3);
        assert_eq!(order(Vec::new(), 0, Urgency::Now, |_| 0), []);
        let many: Vec<_> = (0..50).map(|_| candidate(1, 10)).collect();
        assert_eq!(order(many, 0, Urgency::Now, |n| chance.random_range(0..n)).len(), MAX_ASKED);
    }

    #[test]
    fn of_two_the_less_loaded_is_asked_first() {
        let mut chance = StdRng::seed_from_u64(2);
        let all = [candidate(1, 1), candidate(4, 1)];
        for _ in 0..100 {
            let order = order(all.to_vec(), 1, Urgency::Now, |n| chance.random_range(0..n));
            assert_eq!(order, [all[1].node, all[0].node]);
        }
    }

    #[test]
    fn the_load_evens_out() {
        let mut chance = StdRng::seed_from_u64(3);
        let mut nodes: Vec<_> = (0..100).map(|_| candidate(100, 1)).collect();
        for node in &mut nodes {
            node.capacity.slots = 100;
        }
        for _ in 0..5000 {
            let first = order(nodes.clone(), 1, Urgency::Now, |n| chance.random_range(0..n))[0];
            nodes.iter_mut().find(|node| node.node == first).unwrap().capacity.free -= 1;
        }
        let least = nodes.iter().map(|node| node.capacity.free).min().unwrap();
        assert!(
            least >= 45,
            "with one random choice the fullest would have fewer than 30 of 50 left: {least}"
        );
    }

    #[test]
    fn a_function_has_the_same_few_homes_on_every_node_and_moves_little() {
        let name = "f".parse().unwrap();
        let mut nodes: Vec<_> = (0..20).map(|_| PeerId::random()).collect();
        let before = homes(&name, nodes.clone(), 3);
        nodes.reverse();
        assert_eq!((before.len(), &homes(&name, nodes.clone(), 3)), (3, &before));
        nodes.retain(|node| Some(node) != before.first());
        assert_eq!(homes(&name, nodes.clone(), 3).intersection(&before).count(), 2, "one is replaced");
        assert_eq!(homes(&name, nodes, 100).len(), 19);
    }
}
