//! Answers that are lines, each a document of JSON, sent as they come.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::TryStream;
use http::header::CONTENT_TYPE;
use serde::Serialize;

/// Adds a line.
pub(super) fn push(lines: &mut Vec<u8>, document: &impl Serialize) {
    // Writing JSON to memory does not fail.
    let _ = serde_json::to_writer(&mut *lines, document);
    lines.push(b'\n');
}

/// One line.
pub(super) fn line(document: &impl Serialize) -> Bytes {
    let mut line = Vec::new();
    push(&mut line, document);
    line.into()
}

/// The answer whose lines come like that.
pub(super) fn answer<S>(lines: S) -> Response
where
    S: TryStream<Ok = Bytes, Error: Into<axum::BoxError>> + Send + 'static,
{
    ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}
