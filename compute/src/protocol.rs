//! What the keeper of a job and the node that runs it say to each other, on one stream per attempt.
//!
//! WIRE. The runner opens the stream and claims; the keeper answers with the task or a refusal. Then input goes
//! one way and output the other, until the runner reports the end. A runner that is done and has changes for
//! the tree asks first ([`FromRunner::Finished`]), so that an attempt that was given up meanwhile changes
//! nothing. Dropping the stream, on either side, gives the attempt up.

use serde::{Deserialize, Serialize};

use crate::task::{Call, Digest, JobId, Receipt};
use crate::wire::Chunk;

/// The stream of one attempt.
pub(crate) const TASK_PROTOCOL: &str = "/starfish/compute-task/2";
/// Asking a keeper for its bulletin: anti-entropy behind the gossip.
pub(crate) const BOARD_PROTOCOL: &str = "/starfish/compute-board/1";
/// Asking a keeper about one of its jobs.
pub(crate) const REPORT_PROTOCOL: &str = "/starfish/compute-report/1";
/// Asking a keeper to end one of its jobs.
pub(crate) const KILL_PROTOCOL: &str = "/starfish/compute-kill/1";
/// Where bulletins are gossiped.
pub(crate) const JOBS_TOPIC: &str = "jobs";

/// From the node that runs a task, or wants to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum FromRunner {
    /// Give me this job.
    Claim(JobId),
    /// I have not got the program.
    NeedModule,
    /// The program starts now: send its input.
    Started,
    Stdout(Chunk),
    Stderr(Chunk),
    /// I am still at it.
    Beat,
    /// The task ended well and has changes for the tree: may they be made?
    Finished,
    /// That is all. With the digests of the granted folders as they are now, where the task could write.
    Done {
        receipt: Box<Receipt>,
        folders: Vec<Digest>,
    },
    /// I cannot begin, for a reason that lies with this node or passes.
    Declined(String),
    /// The worker process was lost, or the changes could not be made.
    Lost(String),
}

/// From the keeper of a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum FromKeeper {
    /// You do not get it, and here is why.
    Refused {
        unknown: bool,
    },
    /// It is yours.
    Assigned(Box<Call>),
    /// Part of the program.
    Module(Chunk),
    /// The program is complete.
    ModuleEnd,
    Stdin(Chunk),
    StdinEnd,
    /// Make the changes.
    Commit,
}
