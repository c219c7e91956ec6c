//! What a node is told: flags over environment over `config.toml` over defaults.
//!
//! Each source is a [`Layer`] of what it says and nothing more; [`Settings::merge`] is pure and decides. A
//! setting that nobody knows is an error in the file, so that a typing slip is seen at once.

mod redis_sync;
mod slots;
mod template;
mod variables;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use starfish_dht::Multiaddr;
use starfish_fs::FilesOptions;
use starfish_memory::MemoryOptions;

pub use self::redis_sync::{RedisSync, UnknownRedisSync};
pub use self::slots::{Slots, UnknownSlots};
pub use self::variables::{UnknownVariable, unknown_variables};
use crate::data_dir::{DataDir, DataDirError, write_private};
use crate::logs::LogFormat;
use crate::quantity::{Size, Span};

/// The swarm's port when nobody says otherwise, for UDP and TCP.
pub const DEFAULT_PORT: u16 = 12036;
/// The API's port on loopback when nobody says otherwise.
pub const DEFAULT_API_PORT: u16 = 12037;

/// How a node runs, with nothing left open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// The swarm's UDP and TCP port; 0 takes a free one.
    pub port: u16,
    /// The API's TCP port on 127.0.0.1; 0 takes a free one.
    pub api_port: u16,
    /// Whether members on the same LAN are looked for.
    pub mdns: bool,
    /// Whether the router is asked to open the port.
    pub upnp: bool,
    /// The local addresses to listen on.
    pub listen: Vec<IpAddr>,
    /// Addresses at which others can reach this node, beyond those it finds by itself.
    pub external: Vec<Multiaddr>,
    /// How many tasks run here at once.
    pub slots: Slots,
    /// Where this machine stands (a room, a site): what is stored is spread over zones. May be empty.
    pub zone: String,
    /// The most memory that one task may have here, in MiB.
    pub task_memory_mib: u64,
    /// Whether tasks may send HTTP requests from here, to hosts that they were granted.
    pub task_http: bool,
    /// How log lines look.
    pub log_format: LogFormat,
    /// What this node keeps of the swarm's files.
    pub storage: Storage,
    /// How what is lost with a member is made good.
    pub repair: Repair,
    /// How what no file refers to is freed.
    pub gc: Collecting,
    /// How damage of the disk is looked for.
    pub scrub: Scrubbing,
    /// What is remembered of the shared memory, and how it is reached other than by the API.
    pub memory: MemorySettings,
}

/// What a node keeps of the swarm's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Storage {
    /// The most that it keeps for others and itself; it never takes the last of the disk.
    pub quota: Size,
    /// The most that it keeps of files read lately.
    pub cache: Size,
}

/// How what is lost with a member is made good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Repair {
    /// How long a silent member is waited for.
    pub grace: Span,
    /// Bytes per second that are moved or made at the most.
    pub rate: Size,
}

/// How what no file refers to is freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Collecting {
    /// How long from one run to the next; 0 never runs.
    pub every: Span,
    /// Segments and shards that are looked at in a second at the most; 0 never runs.
    pub rate: u64,
}

/// How damage of the disk is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Scrubbing {
    /// How long from the beginning of one look at everything to that of the next; 0 never looks.
    pub every: Span,
    /// Bytes per second that are read at the most; 0 never looks.
    pub rate: Size,
}

/// What this node remembers of the shared memory, and how it is reached other than by the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MemorySettings {
    /// The port for Redis clients on 127.0.0.1; 0 opens none.
    pub redis: u16,
    /// When what Redis clients write is acknowledged.
    pub redis_sync: RedisSync,
    /// How long deletions are remembered. The same on all nodes, and longer than any two of them are apart.
    pub horizon: Span,
}

