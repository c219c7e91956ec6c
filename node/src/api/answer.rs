//! The last touch on every answer: the request's id, the body of a refusal, a log line, a count.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use tracing::{Instrument, debug, error, info_span};

use super::error::ApiError;
use crate::gateway;
use crate::metrics::Metrics;

/// Every answer carries it, every log line of the request too.
const REQUEST_ID: &str = "x-request-id";

/// The middleware; the outermost.
pub(super) async fn finish(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let id = format!("{:016x}", rand::random::<u64>());
    let method = request.method().clone();
    let path = gateway::loggable(request.uri().path()).to_owned();
    let span = info_span!("request", request_id = %id);
    let begun = Instant::now();
    async {
        let mut response = next.run(request).await;
        if let Some(refusal) = response.extensions_mut().remove::<ApiError>() {
            describe(&mut response, refusal, &id);
        }
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        metrics.api_request(&method, response.status());
        debug!(%method, path, status = response.status().as_u16(), elapsed = ?begun.elapsed(), "answered");
        response
    }
    .instrument(span)
    .await
}

fn describe(response: &mut Response, refusal: ApiError, id: &str) {
    let ApiError { status, mut body } = refusal;
    if status.is_server_error() {
        error!(%status, code = body.code, message = body.message, "refused");
    }
    body.request_id = id.to_owned();
    let text = serde_json::to_vec(&body).unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.remove(CONTENT_LENGTH);
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    *response.body_mut() = Body::from(text);
}
