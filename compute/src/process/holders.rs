//! Events on a second disk before they are acknowledged: a node that dies takes none with it that nobody else has.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use starfish_dht::PeerId;
use tracing::debug;

use super::record::{Event, MAX_DATA, ProcessName};
use super::service::Processes;
use crate::compute::StartError;
use crate::id::EventId;
use crate::links::LinkError;

/// Has a node keep an event.
const HOLD_PROTOCOL: &str = "/starfish/compute-event/1";
/// How long a node may take for that.
const PATIENCE: Duration = Duration::from_secs(2);
/// Nodes that are asked in turn.
const MAX_ASKED: usize = 3;

/// WIRE.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Hold {
    process: ProcessName,
    id: EventId,
    event: Event,
}

impl Processes {
    pub(super) fn serve(self: &Arc<Self>) -> Result<(), StartError> {
        let weak = Arc::downgrade(self);
        let answer = move |peer: PeerId, hold: Hold| {
            let this = weak.upgrade();
            async move {
                match this {
                    Some(this) => this.hold(peer, hold).await,
                    None => false,
                }
            }
        };
        Ok(self.service.network.serve(HOLD_PROTOCOL, answer).map_err(LinkError::from)?)
    }

    /// Keeps an event for another node; says whether it is on this disk.
    async fn hold(&self, peer: PeerId, hold: Hold) -> bool {
        let Hold { process, id, event } = hold;
        if !self.service.may_compute(&peer) || event.data.len() > MAX_DATA {
            return false;
        }
        self.hear();
        let is_its = self.with(&process, |spec, _| spec.tag == event.tag).unwrap_or(false);
        is_its && self.journal(&process, id, &event).await.is_ok()
    }

    /// Has another node keep an event, the owner if that is another. Says how many did.
    pub(super) async fn copy(&self, process: &ProcessName, id: EventId, event: &Event) -> u32 {
        let others = self.order(process, event.tag).into_iter().filter(|peer| *peer != self.me());
        for peer in others.take(MAX_ASKED) {
            let hold = Hold { process: process.clone(), id, event: event.clone() };
            let asked = self.service.network.call::<_, bool>(peer, HOLD_PROTOCOL, &hold);
            match tokio::time::timeout(PATIENCE, asked).await {
                Ok(Ok(true)) => return 1,
                answer => debug!(%process, %peer, ?answer, "a node does not keep an event"),
            }
        }
        0
    }
}
