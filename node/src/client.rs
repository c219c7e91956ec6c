//! Talking to a running node: typed calls over its Unix socket, for the CLI, the shell and tests.
//!
//! A [`Client`] is a data folder and nothing more; each call opens a connection of its own (some tens of
//! microseconds on a Unix socket) and so survives a restart of the node. Of files there are many, so [`RemoteVfs`] uses
//! its connections again. Bodies stream both ways.

mod connection;
mod docs;
mod files;
mod functions;
mod jobs;
mod memory;
mod node;
mod processes;
mod schedule;
mod share;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::connection::{Answer, RequestBody, empty, full};
pub use self::{
    docs::RemoteCollection,
    files::RemoteVfs,
    jobs::JobOutput,
    memory::{Precondition, RemoteEntry, RemoteLifetime, RemoteSpace, RemoteValue, RemoteWatch},
};
use crate::data_dir::DataDir;
use crate::wire::Problem;

/// A way to the node of one data folder.
#[derive(Clone, Debug)]
pub struct Client {
    dir: Arc<DataDir>,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens in the folder.
    #[error("no node is running on {data_dir}")]
    NotRunning {
        /// The folder.
        data_dir: PathBuf,
    },
    /// Somebody listens, but not to us.
    #[error("cannot talk to the node on {data_dir}")]
    Connect {
        /// The folder.
        data_dir: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The connection broke before the answer was complete: the node stopped, most likely.
    #[error("the node on {data_dir} broke off")]
    Interrupted {
        /// The folder.
        data_dir: PathBuf,
        /// What happened to the connection.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The node said no, and why.
    #[error(transparent)]
    Refused(Box<Problem>),
    /// The node said something that this client does not understand: their versions differ.
    #[error("the node's answer to {what} makes no sense")]
    Nonsense {
        /// The request.
        what: String,
        /// What is wrong with the answer.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Client {
    /// A way to the node of `dir`, whether it runs or not.
    pub fn new(dir: DataDir) -> Self {
        Self { dir: Arc::new(dir) }
    }

    /// The folder.
    pub fn data_dir(&self) -> &DataDir {
        &self.dir
    }

    async fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, ClientError> {
        self.send(request(Method::GET, path, empty())).await?.json().await
    }

    async fn post<A: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<A, ClientError> {
        self.send(json_request(path, body)?).await?.json().await
    }

    async fn put<A: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<A, ClientError> {
        let mut request = json_request(path, body)?;
        *request.method_mut() = Method::PUT;
        self.send(request).await?.json().await
    }

    /// A `POST` whose answer has no body.
    async fn order(&self, path: &str, body: &impl Serialize) -> Result<(), ClientError> {
        self.send(json_request(path, body)?).await?.done().await
    }

    async fn send(&self, request: Request<RequestBody>) -> Result<Answer, ClientError> {
        connection::send(&self.dir, request, None).await
    }
}

fn request(method: Method, path: &str, body: RequestBody) -> Request<RequestBody> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    // Paths are made here, of constants and percent-encoded parts.
    *request.uri_mut() = path.parse().unwrap_or_default();
    request
}

fn json_request(path: &str, body: &impl Serialize) -> Result<Request<RequestBody>, ClientError> {
    let text = serde_json::to_vec(body)
        .map_err(|error| ClientError::Nonsense { what: path.to_owned(), source: error.into() })?;
    let mut request = request(Method::POST, path, full(Bytes::from(text)));
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(request)
}
