//! `starfish revoke`: ends the rights of a member, a ticket or a share link.

use starfish_node::dht::ticket::Ticket;
use starfish_node::wire::RevokeRequest;

use super::{Context, peers};

/// Revoke a member, a ticket or a share link, for good and everywhere.
///
/// Every node learns of it, and refuses the member from then on. Revoking a ticket lets nobody more in with it;
/// those who have become members by it stay, and are revoked one by one. The links of a revoked member end with it.
#[derive(Clone, Debug, clap::Args)]
pub struct Revoke {
    /// A ticket, a share link, or a member (or a unique part of its id).
    target: String,
}

impl Revoke {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        let (request, what) = if self.target.parse::<Ticket>().is_ok() {
            (RevokeRequest::Ticket(self.target), "the ticket".to_owned())
        } else if self.target.contains("/s/") {
            (RevokeRequest::Link(self.target), "the link".to_owned())
        } else {
            let peer = peers::find(&context, &self.target).await?;
            (RevokeRequest::Peer(peer), peer.to_string())
        };
        context.client.revoke(&request).await?;
        context.io.stderr.line(format!("{what} is revoked")).await?;
        Ok(0)
    }
}
