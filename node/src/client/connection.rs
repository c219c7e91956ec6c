//! One request over one connection to the node's socket. Who sends many keeps the connections for the next ones
//! ([`Kept`]).

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};
use tokio_util::io::StreamReader;
use tokio_util::task::AbortOnDropHandle;

use super::ClientError;
use crate::data_dir::DataDir;
use crate::socket;
use crate::wire::{Problem, ProblemBody};

/// The largest answer that is held whole: a directory of a hundred thousand entries fits.
const MAX_ANSWER: usize = 64 << 20;

/// A connection is not used again after this long: the node closes those that are silent for ten seconds.
const FRESH: Duration = Duration::from_secs(5);
/// So many requests go over one connection. The node has places for so many at once, and others wait for one.
const MAX_USES: usize = 16;
/// Connections that are kept while no request is on them.
const MAX_KEPT: usize = 64;

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
    /// Dropped with the answer, and then the node sees the client leave, unless the whole of it was read and it is kept.
    connection: Connection,
    kept: Option<Kept>,
}

/// Connections that wait for the next request. Cheap to clone; the clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept(Arc<Mutex<Vec<(Instant, Connection)>>>);

/// A connection, and what drives it.
#[derive(Debug)]
struct Connection {
    sender: http1::SendRequest<RequestBody>,
    uses: usize,
    _driver: AbortOnDropHandle<()>,
}

impl Kept {
    /// One over which a request can be sent now.
    async fn take(&self) -> Option<Connection> {
        loop {
            let (since, mut connection) = self.lock().pop()?;
            if since.elapsed() < FRESH && connection.sender.ready().await.is_ok() {
                return Some(connection);
            }
        }
    }

    fn put(&self, connection: Connection) {
        let mut kept = self.lock();
        if kept.len() < MAX_KEPT && connection.uses < MAX_USES {
            kept.push((Instant::now(), connection));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Instant, Connection)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends `request` and waits for the head of the answer; anything but a success is an error.
pub(super) async fn send(
    dir: &DataDir,
    mut request: Request<RequestBody>,
    kept: Option<&Kept>,
) -> Result<Answer, ClientError> {
    let broken = |source: hyper::Error| ClientError::Interrupted {
        data_dir: dir.path().to_owned(),
        source: source.into(),
    };
    let what = format!("{} {}", request.method(), request.uri().path());
    request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
    let (connection, response) = loop {
        let known = match kept {
            Some(kept) => kept.take().await,
            None => None,
        };
        let is_new = known.is_none();
        let mut connection = match known {
            Some(connection) => connection,
            None => connect(dir).await?,
        };
        connection.uses += 1;
        match connection.sender.try_send_request(request).await {
            Ok(response) => break (connection, response),
            Err(mut error) => match error.take_message() {
                // It was closed before anything went over it: the node was started anew, perhaps.
                Some(unsent) if !is_new => request = unsent,
                _ => return Err(broken(error.into_error())),
            },
        }
    };
    let (head, body) = response.into_parts();
    let (dir, headers) = (dir.clone(), head.headers);
    let kept = kept.filter(|_| head.status.is_success()).cloned();
    let answer = Answer { dir, what, headers, body, connection, kept };
    if head.status.is_success() { Ok(answer) } else { Err(answer.refusal(head.status).await) }
}

async fn connect(dir: &DataDir) -> Result<Connection, ClientError> {
    let data_dir = || dir.path().to_owned();
    let stream = socket::connect(dir).await.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ClientError::NotRunning { data_dir: data_dir() }
        }
        _ => ClientError::Connect { data_dir: data_dir(), source },
    })?;
    let broken =
        |source: hyper::Error| ClientError::Interrupted { data_dir: data_dir(), source: source.into() };
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let driver = AbortOnDropHandle::new(tokio::spawn(async move {
        // What goes wrong is also told to the request.
        let _ = connection.await;
    }));
    Ok(Connection { sender, uses: 0, _driver: driver })
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

    /// The lines of the body as they come, of which none is longer than `max` bytes.
    pub(super) fn lines(
        self,
        max: usize,
    ) -> impl Stream<Item = Result<String, ClientError>> + Send + Unpin + 'static {
        let (data_dir, what) = (self.dir.path().to_owned(), self.what.clone());
        let reader = StreamReader::new(Box::pin(self.chunks().map_err(io::Error::other)));
        let lines = FramedRead::new(reader, LinesCodec::new_with_max_length(max));
        lines.map_err(move |error| match error {
            LinesCodecError::Io(source) => {
                ClientError::Interrupted { data_dir: data_dir.clone(), source: source.into() }
            }
            LinesCodecError::MaxLineLengthExceeded => {
                ClientError::Nonsense { what: what.clone(), source: "a line of it is too long".into() }
            }
        })
    }

    /// The body as it comes, the trailers last.
    pub(super) fn frames(self) -> impl Stream<Item = Result<Frame<Bytes>, ClientError>> + Send + 'static {
        stream::try_unfold(self, async |mut answer| match answer.body.frame().await {
            None => {
                if let Some(kept) = answer.kept {
                    kept.put(answer.connection);
                }
                Ok(None)
            }
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::routing::get;
    use axum::serve::Listener;
    use tokio::net::unix::SocketAddr;
    use tokio::net::{UnixListener, UnixStream};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::api::serve::serve;

    /// Counts those who come.
    struct Counting(UnixListener, Arc<AtomicUsize>);

    impl Listener for Counting {
        type Io = UnixStream;
        type Addr = SocketAddr;

        async fn accept(&mut self) -> (UnixStream, SocketAddr) {
            let accepted = Listener::accept(&mut self.0).await;
            self.1.fetch_add(1, Ordering::Relaxed);
            accepted
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            self.0.local_addr()
        }
    }

    async fn ask(dir: &DataDir, kept: &Kept) -> Result<Bytes, ClientError> {
        send(dir, super::super::request(http::Method::GET, "/", empty()), Some(kept)).await?.bytes().await
    }

    #[tokio::test]
    async fn many_requests_share_few_connections_and_outlive_a_restart() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::new(temp.path());
        dir.create().unwrap();
        let (kept, accepted) = (Kept::default(), Arc::new(AtomicUsize::new(0)));
        let start = || {
            let (listener, stop) = (socket::listen(&dir).unwrap(), CancellationToken::new());
            let router = Router::new().route("/", get(async || "here"));
            let listener = Counting(listener, Arc::clone(&accepted));
            (tokio::spawn(serve(listener, router, stop.clone())), stop)
        };
        let (served, stop) = start();
        for _ in 0..2 * MAX_USES + 1 {
            assert_eq!(ask(&dir, &kept).await.unwrap(), "here");
        }
        assert_eq!(accepted.load(Ordering::Relaxed), 3);
        stop.cancel();
        served.await.unwrap();
        let (served, stop) = start();
        assert_eq!(ask(&dir, &kept).await.unwrap(), "here");
        stop.cancel();
        served.await.unwrap();
    }
}
