//! What a task is, what it may use, and how it ended.
//!
//! A task is a program with its arguments, environment, granted parts of the tree and limits. All of that
//! together is a [`Call`], and the hash of a call is its [`TaskId`]: the same call has the same id on every
//! node, so running one twice is harmless. Standard input is a stream and not part of the id; a [`Receipt`]
//! names it by hash, so that a receipt says which bytes in gave which bytes out.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use starfish_dht::{PeerId, identity};
use starfish_fs::path::VfsPath;

pub use crate::id::{BadIdentifier, Digest, JobId, TaskId};
use crate::reach::Reach;

/// What goes in front of a call before it is hashed. WIRE: a new meaning of any field needs a new string.
const TASK_CONTEXT: &[u8] = b"starfish task 2\0";
/// What goes in front of a receipt before it is signed. WIRE: as above.
const RECEIPT_CONTEXT: &[u8] = b"starfish receipt 1\0";

/// The largest program. Interpreters compiled to WASM are 10–40 MiB; more would stall a node that compiles it.
pub const MAX_MODULE_BYTES: usize = 64 << 20;
/// All arguments and environment variables together, as `ARG_MAX` bounds them for a process.
pub const MAX_ARGUMENT_BYTES: usize = 128 << 10;
/// Grants of one task: each becomes a descriptor that the guest opens at its start.
pub const MAX_GRANTS: usize = 16;

/// What to run. Nothing is granted that is not named here.
#[derive(Clone, Debug)]
pub struct TaskSpec {
    /// How the job is called in lists, and what the program sees as `argv[0]`.
    pub name: String,
    /// The program.
    pub module: Module,
    /// Its arguments, without `argv[0]`.
    pub args: Vec<String>,
    /// Its environment; a guest sees no variable of the node.
    pub env: Vec<(String, String)>,
    /// The directories of the tree that it may use.
    pub grants: Vec<Grant>,
    /// What else it may reach.
    pub reach: Vec<Reach>,
    /// What it may consume.
    pub limits: Limits,
    /// The only node that may run it, if one was asked for.
    pub on: Option<PeerId>,
}

impl TaskSpec {
    /// A task that runs `module` with nothing but its streams.
    pub fn new(name: impl Into<String>, module: Module) -> Self {
        Self {
            name: name.into(),
            module,
            args: Vec::new(),
            env: Vec::new(),
            grants: Vec::new(),
            reach: Vec::new(),
            limits: Limits::default(),
            on: None,
        }
    }
}

/// Where a program comes from: a WASI command in binary form, of preview 1 (a module) or preview 2 (a component).
#[derive(Clone, Debug)]
pub enum Module {
    /// A file of the tree.
    Path(VfsPath),
    /// The bytes themselves, for programs that are not in the tree.
    Bytes(Bytes),
}

/// A directory of the tree that a guest sees under the same path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Grant {
    /// The directory.
    pub path: VfsPath,
    /// What the guest may do there.
    pub access: Access,
}

/// What a guest may do in a granted directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Look and read.
    ReadOnly,
    /// Change as well; the changes reach the tree when the task exits with code 0.
    ReadWrite,
}

/// `PATH` or `PATH:rw` grants reading and writing, `PATH:ro` reading only.
impl FromStr for Grant {
    type Err = starfish_fs::path::PathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (path, access) = match text.rsplit_once(':') {
            Some((path, "ro")) => (path, Access::ReadOnly),
            Some((path, "rw")) => (path, Access::ReadWrite),
            _ => (text, Access::ReadWrite),
        };
        Ok(Self { path: VfsPath::parse(path)?, access })
    }
}

/// What a task may consume before it is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Limits {
    /// Wall time of one attempt.
    pub timeout: Duration,
    /// Linear memory of the guest.
    pub memory_bytes: u64,
    /// Standard output and error together; and, counted apart, what it leaves in writable grants.
    pub output_bytes: u64,
}

