//! The API's Unix socket in the data folder, wherever that folder lies.
//!
//! A socket's address holds 107 bytes of path, and folders are often deeper than that; the kernel's
//! `/proc/self/fd/N` is a short name for the opened folder.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use crate::data_dir::DataDir;

/// `sun_path` less its closing NUL.
const MAX_SOCKET_PATH: usize = 107;

/// A path of the socket that is short enough; the file, if any, must stay open while it is used.
fn address(dir: &DataDir) -> io::Result<(PathBuf, Option<File>)> {
    let path = dir.path().join(DataDir::SOCKET);
    if path.as_os_str().as_bytes().len() <= MAX_SOCKET_PATH {
        return Ok((path, None));
    }
    let folder = File::open(dir.path())?;
    let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(DataDir::SOCKET);
    Ok((short, Some(folder)))
}

/// Listens. The caller holds the folder's lock, so a socket that is there was left behind and is replaced.
pub(crate) fn listen(dir: &DataDir) -> io::Result<UnixListener> {
    let (path, _folder) = address(dir)?;
    remove(dir)?;
    // Between these two lines the folder's own mode keeps others out.
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(listener)
}

/// Connects to the node that listens there.
pub(crate) async fn connect(dir: &DataDir) -> io::Result<UnixStream> {
    let (path, _folder) = address(dir)?;
    UnixStream::connect(&path).await
}

/// Takes the socket away.
pub(crate) fn remove(dir: &DataDir) -> io::Result<()> {
    match std::fs::remove_file(dir.path().join(DataDir::SOCKET)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_deep_folder_and_a_socket_left_behind_are_no_obstacle() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::new(temp.path().join("deep".repeat(40)));
        dir.create().unwrap();
        for _ in 0..2 {
            let listener = listen(&dir).unwrap();
            let (accepted, connected) = tokio::join!(listener.accept(), connect(&dir));
            accepted.unwrap();
            connected.unwrap();
        }
        assert_eq!(connect(&dir).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        remove(&dir).unwrap();
        assert_eq!(connect(&dir).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
