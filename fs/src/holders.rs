//! Members as holders of shards, this node and the others alike: what they hold, giving them shards, handing over.

use starfish_dht::PeerId;

use crate::hash::BlobHash;
use crate::members::View;
use crate::peers::wire::{Held, Kept, Part};
use crate::peers::{AskError, Peers};
use crate::store::{Bundle, Store};

/// About how many bytes of shards are handed over at once.
const BATCH: usize = 16 << 20;

/// The way to every holder. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Holders {
    store: Store,
    peers: Peers,
}

/// What became of shards that were to be handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Handed {
    /// The other has them on its disk, and they are here no longer.
    Over,
    /// They were not here.
    Absent,
    /// They are still here, for this reason.
    Refused(String),
}

impl Holders {
    pub(crate) fn new(store: Store, peers: Peers) -> Self {
        Self { store, peers }
    }

    /// What each living member holds of these segments, in the order of the view.
    pub(crate) async fn survey(
        &self,
        view: &View,
        segments: &[BlobHash],
    ) -> Vec<(PeerId, Result<Vec<Held>, AskError>)> {
        let ask = view.peers().map(|peer| async move {
            if peer != self.peers.local() {
                return (peer, self.peers.survey(peer, segments).await);
            }
            let own = |segment| Held {
                indices: self.store.held(segment).unwrap_or_default(),
                is_publishing: self.store.is_kept(segment).unwrap_or_default(),
            };
            (peer, Ok(segments.iter().map(own).collect()))
        });
        futures::future::join_all(ask).await
    }

    /// Has a member keep shards; what became of each, when they outlive a crash there.
    pub(crate) async fn give(&self, peer: PeerId, bundles: &[(BlobHash, Bundle)]) -> Vec<Kept> {
        if peer != self.peers.local() {
            return self.peers.push(peer, bundles).await.unwrap_or_else(|error| {
                tracing::debug!(%peer, %error, "shards were not taken");
                vec![Kept::Failed; bundles.len()]
            });
        }
        let added = self.store.add_all_shards(bundles.to_vec()).await.unwrap_or_default();
        let mut kept: Vec<Kept> =
            added.iter().map(|added| if added.is_ok() { Kept::Yes } else { Kept::NoRoom }).collect();
        kept.resize(bundles.len(), Kept::Failed);
        if self.store.flush().await.is_err() {
            kept.fill(Kept::Failed);
        }
        kept
    }

    /// Gives shards of this node to another and keeps them no longer, once they outlive a crash there.
    pub(crate) async fn hand_over(&self, to: PeerId, parts: &[Part]) -> Vec<Handed> {
        let mut handed = vec![Handed::Absent; parts.len()];
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for (position, part) in parts.iter().enumerate() {
            let bundle = self.store.shards(part.segment).await.ok().flatten();
            let bundle = bundle.map(|bundle| bundle.only(&part.indices));
            if let Some(bundle) = bundle.filter(|bundle| !bundle.shards().is_empty()) {
                bytes += part.body_len().unwrap_or_default();
                batch.push((position, (part.segment, bundle)));
            }
            if bytes >= BATCH || position + 1 == parts.len() {
                self.hand_over_batch(to, &std::mem::take(&mut batch), &mut handed).await;
                bytes = 0;
            }
        }
        handed
    }

    async fn hand_over_batch(
        &self,
        to: PeerId,
        batch: &[(usize, (BlobHash, Bundle))],
        handed: &mut [Handed],
    ) {
        let offers: Vec<_> = batch.iter().map(|(_, offer)| offer.clone()).collect();
        for ((position, (segment, bundle)), kept) in batch.iter().zip(self.give(to, &offers).await) {
            handed[*position] = match kept {
                Kept::Yes => match self.store.drop_shards(*segment, bundle.indices()).await {
                    Ok(()) => Handed::Over,
                    Err(error) => Handed::Refused(format!("the store failed: {error}")),
                },
                refused => Handed::Refused(format!("{to} {}", refused.why_not())),
            };
        }
    }
}
