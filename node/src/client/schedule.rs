//! What runs by itself, through a running node.

use http::Method;

use super::connection::empty;
use super::{Client, ClientError, json_request, request};
use crate::percent;
use crate::wire::{CronEntry, CronRequest, TriggerEntry, TriggerRequest};

impl Client {
    /// The swarm's cron lines.
    pub async fn cron(&self) -> Result<Vec<CronEntry>, ClientError> {
        self.get("/api/v1/cron").await
    }

    /// Adds a cron line, or puts it in place of that of its name.
    pub async fn add_cron(&self, name: &str, line: &CronRequest) -> Result<CronEntry, ClientError> {
        let mut request = json_request(&cron(name), line)?;
        *request.method_mut() = Method::PUT;
        self.send(request).await?.json().await
    }

    /// Forgets a cron line.
    pub async fn remove_cron(&self, name: &str) -> Result<(), ClientError> {
        self.send(request(Method::DELETE, &cron(name), empty())).await?.done().await
    }

    /// The swarm's triggers.
    pub async fn triggers(&self) -> Result<Vec<TriggerEntry>, ClientError> {
        self.get("/api/v1/on").await
    }

    /// Adds a trigger, or puts it in place of that of its name.
    pub async fn add_trigger(
        &self,
        name: &str,
        trigger: &TriggerRequest,
    ) -> Result<TriggerEntry, ClientError> {
        let mut request = json_request(&on(name), trigger)?;
        *request.method_mut() = Method::PUT;
        self.send(request).await?.json().await
    }

    /// Forgets a trigger.
    pub async fn remove_trigger(&self, name: &str) -> Result<(), ClientError> {
        self.send(request(Method::DELETE, &on(name), empty())).await?.done().await
    }
}

fn on(name: &str) -> String {
    format!("/api/v1/on/{}", percent::encode(name.as_bytes()))
}

fn cron(name: &str) -> String {
    format!("/api/v1/cron/{}", percent::encode(name.as_bytes()))
}
