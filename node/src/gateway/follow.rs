//! Where a path really leads, through the tree's symbolic links.

use std::collections::VecDeque;

use starfish_fs::path::VfsPath;
use starfish_fs::vfs::{Entry, Kind, Vfs, VfsError};

/// Links followed for one path before it counts as a circle, as everywhere else in the tree.
const MAX_LINKS: usize = 40;

/// The path without any links that `path` means. What is not there is left for the caller to find out.
pub(super) async fn real_path(files: &dyn Vfs, path: &VfsPath) -> Result<VfsPath, VfsError> {
    let mut ahead: VecDeque<String> = path.names().map(str::to_owned).collect();
    let mut at = VfsPath::root();
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            at = at.parent().unwrap_or(at);
            continue;
        }
        let next = at.join(&name)?;
        let target = match files.stat(&next).await {
            Ok(entry) => entry.target,
            Err(VfsError::NotFound { .. } | VfsError::NotADirectory { .. }) => None,
            Err(error) => return Err(error),
        };
        let Some(target) = target else {
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

/// The same for what is at the path itself: a link at the end stays one.
pub(super) async fn real_place(files: &dyn Vfs, path: &VfsPath) -> Result<VfsPath, VfsError> {
    let Some((parent, name)) = path.split() else { return Ok(path.clone()) };
    Ok(real_path(files, &parent).await?.join(name)?)
}

/// What is at the path, or where its link leads.
pub(super) async fn stat(files: &dyn Vfs, path: &VfsPath) -> Result<Entry, VfsError> {
    let entry = files.stat(path).await?;
    if entry.kind != Kind::Symlink {
        return Ok(entry);
    }
    files.stat(&real_path(files, path).await?).await
}

#[cfg(test)]
mod tests {
    use starfish_fs::mem_vfs::MemVfs;
    use starfish_fs::vfs::Parents;

    use super::*;

    fn path(text: &str) -> VfsPath {
        VfsPath::parse(text).unwrap()
    }

    #[tokio::test]
    async fn links_lead_where_the_tree_itself_would_go() {
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