/// What one source says; `None` is "nothing".
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are those of `Settings`")]
pub struct Layer {
    pub port: Option<u16>,
    pub api_port: Option<u16>,
    pub mdns: Option<bool>,
    pub upnp: Option<bool>,
    pub listen: Option<Vec<IpAddr>>,
    pub external: Option<Vec<Multiaddr>>,
    pub slots: Option<Slots>,
    pub zone: Option<String>,
    pub task_memory_mib: Option<u64>,
    pub task_http: Option<bool>,
    pub log_format: Option<LogFormat>,
    #[serde(default)]
    pub storage: StorageLayer,
    #[serde(default)]
    pub repair: RepairLayer,
    #[serde(default)]
    pub gc: CollectingLayer,
    #[serde(default)]
    pub scrub: ScrubbingLayer,
    #[serde(default)]
    pub memory: MemoryLayer,
}

/// What one source says of [`Storage`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are those of `Storage`")]
pub struct StorageLayer {
    pub quota: Option<Size>,
    pub cache: Option<Size>,
}

/// What one source says of [`Repair`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are those of `Repair`")]
pub struct RepairLayer {
    pub grace: Option<Span>,
    pub rate: Option<Size>,
}

/// What one source says of [`Collecting`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are those of `Collecting`")]
pub struct CollectingLayer {
    pub every: Option<Span>,
    pub rate: Option<u64>,
}

/// What one source says of [`Scrubbing`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are those of `Scrubbing`")]
pub struct ScrubbingLayer {
    pub every: Option<Span>,
    pub rate: Option<Size>,
}

/// What one source says of [`MemorySettings`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are those of `MemorySettings`")]
pub struct MemoryLayer {
    pub redis: Option<u16>,
    pub redis_sync: Option<RedisSync>,
    pub horizon: Option<Span>,
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no folder for the file.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The file cannot be read or made.
    #[error("cannot use the settings file {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file says something that cannot be understood.
    #[error("{path} is not valid")]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A variable says something that cannot be understood.
    #[error("{name}={value:?} is not valid: {reason}")]
    Variable {
        /// The variable.
        name: &'static str,
        /// What it says.
        value: String,
        /// What is wrong with that.
        reason: String,
    },
}

impl Settings {
    /// Each setting from the first layer that speaks of it, or its default.
    pub fn merge(layers: impl IntoIterator<Item = Layer>) -> Self {
        let merged = layers.into_iter().fold(Layer::default(), Layer::over);
        let files = FilesOptions::default();
        // Without `..`: a new setting must be given its default here.
        let Layer {
            port,
            api_port,
            mdns,
            upnp,
            listen,
            external,
            slots,
            zone,
            task_memory_mib,
            task_http,
            log_format,
            storage,
            repair,
            gc,
            scrub,
            memory,
        } = merged;
        Self {
            port: port.unwrap_or(DEFAULT_PORT),
            api_port: api_port.unwrap_or(DEFAULT_API_PORT),
            mdns: mdns.unwrap_or(true),
            upnp: upnp.unwrap_or(false),
            listen: listen
                .unwrap_or_else(|| vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]),
            external: external.unwrap_or_default(),
            slots: slots.unwrap_or_default(),
            zone: zone.unwrap_or_default(),
            task_memory_mib: task_memory_mib.unwrap_or(1024),
            task_http: task_http.unwrap_or(true),
            log_format: log_format.unwrap_or_default(),
            storage: Storage {
                quota: storage.quota.unwrap_or(Size(files.quota)),
                cache: storage.cache.unwrap_or(Size(files.cache)),
            },
            repair: Repair {
                grace: repair.grace.unwrap_or(Span(files.repair_grace)),
                rate: repair.rate.unwrap_or(Size(files.repair_rate)),
            },
            gc: Collecting {
                every: gc.every.unwrap_or(Span(files.gc_every)),
                rate: gc.rate.unwrap_or(files.gc_rate),
            },
            scrub: Scrubbing {
                every: scrub.every.unwrap_or(Span(files.scrub_every)),
                rate: scrub.rate.unwrap_or(Size(files.scrub_rate)),
            },
            memory: MemorySettings {
                redis: memory.redis.unwrap_or(0),
                redis_sync: memory.redis_sync.unwrap_or_default(),
                horizon: memory.horizon.unwrap_or(Span(MemoryOptions::default().horizon)),
            },
        }
    }

    /// Reads the folder's `config.toml` (made, as the folder is, if there is none) and lays environment and
    /// flags over it.
    pub fn load(
        dir: &DataDir,
        flags: Layer,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        dir.create()?;
        let path = dir.config();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write_private(&path, template::TEMPLATE.as_bytes())
                    .map_err(|source| ConfigError::File { path: path.clone(), source })?;
                String::new()
            }
            Err(source) => return Err(ConfigError::File { path, source }),
        };
        let file =
            toml::from_str(&text).map_err(|source| ConfigError::Toml { path, source: Box::new(source) })?;
        Ok(Self::merge([flags, Layer::from_environment(environment)?, file]))
    }
}

