//! From a folder to a running node, and back.
//!
//! A node starts from the bottom up (folder, key, memory, network, files, compute, API) and stops from the
//! top down, all within [`STOP_DEADLINE`]. If a start fails halfway, what was started is dropped, and the
//! folder's lock with it.

mod ports;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::registry::Unit;
use starfish_compute::{Compute, ComputeOptions};
use starfish_dht::beacon::{BeaconError, Beacons};
use starfish_dht::config::NetworkConfig;
use starfish_dht::identity::IdentityError;
use starfish_dht::presence::Capacity;
use starfish_dht::ticket::Ticket;
use starfish_dht::{AcceptError, Identity, Network, PeerId, SetupError, enrol};
use starfish_fs::{Files, FilesOptions, Vfs};
use starfish_memory::{Memory, MemorySync};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::api::guard::{Guard, Token};
use crate::api::{self, Services};
use crate::client::Client;
use crate::config::Settings;
use crate::control::{Control, End};
use crate::data_dir::{DataDir, DataDirError};
use crate::lock::{LockError, NodeLock};
use crate::membership::{self, MembershipError};
use crate::metrics::Metrics;
use crate::process::Uptime;
use crate::revocation::Ledger;
use crate::runtime::RuntimeInfo;
use crate::socket;
use crate::task::Tasks;

/// All of a stop; after that, what is still at work is abandoned. Supervisors kill after ten seconds.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// Of that, what answers on their way may take. Long ones (watches, outputs) end at once.
const API_STOP_DEADLINE: Duration = Duration::from_secs(1);

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its folder.
    pub dir: DataDir,
    /// How it runs.
    pub settings: Settings,
    /// Where it joins, if it is a member of no swarm yet.
    pub join: Option<Ticket>,
    /// The program that becomes a worker process, with the arguments that make it one.
    pub worker: (PathBuf, Vec<String>),
}

