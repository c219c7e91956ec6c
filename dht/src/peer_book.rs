//! Known peers and when to dial them again: a pure state machine, and a file that keeps it.
//!
//! Every member once met stays here with its addresses, so after a restart (in whatever order) or a healed
//! partition, nodes find each other again without a ticket.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};

/// The first wait after a failed dial, and the longest. Half a minute is how long a healed partition may go unnoticed.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Peers remembered, and addresses of each; the latest are kept.
const MAX_PEERS: usize = 4_096;
const MAX_ADDRESSES: usize = 16;

/// The peers a node knows of.
#[derive(Debug, Default)]
pub(crate) struct PeerBook {
    peers: HashMap<PeerId, Known>,
    changed: bool,
}

#[derive(Debug, Default)]
struct Known {
    addresses: Vec<Multiaddr>,
    failures: u32,
    next_dial: Option<Instant>,
    connected: bool,
    /// It passed the gate once; only such peers are kept on disk.
    member: bool,
    /// A ticket names it: it is dialled until it answers, however long that takes.
    invited: bool,
}

/// The form on disk.
#[derive(Serialize, Deserialize)]
struct Kept {
    peer: PeerId,
    addresses: Vec<Multiaddr>,
}

impl PeerBook {
    /// Adds addresses of a peer, latest first.
    pub(crate) fn learn(&mut self, peer: PeerId, addresses: impl IntoIterator<Item = Multiaddr>) {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&peer) {
            return;
        }
        let known = self.peers.entry(peer).or_default();
        for address in addresses {
            if !known.addresses.contains(&address) {
                known.addresses.insert(0, address);
                self.changed |= known.member;
                known.failures = 0;
            }
        }
        known.addresses.truncate(MAX_ADDRESSES);
    }

    /// A ticket names this peer.
    pub(crate) fn invited(&mut self, peer: PeerId, addresses: impl IntoIterator<Item = Multiaddr>) {
        self.learn(peer, addresses);
        if let Some(known) = self.peers.get_mut(&peer) {
            known.invited = true;
        }
    }

    /// The peer passed the gate; says whether that is the first time.
    pub(crate) fn connected(&mut self, peer: PeerId) -> bool {
        let known = self.peers.entry(peer).or_default();
        let is_new = !known.member;
        self.changed |= is_new;
        (known.connected, known.failures, known.next_dial, known.member) = (true, 0, None, true);
        is_new
    }

    /// The last connection ended; dial again soon.
    pub(crate) fn disconnected(&mut self, peer: &PeerId, now: Instant) {
        if let Some(known) = self.peers.get_mut(peer) {
            known.connected = false;
            known.next_dial = now.checked_add(FIRST_WAIT);
        }
    }

    /// A dial failed; wait twice as long before the next. A stranger that no ticket names is dropped at last.
    pub(crate) fn failed(&mut self, peer: &PeerId, now: Instant) {
        let Some(known) = self.peers.get_mut(peer) else { return };
        if known.connected {
            return;
        }
        known.failures = known.failures.saturating_add(1);
        if !known.member && !known.invited && known.failures > 8 {
            self.peers.remove(peer);
            return;
        }
        let wait = FIRST_WAIT.saturating_mul(1 << known.failures.min(10)).min(LONGEST_WAIT);
        // Two nodes that lost each other at one moment must not dial each other at one moment for ever.
        let spread = wait.mul_f64(rand::random_range(0.7..1.0));
        known.next_dial = now.checked_add(spread);
    }

    /// Forgets a peer: it left, or was revoked.
    pub(crate) fn remove(&mut self, peer: &PeerId) {
        self.changed |= self.peers.remove(peer).is_some();
    }

    /// Whether its word counts: it passed the gate once, or a ticket names it. Others are mere candidates.
    pub(crate) fn is_trusted(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|known| known.member || known.invited)
    }

    /// Whether anybody ever passed the gate.
    pub(crate) fn has_members(&self) -> bool {
        self.peers.values().any(|known| known.member)
    }

    /// The peers that should be dialled at `now`, at most `budget` of them; each is due again only after
    /// [`PeerBook::failed`] or a long wait.
    pub(crate) fn due(&mut self, now: Instant, budget: usize) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let mut due = Vec::new();
        for (peer, known) in &mut self.peers {
            let ready = known.next_dial.is_none_or(|next| next <= now);
            if due.len() < budget && !known.connected && ready && !known.addresses.is_empty() {
                known.next_dial = now.checked_add(LONGEST_WAIT);
                due.push((*peer, known.addresses.clone()));
            }
        }
        due
    }

    /// The addresses known of a peer.
    pub(crate) fn addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.peers.get(peer).map(|known| known.addresses.clone()).unwrap_or_default()
    }

    /// Reads the book; one that is damaged is begun anew, since peers come back by themselves or by ticket.
    pub(crate) fn load(path: &Path) -> Self {
        let mut book = Self::default();
        let kept = fs::read(path)
            .and_then(|bytes| postcard::from_bytes::<Vec<Kept>>(&bytes).map_err(io::Error::other));
        match kept {
            Ok(kept) => {
                for Kept { peer, addresses } in kept {
                    book.learn(peer, addresses);
                    if let Some(known) = book.peers.get_mut(&peer) {
                        known.member = true;
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the book of known peers is begun anew")
            }
        }
        book.changed = false;
        book
    }

    /// Writes the book if it has changed; a crash leaves the old or the new one.
    pub(crate) fn save(&mut self, path: &Path) -> io::Result<()> {
        if !self.changed {
            return Ok(());
        }
        let kept: Vec<Kept> = self
            .peers
            .iter()
            .filter(|(_, known)| known.member)
            .map(|(peer, known)| Kept { peer: *peer, addresses: known.addresses.clone() })
            .collect();
        let bytes = postcard::to_stdvec(&kept).map_err(io::Error::other)?;
        let temporary = path.with_extension("new");
        fs::write(&temporary, bytes)?;
        fs::rename(temporary, path)?;
        self.changed = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> Multiaddr {
        "/ip4/127.0.0.1/tcp/1".parse().unwrap()
    }

    #[test]
    fn dialling_backs_off_and_starts_over_after_success() {
        let (mut book, peer, start) = (PeerBook::default(), PeerId::random(), Instant::now());
        book.learn(peer, [address()]);
        assert_eq!(book.due(start, 8).len(), 1);
        assert!(book.due(start, 8).is_empty(), "a dial under way is not repeated");
        book.failed(&peer, start);
        assert!(book.due(start, 8).is_empty());
        assert_eq!(book.due(start + FIRST_WAIT * 2, 8).len(), 1);
        for _ in 0..5 {
            book.failed(&peer, start);
        }
        assert!(book.due(start + FIRST_WAIT * 2, 8).is_empty());
        book.connected(peer);
        book.disconnected(&peer, start);
        assert_eq!(book.due(start + FIRST_WAIT, 8).len(), 1);
    }

    #[test]
    fn members_are_kept_and_strangers_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers");
        let (member, stranger, now) = (PeerId::random(), PeerId::random(), Instant::now());
        let invited = PeerId::random();
        let mut book = PeerBook::default();
        book.learn(member, [address()]);
        book.connected(member);
        book.learn(stranger, [address()]);
        book.save(&path).unwrap();
        let mut again = PeerBook::load(&path);
        assert_eq!(again.due(now, 8), [(member, vec![address()])]);
        book.invited(invited, [address()]);
        for _ in 0..100 {
            book.failed(&stranger, now);
            book.failed(&invited, now);
            book.disconnected(&member, now);
            book.failed(&member, now);
        }
        assert!(book.addresses(&stranger).is_empty());
        assert_eq!(book.addresses(&member).len(), 1);
        assert_eq!(book.addresses(&invited).len(), 1, "who was invited waits for whom it knows");
    }

    #[test]
    fn a_damaged_book_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers");
        fs::write(&path, b"\xff\xff\xff").unwrap();
        assert!(PeerBook::load(&path).due(Instant::now(), 8).is_empty());
    }
}