impl Layer {
    /// This layer where it speaks, `below` where it does not.
    fn over(self, below: Self) -> Self {
        Self {
            port: self.port.or(below.port),
            api_port: self.api_port.or(below.api_port),
            mdns: self.mdns.or(below.mdns),
            upnp: self.upnp.or(below.upnp),
            listen: self.listen.or(below.listen),
            external: self.external.or(below.external),
            slots: self.slots.or(below.slots),
            zone: self.zone.or(below.zone),
            task_memory_mib: self.task_memory_mib.or(below.task_memory_mib),
            task_http: self.task_http.or(below.task_http),
            log_format: self.log_format.or(below.log_format),
            storage: StorageLayer {
                quota: self.storage.quota.or(below.storage.quota),
                cache: self.storage.cache.or(below.storage.cache),
            },
            repair: RepairLayer {
                grace: self.repair.grace.or(below.repair.grace),
                rate: self.repair.rate.or(below.repair.rate),
            },
            gc: CollectingLayer {
                every: self.gc.every.or(below.gc.every),
                rate: self.gc.rate.or(below.gc.rate),
            },
            scrub: ScrubbingLayer {
                every: self.scrub.every.or(below.scrub.every),
                rate: self.scrub.rate.or(below.scrub.rate),
            },
            memory: MemoryLayer {
                redis: self.memory.redis.or(below.memory.redis),
                redis_sync: self.memory.redis_sync.or(below.memory.redis_sync),
                horizon: self.memory.horizon.or(below.memory.horizon),
            },
        }
    }

    /// What the `STARFISH_*` variables say; lists are separated by commas, an empty variable says nothing.
    pub fn from_environment(environment: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let read = Environment(environment);
        Ok(Self {
            port: read.one("STARFISH_PORT")?,
            api_port: read.one("STARFISH_API_PORT")?,
            mdns: read.one("STARFISH_MDNS")?,
            upnp: read.one("STARFISH_UPNP")?,
            listen: read.list("STARFISH_LISTEN")?,
            external: read.list("STARFISH_EXTERNAL")?,
            slots: read.one("STARFISH_SLOTS")?,
            zone: read.one("STARFISH_ZONE")?,
            task_memory_mib: read.one("STARFISH_TASK_MEMORY_MIB")?,
            task_http: read.one("STARFISH_TASK_HTTP")?,
            log_format: read.one("STARFISH_LOG_FORMAT")?,
            storage: StorageLayer {
                quota: read.one("STARFISH_STORAGE_QUOTA")?,
                cache: read.one("STARFISH_STORAGE_CACHE")?,
            },
            repair: RepairLayer {
                grace: read.one("STARFISH_REPAIR_GRACE")?,
                rate: read.one("STARFISH_REPAIR_RATE")?,
            },
            gc: CollectingLayer {
                every: read.one("STARFISH_GC_EVERY")?,
                rate: read.one("STARFISH_GC_RATE")?,
            },
            scrub: ScrubbingLayer {
                every: read.one("STARFISH_SCRUB_EVERY")?,
                rate: read.one("STARFISH_SCRUB_RATE")?,
            },
            memory: MemoryLayer {
                redis: read.one("STARFISH_MEMORY_REDIS")?,
                redis_sync: read.one("STARFISH_MEMORY_REDIS_SYNC")?,
                horizon: read.one("STARFISH_MEMORY_HORIZON")?,
            },
        })
    }
}

struct Environment<F>(F);

