//! `GET` and `HEAD`: a file's bytes, or what is in a folder.

use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    LOCATION, RANGE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use starfish_fs::path::VfsPath;
use starfish_fs::vfs::{ByteStream, Entry, Kind, Vfs, VfsError};

use super::conditions::{self, Verdict, Version};
use super::listing;
use super::place::Place;
use super::range::{self, Wanted};
use crate::api::error::ApiError;
use crate::percent;
use starfish_fs::links;

/// How often a file is opened again that was replaced just when it was opened.
const ATTEMPTS: usize = 4;

/// On whatever is read: it may change, it may be a secret, and it is what its type says and nothing else.
const ALWAYS: [(HeaderName, &str); 3] = [
    (CACHE_CONTROL, "private, no-cache"),
    (REFERRER_POLICY, "no-referrer"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
];

/// What is looked at, and by whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) files: &'a Arc<dyn Vfs>,
    /// What the URL named.
    pub(super) place: &'a Place,
    /// Where that is; differs from it by the links on the way.
    pub(super) path: &'a VfsPath,
    /// Whether the one who asks may see the folder above.
    pub(super) has_parent: bool,
    /// Whether the one who asks may see where links lead.
    pub(super) shows_targets: bool,
}

/// The answer to `GET` or `HEAD`.
pub(super) async fn answer(view: View<'_>, asked: &Parts) -> Result<Response, ApiError> {
    let mut response = look(view, asked).await.map_err(|error| match error {
        // To a reader there is nothing there, for whatever reason.
        VfsError::NotADirectory { path } => VfsError::NotFound { path }.into(),
        error => ApiError::from(error),
    })??;
    for (name, value) in ALWAYS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

async fn look(view: View<'_>, asked: &Parts) -> Result<Result<Response, ApiError>, VfsError> {
    for _ in 0..ATTEMPTS {
        let entry = links::stat(&**view.files, view.path).await?;
        if entry.kind == Kind::Dir {
            return folder(view, asked).await.map(Ok);
        }
        if view.place.is_folder {
            return Err(VfsError::NotFound { path: view.place.path.clone() });
        }
        if let Some(response) = file(view, asked, &entry).await? {
            return Ok(response);
        }
    }
    Ok(Err(ApiError::unavailable("busy", "the file is being replaced all the time")))
}

async fn folder(view: View<'_>, asked: &Parts) -> Result<Response, VfsError> {
    let Place { path, is_folder } = view.place;
    let is_json = listing::wants_json(asked);
    if !is_folder && !is_json {
        return Ok(to_folder(asked));
    }
    let mut entries = view.files.list(view.path).await?;
    if !view.shows_targets {
        entries.iter_mut().for_each(|entry| entry.target = None);
    }
    Ok(if is_json { listing::json(entries) } else { listing::html(path, view.has_parent, &entries) })
}

/// The links on a folder's page are relative, so its URL must end with a slash.
fn to_folder(asked: &Parts) -> Response {
    let name = asked.uri.path().rsplit('/').next().unwrap_or_default();
    // Decoded and encoded again, so that no name is taken for the beginning of a URL.
    let name = percent::encode(&percent::decode(name).unwrap_or_default());
    let location = HeaderValue::from_str(&format!("{name}/")).unwrap_or(HeaderValue::from_static("./"));
    (StatusCode::PERMANENT_REDIRECT, [(LOCATION, location)]).into_response()
}

/// The answer for a file, unless its content changed meanwhile.
async fn file(
    view: View<'_>,
    asked: &Parts,
    entry: &Entry,
) -> Result<Option<Result<Response, ApiError>>, VfsError> {
    let version = Version::of(entry);
    match conditions::to_read(&asked.headers, &version) {
        Verdict::NotModified => {
            return Ok(Some(Ok(with(StatusCode::NOT_MODIFIED.into_response(), version.headers()))));
        }
        Verdict::Failed => return Ok(Some(Err(ApiError::precondition_failed()))),
        Verdict::Go => {}
    }
    let (part, status) = match part(asked, &version, entry.size) {
        Wanted::Whole => (0..entry.size, StatusCode::OK),
        Wanted::Part(range) => (range, StatusCode::PARTIAL_CONTENT),
        Wanted::Nothing => return Ok(Some(Ok(out_of_range(entry.size)))),
    };
    let body = if asked.method == Method::HEAD {
        Body::empty()
    } else {
        let Some(content) = open(view, entry, part.clone()).await? else { return Ok(None) };
        Body::from_stream(content.inspect(|chunk| {
            if let Err(error) = chunk {
                tracing::warn!(%error, "a read broke off");
            }
        }))
    };
    let mut response = with((status, body).into_response(), version.headers());
    describe(&mut response, &view.place.path, &part, entry.size);
    Ok(Some(Ok(response)))
}

fn part(asked: &Parts, version: &Version, size: u64) -> Wanted {
    // A range is defined for GET alone.
    if asked.method != Method::GET || !conditions::range_applies(&asked.headers, version) {
        return Wanted::Whole;
    }
    range::wanted(asked.headers.get(RANGE).and_then(|value| value.to_str().ok()), size)
}

/// The bytes of the very version that `entry` is, or `None`.
async fn open(view: View<'_>, entry: &Entry, part: Range<u64>) -> Result<Option<ByteStream>, VfsError> {
    let mut content = view.files.read(view.path, part).await?;
    // What was opened stays as it is, so a version that is there before and after is the one that was opened.
    if links::stat(&**view.files, view.path).await? != *entry {
        return Ok(None);
    }
    // A reason to refuse shows with the first bytes; only then is the status decided.
    let first = content.next().await.transpose()?;
    Ok(Some(stream::iter(first.map(Ok)).chain(content).boxed()))
}

fn describe(response: &mut Response, path: &VfsPath, part: &Range<u64>, size: u64) {
    let status = response.status();
    let headers = response.headers_mut();
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_LENGTH, (part.end - part.start).into());
    let media = media_type(path);
    if !is_inert(&media) {
        // No scripts, no forms, no pop-ups: the page is a guest under the API's own origin.
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox allow-same-origin"));
    }
    headers.extend(HeaderValue::from_str(&media).map(|value| (CONTENT_TYPE, value)));
    if status == StatusCode::PARTIAL_CONTENT {
        let text = format!("bytes {}-{}/{size}", part.start, part.end - 1);
        headers.extend(HeaderValue::from_str(&text).map(|value| (CONTENT_RANGE, value)));
    }
}

