//! One request over one connection to the node's socket.

use std::io;

use bytes::{Bytes, BytesMut};
use futures::{Stream, TryStreamExt, stream};
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio_util::task::AbortOnDropHandle;

use super::ClientError;
use crate::data_dir::DataDir;
use crate::socket;
use crate::wire::{Problem, ProblemBody};

/// The largest answer that is held whole: a directory of a hundred thousand entries fits.
const MAX_ANSWER: usize = 64 << 20;

pub(super) type RequestBody = UnsyncBoxBody<Bytes, io::Error>;

pub(super) fn empty() -> RequestBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(super) fn full(bytes: Bytes) -> RequestBody {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// A body that is sent as it comes. An error in it breaks the connection off, so the node never takes half
/// for the whole.
pub(super) fn streamed(chunks: impl Stream<Item = Result<Bytes, io::Error>> + Send + 'static) -> RequestBody {
    BodyExt::boxed_unsync(StreamBody::new(chunks.map_ok(Frame::data)))
}

/// A success whose body is still on its way.
#[derive(Debug)]
pub(super) struct Answer {
    dir: DataDir,
    what: String,
    headers: HeaderMap,
    body: Incoming,
    /// Drives the connection; dropped with the answer, and then the node sees the client leave.
    _connection: AbortOnDropHandle<()>,
}

/// Sends `request` and waits for the head of the answer; anything but a success is an error.
pub(super) async fn send(dir: &DataDir, mut request: Request<RequestBody>) -> Result<Answer, ClientError> {
    let data_dir = || dir.path().to_owned();
    let stream = socket::connect(dir).await.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ClientError::NotRunning { data_dir: data_dir() }
        }
        _ => ClientError::Connect { data_dir: data_dir(), source },
    })?;
    let broken =
        |source: hyper::Error| ClientError::Interrupted { data_dir: data_dir(), source: source.into() };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let connection = AbortOnDropHandle::new(tokio::spawn(async move {
        // What goes wrong is also told to the request.
        let _ = connection.await;
    }));
    let what = format!("{} {}", request.method(), request.uri().path());
    request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
    let (head, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
    let answer = Answer { dir: dir.clone(), what, headers: head.headers, body, _connection: connection };
    if head.status.is_success() { Ok(answer) } else { Err(answer.refusal(head.status).await) }
}

impl Answer {
    /// What was said ahead of the body.
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The whole body as JSON.
    pub(super) async fn json<A: DeserializeOwned>(self) -> Result<A, ClientError> {
        let what = self.what.clone();
        let body = self.bytes().await?;
        serde_json::from_slice(&body).map_err(|error| ClientError::Nonsense { what, source: error.into() })
    }

    /// The whole body.
    pub(super) async fn bytes(self) -> Result<Bytes, ClientError> {
        let what = self.what.clone();
        let mut chunks = std::pin::pin!(self.chunks());
        let mut body = BytesMut::new();
        while let Some(chunk) = chunks.try_next().await? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(ClientError::Nonsense { what, source: "it is too long".into() });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    /// Nothing more is to come.
    pub(super) async fn done(self) -> Result<(), ClientError> {
        self.bytes().await.map(drop)
    }

    /// The body as it comes, without trailers.
    pub(super) fn chunks(self) -> impl Stream<Item = Result<Bytes, ClientError>> + Send + 'static {
        self.frames().try_filter_map(async |frame| Ok(frame.into_data().ok()))
    }

    /// The body as it comes, the trailers last.
    pub(super) fn frames(self) -> impl Stream<Item = Result<Frame<Bytes>, ClientError>> + Send + 'static {
        stream::try_unfold(self, async |mut answer| match answer.body.frame().await {
            None => Ok(None),
            Some(Ok(frame)) => Ok(Some((frame, answer))),
            Some(Err(error)) => Err(answer.interrupted(error)),
        })
    }

    fn interrupted(&self, error: hyper::Error) -> ClientError {
        ClientError::Interrupted { data_dir: self.dir.path().to_owned(), source: error.into() }
    }

    async fn refusal(self, status: StatusCode) -> ClientError {
        match self.json::<ProblemBody>().await {
            Ok(body) => ClientError::Refused(Box::new(Problem { status: status.as_u16(), body })),
            Err(error) => error,
        }
    }
}
