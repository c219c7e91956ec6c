//! Plain HTTP, as browsers, curl and WebDAV clients speak it.

use std::net::SocketAddr;
use std::path::PathBuf;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use starfish_node::DataDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::common::TestNode;

/// Asks one node, over TCP unless told otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Browser {
    pub(crate) address: SocketAddr,
    socket: Option<PathBuf>,
    headers: Vec<(String, String)>,
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Browser {
    /// One that knows the token.
    pub(crate) fn of(node: &TestNode) -> Self {
        Self::stranger(node).with("authorization", &format!("Bearer {}", node.token()))
    }

    /// One that knows nothing.
    pub(crate) fn stranger(node: &TestNode) -> Self {
        Self { address: node.node.api_address(), socket: None, headers: vec![] }
    }

    /// One that comes through the socket of the data folder.
    pub(crate) fn at_socket(node: &TestNode) -> Self {
        let socket = Some(node.folder.path().join(DataDir::SOCKET));
        Self { socket, ..Self::stranger(node).with("content-type", "application/json") }
    }

    /// With this header on every request.
    pub(crate) fn with(&self, name: &str, value: &str) -> Self {
        let mut browser = self.clone();
        browser.headers.push((name.to_owned(), value.to_owned()));
        browser
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "").await
    }

    pub(crate) async fn put(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.ask("PUT", path, body).await
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, body: impl Into<Bytes>) -> Answer {
        let host = if self.socket.is_some() { "localhost".to_owned() } else { self.address.to_string() };
        let mut request = Request::builder().method(method).uri(path).header("host", host);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        match &self.socket {
            Some(socket) => exchange(UnixStream::connect(socket).await.unwrap(), request).await,
            None => exchange(TcpStream::connect(self.address).await.unwrap(), request).await,
        }
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Answer {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    connection.abort();
    Answer { status: head.status.as_u16(), headers: head.headers, body }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Status and code of a refusal.
    pub(crate) fn refusal(&self) -> (u16, String) {
        (self.status, self.json()["code"].as_str().unwrap().to_owned())
    }
}
