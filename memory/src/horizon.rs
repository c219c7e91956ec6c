//! How long the dead are remembered, and what follows for who was away for longer.
//!
//! Tombstones and expired values are reaped when they are older than the horizon. Who was in touch since then has heard
//! of them. Two replicas that have not compared notes for longer than that cannot tell a cell that is new to the other
//! from one that the other has forgotten, but for its stamp: what both held when they last agreed, and one of them no
//! longer has, was deleted there. So it is not brought back: the one that still has it deletes it, too.
//!
//! When it was that two last agreed is kept in a file; a new node knows of nobody and is given everything.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use starfish_dht::PeerId;

use crate::{
    cell::{Cell, Content},
    clock::{stamp_time, unix_ms},
    members::Others,
    memory::Memory,
};

/// What is reaped at one time, so that replicas reap the same at about the same time: a hundredth of the horizon.
const STEPS: u64 = 100;
/// Peers that are remembered; those heard of least lately are forgotten first.
const MAX_PEERS: usize = 4096;

/// The horizon of one replica.
#[derive(Debug)]
pub(crate) struct Horizon {
    length_ms: u64,
    file: PathBuf,
    agreed: Mutex<Agreed>,
}

/// When this replica last agreed with each peer, in Unix milliseconds.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Agreed {
    by_peer: HashMap<PeerId, u64>,
    /// The comparisons since this node started, on the clock that nobody sets.
    #[serde(skip)]
    met: HashMap<PeerId, Met>,
    #[serde(skip)]
    is_changed: bool,
    /// There is a peer that the file does not know.
    #[serde(skip)]
    has_new: bool,
}

/// The comparisons with one peer.
#[derive(Clone, Copy, Debug)]
struct Met {
    /// When the last one began and ended.
    last: (Instant, Instant),
    /// When the one began before which another had ended that began later.
    sure: Option<Instant>,
}

impl Horizon {
    /// Reads when it was that this replica last agreed with others. A damaged file is begun anew.
    pub(crate) fn open(dir: &Path, length: Duration) -> Self {
        let file = dir.join(Memory::MET);
        let agreed = match fs::read(&file) {
            Ok(bytes) => postcard::from_bytes(&bytes).unwrap_or_default(),
            Err(_) => Agreed::default(),
        };
        let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        Self { length_ms, file, agreed: Mutex::new(agreed) }
    }

    /// How often what is dead for long is looked for.
    pub(crate) fn reap_every(&self) -> Duration {
        Duration::from_millis((self.length_ms / STEPS).clamp(100, 60_000))
    }

    /// What was dead before this is reaped at `now_ms`.
    pub(crate) fn reaped_before(&self, now_ms: u64) -> u64 {
        let step = (self.length_ms / STEPS).max(1);
        now_ms.saturating_sub(self.length_ms) / step * step
    }

    /// Whether a cell has been dead for so long that nobody needs to hear of it any more.
    pub(crate) fn is_long_dead(&self, cell: &Cell, now_ms: u64) -> bool {
        let dead_ms = match cell.content {
            Content::Tombstone => Some(unix_ms(cell.stamp.time)),
            Content::Value(_) | Content::Large(_) | Content::Kept(_) => cell.expires_ms,
        };
        dead_ms.is_some_and(|dead_ms| dead_ms < self.reaped_before(now_ms))
    }

    /// This replica and the peer's have exchanged what each held at this time, told by both clocks.
    pub(crate) fn agreed(&self, peer: PeerId, at_ms: u64, at: Instant) {
        let mut agreed = self.lock();
        if agreed.by_peer.len() >= MAX_PEERS
            && !agreed.by_peer.contains_key(&peer)
            && let Some(oldest) = agreed.by_peer.iter().min_by_key(|(_, at)| **at).map(|(peer, _)| *peer)
        {
            agreed.by_peer.remove(&oldest);
            agreed.met.remove(&oldest);
        }
        let sure = agreed.met.get(&peer).and_then(|met| match met.last {
            (began, ended) if at >= ended => Some(began),
            _ => met.sure,
        });
        agreed.met.insert(peer, Met { last: (at, Instant::now().max(at)), sure });
        agreed.has_new |= agreed.by_peer.insert(peer, at_ms).is_none();
        agreed.is_changed = true;
    }

    /// How long the dead are remembered, in milliseconds.
    pub(crate) fn length_ms(&self) -> u64 {
        self.length_ms
    }

    /// Whether each of the others, and of those met within the horizon that did not leave, knows what this replica knew then, and
    /// this replica knows what each of them had written before it knew that. It takes two comparisons: the peer may have written
    /// something in the course of the first, before it was told.
    pub(crate) fn has_met_all_since(&self, others: &Others, since: Instant, now_ms: u64) -> bool {
        let agreed = self.lock();
        let counts = |peer: &PeerId, at_ms| {
            now_ms.saturating_sub(at_ms) <= self.length_ms && !others.left.contains(peer)
        };
        let met = agreed.by_peer.iter().filter(|(peer, at_ms)| counts(peer, **at_ms));
        let is_sure = |peer| agreed.met.get(peer).and_then(|met| met.sure).is_some_and(|at| at >= since);
        met.map(|(peer, _)| peer).chain(&others.members).all(is_sure)
    }

