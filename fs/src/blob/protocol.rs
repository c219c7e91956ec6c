//! Giving blobs to peers.
//!
//! The wire format is `iroh-blobs`'; of its requests only "get one blob, or ranges of it" is answered. Pushing,
//! observing and walking hash sequences are refused before anything is read or written for them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use iroh_blobs::protocol::Request;
use iroh_blobs::provider::{self, StreamPair, events::EventSender};
use starfish_dht::{Incoming, PeerId, Stream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::local::LocalBlobs;
use super::stream::halves;

/// The protocol's name on the network.
// WIRE: the number changes with the format behind it.
pub(super) const NAME: &str = "/starfish/blobs/1";

/// Transfers out at the same time. Beyond this, streams wait unread; each transfer under way holds about 1 MiB.
const MAX_TRANSFERS: usize = 64;

/// How long a peer may take to say what it wants.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves until `stopping`; transfers under way are dropped then, and the peers ask others.
pub(super) async fn serve(mut incoming: Incoming, local: LocalBlobs, stopping: CancellationToken) {
    let (slots, transfers) = (Arc::new(Semaphore::new(MAX_TRANSFERS)), TaskTracker::new());
    let accept = async {
        while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
            let Some((peer, stream)) = incoming.next().await else { break };
            let (local, stopping) = (local.clone(), stopping.clone());
            transfers.spawn(async move {
                let answered = stopping.run_until_cancelled(answer(stream, &local)).await;
                if let Some(Err(error)) = answered {
                    log_failure(peer, &error);
                }
                drop(slot);
            });
        }
    };
    stopping.run_until_cancelled(accept).await;
    transfers.close();
    transfers.wait().await;
}

async fn answer(stream: Stream, local: &LocalBlobs) -> io::Result<()> {
    let (receiving, sending) = halves(stream);
    let mut pair = StreamPair::new(0, receiving, sending, EventSender::DEFAULT);
    let request = tokio::time::timeout(REQUEST_TIMEOUT, pair.read_request()).await?.map_err(failed)?;
    match request {
        Request::Get(request) if request.ranges.is_blob() => {
            provider::handle_get(pair, local.store().clone(), request).await.map_err(failed)
        }
        _ => Err(io::Error::new(io::ErrorKind::PermissionDenied, "only single blobs can be asked for")),
    }
}

fn failed(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

fn log_failure(peer: PeerId, error: &io::Error) {
    // Asking for what is not here is ordinary: peers try whoever they know.
    tracing::debug!(%peer, %error, "blob not sent");
}