impl Default for Limits {
    /// An hour, 256 MiB and 1 GiB: enough for an ordinary filter over a large file, little enough that a
    /// forgotten loop does not hold a slot for a day.
    fn default() -> Self {
        Self { timeout: Duration::from_secs(3600), memory_bytes: 256 << 20, output_bytes: 1 << 30 }
    }
}

/// A task as it is sent to the node that runs it: everything is named by its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// BLAKE3 of the program.
    pub module: Digest,
    /// `argv[0]`.
    pub name: String,
    /// The arguments after it.
    pub args: Vec<String>,
    /// The environment.
    pub env: Vec<(String, String)>,
    /// Each granted directory with the digest of what was in it when the job was submitted.
    pub inputs: Vec<(Grant, Digest)>,
    /// What else it may reach.
    pub reach: Vec<Reach>,
    /// The limits.
    pub limits: Limits,
}

impl Call {
    /// The hash that names this call.
    pub fn id(&self) -> Result<TaskId, postcard::Error> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(TASK_CONTEXT);
        hasher.update(&postcard::to_stdvec(self)?);
        Ok(TaskId(*hasher.finalize().as_bytes()))
    }

    /// The grants, without the digests.
    pub fn grants(&self) -> impl Iterator<Item = &Grant> {
        self.inputs.iter().map(|(grant, _)| grant)
    }

    /// Whether all that the task does is to say something, and that follows from what it is given.
    pub fn is_pure(&self) -> bool {
        !self.writes() && self.reach.is_empty()
    }

    /// Whether the task may change anything in the tree.
    pub fn writes(&self) -> bool {
        self.grants().any(|grant| grant.access == Access::ReadWrite)
    }
}

/// How a task ended. Only the first two are the program's own doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The program exited with this code.
    Exited(i32),
    /// The program did something that WASM forbids: a division by zero, an access outside of its memory, ...
    Trapped {
        /// Which trap, in wasmtime's words.
        message: String,
    },
    /// The program was ended because it reached a limit.
    LimitReached {
        /// Which one.
        limit: Limit,
        /// Its value, in milliseconds for [`Limit::Time`] and in bytes (or elements) for the others.
        value: u64,
    },
    /// The program could not be run, or its node could not.
    Failed {
        /// Why.
        reason: String,
    },
    /// Somebody asked for its end.
    Killed,
}

impl Outcome {
    /// Whether the task did what it was asked to, as far as one can tell from its exit code.
    pub fn is_success(&self) -> bool {
        *self == Self::Exited(0)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(formatter, "exited with code {code}"),
            Self::Trapped { message } => write!(formatter, "trapped: {message}"),
            Self::LimitReached { limit, value } => match limit {
                Limit::Time => {
                    write!(formatter, "reached its time limit of {:?}", Duration::from_millis(*value))
                }
                Limit::Memory => write!(formatter, "reached its memory limit of {}", Mebibytes(*value)),
                Limit::Output => write!(formatter, "reached its output limit of {}", Mebibytes(*value)),
                Limit::Files => {
                    write!(formatter, "reached its limit for written files of {}", Mebibytes(*value))
                }
                Limit::Stack => write!(formatter, "reached the stack limit of {}", Mebibytes(*value)),
                Limit::Table => write!(formatter, "reached the table limit of {value} elements"),
            },
            Self::Failed { reason } => write!(formatter, "failed: {reason}"),
            Self::Killed => formatter.write_str("was killed"),
        }
    }
}

/// A bound that a guest can run into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// [`Limits::timeout`].
    Time,
    /// [`Limits::memory_bytes`].
    Memory,
    /// [`Limits::output_bytes`], on its streams.
    Output,
    /// [`Limits::output_bytes`], in its writable grants.
    Files,
    /// The call stack, which is the same for all.
    Stack,
    /// Elements of the guest's tables, which are the same for all.
    Table,
}

/// A number of bytes as people read it.
pub(crate) struct Mebibytes(pub(crate) u64);

