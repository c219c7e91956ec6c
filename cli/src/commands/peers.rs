//! `starfish peers`: the other members, and refusing one of them here.

use std::time::Duration;

use starfish_node::dht::PeerId;
use starfish_node::wire::Peer;

use super::Context;
use super::failure::NotFound;
use crate::output::human;
use crate::output::table::Table;

/// List the other members, or block one.
#[derive(Clone, Debug, clap::Args)]
pub struct Peers {
    /// As one JSON document: an array with id, addrs and alive of each, and more.
    #[arg(long)]
    json: bool,
    /// Instead of listing.
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Action {
    /// Refuse every connection with a member until it is unblocked; others go on talking to it.
    Block {
        /// The member, or a unique part of its id.
        peer: String,
    },
    /// End a block.
    Unblock {
        /// The member, or a unique part of its id.
        peer: String,
    },
}

impl Peers {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        match self.action {
            Some(Action::Block { peer }) => context.client.block(find(&context, &peer).await?).await?,
            Some(Action::Unblock { peer }) => context.client.unblock(find(&context, &peer).await?).await?,
            None => list(&mut context, self.json).await?,
        }
        Ok(0)
    }
}

/// The member whose id is, ends with or begins with `text`. Ids of nodes all begin alike, so their ends are
/// what people copy.
pub(super) async fn find(context: &Context, text: &str) -> anyhow::Result<PeerId> {
    if let Ok(peer) = text.parse() {
        return Ok(peer);
    }
    let peers = context.client.peers().await?;
    let own = context.client.id().await?.peer;
    only("member", peers.iter().map(|peer| peer.id).chain([own]), text)
}

/// The only one of some nodes, called `what`, whose id ends with or begins with `text`.
pub(super) fn only(
    what: &str,
    nodes: impl IntoIterator<Item = PeerId>,
    text: &str,
) -> anyhow::Result<PeerId> {
    let is_meant = |peer: &PeerId| {
        let id = peer.to_base58();
        id.ends_with(text) || id.starts_with(text)
    };
    let matching: Vec<PeerId> = nodes.into_iter().filter(is_meant).collect();
    match matching[..] {
        [peer] => Ok(peer),
        [] => Err(NotFound(format!("no {what}'s id begins or ends with {text:?}")).into()),
        _ => anyhow::bail!("{} {what}s' ids begin or end with {text:?}", matching.len()),
    }
}

async fn list(context: &mut Context, json: bool) -> anyhow::Result<()> {
    let peers = context.client.peers().await?;
    if json {
        return context.print_json(&peers).await;
    }
    let status = context.client.status().await?;
    if let Some(why) = &status.turned_away {
        let line = format!("warning: the swarm lets this node in no more: {why}");
        context.io.stderr.line(line).await?;
    }
    if peers.is_empty() {
        let line = if status.provisional && !status.has_met_others {
            "never reached a member of its swarm; it goes on trying".to_owned()
        } else {
            format!("no other members; invite one: {} invite", super::program(context.client.data_dir()))
        };
        return Ok(context.io.stderr.line(line).await?);
    }
    let mut table =
        Table::new(["ID", "STATE", "RTT", "HEARD", "VERSION", "ZONE", "ADDRESS"]).right_aligned(&[2]);
    for peer in &peers {
        table.row([
            human::peer(&peer.id),
            state(peer).to_owned(),
            peer.rtt_ms.map_or_else(|| "-".to_owned(), |rtt| format!("{rtt:.1} ms")),
            format!("{} ago", human::duration(Duration::from_millis(peer.silent_ms))),
            peer.version.clone(),
            peer.zone.clone(),
            peer.addrs.first().map(ToString::to_string).unwrap_or_default(),
        ]);
    }
    context.print(table.to_string().trim_end()).await
}

fn state(peer: &Peer) -> &'static str {
    match (peer.alive, peer.connected, peer.relayed) {
        (_, true, true) => "relayed",
        (_, true, false) => "direct",
        (true, false, _) => "alive",
        (false, false, _) => "gone",
    }
}
