//! What a program may reach beside its folders, each by name: parts of the swarm's memory, hosts, functions. Pure.
//!
//! All three have effects at once, and not only when a task ends well: a task that is run again has them again.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use starfish_memory::SpaceName;

use crate::function::version::{BadName, FunctionName};
use crate::task::Access;

/// What one task may reach.
pub const MAX_REACH: usize = 32;
/// A host's name, as DNS bounds it.
const MAX_HOST: usize = 253;
/// Spaces of memory that belong to the system, beside those of documents.
const INTERNAL: [&str; 7] = ["sys", "fs", "jobs", "functions", "schedule", "processes", "suspects"];

/// The host name under which guests call functions: `http://NAME.starfish.internal/`. (The top-level domain `internal`
/// is set aside for private use.)
pub const FUNCTIONS_DOMAIN: &str = ".starfish.internal";

/// Whether a space of memory is the system's own, and closed to users and programs.
pub fn is_internal_space(name: &str) -> bool {
    INTERNAL.contains(&name) || starfish_memory::is_documents_space(name)
}

/// Something that a program may reach.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Reach {
    /// A space of the swarm's memory, as the bucket of that name of `wasi:keyvalue`.
    Memory {
        /// Which.
        space: SpaceName,
        /// What may be done there.
        access: Access,
    },
    /// HTTP requests to a host.
    Host {
        /// Its name or address, in lower case.
        host: String,
        /// That port alone; without one, any.
        port: Option<u16>,
    },
    /// Calls of a function.
    Function(FunctionName),
}

/// It says nothing that can be granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReachError {
    /// It has another form.
    #[error("{0:?} is not mem:SPACE[:ro], http:HOST[:PORT] or fn:NAME")]
    Form(String),
    /// No space can have that name.
    #[error("{0:?} is not the name of a space")]
    Space(String),
    /// It is not for programs.
    #[error("the space {0:?} belongs to the system")]
    Internal(String),
    /// No host can have that name.
    #[error("{0:?} is not a host, or a host and a port")]
    Host(String),
    /// No function can have that name.
    #[error(transparent)]
    Function(#[from] BadName),
}

impl Reach {
    /// Whether it lets an HTTP request through to `host` at `port`.
    pub(crate) fn permits_host(&self, wanted: &str, wanted_port: u16) -> bool {
        match self {
            Self::Host { host, port } => {
                host.eq_ignore_ascii_case(wanted) && port.is_none_or(|port| port == wanted_port)
            }
            _ => false,
        }
    }
}

impl FromStr for Reach {
    type Err = ReachError;

    fn from_str(text: &str) -> Result<Self, ReachError> {
        let (kind, rest) = text.split_once(':').ok_or_else(|| ReachError::Form(text.to_owned()))?;
        match kind {
            "mem" => memory(rest),
            "http" => host(rest),
            "fn" => Ok(Self::Function(rest.parse()?)),
            _ => Err(ReachError::Form(text.to_owned())),
        }
    }
}

fn memory(text: &str) -> Result<Reach, ReachError> {
    let (name, access) = match text.rsplit_once(':') {
        Some((name, "ro")) => (name, Access::ReadOnly),
        Some((name, "rw")) => (name, Access::ReadWrite),
        _ => (text, Access::ReadWrite),
    };
    if is_internal_space(name) {
        return Err(ReachError::Internal(name.to_owned()));
    }
    let space = SpaceName::new(name).map_err(|_| ReachError::Space(name.to_owned()))?;
    Ok(Reach::Memory { space, access })
}

fn host(text: &str) -> Result<Reach, ReachError> {
    let bad = || ReachError::Host(text.to_owned());
    // An address of IPv6 stands in brackets, as in URLs.
    let end = text.find(']').map_or_else(|| text.find(':').unwrap_or(text.len()), |bracket| bracket + 1);
    let (host, port) = text.split_at(end);
    let port = match port.strip_prefix(':') {
        Some(port) => Some(port.parse().map_err(|_| bad())?),
        None if port.is_empty() => None,
        None => return Err(bad()),
    };
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)),
    };
    let is_own = host.to_ascii_lowercase().ends_with(FUNCTIONS_DOMAIN);
    if host.is_empty() || host.len() > MAX_HOST || !is_host || is_own {
        return Err(bad());
    }
    Ok(Reach::Host { host: host.to_ascii_lowercase(), port })
}

impl fmt::Display for Reach {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory { space, access: Access::ReadOnly } => write!(formatter, "mem:{}:ro", space),
            Self::Memory { space, access: Access::ReadWrite } => write!(formatter, "mem:{}", space),
            Self::Host { host, port: Some(port) } => write!(formatter, "http:{host}:{port}"),
            Self::Host { host, port: None } => write!(formatter, "http:{host}"),
            Self::Function(name) => write!(formatter, "fn:{name}"),
        }
    }
}

impl TryFrom<String> for Reach {
    type Error = ReachError;

    fn try_from(text: String) -> Result<Self, ReachError> {
        text.parse()
    }
}

impl From<Reach> for String {
    fn from(reach: Reach) -> Self {
        reach.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_reached_is_said_in_one_word_and_reads_back() {
        for text in [
            "mem:counters",
            "mem:a/b:ro",
            "http:example.org",
            "http:10.0.0.1:8080",
            "http:[::1]:80",
            "fn:resize",
        ] {
            assert_eq!(text.parse::<Reach>().unwrap().to_string(), text);
        }
        assert_eq!("mem:a:rw".parse::<Reach>().unwrap().to_string(), "mem:a");
        assert_eq!("http:Example.ORG".parse::<Reach>().unwrap().to_string(), "http:example.org");
    }

    #[test]
    fn nonsense_and_what_belongs_to_the_system_cannot_be_reached() {
        for text in [
            "",
            "mem",
            "mem:",
            "mem:UPPER",
            "http:",
            "http:a b",
            "http:h:99999",
            "http:h:",
            "http:[::1",
            "fn:",
            "fn:a/b",
            "x:y",
        ] {
            assert!(text.parse::<Reach>().is_err(), "{text}");
        }
        assert_eq!("mem:functions".parse::<Reach>(), Err(ReachError::Internal("functions".to_owned())));
        assert!(
            "http:upper.starfish.internal".parse::<Reach>().is_err(),
            "functions are granted as functions"
        );
    }

    #[test]
    fn a_host_is_granted_with_its_port_or_with_all() {
        let one: Reach = "http:example.org:8080".parse().unwrap();
        assert!(one.permits_host("EXAMPLE.org", 8080) && !one.permits_host("example.org", 80));
        let all: Reach = "http:example.org".parse().unwrap();
        assert!(all.permits_host("example.org", 443) && !all.permits_host("www.example.org", 443));
    }
}
