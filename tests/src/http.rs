//! Requests to a node's HTTP API that a well-behaved client would never make.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::wait::PATIENCE;

/// A request that is about to be made.
#[derive(Clone, Debug)]
#[must_use]
pub struct Request {
    line: String,
    address: SocketAddr,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body, chunks and all.
    pub body: String,
}

impl Request {
    pub(crate) fn new(method: &str, address: SocketAddr, path: &str) -> Self {
        let line = format!("{method} {path} HTTP/1.1");
        Self { line, address, headers: Vec::new(), body: Vec::new() }
    }

    /// With this header, instead of any other of that name.
    pub fn with(self, name: &str, value: &str) -> Self {
        let mut request = self.without(name);
        request.headers.push((name.to_owned(), value.to_owned()));
        request
    }

    /// Without the header.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self
    }

    /// With a body of JSON.
    pub fn json(self, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let length = body.len().to_string();
        let mut request = self.with("Content-Type", "application/json").with("Content-Length", &length);
        request.body = body;
        request
    }

    /// Makes it.
    ///
    /// # Panics
    /// If no answer comes.
    #[track_caller]
    pub fn send(&self) -> Answer {
        let mut stream = TcpStream::connect(self.address).expect("the API listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket has a timeout");
        let mut text = format!("{}\r\nConnection: close\r\n", self.line);
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        // Who refuses a request need not read all of it; and may then answer with a reset after its words.
        let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.write_all(&self.body));
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let answer = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no answer to {}: {answer:?}", self.line));
        Answer { status, body: body.to_owned() }
    }
}
