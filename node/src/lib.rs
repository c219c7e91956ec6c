//! One running node: its settings and its folder, the HTTP API and a typed client of it.
//!
//! Start reading at [`Node::start`] for how the crates below become a node, at `api` for what can be asked
//! of it, and at [`client`] for how the program asks.

mod api;
pub mod client;
mod config;
mod control;
mod data_dir;
mod gateway;
mod lifecycle;
mod lock;
pub mod logs;
mod membership;
mod metrics;
mod percent;
mod process;
pub mod quantity;
mod redis;
mod revocation;
mod runtime;
mod socket;
mod task;
pub mod unambiguous;
pub mod wire;

pub use starfish_compute as compute;
pub use starfish_dht as dht;
pub use starfish_fs as fs;
pub use starfish_memory as memory;

pub use self::client::{Client, ClientError};
pub use self::config::{
    Collecting, CollectingLayer, ConfigError, DEFAULT_API_PORT, DEFAULT_PORT, Layer, MemoryLayer,
    MemorySettings, RedisSync, Repair, RepairLayer, Scrubbing, ScrubbingLayer, Settings, Slots, Storage,
    StorageLayer, UnknownRedisSync, UnknownSlots, UnknownVariable, unknown_variables,
};
pub use self::data_dir::{DATA_DIR_ENV, DataDir, DataDirError};
pub use self::lifecycle::{Node, NodeConfig, StartError};
pub use self::lock::{LockError, NodeLock};
pub use self::membership::MembershipError;
pub use self::runtime::RuntimeInfo;
pub use self::task::WorkerInfo;