impl fmt::Display for Mebibytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => {
                write!(formatter, "{} MiB", bytes >> 20)
            }
            bytes if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) => {
                write!(formatter, "{} KiB", bytes >> 10)
            }
            bytes => write!(formatter, "{bytes} bytes"),
        }
    }
}

/// One piece of what a job says, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputFrame {
    /// Bytes of standard output.
    Stdout(Bytes),
    /// Bytes of standard error.
    Stderr(Bytes),
    /// The end; nothing comes after it.
    Exit(Outcome),
}

/// What a node asserts, under its signature, about one run of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The call.
    pub task: TaskId,
    /// BLAKE3 of the standard input that the task was given; it may have read less of it.
    pub stdin: Digest,
    /// How many bytes that was: a task that ends early is not given all there is.
    pub stdin_bytes: u64,
    /// BLAKE3 of its standard output.
    pub stdout: Digest,
    /// BLAKE3 of its standard error.
    pub stderr: Digest,
    /// How it ended.
    pub outcome: Outcome,
    /// Who ran it.
    pub by: PeerId,
    /// When it began, by that node's clock, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// What it cost.
    pub cost: Cost,
    /// That node's signature over all of the above.
    pub signature: Vec<u8>,
}

/// What a run of a task cost the node that ran it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Wall time inside of the sandbox, in microseconds.
    pub elapsed_us: u64,
    /// The most linear memory it had.
    pub memory_bytes: u64,
}

impl Receipt {
    /// Signs with `sign` what the receipt says.
    pub(crate) fn sign(mut self, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Result<Self, postcard::Error> {
        self.signature = sign(&self.signed_bytes()?);
        Ok(self)
    }

    /// Whether the node that it names did sign it.
    pub fn verify(&self) -> bool {
        self.signed_bytes().is_ok_and(|bytes| identity::verify(&self.by, &bytes, &self.signature))
    }

    fn signed_bytes(&self) -> Result<Vec<u8>, postcard::Error> {
        let unsigned = Self { signature: Vec::new(), ..self.clone() };
        let mut bytes = RECEIPT_CONTEXT.to_vec();
        bytes.extend(postcard::to_stdvec(&unsigned)?);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> Call {
        Call {
            module: Digest::of(b"program"),
            name: "p".into(),
            args: vec!["a".into(), "b".into()],
            env: vec![],
            inputs: vec![],
            reach: vec![],
            limits: Limits::default(),
        }
    }

    #[test]
    fn the_id_follows_from_what_is_called_and_from_nothing_else() {
        assert_eq!(call().id().unwrap(), call().id().unwrap());
        let other = Call { args: vec!["ab".into()], ..call() };
        assert_ne!(call().id().unwrap(), other.id().unwrap());
        let mut larger = call();
        larger.limits.memory_bytes += 1;
        assert_ne!(call().id().unwrap(), larger.id().unwrap());
    }

    #[test]
    fn identifiers_are_hex_and_read_back() {
        let id = call().id().unwrap();
        assert_eq!(id.to_string().parse::<TaskId>().unwrap(), id);
        assert_eq!("xyz".parse::<JobId>(), Err(BadIdentifier { length: 16 }));
    }

    #[test]
    fn grants_are_writable_unless_they_say_otherwise() {
        let read: Grant = "/data:ro".parse().unwrap();
        assert_eq!((read.path.as_str(), read.access), ("/data", Access::ReadOnly));
        let write: Grant = "/a:b".parse().unwrap();
        assert_eq!((write.path.as_str(), write.access), ("/a:b", Access::ReadWrite));
        assert!("data".parse::<Grant>().is_err());
    }

    #[test]
    fn outcomes_name_the_limit() {
        let time = Outcome::LimitReached { limit: Limit::Time, value: 1500 };
        assert_eq!(time.to_string(), "reached its time limit of 1.5s");
        let memory = Outcome::LimitReached { limit: Limit::Memory, value: 64 << 20 };
        assert_eq!(memory.to_string(), "reached its memory limit of 64 MiB");
    }
}
