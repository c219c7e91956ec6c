//! Processes through a running node.

use bytes::Bytes;
use http::Method;
use starfish_compute::EventId;
use starfish_compute::function::version::FunctionName;

use super::connection::{empty, full};
use super::{Client, ClientError, json_request, request};
use crate::percent;
use crate::wire::{EventAnswer, EventSent, ProcessLine, SpawnRequest};

impl Client {
    /// The swarm's processes.
    pub async fn processes(&self) -> Result<Vec<ProcessLine>, ClientError> {
        self.get("/api/v1/processes").await
    }

    /// How a process goes.
    pub async fn process(&self, name: &str) -> Result<ProcessLine, ClientError> {
        self.get(&at(name)).await
    }

    /// The state of a process.
    pub async fn process_state(&self, name: &str) -> Result<Bytes, ClientError> {
        self.send(request(Method::GET, &format!("{}/state", at(name)), empty())).await?.bytes().await
    }

    /// Begins a process.
    pub async fn spawn(&self, name: &str, function: FunctionName) -> Result<ProcessLine, ClientError> {
        let mut request = json_request(&at(name), &SpawnRequest { function })?;
        *request.method_mut() = Method::PUT;
        self.send(request).await?.json().await
    }

    /// Ends a process.
    pub async fn end_process(&self, name: &str) -> Result<(), ClientError> {
        self.send(request(Method::DELETE, &at(name), empty())).await?.done().await
    }

    /// Sends an event to a process, under this id if it may have been sent before.
    pub async fn send_event(
        &self,
        name: &str,
        handler: &str,
        id: Option<EventId>,
        data: Bytes,
    ) -> Result<EventSent, ClientError> {
        let id = id.map(|id| format!("?id={id}")).unwrap_or_default();
        let path = format!("{}/events/{}{id}", at(name), percent::encode(handler.as_bytes()));
        self.send(request(Method::POST, &path, full(data))).await?.json().await
    }

    /// What came of an event, once it was handled.
    pub async fn event_answer(&self, name: &str, id: EventId) -> Result<EventAnswer, ClientError> {
        self.get(&format!("{}/answers/{id}", at(name))).await
    }
}

fn at(name: &str) -> String {
    format!("/api/v1/processes/{}", percent::encode(name.as_bytes()))
}
