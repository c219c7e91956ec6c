//! `/api/v1/fs/content`: the bytes of files, streamed both ways.
//!
//! A read that fails halfway cannot take its status back. A client that says `TE: trailers` gets the error
//! in the trailer [`ERROR_TRAILER`]; for others the connection breaks off, which no client takes for the end.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE, TE, TRAILER,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::StreamBody;
use hyper::body::Frame;
use starfish_fs::vfs::{Attributes, ByteStream, Entry, Kind, Vfs, VfsError};

use super::error::ApiError;
use super::extract::Query;
use super::files::path;
use super::route::{Content, Route, Verb};
use crate::wire::{ERROR_TRAILER, WireVfsError};

/// How long the rest of a refused upload is read and thrown away, so that its sender gets to the answer.
const DRAIN_DEADLINE: Duration = Duration::from_secs(30);

pub(super) fn routes(files: &Arc<dyn Vfs>) -> Vec<Route> {
    vec![
        Route::new(Verb::Get, "/api/v1/fs/content", "The bytes of a file; knows `Range`", files, read)
            .query(&[
                ("path", "absolute path in the tree"),
                ("from", "first byte, instead of `Range`"),
                ("to", "the byte after the last, instead of `Range`; past the end is the end"),
            ])
            .gives(Content::Bytes("the content")),
        Route::new(
            Verb::Put,
            "/api/v1/fs/content",
            "Make or replace a file, at once when all is here",
            files,
            write,
        )
        .query(&[
            ("path", "absolute path in the tree"),
            ("mode", "permission bits in octal, such as 644"),
            ("mtime_ms", "milliseconds since the Unix epoch"),
        ])
        .takes(Content::Bytes("the content"))
        .gives(Content::Json("Entry")),
    ]
}

/// Which bytes are asked for, and whether in the words of HTTP.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Whole,
    /// By `from` and `to`.
    Slice(Range<u64>),
    /// By `Range`, within a file whose size is known.
    Partial {
        range: Range<u64>,
        size: u64,
    },
}

