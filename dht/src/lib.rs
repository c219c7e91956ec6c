//! Finding and talking to peers.
//!
//! A node is a key ([`identity`]); a swarm is a root key and the tokens under it ([`membership`], [`ticket`]); nobody
//! gets past the gate without one ([`transport`](self)). Above it one actor owns the libp2p swarm, and everybody
//! else holds a [`Network`]: typed calls ([`rpc`]), byte streams ([`streams`]), announcements ([`gossip`]), who is
//! alive ([`presence`]), who has what ([`content`]).
//!
//! Invariant: nothing in this crate knows what travels over it: no file, key or task.

pub mod beacon;
mod behaviour;
pub mod config;
pub mod content;
pub mod enrol;
pub mod gossip;
pub mod identity;
pub mod membership;
pub mod network;
mod peer_book;
pub mod presence;
mod records;
pub mod rpc;
pub mod streams;
mod swarm;
pub mod testing;
pub mod ticket;
mod transport;

pub use behaviour::SetupError;
pub use content::ContentError;
pub use gossip::{Gossip, PublishError, Subscription};
pub use identity::Identity;
pub use libp2p::{Multiaddr, PeerId};
pub use network::{Link, Network, NetworkEvent, NetworkStopped, without_peer};
pub use rpc::CallError;
pub use streams::{AcceptError, Incoming, OpenError, Stream};
pub use transport::gate::Farewell;
