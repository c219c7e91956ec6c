//! Sends the HTTP requests of guests to hosts.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// The body of a request, as the guest gives it.
pub(super) type RequestBody =
    StreamBody<Pin<Box<dyn futures::Stream<Item = Result<Frame<Bytes>, std::convert::Infallible>> + Send>>>;

/// How long it may take until a host is connected to.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that are kept for the next request to the same host.
const IDLE_CONNECTIONS: usize = 4;
/// How long they are kept. Most hosts close theirs after five seconds or later, and a request that meets a connection which is
/// being closed fails: its body has gone with it and cannot be sent again.
const IDLE_FOR: Duration = Duration::from_secs(4);

/// For HTTP/1.1, with TLS if the URL says so; certificates are held against Mozilla's roots, which are built in.
#[derive(Clone, Debug)]
pub(super) struct HttpClient(Client<HttpsConnector<HttpConnector>, RequestBody>);

impl HttpClient {
    pub(super) fn new() -> Result<Self, rustls::Error> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let https = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())?
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_FOR)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(https);
        Ok(Self(client))
    }

    /// Sends a request; the answer is the response as soon as its head is there.
    pub(super) async fn send(
        &self,
        request: hyper::Request<RequestBody>,
    ) -> Result<hyper::Response<Incoming>, hyper_util::client::legacy::Error> {
        self.0.request(request).await
    }
}
