//! The one folder that holds everything a node keeps: its names, and who may read it.
//!
//! The folder is 0700 and every secret in it 0600. All clients find their node by this folder alone, so
//! several nodes on one machine need nothing but several folders.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Names the data folder in the environment.
pub const DATA_DIR_ENV: &str = "STARFISH_DATA_DIR";

/// A node's data folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDir(PathBuf);

/// Why the data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// No flag, no `STARFISH_DATA_DIR`, no `XDG_DATA_HOME`, no `HOME`.
    #[error("no data folder: neither --data-dir, {DATA_DIR_ENV}, XDG_DATA_HOME nor HOME is set")]
    Nowhere,
    /// It cannot be made, or made private.
    #[error("cannot use {path} as data folder")]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl DataDir {
    /// The folder at `path`, which need not exist yet. A relative path is meant from where the process stands now.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self(std::path::absolute(&path).unwrap_or(path))
    }

    /// Flag over `STARFISH_DATA_DIR` over `$XDG_DATA_HOME/starfish` over `~/.local/share/starfish`.
    pub fn find(
        flag: Option<PathBuf>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, DataDirError> {
        let set = |name: &str| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        flag.or_else(|| set(DATA_DIR_ENV))
            // The XDG specification tells to ignore relative paths.
            .or_else(|| {
                set("XDG_DATA_HOME").filter(|path| path.is_absolute()).map(|path| path.join("starfish"))
            })
            .or_else(|| set("HOME").map(|home| home.join(".local/share/starfish")))
            .map(Self::new)
            .ok_or(DataDirError::Nowhere)
    }

    /// Makes the folder if it is missing, and takes group and others off it if they were on.
    pub fn create(&self) -> Result<(), DataDirError> {
        let unusable = |source| DataDirError::Unusable { path: self.0.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0).map_err(unusable)?;
        let mode = fs::metadata(&self.0).map_err(unusable)?.permissions().mode();
        if mode & 0o077 != 0 {
            fs::set_permissions(&self.0, fs::Permissions::from_mode(0o700)).map_err(unusable)?;
        }
        Ok(())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The settings file.
    pub fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    /// The file whose lock says that a node runs here.
    pub fn lock(&self) -> PathBuf {
        self.0.join("node.lock")
    }

    /// What the running node says about itself.
    pub fn runtime(&self) -> PathBuf {
        self.0.join("node.json")
    }

    /// The bearer token of the TCP API.
    pub fn token(&self) -> PathBuf {
        self.0.join("api.token")
    }

    /// The node's key. It stays the same in whatever swarm the node is.
    pub fn identity(&self) -> PathBuf {
        self.0.join("identity.key")
    }

    /// All that belongs to the swarm that the node is a member of.
    pub fn swarm(&self) -> PathBuf {
        self.0.join("swarm")
    }

    /// The node's membership, inside of [`DataDir::swarm`].
    pub fn membership(&self) -> PathBuf {
        self.swarm().join("membership")
    }

    /// The name, in this folder, of the API's Unix socket.
    pub const SOCKET: &'static str = "api.sock";
}

/// Writes a secret so that no other user could read it at any moment, and no crash leaves half of it.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    // A file left by a crash could have another mode; `create_new` on nothing gives ours.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(flag: Option<&str>, set: &[(&str, &str)]) -> Option<PathBuf> {
        let environment =
            |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        DataDir::find(flag.map(PathBuf::from), environment).ok().map(|dir| dir.path().to_owned())
    }

    #[test]
    fn the_nearest_word_on_the_folder_wins() {
        let all = [("STARFISH_DATA_DIR", "/env"), ("XDG_DATA_HOME", "/xdg"), ("HOME", "/home/ada")];
        assert_eq!(find(Some("/flag"), &all), Some("/flag".into()));
        assert_eq!(find(None, &all), Some("/env".into()));
        assert_eq!(find(None, &all[1..]), Some("/xdg/starfish".into()));
        assert_eq!(find(None, &all[2..]), Some("/home/ada/.local/share/starfish".into()));
        assert_eq!(find(None, &[("STARFISH_DATA_DIR", "")]), None);
    }

    #[test]
    fn folder_and_secrets_are_for_their_owner_only() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::new(temp.path().join("a/b"));
        fs::create_dir_all(dir.path()).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        dir.create().unwrap();
        assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o700);

        fs::write(dir.token(), "old and readable by all").unwrap();
        write_private(&dir.token(), b"secret").unwrap();
        assert_eq!(fs::read(dir.token()).unwrap(), b"secret");
        assert_eq!(fs::metadata(dir.token()).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
