//! Which changes a node has to see to, of all that it sees. Pure.
//!
//! A node looks at what there is, not at what has happened: so nothing is lost if it did not look for a while, and of many
//! changes of one thing the last one counts.

use crate::millis;
use std::collections::BTreeMap;
use std::time::Duration;

/// A change waits for so long, in case more of the same thing follow: so there is at most about one call a second for one
/// path or key, also when a function calls itself in a circle.
pub const CALM: Duration = Duration::from_secs(1);
/// A change that nobody saw to for so long is passed over. It must be shorter than memory remembers what is deleted.
pub const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// One thing as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The path or key.
    pub subject: String,
    /// Which change of it was the last; grows.
    pub version: String,
    /// When that was, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// It is not there any more.
    pub is_deleted: bool,
}

/// What a node knows of the things that a trigger listens to.
#[derive(Debug, Default)]
pub struct Burst(BTreeMap<String, Seen>);

#[derive(Debug)]
struct Seen {
    change: Change,
    /// Since when a change waits, on the node's own clock.
    waits_since: Option<u64>,
}

impl Burst {
    /// All that there is now. Of that, what was changed after `since`, and not too long ago, is to be seen to.
    pub fn look(&mut self, now: super::due::Now, since: &str, all: Vec<Change>) {
        let max_age = millis(MAX_AGE);
        let mut before = std::mem::take(&mut self.0);
        for change in all {
            let is_news =
                change.version.as_str() > since && change.at_ms.saturating_add(max_age) > now.unix_ms;
            let waits_since = match before.remove(&change.subject) {
                Some(seen) if seen.change.version == change.version => seen.waits_since,
                Some(seen) => seen.waits_since.or(is_news.then_some(now.up_ms)),
                None => is_news.then_some(now.up_ms),
            };
            self.0.insert(change.subject.clone(), Seen { change, waits_since });
        }
    }

    /// The changes that have waited long enough, each with for how long beyond that, in milliseconds.
    pub fn due(&self, up_ms: u64) -> impl Iterator<Item = (&Change, u64)> {
        let calm = millis(CALM);
        self.0.values().filter_map(move |seen| {
            let waited = up_ms.checked_sub(seen.waits_since?.saturating_add(calm))?;
            Some((&seen.change, waited))
        })
    }

    /// A change could not be seen to after all; if nothing newer waits, it does.
    pub fn unsettle(&mut self, change: &Change, up_ms: u64) {
        if let Some(seen) = self.0.get_mut(&change.subject) {
            seen.waits_since = seen.waits_since.or(Some(up_ms));
        }
    }

    /// A change was seen to, by whomever; if it was not the last of its thing, that one waits from now on.
    pub fn settle(&mut self, change: &Change, up_ms: u64) {
        if let Some(seen) = self.0.get_mut(&change.subject) {
            seen.waits_since = (seen.change.version != change.version).then_some(up_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::due::Now;
    use super::*;

    const SINCE: &str = "05";

    fn change(subject: &str, version: &str) -> Change {
        Change {
            subject: subject.to_owned(),
            version: version.to_owned(),
            at_ms: 1_000_000,
            is_deleted: false,
        }
    }

    fn at(up_ms: u64) -> Now {
        Now { unix_ms: 1_000_000 + up_ms, up_ms }
    }

    fn due(burst: &Burst, up_ms: u64) -> Vec<String> {
        burst.due(up_ms).map(|(change, _)| format!("{} {}", change.subject, change.version)).collect()
    }

    #[test]
    fn what_was_there_before_the_trigger_is_no_change() {
        let mut burst = Burst::default();
        burst.look(at(0), SINCE, vec![change("old", "04"), change("new", "06")]);
        assert_eq!(due(&burst, 999), [""; 0]);
        assert_eq!(due(&burst, 1000), ["new 06"]);
        let late = Now { unix_ms: 1_000_000 + 24 * 3_600_000, up_ms: 0 };
        let mut burst = Burst::default();
        burst.look(late, SINCE, vec![change("forgotten", "06")]);
        assert_eq!(due(&burst, 5000), [""; 0], "it is a day old");
    }

    #[test]
    fn of_a_burst_the_last_one_counts_and_none_starves() {
        let mut burst = Burst::default();
        for (up_ms, version) in [(0, "06"), (300, "07"), (600, "08"), (900, "09")] {
            burst.look(at(up_ms), SINCE, vec![change("a", version)]);
        }
        assert_eq!(due(&burst, 1000), ["a 09"]);
        burst.settle(&change("a", "09"), 1000);
        assert_eq!(due(&burst, 9000), [""; 0]);
        burst.look(at(1100), SINCE, vec![change("a", "10")]);
        assert_eq!(due(&burst, 2000), [""; 0]);
        assert_eq!(due(&burst, 2100), ["a 10"], "at most one a second");
    }

    #[test]
    fn what_came_while_an_older_change_was_seen_to_has_its_turn() {
        let mut burst = Burst::default();
        burst.look(at(0), SINCE, vec![change("a", "06")]);
        burst.look(at(900), SINCE, vec![change("a", "07")]);
        burst.settle(&change("a", "06"), 1000);
        assert_eq!(due(&burst, 1999), [""; 0]);
        assert_eq!(due(&burst, 2000), ["a 07"]);
    }

    #[test]
    fn what_is_gone_is_not_waited_for() {
        let mut burst = Burst::default();
        burst.look(at(0), SINCE, vec![change("a", "06"), change("b", "06")]);
        burst.look(at(500), SINCE, vec![change("b", "06")]);
        assert_eq!(due(&burst, 1000), ["b 06"]);
    }
}
