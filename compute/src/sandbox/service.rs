//! One HTTP request, answered by a guest: a component that exports `wasi:http/incoming-handler`.
//!
//! The body of the request is what comes as standard input, the body of the response goes where standard output
//! goes, and both are streams. A guest may go on after its response is complete, until its time is up.

use bytes::Bytes;
use futures::Stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError};
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::{Error, WasiHttpView};

use super::Guest;
use crate::guest_io::{GuestInput, GuestOutput, Reports};
use crate::order::{FromWorker, RequestHead, ResponseHead};
use crate::wire::CHUNK;

/// The guest returned without a response.
#[derive(Debug, thiserror::Error)]
#[error("it gave no response")]
struct NoResponse;

/// The guest says that it cannot respond.
#[derive(Debug, thiserror::Error)]
#[error("it could not respond: {0}")]
struct Refused(String);

/// What an answer is written to.
pub(super) struct Answer {
    pub(super) reports: Reports,
    pub(super) body: GuestOutput,
}

/// Lets a service answer one request; returns when it is done and all of the answer is written.
pub(super) async fn answer(
    service: &ProxyPre<Guest>,
    store: &mut Store<Guest>,
    request: &RequestHead,
    input: GuestInput,
    to: Answer,
) -> wasmtime::Result<()> {
    let mut builder = hyper::Request::builder().method(request.method.as_str()).uri(request.uri.as_str());
    for (name, value) in &request.headers {
        builder = builder.header(name, value.as_slice());
    }
    let request = builder.body(StreamBody::new(body_of(input)))?;
    let (respond, response) = oneshot::channel();
    let request = store.data_mut().http().new_incoming_request(Scheme::Http, request)?;
    let outparam = store.data_mut().http().new_response_outparam(respond)?;
    let handling = async {
        let proxy = service.instantiate_async(&mut *store).await?;
        proxy.wasi_http_incoming_handler().call_handle(&mut *store, request, outparam).await?;
        // What the guest still holds of the response is incomplete for good.
        store.data_mut().drop_handles();
        Ok(())
    };
    let responding = async {
        match response.await {
            Ok(Ok(response)) => write(response, to).await,
            Ok(Err(code)) => Err(Refused(format!("{code:?}")).into()),
            Err(_) => Err(NoResponse.into()),
        }
    };
    tokio::pin!(handling, responding);
    // A guest that traps is told of by its trap, and one that has responded may still go on.
    tokio::select! {
        biased;
        handled = &mut handling => {
            handled?;
            responding.await
        }
        responded = &mut responding => {
            responded?;
            handling.await
        }
    }
}

fn body_of(input: GuestInput) -> impl Stream<Item = Result<Frame<Bytes>, Error>> + Send {
    futures::stream::unfold(input, |mut input| async move {
        input.ready().await;
        match input.read(CHUNK) {
            Ok(bytes) if !bytes.is_empty() => Some((Ok(Frame::data(bytes)), input)),
            _ => None,
        }
    })
}

async fn write(response: hyper::Response<HyperOutgoingBody>, to: Answer) -> wasmtime::Result<()> {
    let Answer { reports, body: mut output } = to;
    let (parts, mut body) = response.into_parts();
    let head = ResponseHead::of(&parts);
    reports.send(&FromWorker::Response(Box::new(head)))?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Refused(format!("{error:?}")))?;
        // Trailers are not passed on.
        let Ok(bytes) = frame.into_data() else { continue };
        output.write(bytes).map_err(|error| match error {
            StreamError::Trap(error) | StreamError::LastOperationFailed(error) => error,
            StreamError::Closed => wasmtime::Error::msg("nobody takes the response"),
        })?;
    }
    Ok(())
}
