//! Which peers to ask first: those that answered lately. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use starfish_dht::PeerId;

/// How long a peer that did not answer in time is asked only when nobody else can help.
const SUSPECT_FOR: Duration = Duration::from_secs(10);
/// The same for one that gave wrong bytes.
const LIAR_FOR: Duration = Duration::from_secs(600);

/// What is remembered of peers. Bounded by the members of the swarm, which alone are ever asked.
#[derive(Debug, Default)]
pub(crate) struct Scores(HashMap<PeerId, Score>);

#[derive(Debug, Default)]
struct Score {
    avoid_until: Option<Instant>,
    lies: u32,
}

impl Scores {
    /// A peer did not answer in time.
    pub(crate) fn stalled(&mut self, peer: PeerId, now: Instant) {
        self.avoid(peer, now + SUSPECT_FOR);
    }

    /// A peer gave what it should.
    pub(crate) fn answered(&mut self, peer: &PeerId) {
        if let Some(score) = self.0.get_mut(peer).filter(|score| score.lies == 0) {
            score.avoid_until = None;
        }
    }

    /// A peer gave bytes that are not those they were said to be. How often it did so by now.
    pub(crate) fn lied(&mut self, peer: PeerId, now: Instant) -> u32 {
        self.avoid(peer, now + LIAR_FOR);
        let score = self.0.entry(peer).or_default();
        score.lies += 1;
        score.lies
    }

    /// Whether a peer is asked at all while others can help.
    pub(crate) fn is_trusted(&self, peer: &PeerId, now: Instant) -> bool {
        self.0.get(peer).and_then(|score| score.avoid_until).is_none_or(|until| now >= until)
    }

    /// How often each peer gave wrong bytes.
    pub(crate) fn liars(&self) -> impl Iterator<Item = (PeerId, u32)> {
        self.0.iter().filter(|(_, score)| score.lies > 0).map(|(peer, score)| (*peer, score.lies))
    }

    fn avoid(&mut self, peer: PeerId, until: Instant) {
        let score = self.0.entry(peer).or_default();
        score.avoid_until = score.avoid_until.max(Some(until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stalled_peer_is_forgiven_by_an_answer_and_a_liar_by_time() {
        let (mut scores, now) = (Scores::default(), Instant::now());
        let (slow, liar) = (PeerId::random(), PeerId::random());
        scores.stalled(slow, now);
        scores.lied(liar, now);
        assert!(!scores.is_trusted(&slow, now) && !scores.is_trusted(&liar, now));
        scores.answered(&slow);
        scores.answered(&liar);
        assert!(scores.is_trusted(&slow, now) && !scores.is_trusted(&liar, now));
        assert!(scores.is_trusted(&liar, now + LIAR_FOR));
        assert_eq!(scores.liars().collect::<Vec<_>>(), [(liar, 1)]);
    }
}
