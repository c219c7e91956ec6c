//! `starfish invite`: a ticket, with a QR code at a terminal.

use std::time::Duration;

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use starfish_node::wire::InviteRequest;

use super::{Context, peers};
use crate::output::terminal_width;

/// Make a ticket that lets another machine in.
///
/// Whoever has it can join until it expires; those who joined stay. `starfish revoke` ends a ticket early.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  starfish invite\n  starfish invite --expires 10m --role worker")]
pub struct Invite {
    /// Print the ticket alone.
    #[arg(short, long)]
    quiet: bool,
    /// What the newcomer may do: peer (everything), member (all but revoking) or worker (stores and computes).
    #[arg(long, default_value = "peer")]
    role: String,
    /// How long the ticket is good for, such as 10m, 12h or 7d.
    #[arg(long, default_value = "24h", value_parser = super::task::parse_duration)]
    expires: Duration,
    /// Only this node may use it.
    #[arg(long = "for", value_name = "PEER")]
    peer: Option<String>,
    /// As one JSON document.
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
}

impl Invite {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        let peer = match &self.peer {
            Some(text) => Some(peers::find(&context, text).await?),
            None => None,
        };
        let request = InviteRequest { role: Some(self.role), expires_s: Some(self.expires.as_secs()), peer };
        let invitation = context.client.invite(&request).await?;
        if self.json {
            context.print_json(&invitation).await?;
            return Ok(0);
        }
        if !self.quiet && context.io.stderr.is_terminal() {
            let said =
                format!("on the other machine, within {}:\n", crate::output::human::duration(self.expires));
            context.io.stderr.line(said).await?;
            context.io.stderr.line(format!("starfish up --join {}\n", invitation.ticket)).await?;
            if let Ok(code) = QrCode::new(invitation.ticket.to_ascii_uppercase()) {
                let code = code.render::<Dense1x2>().quiet_zone(true).build();
                let (width, lines) =
                    (code.lines().next().map_or(0, |line| line.chars().count()), code.lines().count());
                if width <= terminal_width() {
                    context.io.stderr.line(code).await?;
                } else {
                    let line =
                        format!("(a QR code would need a terminal of {width} columns and {lines} lines)\n");
                    context.io.stderr.line(line).await?;
                }
            }
        }
        context.print(&invitation.ticket).await?;
        Ok(0)
    }
}
