//! From a folder to a running node, and back.
//!
//! A node starts from the bottom up (folder, key, memory, network, files, compute, API) and stops from the
//! top down, all within [`STOP_DEADLINE`]. If a start fails halfway, what was started is dropped, and the
//! folder's lock with it.

mod doors;
mod ports;
mod stock;

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use starfish_compute::{Compute, ComputeOptions};
use starfish_dht::beacon::{BeaconError, Beacons};
use starfish_dht::config::NetworkConfig;
use starfish_dht::enrol::SharedCredentials;
use starfish_dht::identity::IdentityError;
use starfish_dht::ticket::Ticket;
use starfish_dht::{AcceptError, Farewell, Identity, Network, PeerId, SetupError, enrol};
use starfish_fs::{Files, FilesOptions};
use starfish_memory::{Blobs, Documents, Memory, MemoryOptions, MemorySync, StoreError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::DropGuard;
use tracing::{info, warn};

use self::doors::Doors;
use self::stock::Stock;
use crate::client::Client;
use crate::config::Settings;
use crate::control::{Control, End};
use crate::data_dir::{DataDir, DataDirError};
use crate::lock::{LockError, NodeLock};
use crate::membership::{self, MembershipError};
use crate::process::Uptime;
use crate::revocation::Ledger;
use crate::runtime::RuntimeInfo;
use crate::socket;
use crate::task::Tasks;

/// How long a node that joins may take to fetch what the swarm remembers before it is ready without it. It goes on
/// fetching afterwards; only who asks at once may miss something.
const CATCH_UP: Duration = Duration::from_secs(5);
/// The same while there is progress: who has so much to fetch that it takes longer sees it come.
const LONGEST_CATCH_UP: Duration = Duration::from_secs(20);
/// How often this node looks whether it is still enlisted; ...
const ENLISTS_EVERY: Duration = Duration::from_secs(600);
/// ... and after a failure.
const ENLISTS_AGAIN: Duration = Duration::from_secs(5);
/// All of a stop; after that, what is still at work is abandoned. Supervisors kill after ten seconds.
const STOP_DEADLINE: Duration = Duration::from_millis(4500);
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
    /// The program that becomes a worker process, ...
    pub worker_program: PathBuf,
    /// ... with the arguments that make it one.
    pub worker_args: Vec<String>,
}

