//! What is asked for when processes are begun and sent to, and what is told of them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use starfish_compute::EventId;
use starfish_compute::function::version::FunctionName;
use starfish_compute::process::{Answer, ProcessName, ProcessStatus, Sent};
use starfish_dht::PeerId;

use super::Base64;

/// `PUT /api/v1/processes/{name}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpawnRequest {
    /// The function that handles its events.
    pub function: FunctionName,
}

/// One of `GET /api/v1/processes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessLine {
    /// Its name.
    pub name: ProcessName,
    /// The function that handles its events.
    pub function: FunctionName,
    /// The node that does so now, as far as this one sees.
    pub owner: PeerId,
    /// Events that are in its state, all in all.
    pub handled: u64,
    /// Those of them whose handler failed.
    pub failed: u64,
    /// Events that wait.
    pub pending: u64,
    /// Why they do, if this node is the owner and cannot go on.
    pub why: Option<String>,
    /// The length of its state.
    pub state_bytes: u64,
    /// Where it was begun.
    pub by: PeerId,
    /// When, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// When an event was handled last.
    pub last_ms: Option<u64>,
}

/// `POST /api/v1/processes/{name}/events/{handler}`: an event was journaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventSent {
    /// How it is called. Who sends one of this id again sends the same.
    pub id: EventId,
    /// On the disks of how many nodes it is for sure.
    pub copies: u32,
}

/// `GET /api/v1/processes/{name}/answers/{id}`: what came of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventAnswer {
    /// What the handler answered, if it ended well.
    pub reply: Option<Base64>,
    /// Why it failed, if it did not.
    pub failed: Option<String>,
    /// Who handled it.
    pub by: PeerId,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

impl From<ProcessStatus> for ProcessLine {
    fn from(status: ProcessStatus) -> Self {
        let ProcessStatus { name, spec, owner, snapshot, pending, why } = status;
        let last_ms = snapshot.as_ref().map(|snapshot| snapshot.at_ms);
        let snapshot = snapshot.unwrap_or_default();
        Self {
            name,
            function: spec.function,
            owner,
            handled: snapshot.handled,
            failed: snapshot.failed,
            pending,
            why,
            state_bytes: snapshot.state.len() as u64,
            by: spec.by,
            since_ms: spec.since_ms,
            last_ms,
        }
    }
}

impl From<Sent> for EventSent {
    fn from(Sent { id, copies }: Sent) -> Self {
        Self { id, copies }
    }
}

impl From<Answer> for EventAnswer {
    fn from(Answer { outcome, by, at_ms }: Answer) -> Self {
        match outcome {
            Ok(reply) => Self { reply: Some(Base64(Bytes::from(reply))), failed: None, by, at_ms },
            Err(why) => Self { reply: None, failed: Some(why), by, at_ms },
        }
    }
}
