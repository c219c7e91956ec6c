//! A folder as a page for people, or as JSON for programs.
//!
//! Every link on the page is relative, so it is the same under `/fs`, `/dav` and a share link. The page has no script,
//! and its policy allows none.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, CONTENT_SECURITY_POLICY, CONTENT_TYPE, VARY};
use http::{HeaderValue, request::Parts};
use starfish_fs::path::VfsPath;
use starfish_fs::vfs::{Entry, Kind};

use crate::percent;

/// Nothing but the page and its own style, in no frame.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const STYLE: &str = "body{font:1em/1.5 system-ui,sans-serif;margin:2em auto;max-width:60em;padding:0 1em}\
table{border-collapse:collapse;width:100%}td{padding:.1em 1em .1em 0}\
td+td{color:#777;text-align:right;white-space:nowrap}a{text-decoration:none}:root{color-scheme:light dark}";

/// Whether the request is a program's.
pub(super) fn wants_json(asked: &Parts) -> bool {
    let mut words = asked.uri.query().unwrap_or_default().split('&');
    if words.any(|word| matches!(word, "json" | "json=" | "json=1" | "json=true")) {
        return true;
    }
    let accepts = |media: &str| {
        let mut values = asked.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        values.any(|value| value.contains(media))
    };
    accepts("application/json") && !accepts("text/html")
}

/// The entries as the API lists them.
pub(super) fn json(entries: Vec<Entry>) -> Response {
    let mut response = axum::Json(entries).into_response();
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    response
}

/// The entries as a page.
pub(super) fn html(path: &VfsPath, has_parent: bool, entries: &[Entry]) -> Response {
    let mut response = page(path, has_parent, entries).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(VARY, HeaderValue::from_static("accept"));
    response
}

fn page(path: &VfsPath, has_parent: bool, entries: &[Entry]) -> String {
    let title = escape(path.as_str());
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
         <style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n<table>\n"
    );
    if has_parent {
        page.push_str("<tr><td><a href=\"../\">../</a></td><td></td><td></td></tr>\n");
    }
    let (folders, others): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.kind == Kind::Dir);
    for entry in folders.into_iter().chain(others) {
        // Writing to a string does not fail.
        let _ = writeln!(page, "{}", row(entry));
    }
    page.push_str("</table></body></html>\n");
    page
}

fn row(entry: &Entry) -> String {
    let (mark, size) = match entry.kind {
        Kind::Dir => ("/", String::new()),
        Kind::File => ("", human_size(entry.size)),
        Kind::Symlink => ("", "link".to_owned()),
    };
    let (href, name) = (percent::encode(entry.name.as_bytes()), escape(&entry.name));
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(entry.mtime_ms / 1000));
    format!("<tr><td><a href=\"{href}{mark}\">{name}{mark}</a></td><td>{size}</td><td>{date}</td></tr>")
}

/// Text that is only text, in a page and within quotes.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut size, mut unit) = (bytes as f64 / 1024.0, UNITS[0]);
    for larger in &UNITS[1..] {
        // From here on it would be written as 1024.0.
        if size < 1023.95 {
            break;
        }
        (size, unit) = (size / 1024.0, larger);
    }
    format!("{size:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, kind: Kind, size: u64) -> Entry {
        let (hash, target) = (None, None);
        Entry { name: name.into(), kind, size, mode: 0o644, mtime_ms: 0, hash, target, inode: String::new() }
    }

    #[test]
    fn names_are_text_and_links_lead_below() {
        let path = VfsPath::parse("/<b>").unwrap();
        let names = ["<script>alert('1')</script>", "a\" onclick=\"x", "javascript:x", "&amp;", "ä b"];
        let names = names.map(|name| entry(&name.replace('/', "_"), Kind::File, 1));
        let page = page(&path, true, &names);
        assert!(!page.contains("<script") && !page.contains("<b>") && !page.contains("\" onclick"), "{page}");
        assert!(page.contains("href=\"javascript%3Ax\"") && page.contains("href=\"%C3%A4%20b\""), "{page}");
        assert!(page.contains("&amp;amp;") && page.contains("href=\"../\""), "{page}");
    }

    #[test]
    fn folders_come_first_and_end_with_a_slash() {
        let entries = [entry("a", Kind::File, 3), entry("z", Kind::Dir, 0)];
        let page = page(&VfsPath::root(), false, &entries);
        let (folder, file) = (page.find("href=\"z/\"").unwrap(), page.find("href=\"a\"").unwrap());
        assert!(folder < file && !page.contains("../"), "{page}");
    }

    #[test]
    fn sizes_are_for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
    }
}
