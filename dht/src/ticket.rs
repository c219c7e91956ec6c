//! A ticket: the one string that lets a machine into a swarm.
//!
//! `starfish1` and base32 (lower case, no padding) of a version, the postcard body and a checksum of four bytes, so
//! that a slip in copying is told apart from a ticket that is not valid.

use std::fmt;
use std::str::FromStr;

use libp2p::Multiaddr;
use serde::{Deserialize, Serialize};

use crate::membership::{SwarmId, Token};

/// What every ticket begins with.
const PREFIX: &str = "starfish1";
/// Addresses that a ticket carries at the most; three or four are enough to find the first member.
pub const MAX_ADDRESSES: usize = 8;
/// The longest ticket that is looked at, in characters.
const MAX_CHARACTERS: usize = 8192;
const CHECKSUM_BYTES: usize = 4;

/// Swarm, addresses of members, and an invite token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Which swarm it leads to.
    pub swarm: SwarmId,
    /// Where members can be dialled; each ends with `/p2p/<PeerId>`.
    pub addresses: Vec<Multiaddr>,
    /// The bearer token that opens the gate.
    pub token: Token,
}

/// Why a string is no ticket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// It begins otherwise.
    #[error("a ticket begins with {PREFIX:?}")]
    WrongPrefix,
    /// Letters are missing, changed or added.
    #[error("the ticket was not copied whole: its checksum does not match")]
    Checksum,
    /// The checksum is right and the content is not: made by something else, or by a newer version.
    #[error("the ticket's content is not understood by this version")]
    Malformed,
    /// No ticket is that long.
    #[error("{0} characters are too many for a ticket")]
    TooLong(usize),
}

impl fmt::Display for Ticket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = postcard::to_stdvec(self).map_err(|_| fmt::Error)?;
        bytes.extend_from_slice(&checksum(&bytes));
        let text = data_encoding::BASE32_NOPAD.encode(&bytes).to_ascii_lowercase();
        write!(formatter, "{PREFIX}{text}")
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let text = text.trim();
        if text.len() > MAX_CHARACTERS {
            return Err(TicketError::TooLong(text.len()));
        }
        let body = text.to_ascii_lowercase();
        let body = body.strip_prefix(PREFIX).ok_or(TicketError::WrongPrefix)?;
        let bytes = data_encoding::BASE32_NOPAD
            .decode(body.to_ascii_uppercase().as_bytes())
            .map_err(|_| TicketError::Checksum)?;
        let (content, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(TicketError::Checksum)?;
        if checksum(content) != *sum {
            return Err(TicketError::Checksum);
        }
        let ticket: Self = postcard::from_bytes(content).map_err(|_| TicketError::Malformed)?;
        if ticket.addresses.len() > MAX_ADDRESSES {
            return Err(TicketError::Malformed);
        }
        Ok(ticket)
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let [a, b, c, d, ..] = *blake3::derive_key("starfish ticket checksum 1", bytes).as_slice() else {
        return [0; CHECKSUM_BYTES];
    };
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use libp2p::PeerId;
    use proptest::prelude::*;

    use super::*;
    use crate::membership::{Credentials, Role};

    fn ticket() -> Ticket {
        let credentials = Credentials::found(PeerId::random()).unwrap();
        let end = SystemTime::now() + Duration::from_secs(60);
        let address = format!("/ip4/127.0.0.1/udp/12036/quic-v1/p2p/{}", PeerId::random());
        Ticket {
            swarm: credentials.swarm(),
            addresses: vec![address.parse().unwrap()],
            token: credentials.invite(Role::Peer.rights(), end, None).unwrap(),
        }
    }

    #[test]
    fn a_ticket_survives_copy_and_paste() {
        let ticket = ticket();
        let text = ticket.to_string();
        assert_eq!(text.parse(), Ok(ticket.clone()));
        assert_eq!(format!("  {}\n", text.to_uppercase()).parse(), Ok(ticket));
    }

    #[test]
    fn a_slip_in_copying_is_named() {
        let text = ticket().to_string();
        assert_eq!(text[..text.len() - 1].parse::<Ticket>(), Err(TicketError::Checksum));
        assert_eq!("hello".parse::<Ticket>(), Err(TicketError::WrongPrefix));
        assert_eq!("starfish1".parse::<Ticket>(), Err(TicketError::Checksum));
        assert_eq!("x".repeat(9000).parse::<Ticket>(), Err(TicketError::TooLong(9000)));
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_parser(text in "starfish1[a-z2-7]{0,200}|.{0,100}") {
            let _ = text.parse::<Ticket>();
        }
    }
}
