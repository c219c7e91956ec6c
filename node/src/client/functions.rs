//! Functions through a running node.

use std::io;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method};
use starfish_compute::function::version::VersionId;

use super::connection::{empty, streamed};
use super::jobs::Chunks;
use super::{Client, ClientError, JobOutput, request};
use crate::percent;
use crate::wire::frame;
use crate::wire::{DeployRequest, Deployed, FunctionLine, InvokeRequest, RollbackRequest};

impl Client {
    /// Makes a new version of a function, or the first; `program` if it is not in the tree.
    pub async fn deploy(
        &self,
        name: &str,
        function: &DeployRequest,
        program: Option<Bytes>,
    ) -> Result<VersionId, ClientError> {
        let path = at(name);
        let text = json(&path, function)?;
        let (body, kind) = match program {
            None => (stream::iter(vec![Ok(text)]).boxed(), "application/json"),
            Some(program) => {
                let head = frame::encode(frame::submit::TASK, &text);
                let rest = Chunks(program).map(|chunk| frame::encode(frame::submit::MODULE, &chunk));
                (stream::iter(std::iter::once(head).chain(rest).map(Ok)).boxed(), "application/octet-stream")
            }
        };
        let mut request = request(Method::PUT, &path, streamed(body));
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        self.send(request).await?.json::<Deployed>().await.map(|answer| answer.version)
    }

    /// The swarm's functions.
    pub async fn functions(&self) -> Result<Vec<FunctionLine>, ClientError> {
        self.get("/api/v1/functions").await
    }

    /// Forgets a function.
    pub async fn undeploy(&self, name: &str) -> Result<(), ClientError> {
        self.send(request(Method::DELETE, &at(name), empty())).await?.done().await
    }

    /// Makes a version of a function the current one; by default the one before the current one.
    pub async fn rollback(&self, name: &str, version: Option<String>) -> Result<VersionId, ClientError> {
        let path = format!("{}/rollback", at(name));
        let answer = self.post::<Deployed>(&path, &RollbackRequest { version }).await?;
        Ok(answer.version)
    }

    /// Calls a function with this input. Dropping what it says ends it.
    pub async fn call(
        &self,
        name: &str,
        args: Vec<String>,
        input: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<JobOutput, ClientError> {
        let what = format!("{}/call", at(name));
        let head = frame::encode(frame::call::CALL, &json(&what, &InvokeRequest { args })?);
        let input = input.map_ok(|bytes| frame::encode(frame::call::STDIN, &bytes));
        let body = streamed(stream::iter([Ok(head)]).chain(input));
        let answer = self.send(request(Method::POST, &what, body)).await?;
        Ok(self.heard(what, answer))
    }
}

fn at(name: &str) -> String {
    format!("/api/v1/functions/{}", percent::encode(name.as_bytes()))
}

fn json(what: &str, value: &impl serde::Serialize) -> Result<Bytes, ClientError> {
    let text = serde_json::to_vec(value);
    text.map(Bytes::from)
        .map_err(|error| ClientError::Nonsense { what: what.to_owned(), source: error.into() })
}
