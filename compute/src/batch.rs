//! Batches: jobs of one task or of a million, which no single node has to live through.
//!
//! A batch is a program with its arguments, and the *items* that it is to be run for: one task an item. What it is
//! lies where everything lasting lies: its definition, program and long outputs in the swarm's tree, its card, its
//! receipts and its end in the swarm's memory. So every node knows every batch, and nothing is lost with any half of
//! them.
//!
//! One node at a time, the *keeper*, hands out slices of the items to whoever asks, so that they are not done twice:
//! the submitter while it is there, else the first living node in the batch's rendezvous order. A keeper holds nothing
//! that others could not work out from the receipts. When it is lost, the next one goes on; where two halves of a
//! swarm each have one, both go on, and their receipts merge.
//!
//! Reading order: [`definition`] for the words, [`desk`] for what a keeper decides and [`docket`] for what each node
//! decides (both pure), [`receipt`] for what remains, then `keeper` and `runner` for the two ends of a slice.

pub mod definition;
pub mod desk;
pub mod docket;
pub mod receipt;

mod ballot;
mod capture;
mod coverage;
mod glob;
mod jury;
mod keeper;
mod near;
mod news;
mod pace;
mod recall;
mod report;
mod results;
mod runner;
mod sealed;
mod service;
mod slice;
mod store;
mod submit;
mod suspects;
mod trial;
mod upkeep;
mod verify;

pub use ballot::{MAX_COPIES, Outvoted};
pub use definition::{BatchSpec, Card, End, Ending, Input, Items, Progress, Retries};
pub use glob::GlobError;
pub(crate) use glob::{base_of, find, literal};
pub use receipt::{Said, SliceReceipt, TaskResult};
pub use results::{Ended, OutputStream, Results, ResultsError};
pub(crate) use service::Batches;
pub use store::BatchStoreError;
pub use submit::BatchError;
pub use suspects::Suspect;
