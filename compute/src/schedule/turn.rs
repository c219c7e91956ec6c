//! Whose turn it is to do what any node could do. Pure.
//!
//! All go by the rendezvous order of a job: the first of the living acts at once, the next one a step later if nothing was
//! heard of it by then, and so on. Nodes that see different members act twice at the worst, which the job's id bears.

use std::collections::BTreeSet;
use std::time::Duration;

use starfish_dht::PeerId;

use crate::batch::docket::score;
use crate::millis;
use crate::task::JobId;

/// How long each node waits for the one before it: some times what it takes to make a job known, so that two rarely act;
/// short enough that a node that has just died is hardly missed.
pub const STEP: Duration = Duration::from_secs(5);

/// How long after it was due a node acts, in milliseconds, if nobody has before.
pub fn wait_ms(job: &JobId, me: &PeerId, living: &BTreeSet<PeerId>) -> u64 {
    let mine = score(job, me);
    let before = living.iter().filter(|peer| *peer != me && score(job, peer) > mine).count();
    millis(STEP).saturating_mul(before as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_has_a_turn_of_its_own_and_moves_up_when_another_is_gone() {
        let mut living: BTreeSet<_> = (0..5).map(|_| PeerId::random()).collect();
        let step = u64::try_from(STEP.as_millis()).unwrap();
        let mut firsts = BTreeSet::new();
        for number in 0..50 {
            let job = JobId([number; 16]);
            let mut waits: Vec<_> = living.iter().map(|me| (wait_ms(&job, me, &living), *me)).collect();
            waits.sort_unstable();
            assert!(waits.iter().map(|(wait, _)| *wait).eq((0..5).map(|turn| turn * step)));
            firsts.insert(waits[0].1);
            let mut without = living.clone();
            without.remove(&waits[0].1);
            assert_eq!(wait_ms(&job, &waits[1].1, &without), 0);
        }
        assert_eq!(firsts, living, "the work is shared");
        living.clear();
        assert_eq!(wait_ms(&JobId([0; 16]), &PeerId::random(), &living), 0);
    }
}
