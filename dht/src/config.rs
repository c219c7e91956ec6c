//! What a network is started with.

use std::path::PathBuf;

use libp2p::Multiaddr;

/// How a node takes part in its swarm's network.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// Addresses to listen on, tried in order; port 0 takes a free one.
    pub listen: Vec<Multiaddr>,
    /// Addresses under which others reach this node although it does not see them itself (a forwarded port).
    pub external: Vec<Multiaddr>,
    /// Members (address ending in `/p2p/<PeerId>`) over which to be reached when nobody can dial this node.
    pub relays: Vec<Multiaddr>,
    /// Look for members on the local network.
    pub mdns: bool,
    /// Ask the router to forward a port.
    pub upnp: bool,
    /// Forward connections between members that cannot reach each other.
    pub relay_server: bool,
    /// Folder for what is kept over restarts (known peers, provider records); `None` keeps nothing.
    pub data: Option<PathBuf>,
    /// Free text that groups nodes which fail together: a room, a site.
    pub zone: String,
    /// Connections live in this process only; addresses are `/memory/…`. For tests.
    pub in_memory: bool,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            external: Vec::new(),
            relays: Vec::new(),
            mdns: false,
            upnp: false,
            relay_server: true,
            data: None,
            zone: String::new(),
            in_memory: false,
        }
    }
}
