//! Following symbolic links: from the path that was asked for to the one that is meant.
//!
//! Links are text; one that leads above the root stays at the root, so none leads out of the tree.

use std::collections::VecDeque;

use crate::path::VfsPath;
use crate::vfs::VfsError;

/// Links followed for one path before it counts as a circle, as on Linux.
const MAX_LINKS: usize = 40;

/// Whether a link at the end of the path is followed; those before it always are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    /// The link itself is meant.
    Keep,
    /// What it points to is meant.
    Follow,
}

/// The path without links that `path` means. `target_of` tells where the link at a path points; `None` if there is
/// no link. What is not there is left for the caller to find out.
pub(crate) fn resolve(
    path: &VfsPath,
    last: Last,
    target_of: impl Fn(&VfsPath) -> Option<String>,
) -> Result<VfsPath, VfsError> {
    let mut ahead: VecDeque<String> = path.names().map(str::to_owned).collect();
    let mut at = VfsPath::root();
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            at = at.parent().unwrap_or(at);
            continue;
        }
        let next = at.join(&name)?;
        let is_followed = !ahead.is_empty() || last == Last::Follow;
        let Some(target) = is_followed.then(|| target_of(&next)).flatten() else {
            at = next;
            continue;
        };
        links += 1;
        if links > MAX_LINKS {
            return Err(VfsError::LinkLoop { path: path.clone() });
        }
        if target.starts_with('/') {
            at = VfsPath::root();
        }
        let names = target.split('/').filter(|name| !matches!(*name, "" | "."));
        names.rev().for_each(|name| ahead.push_front(name.to_owned()));
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> VfsPath {
        VfsPath::parse(text).unwrap()
    }

    fn follow(text: &str, last: Last) -> String {
        let links = [("/a/up", "../b"), ("/abs", "/a/up"), ("/deep", "a/up/x"), ("/out", "../../etc")];
        let target = |at: &VfsPath| {
            links.iter().find(|(link, _)| *link == at.as_str()).map(|(_, target)| (*target).to_owned())
        };
        resolve(&path(text), last, target).unwrap().to_string()
    }

    #[test]
    fn links_on_the_way_are_followed_and_the_last_one_if_asked() {
        assert_eq!(follow("/a/up/x", Last::Keep), "/b/x");
        assert_eq!(follow("/a/up", Last::Keep), "/a/up");
        assert_eq!(follow("/a/up", Last::Follow), "/b");
        assert_eq!(follow("/abs/y", Last::Keep), "/b/y");
        assert_eq!(follow("/deep", Last::Follow), "/b/x");
        assert_eq!(follow("/out", Last::Follow), "/etc", "the root is the top");
    }

    #[test]
    fn a_circle_is_found() {
        let circle = resolve(&path("/a/b"), Last::Keep, |_| Some("/a".into()));
        assert!(matches!(circle, Err(VfsError::LinkLoop { .. })));
    }
}