    /// If this replica and the peer's have been apart for longer than the horizon: what has a stamp of at most this
    /// time, and the peer does not have, was deleted there. One who is not known counts like the one met last.
    pub(crate) fn floor(&self, peer: &PeerId, now_ms: u64) -> Option<u64> {
        let agreed = self.lock();
        let at_ms = agreed.by_peer.get(peer).or_else(|| agreed.by_peer.values().max())?;
        (now_ms.saturating_sub(*at_ms) > self.length_ms).then(|| stamp_time(*at_ms))
    }

    /// Whether the file should be written soon: a crash must not take it that there is such a peer.
    pub(crate) fn has_new(&self) -> bool {
        self.lock().has_new
    }

    /// Writes the file if it has changed; a crash leaves the old or the new one.
    pub(crate) fn save(&self) -> io::Result<()> {
        let bytes = {
            let mut agreed = self.lock();
            if !std::mem::take(&mut agreed.is_changed) {
                return Ok(());
            }
            agreed.has_new = false;
            postcard::to_stdvec(&*agreed).map_err(io::Error::other)?
        };
        let temporary = self.file.with_extension("new");
        fs::write(&temporary, bytes)?;
        fs::rename(&temporary, &self.file)
    }

    fn lock(&self) -> MutexGuard<'_, Agreed> {
        self.agreed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(1000);

    #[test]
    fn who_was_in_touch_lately_brings_everything_and_who_was_not_brings_nothing_old() {
        let folder = tempfile::tempdir().unwrap();
        let horizon = Horizon::open(folder.path(), LENGTH);
        let (peer, other) = (PeerId::random(), PeerId::random());
        assert_eq!(horizon.floor(&peer, 5_000_000), None, "a new node has nothing to be careful with");
        horizon.agreed(peer, 1_000_000, Instant::now());
        assert_eq!(horizon.floor(&peer, 2_000_000), None);
        assert_eq!(horizon.floor(&peer, 2_000_001), Some(stamp_time(1_000_000)));
        assert_eq!(horizon.floor(&other, 2_000_001), Some(stamp_time(1_000_000)), "a stranger counts alike");
        horizon.agreed(other, 2_000_000, Instant::now());
        assert_eq!(horizon.floor(&PeerId::random(), 2_500_000), None, "it was in touch with somebody");
        assert!(horizon.floor(&peer, 2_500_000).is_some(), "but not with this one");
        horizon.save().unwrap();
        assert!(Horizon::open(folder.path(), LENGTH).floor(&peer, 2_500_000).is_some());
    }

    #[test]
    fn all_are_met_once_each_was_met_anew_and_who_is_away_for_long_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let horizon = Horizon::open(folder.path(), LENGTH);
        let (peer, other, since) = (PeerId::random(), PeerId::random(), Instant::now());
        let after = |seconds| since + Duration::from_secs(seconds);
        assert!(horizon.has_met_all_since(&Others::default(), since, 1_000_000), "alone");
        horizon.agreed(peer, 1_000_000, after(0));
        assert!(!horizon.has_met_all_since(&Others::default(), since, 1_000_001), "once is not enough");
        horizon.agreed(peer, 1_000_000, after(10));
        assert!(horizon.has_met_all_since(&Others::default(), since, 1_000_001));
        assert!(
            !horizon.has_met_all_since(&Others::default(), after(5), 1_000_001),
            "the first of the two was before"
        );
        horizon.agreed(other, 1_900_000, after(20));
        horizon.agreed(other, 1_900_000, after(30));
        assert!(!horizon.has_met_all_since(&Others::default(), after(15), 2_000_000), "only one of two");
        assert!(
            horizon.has_met_all_since(&Others::default(), after(15), 2_000_001),
            "the other is away for too long"
        );
    }

    #[test]
    fn replicas_reap_the_same_at_about_the_same_time() {
        let folder = tempfile::tempdir().unwrap();
        let horizon = Horizon::open(folder.path(), LENGTH);
        assert_eq!(horizon.reaped_before(2_000_000), horizon.reaped_before(2_009_999));
        assert_eq!(horizon.reaped_before(500), 0);
    }

    #[test]
    fn a_damaged_file_is_begun_anew_and_peers_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("agreed"), b"\xff\xff").unwrap();
        let horizon = Horizon::open(folder.path(), LENGTH);
        for at_ms in 0..=MAX_PEERS as u64 {
            horizon.agreed(PeerId::random(), at_ms, Instant::now());
        }
        assert_eq!(horizon.lock().by_peer.len(), MAX_PEERS);
    }
}
