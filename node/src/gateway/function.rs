//! `/fn/<name>/<path>`: functions over HTTP, and the paths that they have of their own.
//!
//! A component that answers HTTP requests is given the method, the path below its own, the query, the headers and the
//! body, and its answer is streamed back. A command is given the body as standard input, and what it prints is the body
//! of the answer ([`Answer`]).

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::any;
use bytes::Bytes;
use futures::StreamExt;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_SECURITY_POLICY, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use starfish_compute::function::version::FunctionName;
use starfish_compute::function::{Answer, AnswerError, CallSpec, Running};
use starfish_compute::{Compute, RequestHead};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::api::error::ApiError;

/// Where functions are, without the slash behind it.
const PREFIX: &str = "/fn";
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
    let spec = CallSpec { name: name.clone(), args: Vec::new(), handler: None, request: Some(head) };
    let Running { stdin, said } = compute.call(spec).await?;
    // Without a body its input ends here and now.
    let feeding = (!body.is_end_stream()).then(|| AbortOnDropHandle::new(tokio::spawn(feed(body, stdin))));
    let heard = Answer::hear(name.clone(), said, feeding).await?;
    respond(&name, heard)
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

/// The answer of a function as one of this node.
fn respond(name: &FunctionName, answer: Answer) -> Result<Response, ApiError> {
    let nonsense = |_| {
        let message = format!("function {name} gave an answer that is no HTTP");
        ApiError::new(StatusCode::BAD_GATEWAY, "bad-answer", message)
    };
    let (head, body) = answer.into_parts();
    let status = StatusCode::from_u16(head.status).map_err(|error| nonsense(http::Error::from(error)))?;
    let mut headers = HeaderMap::new();
    for (name, value) in head.headers {
        let name = HeaderName::try_from(name).map_err(|error| nonsense(error.into()))?;
        let value = HeaderValue::try_from(value).map_err(|error| nonsense(error.into()))?;
        if !is_hop_by_hop(&name) {
            headers.append(name, value);
        }
    }
    let mut response = Response::new(Body::from_stream(body));
    (*response.status_mut(), *response.headers_mut()) = (status, headers);
    headers_of_sandbox(response.headers_mut());
    Ok(response)
}

impl From<AnswerError> for ApiError {
    fn from(error: AnswerError) -> Self {
        match &error {
            AnswerError::Lost { .. } => Self::new(StatusCode::BAD_GATEWAY, "call-lost", error.to_string()),
            AnswerError::Stopping => Self::unavailable("stopping", error.to_string()),
        }
    }
}

/// What functions answer lies under the origin of the API, so a browser must not run any of it there.
fn headers_of_sandbox(headers: &mut HeaderMap) {
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
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
