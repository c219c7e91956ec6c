//! Who has a root: provider records over Kademlia.

/// Why an announcement to the DHT was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// Too many are under way; try again in a moment.
    #[error("too many announcements are under way")]
    Busy,
    /// This node announces as many roots as a peer may.
    #[error("this node already announces as many roots as the swarm records of one peer")]
    TooMany,
    /// The network has stopped.
    #[error("the network has stopped")]
    Stopped,
}
