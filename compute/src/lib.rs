//! Running WASM: tasks, the job board without a leader, and the jailed processes that guests live in.
//!
//! A task that is submitted to a node becomes a *job* that this node keeps. It is announced by gossip; a node
//! with a free slot (this one too) claims it over a direct stream, runs it in a worker process, and sends back
//! what it says. When that node is lost, another runs the task again, from the input that the keeper has kept,
//! and the output goes on where it broke off.
//!
//! Reading order: [`task`] for the words, [`board`] for the rules (pure), `keeper` and `runner` for the two
//! ends of an attempt, `pool` and [`worker`] for the two ends of the pipe to a guest's process, `sandbox` and
//! [`jail`] for what a guest meets there. [`batch`] is many tasks at once, [`function`] programs that have a name; both
//! take slots that the board lends. [`schedule`] runs functions by the
//! clock and when something changes, [`process`] keeps state with handlers that outlives its nodes.
//!
//! What is deliberately absent: a node never runs guest code in its own process, and never takes compiled code
//! from anybody.

pub mod id;
pub mod task;

pub mod batch;
pub mod board;
pub mod function;
pub mod notice;
pub mod process;
pub mod reach;
pub mod report;
pub mod schedule;

mod arrived;
mod compute;
mod feed;
mod keeper;
mod kept;
mod links;
mod output;
mod protocol;
mod runner;
mod service;
mod spool;
mod staging;
mod submit;
mod unread;
mod wire;

mod ask;
mod attendant;
mod cache;
mod line;
mod order;
mod pool;
mod profile;

mod clock;
mod guest_io;
pub mod jail;
mod sandbox;
mod series;
pub mod worker;

#[cfg(test)]
mod component_test;

pub use compute::{Compute, ComputeOptions, JobError, StartError};
pub use feed::StdinWriter;
pub use id::EventId;
pub use kept::RecordError;
pub use links::LinkError;
pub use order::{RequestHead, ResponseHead};
pub use output::OutputReader;
pub use pool::WorkerStartError;
pub use report::{JobReport, JobSummary, Phase, Verified};
pub use staging::StageError;
pub use submit::SubmitError;
pub use task::{
    Access, Grant, JobId, Limit, Limits, Module, Outcome, OutputFrame, Receipt, TaskId, TaskSpec,
};

/// A span of time in whole milliseconds.
fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Says the whole of an error: what failed, and why.
fn in_words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words += &format!(": {cause}");
        source = cause.source();
    }
    words
}
