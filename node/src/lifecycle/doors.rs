//! The API's two listeners, and the one for Redis clients if there is to be one: bound first, served last.
//!
//! Who connects in between waits, and is answered as soon as the node is ready.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use prometheus_client::registry::Unit;
use starfish_memory::Durability;
use tokio::net::{TcpListener, UnixListener};

use super::StartError;
use super::stock::Stock;
use crate::api::guard::{Guard, Token};
use crate::api::serve::serve;
use crate::api::{self, Services};
use crate::config::MemorySettings;
use crate::control::Control;
use crate::data_dir::DataDir;
use crate::metrics::Metrics;
use crate::redis;
use crate::socket;

/// Bound, and not served yet.
pub(super) struct Doors {
    unix: UnixListener,
    tcp: TcpListener,
    redis: Option<redis::Port>,
    /// Of what comes through that port.
    durability: Durability,
    address: SocketAddr,
    token: Token,
}

impl Doors {
    /// Binds all. The caller holds the folder's lock.
    pub(super) async fn open(dir: &DataDir, port: u16, memory: MemorySettings) -> Result<Self, StartError> {
        let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let failed = |source| StartError::Api { address: wanted.to_string(), source };
        let tcp = TcpListener::bind(wanted).await.map_err(failed)?;
        let address = tcp.local_addr().map_err(failed)?;
        let redis = redis::Port::bind(memory.redis)
            .await
            .map_err(|source| StartError::Redis { port: memory.redis, source })?;
        let durability = memory.redis_sync.into();
        let token = Token::load_or_create(dir).map_err(StartError::Folder)?;
        let unix = socket::listen(dir)
            .map_err(|source| StartError::Api { address: DataDir::SOCKET.to_owned(), source })?;
        Ok(Self { unix, tcp, redis, durability, address, token })
    }

    /// Where the TCP door is, as bound.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Opens all.
    pub(super) fn serve(self, control: &Arc<Control>, stock: &Stock) {
        let Self { unix, tcp, redis, durability, address, token } = self;
        let services = Services { control: control.clone(), metrics: Arc::new(metrics(control, stock)) };
        let stopping = || control.tasks.stopping().clone();
        let over_unix = api::router(&services, Guard::Socket);
        if let Some(redis) = redis {
            let (memory, network) = (control.memory.with_durability(durability), control.network.clone());
            control.tasks.spawn("redis", redis.serve(memory, network, token.clone(), stopping()));
        }
        let over_tcp = api::router(&services, Guard::Tcp { port: address.port(), token });
        control.tasks.spawn("api-socket", serve(unix, over_unix, stopping()));
        control.tasks.spawn("api-tcp", serve(tcp, over_tcp, stopping()));
    }
}

fn metrics(control: &Control, stock: &Stock) -> Metrics {
    let metrics = Metrics::new(control.uptime);
    let network = control.network.clone();
    metrics.look_up("dht_peers_connected", "Members connected now", None, move || {
        i64::try_from(network.connected().len()).unwrap_or(i64::MAX)
    });
    let memory = control.memory.clone();
    metrics.look_up("memory_cells", "Cells on disk, tombstones among them", None, move || {
        i64::try_from(memory.stats().cells).unwrap_or(i64::MAX)
    });
    let memory = control.memory.clone();
    metrics.look_up("memory_cells_lost", "Cells damaged on disk and not back yet", None, move || {
        i64::try_from(memory.stats().lost).unwrap_or(i64::MAX)
    });
    let stock = stock.source();
    metrics.look_up("compute_slots_free", "Tasks that could begin here now", None, {
        let stock = stock.clone();
        move || {
            let now = stock();
            i64::from(now.slots) - i64::from(now.busy_slots)
        }
    });
    let (help, files) = ("What others gave this node of files that were read here", control.files.clone());
    metrics.look_up("fs_fetched", help, Some(Unit::Bytes), move || {
        i64::try_from(files.fetched_bytes()).unwrap_or(i64::MAX)
    });
    metrics.look_up("fs_blobs", "What the blobs take on this disk", Some(Unit::Bytes), move || {
        i64::try_from(stock().used_bytes).unwrap_or(i64::MAX)
    });
    metrics
}
