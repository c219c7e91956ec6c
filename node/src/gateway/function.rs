//! `/fn/<name>/<path>`: functions over HTTP, and the paths that they have of their own.
//!
//! A component that answers HTTP requests is given the method, the path below its own, the query, the headers and the
//! body, and its answer is streamed back. A command is given the body as standard input, and what it prints is the body
//! of the answer. Whether it ends well decides the status, so the beginning of what it prints is held back until it is
//! known, or until it is too much to hold.

use std::io;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use starfish_compute::function::version::FunctionName;
use starfish_compute::function::{CallSpec, Running, Said};
use starfish_compute::task::Outcome;
use starfish_compute::{Compute, RequestHead, ResponseHead};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::api::error::ApiError;

/// Where functions are, without the slash behind it.
const PREFIX: &str = "/fn";
/// What a command prints is held back up to here.
const MAX_HELD: usize = 256 << 10;
/// How much of what a command complains about is told.
const MAX_COMPLAINT: usize = 4 << 10;
/// How much of a body goes on at a time.
const CHUNK: usize = 64 << 10;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// The part of the path that the function does not see.
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

pub(super) fn router(compute: &Compute) -> Router {
    Router::new()
        .route("/fn/{name}", any(by_name))
        .route("/fn/{name}/", any(by_name))
        .route("/fn/{name}/{*path}", any(by_name))
        .with_state(compute.clone())
}

async fn by_name(State(compute): State<Compute>, request: Request) -> Result<Response, ApiError> {
    let path = request.uri().path().to_owned();
    let below = path.strip_prefix(PREFIX).and_then(|path| path.strip_prefix('/')).unwrap_or_default();
    let (name, rest) = below.split_at(below.find('/').unwrap_or(below.len()));
    let name = name.parse().map_err(|_| ApiError::not_found("no-such-function", "no such function"))?;
    answer(&compute, name, rest, request).await
}

/// A request for a path that is nobody else's: perhaps a function's.
pub(crate) async fn own_path(compute: Compute, request: Request) -> Result<Response, ApiError> {
    let path = request.uri().path().to_owned();
    match compute.route(&path).await? {
        Some((name, rest)) => answer(&compute, name, rest, request).await,
        None => Err(ApiError::not_found("no-such-route", "there is no such resource")),
    }
}

/// Lets a function answer a request for what is `rest` below its path.
async fn answer(
    compute: &Compute,
    name: FunctionName,
    rest: &str,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let prefix = parts.uri.path().strip_suffix(rest).unwrap_or_default();
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut headers = passed_on(&parts.headers);
    headers.push((FORWARDED_PREFIX.to_string(), prefix.as_bytes().to_vec()));
    let path = if rest.is_empty() { "/" } else { rest };
    let head = RequestHead { method: parts.method.to_string(), uri: format!("{path}{query}"), headers };
    let spec = CallSpec { name: name.clone(), args: Vec::new(), request: Some(head) };
    let Running { stdin, said } = compute.call(spec).await?;
    let feeding = AbortOnDropHandle::new(tokio::spawn(feed(body, stdin)));
    Hearing { name, said, feeding }.respond().await
}

/// The headers of a message that concern more than one connection, and none that is a secret of the node.
fn passed_on(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let named: Vec<_> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(','))
        .filter_map(|name| name.trim().parse::<HeaderName>().ok())
        .collect();
    let passed = headers
        .iter()
        .filter(|(name, _)| !is_hop_by_hop(name) && *name != AUTHORIZATION && !named.contains(name));
    passed.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect()
}

/// Whether a header is of one connection only (RFC 9110, 7.6.1).
fn is_hop_by_hop(name: &HeaderName) -> bool {
    [CONNECTION, KEEP_ALIVE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE]
        .contains(name)
}

/// Gives a call the body. If it breaks off, the input does not end: the call does, with whoever waits for the answer.
async fn feed(body: Body, stdin: mpsc::Sender<Bytes>) {
    let mut body = body.into_data_stream();
    while let Some(bytes) = body.next().await {
        let Ok(mut bytes) = bytes else { return stdin.closed().await };
        while !bytes.is_empty() {
            if stdin.send(bytes.split_to(bytes.len().min(CHUNK))).await.is_err() {
                return;
            }
        }
    }
}

