//! When the bytes of large values may go: pure.
//!
//! A blob's name stands in one write, so there are two ways to know that nobody needs it. A version of a cell that was
//! *replaced* here has lost everywhere, whatever others do not know yet: its blob may go at once, and waits only for those
//! who read it just now. A blob that *no cell refers to* may be one whose cell is still on its way: it goes once this
//! node has had it in view for a while and has since agreed with every other node, so that each has told what it wrote.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::value::BlobName;

/// How long the node that replaced a value has time to let go of its bytes before the others do it, ...
const BACKSTOP: Duration = Duration::from_secs(300);
/// ... and then not all the others do it at one time.
const SPREAD: Duration = Duration::from_secs(300);
/// Replaced values that are remembered. Of more, the second way finds them.
const MAX_LEFTOVERS: usize = 65_536;

/// How long after its bytes were put away a value may be written, ...
pub(crate) const MAX_STASHED: Duration = Duration::from_secs(300);
/// ... and how long nobody may have referred to a blob that is let go of. The author's clock does not count in this.
const GRACE: Duration = Duration::from_secs(600);
/// Unreferred blobs that are kept in view at once.
const MAX_SUSPECTS: usize = 65_536;

/// Blobs of versions that were replaced here, and when they may go.
#[derive(Debug)]
pub(crate) struct Leftovers {
    /// How long they stay for those who read them, where they were replaced.
    linger: Duration,
    all: Mutex<BTreeSet<(Instant, BlobName)>>,
}

impl Leftovers {
    pub(crate) fn lingering(linger: Duration) -> Self {
        Self { linger, all: Mutex::default() }
    }

    /// Notes blobs that nobody will refer to any more. `is_local` says whether this node wrote what replaced them.
    pub(crate) fn offer(&self, names: impl IntoIterator<Item = BlobName>, is_local: bool) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        for name in names {
            let wait = if is_local { self.linger } else { BACKSTOP + SPREAD.mul_f64(rand::random::<f64>()) };
            if all.len() < MAX_LEFTOVERS {
                all.insert((Instant::now() + wait, name));
            }
        }
    }

    /// Takes those whose time has come.
    pub(crate) fn due(&self, now: Instant) -> Vec<BlobName> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let later = all.split_off(&(now, BlobName::from_bytes([0; BlobName::LEN])));
        std::mem::replace(&mut *all, later).into_iter().map(|(_, name)| name).collect()
    }
}

/// Blobs that no cell refers to, and since when this node has had them in view.
#[derive(Debug, Default)]
pub(crate) struct Suspects(HashMap<BlobName, Instant>);

impl Suspects {
    /// Takes note of all blobs that nobody refers to now; gives those that may go. `has_met_all_since` says whether this
    /// node has since heard of all that any other had written before.
    pub(crate) fn review(
        &mut self,
        unreferred: &[BlobName],
        now: Instant,
        has_met_all_since: impl Fn(Instant) -> bool,
    ) -> Vec<BlobName> {
        let before = std::mem::take(&mut self.0);
        let mut gone = Vec::new();
        for name in unreferred {
            let since = before.get(name).copied().unwrap_or(now);
            let sure = since + GRACE;
            if now >= sure && has_met_all_since(sure) {
                gone.push(*name);
            } else if self.0.len() < MAX_SUSPECTS {
                self.0.insert(*name, since);
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINGER: Duration = Duration::from_secs(30);

    #[test]
    fn what_was_replaced_here_goes_soon_and_what_was_replaced_elsewhere_later() {
        let (leftovers, now) = (Leftovers::lingering(LINGER), Instant::now());
        let (here, elsewhere) = (BlobName::draw(), BlobName::draw());
        leftovers.offer([here], true);
        leftovers.offer([elsewhere], false);
        assert!(leftovers.due(now).is_empty(), "it may be read still");
        assert_eq!(leftovers.due(now + LINGER * 2), [here]);
        assert!(leftovers.due(now + LINGER * 3).is_empty(), "only once");
        assert_eq!(leftovers.due(now + BACKSTOP + SPREAD * 2), [elsewhere]);
    }

    #[test]
    fn what_nobody_refers_to_goes_when_everybody_was_met_after_a_while() {
        let (mut suspects, start, name) = (Suspects::default(), Instant::now(), BlobName::draw());
        let all_met = |_| true;
        assert!(suspects.review(&[name], start, all_met).is_empty(), "its cell may be on its way");
        assert!(suspects.review(&[name], start + GRACE / 2, all_met).is_empty());
        let late = start + GRACE * 2;
        assert!(suspects.review(&[name], late, |_| false).is_empty(), "somebody was not met since");
        assert!(suspects.review(&[name], late, |since| since < start + GRACE).is_empty(), "or before that");
        assert_eq!(suspects.review(&[name], late, all_met), [name]);
    }

    #[test]
    fn what_is_referred_to_in_between_begins_anew() {
        let (mut suspects, start, name) = (Suspects::default(), Instant::now(), BlobName::draw());
        suspects.review(&[name], start, |_| true);
        suspects.review(&[], start + GRACE / 2, |_| true);
        assert!(suspects.review(&[name], start + GRACE * 2, |_| true).is_empty());
    }
}
