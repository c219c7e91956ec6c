//! What runs by itself, through a running node.

use http::Method;

use super::connection::empty;
use super::{Client, ClientError, json_request, request};
use crate::percent;
use crate::wire::{CronEntry, CronRequest};

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
}

fn cron(name: &str) -> String {
    format!("/api/v1/cron/{}", percent::encode(name.as_bytes()))
}
