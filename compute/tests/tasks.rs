//! Tasks from their submission to their end, over real worker processes and libp2p's memory transport.
