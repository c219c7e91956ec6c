//! Durable processes: state that lives in no node, and handlers that change it, one event after the other.
//!
//! A process is a name, a function, and state. What is sent to it is *journaled*: an event is a cell of the swarm's memory, under an
//! id that its sender made. One node at a time, the *owner*, handles the events in order: it calls the function with the state and the
//! event ([`frame`]), and writes the new state, the list of events that went into it, the answer, and the events that the handler sends to
//! other processes as one batch of cells. The owner is the first living node in the rendezvous order of the process, and holds nothing that others do
//! not have: when it dies, the next one goes on from the journal.
//!
//! **Every event counts once.** A state and the list of what went into it are one value, of which memory keeps the later where two nodes wrote one.
//! What is journaled and not in that list is pending, and is handled. So where two halves of a swarm each had an owner, one of both states wins as a whole, and
//! what only the other had handled is handled again on top of it; no event is lost, and none is in the state twice. For as long as that may happen
//! ([`journal::KEEP_FOR`]) events are kept.
//!
//! Not guaranteed: an answer that was given by an owner whose state did not win is not what finally happened. And what a handler does beside
//! its answer, such as files in a folder granted for writing, is done again when it is run again.
//!
//! Reading order: [`record`] for the words, [`journal`] for the rules, [`frame`] for what a handler reads and writes (all pure); then `store`,
//! `service` and `handler`.

pub mod frame;
pub mod journal;
pub mod record;

mod handler;
mod holders;
mod service;
mod store;

pub use record::{Answer, MAX_DATA, MAX_STATE, ProcessName};
pub(crate) use service::Processes;
pub use service::{ProcessError, ProcessStatus, SendSpec, Sent};
