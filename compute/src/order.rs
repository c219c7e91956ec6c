//! What a node and its worker processes say to each other over the pipes between them.
//!
//! A worker does one thing at a time. It is told what it is ([`Setup`]) and says [`FromWorker::Ready`]; then it
//! compiles one program and is done, or runs one task after the other.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::ask::{Ask, AskId, Told};
use crate::jail::JailReport;
use crate::profile::Profile;
use crate::reach::Reach;
use crate::series::{Brief, Series};
use crate::task::{Cost, Outcome};
use crate::wire::Chunk;

/// From the node to a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum ToWorker {
    /// The first message.
    Setup(Setup),
    /// Part of a program to compile.
    Module(Chunk),
    /// The program is complete: compile it.
    Compile,
    /// Say whether a compiled program was granted what it imports.
    Check { artifact: String, reach: Vec<Reach> },
    /// Run a task.
    Run(Box<Order>),
    /// Run many tasks, one after the other.
    RunSeries(Box<Series>),
    /// Answer an HTTP request, whose body is what comes as standard input. A command just runs on it.
    Answer(Box<Order>, Box<RequestHead>),
    /// Standard input of the running task.
    Stdin(Chunk),
    /// The end of its standard input.
    StdinEnd,
    /// The answer to a question of the guest.
    Told { id: AskId, told: Told },
    /// The answer to [`FromWorker::Ended`]: nothing more comes for that task.
    Finish,
}

/// What a worker is for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// Compile or run: a process that has run a guest never compiles for others.
    pub(crate) role: Role,
    /// How it compiles, or runs: its engine knows one way only.
    pub(crate) profile: Profile,
    /// The folder that it may write to.
    pub(crate) scratch: PathBuf,
    /// The folder of compiled programs, which it may read.
    pub(crate) cache: PathBuf,
    /// The process that started it; without it the worker ends.
    pub(crate) parent: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    Compile,
    Run,
}

/// One task, made ready by the node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Name of the compiled program in the cache folder.
    pub(crate) artifact: String,
    /// All arguments, `argv[0]` first.
    pub(crate) args: Vec<String>,
    /// What to call of it; where it exports nothing of that name, and else, the whole is run.
    pub(crate) handler: Option<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) folders: Vec<Folder>,
    /// What else it may reach.
    pub(crate) reach: Vec<Reach>,
    pub(crate) timeout_ms: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) output_bytes: u64,
}

/// An HTTP request without its body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestHead {
    /// Its method.
    pub method: String,
    /// With its authority, or that is in the header `Host`.
    pub uri: String,
    /// Its headers, in order.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl RequestHead {
    /// That of a request.
    pub(crate) fn of(parts: &hyper::http::request::Parts) -> Self {
        let (method, uri) = (parts.method.to_string(), parts.uri.to_string());
        Self { method, uri, headers: in_order(&parts.headers) }
    }
}

/// An HTTP response without its body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponseHead {
    /// Its status.
    pub status: u16,
    /// Its headers, in order.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl ResponseHead {
    /// That of a response.
    pub(crate) fn of(parts: &hyper::http::response::Parts) -> Self {
        Self { status: parts.status.as_u16(), headers: in_order(&parts.headers) }
    }
}

fn in_order(headers: &hyper::HeaderMap) -> Vec<(String, Vec<u8>)> {
    headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect()
}

/// A folder that a guest may open.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Folder {
    /// Where it lies on this machine, within the worker's scratch folder.
    pub(crate) host: PathBuf,
    /// How the guest calls it.
    pub(crate) guest: String,
    pub(crate) writable: bool,
}

/// From a worker to the node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum FromWorker {
    /// The worker is set up and jailed.
    Ready {
        /// What confines it.
        jail: JailReport,
        /// Names the compiler and its settings: compiled programs are of use only under the same.
        compatibility: u64,
    },
    /// It could not be set up.
    Unfit(String),
    /// Part of a compiled program.
    Artifact(Chunk),
    /// The compiled program is complete.
    Compiled,
    /// The program is not one that can be run, and why.
    Rejected(String),
    /// It is.
    Accepted,
    Stdout(Chunk),
    Stderr(Chunk),
    /// The guest has read a piece of its input: there is room for another.
    Taken,
    /// The guest asks for something.
    Ask {
        id: AskId,
        ask: Ask,
    },
    /// The head of the answer to an HTTP request; its body comes as standard output.
    Response(Box<ResponseHead>),
    /// The compiled program could not be read; the task was not begun.
    Unreadable(String),
    /// What came of some tasks of a series, in order.
    Ran(Vec<Brief>),
    /// The series is over: all of its tasks have ended, or the last that was told of is to be run by itself.
    SeriesOver,
    /// The task is over.
    Ended {
        outcome: Outcome,
        cost: Cost,
    },
    /// The guest made the process take more memory than it may: both are over.
    Overdrawn,
}
