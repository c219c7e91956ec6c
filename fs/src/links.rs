//! Following symbolic links: from the path that was asked for to the one that is meant.
//!
//! Links are text; one that leads above the root stays at the root, so none leads out of the tree.

use std::collections::VecDeque;

use crate::path::VfsPath;
use crate::vfs::{Entry, Kind, Vfs, VfsError};

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

/// One way through the links of a tree: whoever walks it says where each path leads, from memory or over a network.
struct Walk<'a> {
    path: &'a VfsPath,
    last: Last,
    at: VfsPath,
    ahead: VecDeque<String>,
    links: usize,
}

impl<'a> Walk<'a> {
    fn new(path: &'a VfsPath, last: Last) -> Self {
        let ahead = path.names().map(str::to_owned).collect();
        Self { path, last, at: VfsPath::root(), ahead, links: 0 }
    }

    /// The next path that may be a link, to be answered with [`Walk::arrive`]; `None` at the end.
    fn next(&mut self) -> Result<Option<VfsPath>, VfsError> {
        while let Some(name) = self.ahead.pop_front() {
            if name == ".." {
                self.at = self.at.parent().unwrap_or_else(VfsPath::root);
                continue;
            }
            let next = self.at.join(&name)?;
            if !self.ahead.is_empty() || self.last == Last::Follow {
                return Ok(Some(next));
            }
            self.at = next;
        }
        Ok(None)
    }

    /// There is this at the path: a link's target, or something else.
    fn arrive(&mut self, next: VfsPath, target: Option<String>) -> Result<(), VfsError> {
        let Some(target) = target else {
            self.at = next;
            return Ok(());
        };
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(VfsError::LinkLoop { path: self.path.clone() });
        }
        if target.starts_with('/') {
            self.at = VfsPath::root();
        }
        let names = target.split('/').filter(|name| !matches!(*name, "" | "."));
        names.rev().for_each(|name| self.ahead.push_front(name.to_owned()));
        Ok(())
    }
}

/// The path without links that `path` means. `target_of` tells where the link at a path points; `None` if there is
/// no link. What is not there is left for the caller to find out.
pub(crate) fn resolve(
    path: &VfsPath,
    last: Last,
    target_of: impl Fn(&VfsPath) -> Option<String>,
) -> Result<VfsPath, VfsError> {
    let mut walk = Walk::new(path, last);
    while let Some(next) = walk.next()? {
        let target = target_of(&next);
        walk.arrive(next, target)?;
    }
    Ok(walk.at)
}

/// The path without any links that `path` means. What is not there is left for the caller to find out.
pub async fn real_path(files: &dyn Vfs, path: &VfsPath) -> Result<VfsPath, VfsError> {
    let mut walk = Walk::new(path, Last::Follow);
    while let Some(next) = walk.next()? {
        let target = match files.stat(&next).await {
            Ok(entry) => entry.target,
            Err(VfsError::NotFound { .. } | VfsError::NotADirectory { .. }) => None,
            Err(error) => return Err(error),
        };
        walk.arrive(next, target)?;
    }
    Ok(walk.at)
}

/// The same for what is at the path itself: a link at the end stays one.
pub async fn real_place(files: &dyn Vfs, path: &VfsPath) -> Result<VfsPath, VfsError> {
    let Some((parent, name)) = path.split() else { return Ok(path.clone()) };
    Ok(real_path(files, &parent).await?.join(name)?)
}

/// What is at the path, or where its link leads.
pub async fn stat(files: &dyn Vfs, path: &VfsPath) -> Result<Entry, VfsError> {
    let entry = files.stat(path).await?;
    if entry.kind != Kind::Symlink {
        return Ok(entry);
    }
    files.stat(&real_path(files, path).await?).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem_vfs::MemVfs;
    use crate::vfs::Parents;

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

    #[tokio::test]
    async fn who_asks_from_outside_is_led_to_the_same_places() {
        let files = MemVfs::new();
        files.mkdir(&path("/a/b"), Parents::Create).await.unwrap();
        for (link, target) in
            [("/a/up", "../c"), ("/c", "/a/b"), ("/out", "../../etc/x"), ("/l", "m"), ("/m", "l")]
        {
            files.symlink(&path(link), target).await.unwrap();
        }
        let real = async |text: &str| real_path(&files, &path(text)).await.map(String::from);
        assert_eq!(real("/a/up/x").await.unwrap(), "/a/b/x");
        assert_eq!(real("/a/up").await.unwrap(), "/a/b");
        assert_eq!(real("/out").await.unwrap(), "/etc/x");
        assert_eq!(real("/none/x").await.unwrap(), "/none/x");
        assert!(matches!(real("/l").await, Err(VfsError::LinkLoop { .. })));
        assert_eq!(real_place(&files, &path("/a/up")).await.unwrap(), path("/a/up"));
        assert_eq!(real_place(&files, &path("/c/y")).await.unwrap(), path("/a/b/y"));
        assert_eq!(stat(&files, &path("/a/up")).await.unwrap().kind, Kind::Dir);
    }
}
