//! What a trigger listens to, as it is now: every file or key, and the last change of it.

use std::collections::BTreeMap;

use starfish_fs::vfs::{Vfs, VfsError};
use starfish_memory::{Memory, Space};

use super::burst::Change;
use crate::batch::{self, GlobError};
use crate::in_words;
use crate::runner::unix_ms;

/// The files that match a pattern.
pub(super) async fn files(tree: &dyn Vfs, pattern: &str) -> Result<Vec<Change>, String> {
    let found = match batch::find(tree, pattern).await {
        Ok((_, found)) => found,
        Err(GlobError::Nothing(_) | GlobError::Tree { source: VfsError::NotFound { .. }, .. }) => Vec::new(),
        Err(error) => return Err(in_words(&error)),
    };
    let mut changes = Vec::new();
    for (path, _) in found {
        if let Ok(Some(changed)) = tree.changed(&path).await {
            let (version, at_ms) = (changed.version, changed.at_ms);
            changes.push(Change { subject: path.to_string(), version, at_ms, is_deleted: false });
        }
    }
    Ok(changes)
}

/// The keys of a space that match a pattern, those that were deleted among them. Of a key that is no text nothing can be
/// told.
pub(super) async fn keys(memory: &Memory, space: &str, pattern: &str) -> Result<Vec<Change>, String> {
    let space = memory.space(space).map_err(|error| in_words(&error))?;
    let (beginning, is_exact) = match pattern.strip_suffix('*') {
        Some(beginning) => (beginning.to_owned(), false),
        None => (pattern.to_owned(), true),
    };
    let read = tokio::task::spawn_blocking(move || read(&space, &beginning, is_exact)).await;
    read.unwrap_or_else(|_| Ok(Vec::new()))
}

fn read(space: &Space, beginning: &str, is_exact: bool) -> Result<Vec<Change>, String> {
    let mut found: BTreeMap<String, Change> = BTreeMap::new();
    let now = unix_ms();
    let read = space.for_each_cell(beginning.as_bytes(), &mut |cell| {
        let Ok(key) = std::str::from_utf8(&cell.key) else { return };
        if is_exact && key != beginning {
            return;
        }
        let (version, is_deleted) = (cell.stamp.to_string(), cell.live(now).is_none());
        let change = found.entry(key.to_owned()).or_insert_with(|| Change {
            subject: key.to_owned(),
            version: String::new(),
            at_ms: 0,
            is_deleted: true,
        });
        change.is_deleted &= is_deleted;
        if version > change.version {
            (change.version, change.at_ms) = (version, cell.stamp.unix_ms());
        }
    });
    read.map(|()| found.into_values().collect()).map_err(|error| in_words(&error))
}
