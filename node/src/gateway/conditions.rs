//! Conditional requests (RFC 9110, section 13): whether a request is done, given what its client knows.
//!
//! The tag of a file is the hash of its content. It is strong: equal tags are equal bytes, on every node and for all
//! time. Times are a weaker word, since they are compared by the second.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{
    ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use starfish_fs::vfs::Entry;

/// The version of an entry that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// With its quotes; folders have none.
    tag: Option<String>,
    /// In whole seconds.
    modified: SystemTime,
}

/// What the conditions come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Do it.
    Go,
    /// The client has it already.
    NotModified,
    /// Something else is there than the client thinks.
    Failed,
}

impl Version {
    pub(super) fn of(entry: &Entry) -> Self {
        let tag = entry.hash.as_ref().map(|hash| format!("\"{hash}\""));
        Self { tag, modified: UNIX_EPOCH + Duration::from_secs(entry.mtime_ms / 1000) }
    }

    /// The headers that tell it.
    pub(super) fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> + use<> {
        let date = HeaderValue::from_str(&httpdate::fmt_http_date(self.modified)).ok();
        let tag = self.tag.as_deref().and_then(|tag| HeaderValue::from_str(tag).ok());
        [(ETAG, tag), (LAST_MODIFIED, date)].into_iter().filter_map(|(name, value)| Some((name, value?)))
    }
}

/// Judges a request that reads, of what is there.
pub(super) fn to_read(headers: &HeaderMap, current: &Version) -> Verdict {
    if is_stale(headers, Some(current)) {
        return Verdict::Failed;
    }
    let is_known = match tags(headers, &IF_NONE_MATCH) {
        Some(tags) => tags.have(Some(current)),
        None => date(headers, &IF_MODIFIED_SINCE).is_some_and(|since| current.modified <= since),
    };
    if is_known { Verdict::NotModified } else { Verdict::Go }
}

/// Judges a request that changes what is there, if anything.
pub(super) fn to_change(headers: &HeaderMap, current: Option<&Version>) -> Verdict {
    let is_unwanted = tags(headers, &IF_NONE_MATCH).is_some_and(|tags| tags.have(current));
    if is_stale(headers, current) || is_unwanted { Verdict::Failed } else { Verdict::Go }
}

/// Whether a `Range` still means the bytes that the client has the others of.
pub(super) fn range_applies(headers: &HeaderMap, current: &Version) -> bool {
    let Some(value) = headers.get(IF_RANGE) else { return true };
    let tag = value.to_str().ok().filter(|text| text.starts_with('"'));
    match tag {
        Some(tag) => current.tag.as_deref() == Some(tag),
        None => date(headers, &IF_RANGE) == Some(current.modified),
    }
}

/// Whether the client wants to build on something that is not there any more.
fn is_stale(headers: &HeaderMap, current: Option<&Version>) -> bool {
    match tags(headers, &IF_MATCH) {
        Some(tags) => !tags.strong().have(current),
        None => date(headers, &IF_UNMODIFIED_SINCE)
            .is_some_and(|since| current.is_none_or(|current| current.modified > since)),
    }
}

/// The tags of one header.
enum Tags {
    /// Whatever is there.
    Any,
    /// These, each with whether it is weak.
    These(Vec<(bool, String)>),
}

impl Tags {
    fn have(&self, current: Option<&Version>) -> bool {
        match (self, current) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::These(tags), Some(version)) => {
                version.tag.as_ref().is_some_and(|own| tags.iter().any(|(_, tag)| tag == own))
            }
        }
    }

    /// Without the weak ones, which say too little to build on.
    fn strong(self) -> Self {
        match self {
            Self::Any => Self::Any,
            Self::These(tags) => Self::These(tags.into_iter().filter(|(is_weak, _)| !is_weak).collect()),
        }
    }
}

fn tags(headers: &HeaderMap, name: &HeaderName) -> Option<Tags> {
    let mut values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).peekable();
    values.peek()?;
    let mut tags = Vec::new();
    for value in values {
        if value.trim() == "*" {
            return Some(Tags::Any);
        }
        // A comma may be part of a tag, so it is the quotes that count.
        let mut parts = value.split('"');
        while let (Some(before), Some(tag)) = (parts.next(), parts.next()) {
            tags.push((before.ends_with("W/"), format!("\"{tag}\"")));
        }
    }
    Some(Tags::These(tags))
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "Fri, 14 Jul 2017 02:39:59 GMT";
    const THEN: &str = "Fri, 14 Jul 2017 02:40:00 GMT";
    const AFTER: &str = "Fri, 14 Jul 2017 02:40:01 GMT";

    fn version() -> Version {
        Version { tag: Some("\"ab\"".into()), modified: UNIX_EPOCH + Duration::from_secs(1_500_000_000) }
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn what_the_client_has_is_not_sent_again() {
        let read = |pairs: &[(&'static str, &'static str)]| to_read(&headers(pairs), &version());
        assert_eq!(read(&[]), Verdict::Go);
        for tags in ["\"ab\"", "W/\"ab\"", "\"x\", \"ab\"", "\"a,b\",W/\"ab\"", "*"] {
            assert_eq!(read(&[("if-none-match", tags)]), Verdict::NotModified, "{tags}");
        }
        for tags in ["\"x\"", "ab", "", "\"a\", \"b\""] {
            assert_eq!(read(&[("if-none-match", tags)]), Verdict::Go, "{tags}");
        }
        assert_eq!(read(&[("if-modified-since", BEFORE)]), Verdict::Go);
        assert_eq!(read(&[("if-modified-since", THEN)]), Verdict::NotModified);
        assert_eq!(read(&[("if-modified-since", "soon")]), Verdict::Go);
        let tag_counts = [("if-none-match", "\"x\""), ("if-modified-since", AFTER)];
        assert_eq!(read(&tag_counts), Verdict::Go);
    }

    #[test]
    fn a_change_builds_on_what_is_there_or_fails() {
        let change = |pairs: &[(&'static str, &'static str)]| to_change(&headers(pairs), Some(&version()));
        let make = |pairs: &[(&'static str, &'static str)]| to_change(&headers(pairs), None);
        for good in [("if-match", "\"ab\""), ("if-match", "*"), ("if-unmodified-since", THEN)] {
            assert_eq!((change(&[good]), make(&[good])), (Verdict::Go, Verdict::Failed), "{good:?}");
        }
        for bad in [("if-match", "\"x\""), ("if-match", "W/\"ab\""), ("if-unmodified-since", BEFORE)] {
            assert_eq!((change(&[bad]), make(&[bad])), (Verdict::Failed, Verdict::Failed), "{bad:?}");
        }
        let only_new = [("if-none-match", "*")];
        assert_eq!((change(&only_new), make(&only_new)), (Verdict::Failed, Verdict::Go));
        assert_eq!(change(&[("if-none-match", "\"ab\"")]), Verdict::Failed);
        assert_eq!((change(&[]), make(&[])), (Verdict::Go, Verdict::Go));
    }

    #[test]
    fn a_range_is_cut_out_of_the_version_that_the_client_knows() {
        let applies = |value| range_applies(&headers(&[("if-range", value)]), &version());
        assert!(range_applies(&headers(&[]), &version()));
        assert!(applies("\"ab\"") && applies(THEN));
        for other in ["\"x\"", "W/\"ab\"", BEFORE, AFTER, "nonsense"] {
            assert!(!applies(other), "{other}");
        }
    }
}