/// A running node. Dropping it stops everything at once; [`Node::stop`] does it in order.
#[derive(Debug)]
pub struct Node {
    control: Arc<Control>,
    compute: Compute,
    files: Files,
    replication: MemorySync,
    // The last to go.
    lock: NodeLock,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each says what it is")]
pub enum StartError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Membership(#[from] MembershipError),
    #[error("cannot open the memory")]
    Memory(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("cannot find a free port for the swarm")]
    Port(#[source] io::Error),
    #[error("cannot start the network")]
    Network(#[from] SetupError),
    #[error("cannot serve the swarm")]
    Serve(#[from] AcceptError),
    #[error("cannot announce this node")]
    Beacon(#[from] BeaconError),
    #[error("cannot open the files")]
    Files(#[from] starfish_fs::OpenError),
    #[error("cannot start to compute")]
    Compute(#[from] starfish_compute::StartError),
    #[error("cannot listen for the API on {address}")]
    Api {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot write to the data folder")]
    Folder(#[source] io::Error),
}

impl Node {
    /// Starts a node and returns when it can be used.
    pub async fn start(config: NodeConfig) -> Result<Self, StartError> {
        let NodeConfig { dir, settings, join, worker } = config;
        let uptime = Uptime::start();
        dir.create()?;
        let lock = NodeLock::acquire(&dir)?;
        let tasks = Tasks::new();
        // First, so that a port in use is known before anything else happens.
        let doors = Doors::open(&dir, settings.api_port).await?;

        let identity = Identity::load_or_create(&dir.identity())?;
        let peer = identity.peer_id();
        std::fs::create_dir_all(dir.swarm()).map_err(StartError::Folder)?;
        let credentials = membership::enter(&dir.membership(), peer, join.as_ref())?;
        let swarm = credentials.swarm();

        let memory = open_memory(&dir, peer).await?;
        let ledger = Ledger::open(&memory, swarm).map_err(|error| StartError::Memory(error.into()))?;
        ledger.load().await.map_err(|error| StartError::Memory(error.into()))?;

        let port = ports::choose(settings.port, &settings.listen).map_err(StartError::Port)?;
        let network_config = network_config(&dir, &settings, port);
        let network = Network::start(identity, &credentials, ledger.obeyed().clone(), &network_config)?;
        let is_provisional = credentials.is_provisional();
        let credentials = membership::shared(credentials);
        enrol::serve(&network, &credentials)?;
        let replication =
            memory.join(network.clone()).await.map_err(|error| StartError::Memory(error.into()))?;
        let files = Files::open(&dir.swarm().join("files"), network.clone(), memory.clone(), FilesOptions::default())
            .await?;
        let compute = start_compute(&dir, &settings, worker, &network, &files).await?;
        let beacons = Beacons::start(&network, settings.zone.clone(), capacity_source(&compute)).await?;

        if let Some(ticket) = join {
            network.dial(ticket.addresses).await;
        }
        if is_provisional {
            let (network, credentials, path) = (network.clone(), credentials.clone(), dir.membership());
            let stopping = tasks.stopping().clone();
            tasks.spawn("enrol", membership::become_lasting(network, credentials, path, stopping));
        }
        tasks.spawn("revocations", ledger.clone().follow(network.clone(), tasks.stopping().clone()));

        let info = RuntimeInfo {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            peer: peer.to_string(),
            api: doors.address,
            port,
        };
        let (zone, api) = (settings.zone, doors.address);
        let end = End::default();
        let control = Arc::new(Control {
            dir, zone, api, port, uptime, network, credentials, ledger, beacons, tasks, end,
        });
        let metrics = metrics(&control, &memory, &compute);
        let services = Services { control: control.clone(), memory, files: files.clone(), compute: compute.clone(), metrics };
        doors.serve(&services, &control.tasks);
        info.write(&control.dir).map_err(StartError::Folder)?;
        info!(%peer, %swarm, port, api = %info.api, "ready");
        Ok(Self { control, compute, files, replication, lock })
    }

    /// A client of this node.
    pub fn client(&self) -> Client {
        Client::new(self.control.dir.clone())
    }

    /// Where the API listens over TCP.
    pub fn api_address(&self) -> SocketAddr {
        self.control.api
    }

    /// This node's name.
    pub fn peer(&self) -> PeerId {
        self.control.network.local_peer()
    }

    /// Runs until SIGTERM, SIGINT or a word through the API, and then stops. A second signal ends the process.
    pub async fn run(self) -> io::Result<()> {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            () = self.control.end.asked() => info!("asked to stop"),
            _ = terminate.recv() => info!("SIGTERM"),
            _ = interrupt.recv() => info!("SIGINT"),
        }
        tokio::select! {
            () = self.stop() => {}
            () = again(&mut terminate, &mut interrupt) => warn!("stopped by force"),
        }
        Ok(())
    }

    /// Stops in order, in five seconds at the most, and lets go of the folder.
    pub async fn stop(self) {
        let Self { control, compute, files, replication, lock } = self;
        let in_order = async {
            control.tasks.stop(API_STOP_DEADLINE).await;
            compute.stop().await;
            files.stop().await;
            replication.stop().await;
            control.network.stop().await;
        };
        if tokio::time::timeout(STOP_DEADLINE, in_order).await.is_err() {
            warn!("did not stop in time, what was at work is abandoned");
        }
        let dir = control.dir.clone();
        let swarm = membership::swarm_of(&control.credentials).to_string();
        let leaving = control.end.is_leaving();
        // The stores close with their last handle.
        drop((control, compute, files));
        for removed in [socket::remove(&dir), RuntimeInfo::remove(&dir)] {
            if let Err(error) = removed {
                warn!(%error, "left something behind in the data folder");
            }
        }
        if leaving {
            put_aside(&dir, &swarm);
        }
        info!("stopped");
        drop(lock);
    }
}

async fn again(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// What belonged to a swarm that was left is kept, out of the way: it may be the only copy of somebody's files.
fn put_aside(dir: &DataDir, swarm: &str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let aside = dir.path().join(format!("left-{swarm:.8}-{now}"));
    match std::fs::rename(dir.swarm(), &aside) {
        Ok(()) => info!(path = %aside.display(), "left the swarm; what it kept here was put aside"),
        Err(error) => warn!(%error, "left the swarm, but what it kept here could not be put aside"),
    }
}

/// The API's two listeners.
struct Doors {
    unix: tokio::net::UnixListener,
    tcp: TcpListener,
    address: SocketAddr,
    token: Token,
}

impl Doors {
    async fn open(dir: &DataDir, port: u16) -> Result<Self, StartError> {
        let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let failed = |source| StartError::Api { address: wanted.to_string(), source };
        let tcp = TcpListener::bind(wanted).await.map_err(failed)?;
        let address = tcp.local_addr().map_err(failed)?;
        let token = Token::load_or_create(dir).map_err(StartError::Folder)?;
        let unix = socket::listen(dir)
            .map_err(|source| StartError::Api { address: DataDir::SOCKET.to_owned(), source })?;
        Ok(Self { unix, tcp, address, token })
    }

    fn serve(self, services: &Services, tasks: &Tasks) {
        let Self { unix, tcp, address, token } = self;
        let over_unix = api::router(services, Guard::Socket);
        let over_tcp = api::router(services, Guard::Tcp { port: address.port(), token });
        tasks.spawn("api-socket", api::serve::serve(unix, over_unix, tasks.stopping().clone()));
        tasks.spawn("api-tcp", api::serve::serve(tcp, over_tcp, tasks.stopping().clone()));
    }
}

async fn open_memory(dir: &DataDir, peer: PeerId) -> Result<Memory, StartError> {
    let folder = dir.swarm().join("memory");
    let opened = tokio::task::spawn_blocking(move || Memory::open(&folder, &peer)).await;
    let opened = opened.map_err(|error| StartError::Memory(error.into()))?;
    opened.map_err(|error| StartError::Memory(error.into()))
}

fn network_config(dir: &DataDir, settings: &Settings, port: u16) -> NetworkConfig {
    NetworkConfig {
        listen: ports::addresses(port, &settings.listen),
        external: settings.external.clone(),
        mdns: settings.mdns,
        upnp: settings.upnp,
        data: Some(dir.swarm().join("network")),
        zone: settings.zone.clone(),
        ..NetworkConfig::default()
    }
}

async fn start_compute(
    dir: &DataDir,
    settings: &Settings,
    (program, args): (PathBuf, Vec<String>),
    network: &Network,
    files: &Files,
) -> Result<Compute, StartError> {
    let options = ComputeOptions {
        slots: settings.slots.count(),
        max_task_memory: settings.task_memory_mib.saturating_mul(1 << 20),
        ..ComputeOptions::new(program, args)
    };
    let files: Arc<dyn Vfs> = Arc::new(files.clone());
    Ok(Compute::start(&dir.swarm().join("compute"), network.clone(), files, options).await?)
}

/// What this node tells the others that it can give.
fn capacity_source(compute: &Compute) -> starfish_dht::beacon::CapacitySource {
    let compute = compute.clone();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let small = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    Arc::new(move || {
        let now = compute.capacity();
        Capacity {
            cores: u16::try_from(cores).unwrap_or(u16::MAX),
            slots: small(now.slots),
            busy_slots: small(now.slots.saturating_sub(now.free)),
            ..Capacity::default()
        }
    })
}

fn metrics(control: &Arc<Control>, memory: &Memory, compute: &Compute) -> Arc<Metrics> {
    let metrics = Metrics::new(control.uptime);
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let network = control.network.clone();
    metrics.look_up("dht_peers_connected", "Members connected now", None, move || count(network.connected().len()));
    let store = memory.clone();
    metrics.look_up("memory_cells", "Cells on disk, tombstones among them", None, move || {
        i64::try_from(store.stats().cells).unwrap_or(i64::MAX)
    });
    let compute = compute.clone();
    metrics.look_up("compute_slots_free", "Tasks that could begin here now", None, move || {
        i64::from(compute.capacity().free)
    });
    Arc::new(metrics)
}