/// By the extension.
fn media_type(path: &VfsPath) -> String {
    let media = mime_guess::from_path(path.name().unwrap_or_default()).first_or_octet_stream();
    // A page says by itself how it is encoded; of plain text a browser would think the worst.
    let is_plain = media.type_() == "text" && media.subtype() != "html";
    if is_plain { format!("{media}; charset=utf-8") } else { media.to_string() }
}

/// Whether a browser shows it, and runs nothing in it that could speak for the user.
fn is_inert(media: &str) -> bool {
    let (kind, _) = media.split_once('/').unwrap_or_default();
    media == "application/pdf"
        || media.starts_with("text/plain")
        || matches!(kind, "audio" | "video")
        || (kind == "image" && !media.starts_with("image/svg"))
}

fn out_of_range(size: u64) -> Response {
    let message = format!("the file has {size} bytes");
    let refusal = ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, "bad-range", message);
    let range = HeaderValue::from_str(&format!("bytes */{size}")).ok();
    with(refusal.into_response(), range.map(|range| (CONTENT_RANGE, range)))
}

/// The response with more headers.
pub(super) fn with(
    mut response: Response,
    headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
) -> Response {
    response.headers_mut().extend(headers);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_go_by_the_extension() {
        for (name, media) in [
            ("/a.txt", "text/plain; charset=utf-8"),
            ("/a.HTML", "text/html"),
            ("/a.css", "text/css; charset=utf-8"),
            ("/a.json", "application/json"),
            ("/a.wasm", "application/wasm"),
            ("/a.PNG", "image/png"),
            ("/noextension", "application/octet-stream"),
            ("/.profile", "application/octet-stream"),
        ] {
            assert_eq!(media_type(&VfsPath::parse(name).unwrap()), media, "{name}");
        }
    }

    #[test]
    fn what_could_run_is_in_a_sandbox() {
        for name in ["a.html", "a.xhtml", "a.svg", "a.xml", "a.js", "a", "a.unknown"] {
            let path = VfsPath::root().join(name).unwrap();
            assert!(!is_inert(&media_type(&path)), "{name}");
        }
        for name in ["a.txt", "a.png", "a.jpg", "a.mp4", "a.ogg", "a.pdf"] {
            let path = VfsPath::root().join(name).unwrap();
            assert!(is_inert(&media_type(&path)), "{name}");
        }
    }
}
