//! Epochs: when the history of a document is let go of, and what it begins with anew.
//!
//! Every change belongs to an epoch, and the first is all zeros. An epoch is closed by a pack of all changes that
//! whoever closes it knows; what the document says there is what the next epoch begins with, as one change that is the
//! same whoever computes it. Two who close one epoch at once with different changes open two; of these the greater
//! one counts, and what is written in the other is brought over.

use automerge::{ActorId, AutoCommit, AutomergeError, Change, ChangeHash};

use super::{state::new_automerge, tree::Tree};

/// Bytes of an epoch in a field.
pub(crate) const EPOCH_BYTES: usize = 12;

/// Which epoch of a document: how many were before, and which of those that have as many before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Epoch {
    number: u32,
    branch: [u8; EPOCH_BYTES - 4],
}

impl Epoch {
    /// The epoch that a document is made in.
    pub(crate) const FIRST: Self = Self { number: 0, branch: [0; EPOCH_BYTES - 4] };

    /// The epoch that follows if this one is closed at `heads`.
    pub(crate) fn after(self, heads: &[ChangeHash]) -> Self {
        let mut heads = heads.to_vec();
        heads.sort_unstable();
        let mut hasher = blake3::Hasher::new_derive_key("starfish memory 1: an epoch of a document");
        hasher.update(&self.to_bytes());
        heads.iter().for_each(|head| {
            hasher.update(&head.0);
        });
        let mut branch = [0; EPOCH_BYTES - 4];
        hasher.finalize_xof().fill(&mut branch);
        Self { number: self.number.saturating_add(1), branch }
    }

    /// How many epochs were before it.
    pub(crate) fn number(self) -> u32 {
        self.number
    }

    /// A number for a change of this epoch, in place of its hash. (One change may be of several epochs.)
    pub(crate) fn tag(self, hash: &ChangeHash) -> u64 {
        hash.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes)) ^ u64::from_be_bytes(self.branch)
    }

    pub(crate) fn to_bytes(self) -> [u8; EPOCH_BYTES] {
        let mut bytes = [0; EPOCH_BYTES];
        bytes[..4].copy_from_slice(&self.number.to_be_bytes());
        bytes[4..].copy_from_slice(&self.branch);
        bytes
    }

    pub(crate) fn from_bytes(bytes: [u8; EPOCH_BYTES]) -> Self {
        let [a, b, c, d, branch @ ..] = bytes;
        Self { number: u32::from_be_bytes([a, b, c, d]), branch }
    }

    /// Who makes, in this epoch, the change that stands for `origin`, a change of another epoch; and with no origin, the
    /// change that the epoch begins with. No two different changes have it. (Shared objects may be made by one change in
    /// several epochs.)
    pub(crate) fn actor(self, origin: Option<(Self, ChangeHash)>) -> ActorId {
        let mut hasher = blake3::Hasher::new_derive_key("starfish memory 1: a change brought into an epoch");
        hasher.update(&self.to_bytes());
        if let Some((epoch, origin)) = origin {
            hasher.update(&epoch.to_bytes()).update(&origin.0);
        }
        ActorId::from(&hasher.finalize().as_bytes()[..16])
    }

    /// What a change of another epoch is called by a change that stands for it.
    pub(crate) fn name_origin(self, origin: ChangeHash) -> String {
        let bytes = [self.to_bytes().as_slice(), &origin.0].concat();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The change of epoch `from` that `change`, of this epoch, stands for.
    pub(crate) fn origin(self, from: Self, change: &Change) -> Option<ChangeHash> {
        let hash: ChangeHash = change.message()?.get(2 * EPOCH_BYTES..)?.parse().ok()?;
        (*change.actor_id() == self.actor(Some((from, hash)))).then_some(hash)
    }

    /// The change that this epoch begins with, if it says `tree`, and the document that it makes.
    pub(crate) fn begin(self, tree: &Tree) -> Result<(Change, AutoCommit), AutomergeError> {
        let mut document: AutoCommit = new_automerge();
        document.set_actor(self.actor(None));
        tree.write_root(&mut document)?;
        let options = || automerge::transaction::CommitOptions::default().with_time(0);
        let hash = match document.commit_with(options()) {
            Some(hash) => hash,
            None => document.empty_change(options()),
        };
        let change = document.get_change_by_hash(&hash).ok_or(AutomergeError::InvalidHash(hash))?;
        Ok((change, document))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_depends_on_what_it_follows_and_not_on_the_order_of_heads() {
        let (a, b) = (ChangeHash([1; 32]), ChangeHash([2; 32]));
        let next = Epoch::FIRST.after(&[a, b]);
        assert_eq!(next, Epoch::FIRST.after(&[b, a]));
        assert_ne!(next, Epoch::FIRST.after(&[a]));
        assert_ne!(next.after(&[a]), Epoch::FIRST.after(&[a]));
        assert_eq!(next.number(), 1);
        assert!(next > Epoch::FIRST);
        assert_eq!(Epoch::from_bytes(next.to_bytes()), next);
    }
}