/// A call whose answer is awaited.
struct Hearing {
    name: FunctionName,
    said: mpsc::Receiver<Said>,
    feeding: AbortOnDropHandle<()>,
}

impl Hearing {
    async fn respond(mut self) -> Result<Response, ApiError> {
        let (mut held, mut complaint) = (BytesMut::new(), BytesMut::new());
        loop {
            match self.said.recv().await {
                Some(Said::Head(head)) => return self.streamed(head),
                Some(Said::Stdout(bytes)) => {
                    held.extend_from_slice(&bytes);
                    if held.len() > MAX_HELD {
                        return Ok(sandboxed(Response::new(self.body(held.freeze()))));
                    }
                }
                Some(Said::Stderr(bytes)) => {
                    let room = MAX_COMPLAINT - complaint.len();
                    complaint.extend_from_slice(&bytes[..bytes.len().min(room)]);
                }
                Some(Said::Ended(Outcome::Exited(0))) => {
                    return Ok(sandboxed(Response::new(Body::from(held.freeze()))));
                }
                Some(Said::Ended(outcome)) => return Ok(self.failed(&outcome, &complaint)),
                Some(Said::Lost(why)) => {
                    let message = format!("the node that ran {} was lost: {why}", self.name);
                    return Err(ApiError::new(StatusCode::BAD_GATEWAY, "call-lost", message));
                }
                None => return Err(ApiError::unavailable("stopping", "this node stops")),
            }
        }
    }

    /// The answer of a component that gave a head of its own.
    fn streamed(self, head: ResponseHead) -> Result<Response, ApiError> {
        let nonsense = |_| {
            let message = format!("function {} gave an answer that is no HTTP", self.name);
            ApiError::new(StatusCode::BAD_GATEWAY, "bad-answer", message)
        };
        let status = StatusCode::from_u16(head.status).map_err(|error| nonsense(http::Error::from(error)))?;
        let mut headers = HeaderMap::new();
        for (name, value) in head.headers {
            let name = HeaderName::try_from(name).map_err(|error| nonsense(error.into()))?;
            let value = HeaderValue::try_from(value).map_err(|error| nonsense(error.into()))?;
            if !is_hop_by_hop(&name) {
                headers.append(name, value);
            }
        }
        let mut response = Response::new(self.body(Bytes::new()));
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        Ok(sandboxed(response))
    }

    /// What comes from here on, behind `first`. If the call ends badly, the body breaks off.
    fn body(self, first: Bytes) -> Body {
        let Self { name, said, feeding } = self;
        let rest = stream::unfold(Some((said, feeding)), move |state| {
            let name = name.clone();
            async move {
                let (mut said, feeding) = state?;
                let broken = |why: String| Some((Err(io::Error::other(format!("{name}: {why}"))), None));
                loop {
                    match said.recv().await {
                        Some(Said::Stdout(bytes)) => return Some((Ok(bytes), Some((said, feeding)))),
                        Some(Said::Head(_) | Said::Stderr(_)) => {}
                        Some(Said::Ended(Outcome::Exited(0))) => return None,
                        Some(Said::Ended(outcome)) => return broken(outcome.to_string()),
                        Some(Said::Lost(why)) => return broken(why),
                        None => return broken("its node stops".to_owned()),
                    }
                }
            }
        });
        let first = stream::iter((!first.is_empty()).then_some(Ok::<_, io::Error>(first)));
        Body::from_stream(first.chain(rest))
    }

    /// A command that did not end well: what it complained about, or how it ended.
    fn failed(&self, outcome: &Outcome, complaint: &[u8]) -> Response {
        let text = match (outcome, complaint) {
            (Outcome::Exited(_), [_, ..]) => String::from_utf8_lossy(complaint).into_owned(),
            _ => format!("function {} {outcome}\n", self.name),
        };
        let kind = [(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))];
        sandboxed((StatusCode::INTERNAL_SERVER_ERROR, kind, text).into_response())
    }
}

/// What functions answer lies under the origin of the API, so a browser must not run any of it there.
fn sandboxed(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_headers_of_one_connection_are_not_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer secret"),
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("transfer-encoding", "chunked"),
            ("host", "localhost:1"),
            ("accept", "a"),
            ("accept", "b"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let mut passed: Vec<_> = passed_on(&headers).into_iter().map(|(name, _)| name).collect();
        passed.sort();
        assert_eq!(passed, ["accept", "accept", "host"]);
    }
}