async fn read(
    State(files): State<Arc<dyn Vfs>>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let path = path(&query)?;
    let entry = files.stat(&path).await?;
    let part = part(&query, &headers, &entry)?;
    let range = match &part {
        Part::Whole => 0..u64::MAX,
        Part::Slice(range) | Part::Partial { range, .. } => range.clone(),
    };
    // A reason to refuse shows with the first bytes; only then is the status decided.
    let mut content = files.read(&path, range.clone()).await?;
    let first = content.next().await.transpose()?;
    let content = stream::iter(first.map(Ok)).chain(content);

    let with_trailers = wants_trailers(&headers);
    let mut response = Response::new(Body::new(StreamBody::new(frames(content, with_trailers))));
    let answer = response.headers_mut();
    answer.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    answer.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(tag) = entry.hash.as_ref().and_then(|hash| HeaderValue::from_str(&format!("\"{hash}\"")).ok())
    {
        answer.insert(ETAG, tag);
    }
    if with_trailers {
        answer.insert(TRAILER, HeaderValue::from_static(ERROR_TRAILER));
    } else if entry.kind == Kind::File {
        let end = range.end.min(entry.size);
        answer.insert(CONTENT_LENGTH, end.saturating_sub(range.start).into());
    }
    if let Part::Partial { range, size } = part {
        let text = format!("bytes {}-{}/{size}", range.start, range.end - 1);
        answer.extend(HeaderValue::from_str(&text).map(|value| (CONTENT_RANGE, value)));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

async fn write(
    State(files): State<Arc<dyn Vfs>>,
    query: Query,
    request: Request,
) -> Result<axum::Json<Entry>, ApiError> {
    let path = path(&query)?;
    let mode = query.text("mode")?.map(|text| u32::from_str_radix(text, 8));
    let mode =
        mode.transpose().map_err(|error| ApiError::bad_request("bad-query", format!("mode: {error}")))?;
    let attributes = Attributes { mode, mtime_ms: query.parsed("mtime_ms")? };
    let body = Upload::new(request.into_body());
    match files.write(&path, body.content(), attributes).await {
        Ok(entry) => Ok(axum::Json(entry)),
        Err(error) => {
            body.drain().await;
            Err(error.into())
        }
    }
}

/// A request's body that can still be emptied after the file system has let go of it.
pub(crate) struct Upload(Arc<Mutex<BodyDataStream>>);

impl Upload {
    pub(crate) fn new(body: Body) -> Self {
        Self(Arc::new(Mutex::new(body.into_data_stream())))
    }

    fn chunks(&self) -> impl Stream<Item = Result<Bytes, axum::Error>> + Send + use<> {
        let body = Arc::clone(&self.0);
        stream::poll_fn(move |context| {
            body.lock().unwrap_or_else(PoisonError::into_inner).poll_next_unpin(context)
        })
    }

    pub(crate) fn content(&self) -> ByteStream {
        Box::pin(self.chunks().map(|chunk| {
            chunk.map_err(|error| VfsError::Io {
                what: "reading what the client sends".to_owned(),
                source: std::io::Error::new(std::io::ErrorKind::UnexpectedEof, error),
            })
        }))
    }

    /// HTTP/1 answers after the body: a sender that is cut off instead may never see the answer.
    pub(crate) async fn drain(&self) {
        let mut rest = std::pin::pin!(self.chunks());
        let emptied = async { while rest.next().await.is_some_and(|chunk| chunk.is_ok()) {} };
        // When the time is over, hyper closes the connection.
        let _ = tokio::time::timeout(DRAIN_DEADLINE, emptied).await;
    }
}

fn part(query: &Query, headers: &HeaderMap, entry: &Entry) -> Result<Part, ApiError> {
    let (from, to) = (query.parsed("from")?, query.parsed("to")?);
    if from.is_some() || to.is_some() {
        let from = from.unwrap_or(0);
        return Ok(Part::Slice(from..to.unwrap_or(u64::MAX).max(from)));
    }
    let asked = headers.get(RANGE).and_then(|value| value.to_str().ok());
    let Some(asked) = asked.and_then(byte_range).filter(|_| entry.kind == Kind::File) else {
        return Ok(Part::Whole);
    };
    let size = entry.size;
    let range = match asked {
        (Some(first), last) => first..last.map_or(size, |last| last.saturating_add(1).min(size)),
        (None, count) => size.saturating_sub(count.unwrap_or(0))..size,
    };
    if range.is_empty() {
        let message = format!("the file has {size} bytes");
        return Err(ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, "bad-range", message));
    }
    Ok(Part::Partial { range, size })
}

/// `bytes=FIRST-[LAST]` or `bytes=-COUNT`; anything else, also several ranges, may be ignored (RFC 9110).
fn byte_range(text: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) };
    match (number(first)?, number(last)?) {
        (None, None) => None,
        (Some(first), Some(last)) if last < first => None,
        range => Some(range),
    }
}

fn wants_trailers(headers: &HeaderMap) -> bool {
    let values = headers.get_all(TE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("trailers"))
}

/// The frames of a body: the bytes, and an error in the form that the client understands.
fn frames(
    content: impl Stream<Item = Result<Bytes, VfsError>> + Send,
    with_trailers: bool,
) -> impl Stream<Item = Result<Frame<Bytes>, VfsError>> + Send {
    content.scan(false, move |failed, chunk| {
        let frame = match chunk {
            _ if *failed => None,
            Ok(bytes) => Some(Ok(Frame::data(bytes))),
            Err(error) => {
                *failed = true;
                tracing::warn!(%error, "a read broke off");
                Some(trailer(&error).filter(|_| with_trailers).map(Frame::trailers).ok_or(error))
            }
        };
        std::future::ready(frame)
    })
}

fn trailer(error: &VfsError) -> Option<HeaderMap> {
    let json = serde_json::to_vec(&WireVfsError::from(error)).ok()?;
    // Header values are ASCII, paths are not.
    let value = HeaderValue::from_str(&data_encoding::BASE64.encode(&json)).ok()?;
    Some(HeaderMap::from_iter([(HeaderName::from_static(ERROR_TRAILER), value)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_are_not_understood_are_ignored() {
        assert_eq!(byte_range("bytes=1-2"), Some((Some(1), Some(2))));
        assert_eq!(byte_range("bytes=1-"), Some((Some(1), None)));
        assert_eq!(byte_range("bytes=-5"), Some((None, Some(5))));
        for text in ["bytes=-", "bytes=2-1", "bytes=1-2,4-5", "lines=1-2", "bytes=a-b", "bytes=1"] {
            assert_eq!(byte_range(text), None, "{text}");
        }
    }
}
