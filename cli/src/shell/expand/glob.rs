//! Globs against the tree: names are listed, contents never read.

use crate::shell::fs::path::VfsPath;
use crate::shell::fs::vfs::{Kind, Vfs};
use crate::shell::stop::{EvalError, Stop};

use super::pattern;

/// How many paths one glob may name.
const MAX_PATHS: usize = 100_000;

/// A path that matches so far, as it will be shown and as it is.
struct Found {
    shown: String,
    path: VfsPath,
}

/// The paths that match, sorted; none if nothing does. Directories that cannot be listed match nothing.
pub(super) async fn expand(vfs: &dyn Vfs, cwd: &VfsPath, glob: &str) -> Result<Vec<String>, Stop> {
    let (shown, path) = if glob.starts_with('/') { ("/", VfsPath::root()) } else { ("", cwd.clone()) };
    let mut found = vec![Found { shown: shown.to_owned(), path }];
    let names: Vec<&str> = glob.split('/').filter(|name| !name.is_empty()).collect();
    for (index, name) in names.iter().enumerate() {
        let needs_directory = index + 1 < names.len() || glob.ends_with('/');
        let mut next = Vec::new();
        for base in found {
            next.extend(step(vfs, &base, name, needs_directory).await);
            if next.len() > MAX_PATHS {
                return Err(EvalError::TooMuch { what: "paths of one glob", limit: MAX_PATHS }.into());
            }
        }
        found = next;
    }
    let ending = if glob.ends_with('/') { "/" } else { "" };
    let mut paths: Vec<String> = found.into_iter().map(|found| found.shown + ending).collect();
    paths.sort();
    Ok(paths)
}

async fn step(vfs: &dyn Vfs, base: &Found, name: &str, needs_directory: bool) -> Vec<Found> {
    let shown = |name: &str| match base.shown.as_str() {
        "" | "/" => format!("{}{name}", base.shown),
        shown => format!("{shown}/{name}"),
    };
    if !pattern::is_glob(name) {
        let name = pattern::unescape(name);
        let Ok(path) = base.path.resolve(&name) else { return Vec::new() };
        let exists = vfs.stat(&path).await.is_ok();
        return exists.then(|| Found { shown: shown(&name), path }).into_iter().collect();
    }
    let Ok(entries) = vfs.list(&base.path).await else { return Vec::new() };
    entries
        .into_iter()
        // A link may lead to a directory; whether it does shows at the next step.
        .filter(|entry| !needs_directory || entry.kind != Kind::File)
        .filter(|entry| !entry.name.starts_with('.') || name.starts_with('.'))
        .filter(|entry| pattern::matches(name, &entry.name))
        .filter_map(|entry| {
            Some(Found { shown: shown(&entry.name), path: base.path.join(&entry.name).ok()? })
        })
        .collect()
}
