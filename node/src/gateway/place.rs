//! What a URL names in the tree.
//!
//! Each segment is decoded once and is one name: an encoded slash is no separator, and `.` and `..`, encoded or not,
//! are no names. (Browsers and curl resolve them before they ask.) So no spelling of a URL leads anywhere else than
//! the one that the guard and the router saw.

use http::Uri;
use starfish_fs::path::VfsPath;

use crate::api::error::ApiError;
use crate::percent;

/// A path of the tree as a URL wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: VfsPath,
    /// With a slash at the end, which stands for a folder.
    pub(super) is_folder: bool,
}

impl Place {
    /// What `uri` names behind `prefix`, which ends without a slash.
    pub(super) fn of(uri: &Uri, prefix: &str) -> Result<Self, ApiError> {
        Self::parse(uri.path().strip_prefix(prefix).unwrap_or_default())
    }

    /// What the rest of a URL's path names.
    pub(super) fn parse(rest: &str) -> Result<Self, ApiError> {
        let mut path = VfsPath::root();
        for segment in rest.split('/').filter(|segment| !segment.is_empty()) {
            let name = percent::decode(segment)
                .ok_or_else(|| bad_url("the URL has a % that is not followed by two hex digits"))?;
            let name = String::from_utf8(name).map_err(|_| bad_url("a name in the URL is not UTF-8"))?;
            path = path.join(&name)?;
        }
        Ok(Self { path, is_folder: rest.ends_with('/') })
    }
}

/// The path as it is written in a URL.
pub(super) fn encode(path: &VfsPath) -> String {
    path.names().map(|name| format!("/{}", percent::encode(name.as_bytes()))).collect()
}

fn bad_url(message: &str) -> ApiError {
    ApiError::bad_request("bad-url", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rest: &str) -> Result<(String, bool), String> {
        let place = Place::parse(rest).map_err(|refusal| refusal.body.code)?;
        Ok((place.path.to_string(), place.is_folder))
    }

    #[test]
    fn urls_become_paths_name_by_name() {
        for (rest, path, is_folder) in [
            ("", "/", false),
            ("/", "/", true),
            ("/a/b", "/a/b", false),
            ("/a//b/", "/a/b", true),
            ("/100%25/%C3%A4%20b", "/100%/ä b", false),
            ("/%252e%252e", "/%2e%2e", false),
            ("/...", "/...", false),
        ] {
            assert_eq!(parse(rest), Ok((path.into(), is_folder)), "{rest}");
        }
    }

    #[test]
    fn nothing_climbs_and_no_slash_hides() {
        for rest in
            ["/..", "/a/../b", "/a/%2e%2e/b", "/a/.%2E", "/.", "/%2e/", "/a%2fb", "/a%2F..%2Fb", "/a%00b"]
        {
            assert_eq!(parse(rest), Err("bad-path".into()), "{rest}");
        }
        for rest in ["/%", "/%zz", "/%ff"] {
            assert_eq!(parse(rest), Err("bad-url".into()), "{rest}");
        }
    }

    #[test]
    fn a_path_survives_the_url() {
        let path = VfsPath::parse("/a b/ü?#%/c:d").unwrap();
        assert_eq!(Place::parse(&encode(&path)).unwrap().path, path);
    }
}
