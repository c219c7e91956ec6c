//! A port for Redis clients: the keys of one space, in the words of the Redis protocol (RESP2 and RESP3).
//!
//! What comes through it passes, in reading order: the door (here: loopback only, so many connections), the connection
//! (`connection`, with the password before all else), requests and their sizes (`request`), the table of commands
//! (`command`, `args`), what each family of them does over the memory (`strings`, `keys`, `hashes`, `sets`, with
//! `expiry`, `cursors` and `glob`), the order in which they may run together (`pipeline`), and answers (`reply`, `refusal`).
//! Messages to all who listen travel as gossip (`hub`, `channels`).
//!
//! It is not Redis: every node answers from its own replica. What depends on a value (`SET NX`, `GETDEL`, `APPEND`) is
//! decided on this node alone, and of two nodes' decisions at the same time the later write counts; `INCR` on several
//! nodes adds up; nothing is evicted, and a write is on disk when it is answered.

mod args;
mod channels;
mod client;
mod clock;
mod command;
mod connection;
mod cursors;
mod decimal;
mod expiry;
mod glob;
mod hashes;
mod hub;
mod inline;
mod keys;
mod pipeline;
mod refusal;
mod reply;
mod request;
mod session;
mod sets;
mod strings;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::serve::Listener;
use starfish_dht::{Network, NetworkStopped};
use starfish_memory::{Memory, SpaceError};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::connection::Connection;
use self::hub::Hub;
use self::pipeline::Engine;
use crate::api::guard::Token;

/// Where the keys live: the space that `starfish mem` uses when none is named.
const SPACE: &str = "default";

/// Connections open at once; who comes beyond that is told so. A pool has some dozens, `redis-benchmark` fifty.
const MAX_CONNECTIONS: usize = 256;

/// What they are told.
const FULL: &[u8] = b"-ERR max number of clients reached\r\n";

/// The port, bound and not served yet.
#[derive(Debug)]
pub(crate) struct Port(TcpListener);

/// Why the port is not served.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Space(#[from] SpaceError),
    #[error(transparent)]
    Network(#[from] NetworkStopped),
}

impl Port {
    /// Takes the port on 127.0.0.1; none if it is 0.
    pub(crate) async fn bind(port: u16) -> io::Result<Option<Self>> {
        match port {
            0 => Ok(None),
            port => Ok(Some(Self(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?))),
        }
    }

    /// Answers clients that know `token` until `stop`.
    pub(crate) async fn serve(self, memory: Memory, network: Network, token: Token, stop: CancellationToken) {
        if let Err(error) = serve(self.0, memory, network, token, stop).await {
            warn!(%error, "the port for Redis clients is closed");
        }
    }
}

async fn serve(
    listener: TcpListener,
    memory: Memory,
    network: Network,
    token: Token,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let space = memory.space(SPACE)?;
    let (hub, announced) = Hub::join(network).await?;
    let hub = Arc::new(hub);
    let engine = Arc::new(Engine::new(memory, space, Arc::clone(&hub)));
    if let Ok(address) = listener.local_addr() {
        info!(%address, "Redis clients can connect");
    }
    tokio::select! {
        () = accept(listener, &engine, &token, &stop) => {}
        () = hub.listen(announced) => {}
    }
    Ok(())
}

async fn accept(mut listener: TcpListener, engine: &Arc<Engine>, token: &Token, stop: &CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            // It goes on by itself after what cannot be accepted.
            (stream, peer) = Listener::accept(&mut listener) => {
                if connections.len() >= MAX_CONNECTIONS {
                    // The kernel has room for one line, or the client goes without a word.
                    let _ = stream.try_write(FULL);
                    continue;
                }
                let connection = Connection::new(stream, Arc::clone(engine), token.clone());
                connections.spawn(serve_one(connection, peer, stop.clone()));
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn serve_one(connection: Connection, peer: SocketAddr, stop: CancellationToken) {
    if let Err(error) = connection.run(&stop).await {
        debug!(%peer, %error, "connection ended early");
    }
}