impl<F: Fn(&str) -> Option<String>> Environment<F> {
    fn one<T>(&self, name: &'static str) -> Result<Option<T>, ConfigError>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        let Some(value) = (self.0)(name).filter(|value| !value.is_empty()) else { return Ok(None) };
        match value.trim().parse() {
            Ok(parsed) => Ok(Some(parsed)),
            Err(error) => Err(ConfigError::Variable { name, reason: error.to_string(), value }),
        }
    }

    fn list<T>(&self, name: &'static str) -> Result<Option<Vec<T>>, ConfigError>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        let Some(value) = (self.0)(name).filter(|value| !value.is_empty()) else { return Ok(None) };
        let parsed: Result<Vec<T>, T::Err> = value.split(',').map(|item| item.trim().parse()).collect();
        match parsed {
            Ok(parsed) => Ok(Some(parsed)),
            Err(error) => Err(ConfigError::Variable { name, reason: error.to_string(), value }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables<'a>(set: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    fn loaded(file: Option<&str>, flags: Layer, set: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::new(temp.path());
        if let Some(file) = file {
            std::fs::write(dir.config(), file).unwrap();
        }
        Settings::load(&dir, flags, variables(set))
    }

    #[test]
    fn flags_win_over_environment_over_file_over_defaults() {
        let file = "port = 1\napi_port = 1\nslots = 1\nzone = 'cellar'";
        let flags = Layer { port: Some(3), ..Layer::default() };
        let settings =
            loaded(Some(file), flags, &[("STARFISH_PORT", "2"), ("STARFISH_API_PORT", "2")]).unwrap();
        assert_eq!((settings.port, settings.api_port, settings.slots), (3, 2, Slots::Exactly(1)));
        assert_eq!(settings.zone, "cellar");
        assert!(settings.mdns);
    }

    #[test]
    fn the_first_start_leaves_a_file_that_says_nothing_but_explains_every_setting() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::new(temp.path());
        let first = Settings::load(&dir, Layer::default(), |_| None).unwrap();
        let text = std::fs::read_to_string(dir.config()).unwrap();
        assert_eq!(toml::from_str::<Layer>(&text).unwrap(), Layer::default());

        let uncommented: String = text
            .lines()
            .filter(|line| !line.starts_with("# "))
            .map(|line| line.replace('#', "") + "\n")
            .collect();
        assert_eq!(Settings::merge([toml::from_str(&uncommented).unwrap()]), first);
        let serde_json::Value::Object(fields) = serde_json::to_value(&first).unwrap() else {
            panic!("no map")
        };
        for (field, value) in &fields {
            let inner = value.as_object().into_iter().flat_map(|fields| fields.keys());
            let inner: Vec<String> = inner.map(|inner| format!("{field}.{inner}")).collect();
            let names = if inner.is_empty() { vec![field.clone()] } else { inner };
            for name in names {
                assert!(text.contains(&format!("\n#{name} = ")), "{name} is not explained");
            }
        }
    }

    #[test]
    fn what_is_not_understood_is_an_error_that_says_where() {
        let unknown = loaded(Some("prot = 12036"), Layer::default(), &[]).unwrap_err();
        assert!(matches!(&unknown, ConfigError::Toml { source, .. } if source.message().contains("prot")));
        let variable = loaded(None, Layer::default(), &[("STARFISH_PORT", "many")]).unwrap_err();
        assert_eq!(
            variable.to_string(),
            "STARFISH_PORT=\"many\" is not valid: invalid digit found in string"
        );
    }

    #[test]
    fn lists_in_variables_are_separated_by_commas() {
        let settings = loaded(
            None,
            Layer::default(),
            &[("STARFISH_LISTEN", "127.0.0.1, ::1"), ("STARFISH_ZONE", ""), ("STARFISH_LOG_FORMAT", "json")],
        )
        .unwrap();
        assert_eq!(settings.listen, [IpAddr::from([127, 0, 0, 1]), Ipv6Addr::LOCALHOST.into()]);
        assert_eq!(settings.log_format, LogFormat::Json);
    }
}
