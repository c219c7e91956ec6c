//! The doors: connections are accepted, counted, and given back when the node stops.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// Connections open at once through one door. More wait in the kernel's queue. A shell holds a few, a
/// browser six, and a directory being copied some dozens.
const MAX_CONNECTIONS: usize = 256;

/// A client that is silent for this long before or within its request's head loses its connection.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// How long a client may take to see that its connection is closed.
const LINGER: Duration = Duration::from_secs(2);

/// The process at the other end of a connection, as the kernel tells it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process(pub(crate) i32);

/// What can be told of who is at the other end.
pub(crate) trait Caller {
    /// Which process it is; `None` if that cannot be known.
    fn process(&self) -> Option<Process>;
}

impl Caller for UnixStream {
    fn process(&self) -> Option<Process> {
        // 0 is a process that this one cannot see: of another container.
        self.peer_cred().ok()?.pid().filter(|pid| *pid > 0).map(Process)
    }
}

impl Caller for TcpStream {
    fn process(&self) -> Option<Process> {
        None
    }
}

/// Answers what comes through `listener` until `stop`; then lets the requests at work end. The caller
/// limits how long that may take, by dropping the future.
pub(crate) async fn serve<L>(mut listener: L, router: Router, stop: CancellationToken)
where
    L: Listener<Io: Caller>,
{
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            // Never closed, so there is always a place in the end.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, listener.accept().await.0)
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            (place, io) = accepted => {
                let connection = connection(io, router.clone(), stop.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection<I>(io: I, router: Router, stop: CancellationToken)
where
    I: AsyncRead + AsyncWrite + Caller + Unpin + Send + 'static,
{
    let (router, process) = (TowerToHyperService::new(router), io.process());
    let service = service_fn(|mut request: Request<Incoming>| {
        if let Some(process) = process {
            request.extensions_mut().insert(process);
        }
        Box::pin(router.call(request))
    });
    let mut served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .serve_connection(TokioIo::new(io), service);
    let ended = tokio::select! {
        ended = poll_fn(|context| served.poll_without_shutdown(context)) => ended,
        () = stop.cancelled() => {
            std::pin::Pin::new(&mut served).graceful_shutdown();
            poll_fn(|context| served.poll_without_shutdown(context)).await
        }
    };
    match ended {
        Ok(()) if !stop.is_cancelled() => linger(served.into_parts().io.into_inner()).await,
        Ok(()) => {}
        Err(error) => debug!(%error, "connection ended early"),
    }
}

/// Ends a connection so that the last answer arrives: one that is closed over a part of a request that nobody has read is
/// reset, and the client may lose what it has not read yet (RFC 9112, 9.6).
async fn linger<I: AsyncRead + AsyncWrite + Unpin>(mut io: I) {
    let lingering = async {
        io.shutdown().await?;
        tokio::io::copy(&mut io, &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(LINGER, lingering).await;
}
