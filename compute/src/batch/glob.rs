//! The files of the tree that match a pattern.

use globset::GlobBuilder;
use starfish_fs::path::{PathError, VfsPath};
use starfish_fs::vfs::{Kind, Vfs, VfsError};

use super::definition::MAX_LISTED;

/// What stands for something else in a pattern, or begins that.
const SPECIAL: [char; 5] = ['*', '?', '[', '{', '\\'];

/// Why a pattern names no files.
#[derive(Debug, thiserror::Error)]
pub enum GlobError {
    /// It is not one.
    #[error("{pattern:?} is not a pattern of files")]
    Pattern {
        /// What was given.
        pattern: String,
        /// What is wrong with it.
        #[source]
        source: globset::Error,
    },
    /// It does not begin with `/`, or is no path without its wildcards.
    #[error("{0:?} is not a pattern of absolute paths")]
    Path(String, #[source] PathError),
    /// There are too many.
    #[error("{0:?} matches more than {MAX_LISTED} files")]
    TooMany(String),
    /// There are none.
    #[error("no file matches {0:?}")]
    Nothing(String),
    /// The tree cannot be read.
    #[error("cannot look for {pattern:?}")]
    Tree {
        /// What was looked for.
        pattern: String,
        /// Why not.
        #[source]
        source: VfsError,
    },
}

/// The files that match `pattern`, sorted, with the hashes of their contents, and the folder that all of them are in. `*` and `?` stay within a name,
/// `**` crosses folders; names that begin with a dot match only where the pattern says so. Links to folders are not
/// followed.
pub(crate) async fn find(
    vfs: &dyn Vfs,
    pattern: &str,
) -> Result<(VfsPath, Vec<(VfsPath, String)>), GlobError> {
    let glob = GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).build();
    let glob =
        glob.map_err(|source| GlobError::Pattern { pattern: pattern.to_owned(), source })?.compile_matcher();
    let base = base_of(pattern)?;
    if !pattern.contains(SPECIAL) {
        return Ok((base, vec![one(vfs, pattern).await?]));
    }
    let tree = |source| GlobError::Tree { pattern: pattern.to_owned(), source };
    let (mut found, mut folders) = (Vec::new(), vec![base.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in vfs.list(&folder).await.map_err(tree)? {
            let path =
                folder.join(&entry.name).map_err(|error| GlobError::Path(pattern.to_owned(), error))?;
            let is_hidden = entry.name.starts_with('.') && !pattern.contains("/.");
            match entry.kind {
                _ if is_hidden => {}
                Kind::Dir => folders.push(path),
                Kind::File if glob.is_match(path.as_str()) => {
                    found.push((path, entry.hash.unwrap_or_default()));
                }
                Kind::File | Kind::Symlink => {}
            }
        }
        if found.len() > MAX_LISTED {
            return Err(GlobError::TooMany(pattern.to_owned()));
        }
    }
    if found.is_empty() {
        return Err(GlobError::Nothing(pattern.to_owned()));
    }
    found.sort_unstable();
    Ok((base, found))
}

/// The one file that a pattern without wildcards names.
async fn one(vfs: &dyn Vfs, path: &str) -> Result<(VfsPath, String), GlobError> {
    let parsed = VfsPath::parse(path).map_err(|error| GlobError::Path(path.to_owned(), error))?;
    match vfs.stat(&parsed).await {
        Ok(entry) if entry.kind == Kind::File => Ok((parsed, entry.hash.unwrap_or_default())),
        Ok(_) | Err(VfsError::NotFound { .. }) => Err(GlobError::Nothing(path.to_owned())),
        Err(source) => Err(GlobError::Tree { pattern: path.to_owned(), source }),
    }
}

/// The pattern that means this path and nothing else.
pub(crate) fn literal(path: &str) -> String {
    let escaped = |letter: char| SPECIAL.contains(&letter).then_some('\\').into_iter().chain([letter]);
    path.chars().flat_map(escaped).collect()
}

/// The deepest folder that a pattern names without wildcards.
pub(crate) fn base_of(pattern: &str) -> Result<VfsPath, GlobError> {
    let plain = pattern.find(SPECIAL).map_or(pattern, |at| &pattern[..at]);
    let folder = plain.rfind('/').map_or("", |at| &plain[..=at]);
    VfsPath::parse(folder).map_err(|error| GlobError::Path(pattern.to_owned(), error))
}

#[cfg(test)]
mod tests {
    use starfish_fs::mem_vfs::MemVfs;
    use starfish_fs::vfs::{Attributes, Parents, stream_of};

    use super::*;

    #[tokio::test]
    async fn files_are_found_by_pattern_in_their_folders() {
        let vfs = MemVfs::new();
        for path in ["/data/a.log", "/data/b.txt", "/data/x/c.log", "/data/x/y/d.log", "/data/.hidden.log"] {
            let path = VfsPath::parse(path).unwrap();
            vfs.mkdir(&path.parent().unwrap(), Parents::Create).await.unwrap();
            vfs.write(&path, stream_of(&b"x"[..]), Attributes::default()).await.unwrap();
        }
        let find = async |pattern: &str| {
            let (base, found) = find(&vfs, pattern).await.unwrap();
            (base.to_string(), found.iter().map(|(path, _)| path.to_string()).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(find("/data/*.log").await, ("/data".into(), "/data/a.log".into()));
        let deep = "/data/a.log /data/x/c.log /data/x/y/d.log";
        assert_eq!(find("/data/**/*.log").await, ("/data".into(), deep.into()));
        assert_eq!(find("/data/x/?.log").await, ("/data/x".into(), "/data/x/c.log".into()));
        assert_eq!(find("/data/.*.log").await, ("/data".into(), "/data/.hidden.log".into()));
        assert_eq!(find("/data/{a,b}.*").await.1, "/data/a.log /data/b.txt");
    }

    #[tokio::test]
    async fn a_path_with_special_letters_has_a_pattern_of_its_own() {
        let vfs = MemVfs::new();
        for path in ["/a*b[1].txt", "/aXb1.txt", "/plain.txt"] {
            let path = VfsPath::parse(path).unwrap();
            vfs.write(&path, stream_of(&b"x"[..]), Attributes::default()).await.unwrap();
        }
        for path in ["/a*b[1].txt", "/plain.txt"] {
            let (_, found) = find(&vfs, &literal(path)).await.unwrap();
            assert_eq!(found.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), [path]);
        }
    }

    #[tokio::test]
    async fn a_pattern_that_names_nothing_says_so() {
        let vfs = MemVfs::new();
        let find = async |pattern: &'static str| find(&vfs, pattern).await.unwrap_err();
        assert!(matches!(find("/[").await, GlobError::Pattern { .. }));
        assert!(matches!(find("data/*").await, GlobError::Path(..)));
        assert!(matches!(find("/*").await, GlobError::Nothing(_)));
        assert!(matches!(find("/none/*").await, GlobError::Tree { .. }));
    }
}