/// A running node. Dropping it stops everything at once; [`Node::stop`] does it in order.
#[derive(Debug)]
pub struct Node {
    control: Arc<Control>,
    replication: MemorySync,
    /// Ends the tasks, which hold on to `control`, if nobody stopped them.
    _stop_on_drop: DropGuard,
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
    #[error("cannot listen for Redis clients on port {port}")]
    Redis {
        port: u16,
        #[source]
        source: io::Error,
    },
    #[error("the swarm does not let this node in: {farewell}, says {peer}")]
    TurnedAway { peer: PeerId, farewell: Farewell },
    #[error("cannot write to the data folder")]
    Folder(#[source] io::Error),
    #[error("cannot listen to signals")]
    Signals(#[source] io::Error),
}

impl Node {
    /// Starts a node and returns when it can be used.
    pub async fn start(config: NodeConfig) -> Result<Self, StartError> {
        let uptime = Uptime::start();
        let NodeConfig { dir, settings, join, worker_program, worker_args } = config;
        dir.create()?;
        let lock = NodeLock::acquire(&dir)?;
        // Before all else, so that a port in use is known at once.
        let doors = Doors::open(&dir, settings.api_port, settings.memory).await?;
        let was_member = dir.membership().exists();
        let Member { network, credentials, memory, ledger, port } =
            enter(&dir, &settings, join.as_ref()).await?;

        let replication = memory.join(network.clone()).await.map_err(memory_error)?;
        let folder = dir.swarm().join("files");
        let files = Files::open(&folder, network.clone(), memory.clone(), files_options(&settings)).await?;
        let options = ComputeOptions {
            slots: settings.slots.count(),
            max_task_memory: settings.task_memory_mib.saturating_mul(1 << 20),
            lets_out: settings.task_http,
            ..ComputeOptions::new(worker_program, worker_args)
        };
        let tree = Arc::new(files.clone());
        let blobs: Arc<dyn Blobs> = tree.clone();
        memory.keep_large_values(&blobs);
        let folder = dir.swarm().join("compute");
        let compute = Compute::start(&folder, network.clone(), &memory, tree, options).await?;

        let tasks = Tasks::new();
        let stop_on_drop = tasks.stopping().clone().drop_guard();
        let stock = Stock::start(&files, &compute, &tasks);
        let beacons = Beacons::start(&network, settings.zone.clone(), stock.source()).await?;
        spawn_large_values(&tasks, &memory, blobs);
        spawn_membership(&tasks, &network, &credentials, &ledger, &dir);
        if let Some(ticket) = join {
            network.dial(ticket.addresses).await;
            let turned_away = catch_up(&memory, &network).await;
            if let Some((peer, farewell)) = turned_away.filter(|_| membership::is_provisional(&credentials)) {
                // A ticket that is worth nothing must not bind the folder to its swarm.
                if !was_member {
                    std::fs::remove_file(dir.membership()).map_err(StartError::Folder)?;
                }
                return Err(StartError::TurnedAway { peer, farewell });
            }
        }
        spawn_enlisting(&tasks, &memory, network.local_peer());
        let (zone, api, end) = (settings.zone, doors.address(), End::default());
        let control = Arc::new(Control {
            dir,
            zone,
            api,
            port,
            uptime,
            network,
            credentials,
            ledger,
            beacons,
            documents: Documents::new(memory.clone()),
            memory,
            files,
            compute,
            tasks,
            end,
            retired: AtomicBool::new(false),
        });
        doors.serve(&control, &stock);
        control.runtime_info().write(&control.dir).map_err(StartError::Folder)?;
        let id = control.id();
        info!(peer = %id.peer, swarm = %id.swarm, port, %api, "ready");
        Ok(Self { control, replication, _stop_on_drop: stop_on_drop, lock })
    }

    /// Starts a node, calls `ready`, and runs until SIGTERM, SIGINT or a word through the API; then stops. A
    /// signal while it starts, and a second one while it stops, end it at once.
    pub async fn run(config: NodeConfig, ready: impl FnOnce(&Self)) -> Result<(), StartError> {
        let mut signals = Signals::listen().map_err(StartError::Signals)?;
        let node = tokio::select! {
            started = Self::start(config) => started?,
            () = signals.next() => return Ok(()),
        };
        ready(&node);
        tokio::select! {
            () = node.control.end.asked() => info!("asked to stop"),
            () = signals.next() => info!("told to stop by a signal"),
        }
        tokio::select! {
            () = node.stop() => {}
            () = signals.next() => warn!("stopped by force"),
        }
        Ok(())
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

    /// Stops in order, in five seconds at the most, and lets go of the folder.
    pub async fn stop(self) {
        let Self { control, replication, _stop_on_drop: _, lock } = self;
        let in_order = async {
            control.tasks.stop(API_STOP_DEADLINE).await;
            control.compute.stop().await;
            control.files.stop().await;
            replication.stop().await;
            control.network.stop().await;
        };
        if tokio::time::timeout(STOP_DEADLINE, in_order).await.is_err() {
            warn!("did not stop in time, what was at work is abandoned");
        }
        let dir = control.dir.clone();
        for removed in [socket::remove(&dir), RuntimeInfo::remove(&dir)] {
            if let Err(error) = removed {
                warn!(%error, "left something behind in the data folder");
            }
        }
        let left = control.end.is_leaving().then(|| control.id().swarm);
        // The stores close with their last handle.
        drop(control);
        if let Some(swarm) = left {
            put_aside(&dir, &swarm);
        }
        info!("stopped");
        drop(lock);
    }
}

/// What a node has once it is a member of its swarm, and before it does anything for it.
struct Member {
    network: Network,
    credentials: SharedCredentials,
    memory: Memory,
    ledger: Ledger,
    port: u16,
}

async fn enter(dir: &DataDir, settings: &Settings, ticket: Option<&Ticket>) -> Result<Member, StartError> {
    let identity = Identity::load_or_create(&dir.identity())?;
    let peer = identity.peer_id();
    let network_dir = dir.swarm().join("network");
    let has_met_others = std::fs::metadata(network_dir.join("peers")).is_ok_and(|book| book.len() > 1);
    if let Some(swarm) = membership::abandoned(&dir.membership(), peer, ticket, has_met_others)? {
        info!(%swarm, "no member of that swarm was ever met; going to the ticket's");
        put_aside(dir, &swarm.to_string());
    }
    std::fs::create_dir_all(&network_dir).map_err(StartError::Folder)?;
    let credentials = membership::enter(&dir.membership(), peer, ticket)?;
    let folder = dir.swarm().join("memory");
    let options = MemoryOptions { horizon: settings.memory.horizon.0, ..MemoryOptions::default() };
    let opened =
        tokio::task::spawn_blocking(move || open_memory(&folder, &peer, options, has_met_others)).await;
    let memory = opened.map_err(memory_error)?.map_err(memory_error)?;
    // Who was revoked must be known before anybody is met.
    let ledger = Ledger::open(&memory, credentials.swarm()).map_err(memory_error)?;
    ledger.load().await.map_err(memory_error)?;

    let start = || {
        let port = ports::choose(settings.port, &settings.listen, &network_dir.join("port"))
            .map_err(StartError::Port)?;
        let config = NetworkConfig {
            listen: ports::addresses(port, &settings.listen),
            external: settings.external.clone(),
            mdns: settings.mdns,
            upnp: settings.upnp,
            data: Some(network_dir.clone()),
            zone: settings.zone.clone(),
            ..NetworkConfig::default()
        };
        Ok((Network::start(identity.clone(), &credentials, ledger.obeyed().clone(), &config)?, port))
    };
    let (network, port) = match start() {
        // A port that was free a moment ago is taken: where any will do, another one is.
        Err(StartError::Network(SetupError::Listen { .. })) if settings.port == 0 => {
            let _ = std::fs::remove_file(network_dir.join("port"));
            start()?
        }
        started => started?,
    };
    let credentials = membership::shared(credentials);
    enrol::serve(&network, &credentials)?;
    Ok(Member { network, credentials, memory, ledger, port })
}

/// Opens the memory. One that is damaged is put aside, never removed, if there are others to fetch all of it from; who
/// has always been alone is told instead.
fn open_memory(
    folder: &Path,
    peer: &PeerId,
    options: MemoryOptions,
    has_met_others: bool,
) -> Result<Memory, StoreError> {
    match Memory::open_with(folder, peer, options) {
        Err(error @ StoreError::Damaged { .. }) if has_met_others => {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let aside = folder.with_file_name(format!("memory.damaged-{}", since.as_secs()));
            let io = |source| StoreError::Io { path: folder.to_owned(), source };
            std::fs::rename(folder, &aside).map_err(io)?;
            Memory::mark_incomplete(folder).map_err(io)?;
            let cause = error.source().map(ToString::to_string);
            tracing::error!(cause, aside = %aside.display(), "the memory is damaged: it is put aside");
            // When others were met last, so that nothing comes back that was deleted since.
            let _ = std::fs::copy(aside.join(Memory::MET), folder.join(Memory::MET));
            let memory = Memory::open_with(folder, peer, options)?;
            match memory.recover(&aside) {
                Ok(n) => {
                    tracing::info!(n, "cells of it are sound; what is missing is fetched from other members")
                }
                Err(error) => tracing::error!(%error, "what is sound of it cannot be taken over"),
            }
            Ok(memory)
        }
        opened => opened,
    }
}

/// Keeps large values in the tree for as long as the node runs, and lets go of those that are gone.
fn spawn_large_values(tasks: &Tasks, memory: &Memory, blobs: Arc<dyn Blobs>) {
    let (memory, stopping) = (memory.clone(), tasks.stopping().clone());
    tasks.spawn("large-values", async move {
        stopping.run_until_cancelled(memory.tend_large_values()).await;
        drop(blobs);
    });
}

/// Sees to it that all know that this node has a replica, until it leaves.
fn spawn_enlisting(tasks: &Tasks, memory: &Memory, peer: PeerId) {
    let (memory, stopping) = (memory.clone(), tasks.stopping().clone());
    let enlisting = async move {
        loop {
            let pause = match memory.enlist(&peer).await {
                Ok(()) => ENLISTS_EVERY,
                Err(error) => {
                    tracing::debug!(%error, "others are not told of this replica yet");
                    ENLISTS_AGAIN
                }
            };
            tokio::time::sleep(pause).await;
        }
    };
    tasks.spawn("enlist", async move {
        stopping.run_until_cancelled(enlisting).await;
    });
}

fn spawn_membership(
    tasks: &Tasks,
    network: &Network,
    credentials: &SharedCredentials,
    ledger: &Ledger,
    dir: &DataDir,
) {
    let stopping = || tasks.stopping().clone();
    tasks.spawn("revocations", ledger.clone().follow(network.clone(), stopping()));
    if membership::is_provisional(credentials) {
        let lasting =
            membership::become_lasting(network.clone(), credentials.clone(), dir.membership(), stopping());
        tasks.spawn("enrol", lasting);
    }
}

/// A newcomer is ready when it has compared its memory with one member, so that whoever waits for it finds what
/// the swarm had before. If nobody lets it in, and one says why, that is given.
async fn catch_up(memory: &Memory, network: &Network) -> Option<(PeerId, Farewell)> {
    let (began, mut cells, mut moved) = (Instant::now(), memory.stats().cells, Instant::now());
    while memory.stats().sync_rounds == 0 {
        if let Some(turned_away) = network.farewells().pop().filter(|_| network.connected().is_empty()) {
            return Some(turned_away);
        }
        // A large memory takes its time. As long as it comes, who asks now would see a part of it for the whole.
        let now = memory.stats().cells;
        if now != cells {
            (cells, moved) = (now, Instant::now());
        }
        if moved.elapsed() > CATCH_UP || began.elapsed() > LONGEST_CATCH_UP {
            warn!(cells, "not all that the swarm remembers is here yet; going on, and fetching");
            return None;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    None
}

fn files_options(settings: &Settings) -> FilesOptions {
    FilesOptions {
        quota: settings.storage.quota.0,
        cache: settings.storage.cache.0,
        repair_grace: settings.repair.grace.0,
        repair_rate: settings.repair.rate.0,
        gc_every: settings.gc.every.0,
        gc_rate: settings.gc.rate,
        scrub_every: settings.scrub.every.0,
        scrub_rate: settings.scrub.rate.0,
        zone: settings.zone.clone(),
        ..FilesOptions::default()
    }
}

fn memory_error(error: impl std::error::Error + Send + Sync + 'static) -> StartError {
    StartError::Memory(error.into())
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

/// The signals that end a node.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
