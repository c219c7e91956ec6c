//! Mount points of this machine: what is mounted where, whether a folder can be one, and taking a mount away.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::io::Errno;

/// How mounts of this program are called in the system's list.
pub(super) const SOURCE: &str = "starfish";
/// The system's list.
const MOUNTS: &str = "/proc/self/mountinfo";
/// Through this one talks to the kernel.
const DEVICE: &str = "/dev/fuse";
/// Let users mount who are not root; the first that is there is taken.
const HELPERS: [&str; 2] = ["fusermount3", "fusermount"];

/// Why something could not be mounted, or not be taken away.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The kernel offers no FUSE.
    #[error(
        "this system has no {DEVICE}: load it with `modprobe fuse`, or start the container with \
         `--device {DEVICE} --cap-add SYS_ADMIN`"
    )]
    NoDevice,
    /// The device is not for this user.
    #[error("this user may not open {DEVICE}: its mode should be 0666, as the package fuse3 sets it")]
    DeviceForbidden(#[source] io::Error),
    /// Only root mounts by itself.
    #[error("only root can mount without fusermount3: install it (`apt install fuse3`, `dnf install fuse3`)")]
    NoHelper,
    /// The folder cannot be looked at.
    #[error("cannot mount on {}", path.display())]
    Folder {
        /// Where it was to be mounted.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Only folders can be mounted on.
    #[error("{} is not a folder", .0.display())]
    NotAFolder(PathBuf),
    /// Its files would be hidden.
    #[error("{} is not empty: its files would be hidden while the tree is mounted on it", .0.display())]
    NotEmpty(PathBuf),
    /// There is one already.
    #[error("{} is mounted already: starfish umount takes it away", .0.display())]
    MountedAlready(PathBuf),
    /// The system did not let us.
    #[error("the system refused to mount on {}", path.display())]
    Refused {
        /// Where it was to be mounted.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// There is nothing to take away.
    #[error("{} is no mount of starfish", .0.display())]
    NotMounted(PathBuf),
    /// Programs stand in it or have files open.
    #[error("{} is in use: {said}", path.display())]
    Busy {
        /// The mount point.
        path: PathBuf,
        /// What the system's own program said.
        said: String,
    },
}

/// Whether programs that use a mount hinder taking it away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// A mount in use stays.
    WhenUnused,
    /// It goes from the tree of folders now; who uses it may go on until its node is gone.
    Always,
}

/// One line of the system's list.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    point: PathBuf,
    kind: String,
    source: String,
}

/// Finds out whether the tree can be mounted on `folder`, and what its full name is. A dead mount of an earlier
/// process is taken away first.
pub(super) async fn prepare(folder: &Path) -> Result<PathBuf, MountError> {
    check_fuse()?;
    let path = full_name(folder);
    let failed = |source| MountError::Folder { path: path.clone(), source };
    if is_ours(&path) {
        match fs::metadata(&path) {
            Err(error) if is_dead(&error) => unmount(&path, Force::Always).await?,
            _ => return Err(MountError::MountedAlready(path)),
        }
    }
    if !fs::metadata(&path).map_err(failed)?.is_dir() {
        return Err(MountError::NotAFolder(path));
    }
    let mut files = fs::read_dir(&path).map_err(failed)?;
    if files.next().is_some() { Err(MountError::NotEmpty(path)) } else { Ok(path) }
}

/// Whether the tree is mounted on `folder`, by whatever process.
pub fn is_mounted(folder: &Path) -> bool {
    is_ours(&full_name(folder))
}

/// Takes the mount on `folder` away, whichever process made it.
pub async fn unmount(folder: &Path, force: Force) -> Result<(), MountError> {
    let path = folder.to_owned();
    let done = tokio::task::spawn_blocking(move || unmount_now(&path, force)).await;
    done.unwrap_or_else(|error| Err(MountError::Busy { path: folder.to_owned(), said: error.to_string() }))
}

/// The same, for who cannot wait elsewhere.
pub(super) fn unmount_now(folder: &Path, force: Force) -> Result<(), MountError> {
    let path = full_name(folder);
    if !is_ours(&path) {
        return Err(MountError::NotMounted(path));
    }
    let lazily = force == Force::Always;
    let helpers = HELPERS.map(|helper| (helper, if lazily { &["-u", "-z"][..] } else { &["-u"] }));
    let of_system = ("umount", if lazily { &["-l"][..] } else { &[] });
    let mut said = "neither fusermount3 nor umount is installed".to_owned();
    for (program, words) in helpers.into_iter().chain([of_system]) {
        let Some(program) = installed(program) else { continue };
        match Command::new(program).args(words).arg("--").arg(&path).stdin(Stdio::null()).output() {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => said = String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => said = error.to_string(),
        }
    }
    if is_ours(&path) { Err(MountError::Busy { path, said }) } else { Ok(()) }
}

fn check_fuse() -> Result<(), MountError> {
    match fs::File::options().read(true).write(true).open(DEVICE) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(MountError::DeviceForbidden(error));
        }
        Err(_) => return Err(MountError::NoDevice),
    }
    let is_root = rustix::process::geteuid().is_root();
    if is_root || HELPERS.iter().any(|helper| installed(helper).is_some()) {
        Ok(())
    } else {
        Err(MountError::NoHelper)
    }
}

/// Where a program of the system is. These are found for services too, whose `PATH` may be short.
fn installed(program: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&folders).chain(["/usr/bin", "/bin", "/sbin"].map(PathBuf::from));
    folders.find_map(|folder| Some(folder.join(program)).filter(|path| path.is_file()))
}

/// The name that the system's list has for a folder. The last name is not followed: a dead mount cannot be looked at.
fn full_name(folder: &Path) -> PathBuf {
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    if let Ok(path) = folder.canonicalize() {
        return path;
    }
    match (folder.parent().and_then(|parent| parent.canonicalize().ok()), folder.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => folder,
    }
}

/// Whether the process behind a mount is gone.
fn is_dead(error: &io::Error) -> bool {
    [Errno::NOTCONN, Errno::CONNABORTED].iter().any(|dead| error.raw_os_error() == Some(dead.raw_os_error()))
}

/// Whether the topmost mount on `path` is the tree.
fn is_ours(path: &Path) -> bool {
    let list = fs::read_to_string(MOUNTS).unwrap_or_default();
    let topmost = list.lines().filter_map(line).rfind(|line| line.point == path);
    topmost.is_some_and(|line| line.source == SOURCE && line.kind.starts_with("fuse"))
}

/// Reads `36 35 98:0 / /mnt/point rw,noatime shared:1 - fuse.starfish starfish rw`.
fn line(text: &str) -> Option<Line> {
    let (place, what) = text.split_once(" - ")?;
    let mut what = what.split(' ');
    let point = unescaped(place.split(' ').nth(4)?);
    Some(Line { point, kind: what.next()?.to_owned(), source: what.next()?.to_owned() })
}

/// Blanks, tabs, newlines and backslashes stand as `\` and three octal digits.
fn unescaped(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digits = after.get(..3).and_then(|digits| str::from_utf8(digits).ok());
        let octal = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (first, octal) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_list_of_mounts_is_understood() {
        let text =
            r"36 35 0:50 / /tmp/my\040tree\134x rw,nosuid shared:1 - fuse.starfish starfish rw,user_id=0";
        let expected = Line {
            point: PathBuf::from(r"/tmp/my tree\x"),
            kind: "fuse.starfish".to_owned(),
            source: "starfish".to_owned(),
        };
        assert_eq!(line(text), Some(expected));
        assert_eq!(line("nonsense"), None);
    }

    #[test]
    fn folders_that_are_no_mounts_of_ours_are_left_alone() {
        assert!(!is_ours(Path::new("/")));
        assert!(!is_ours(Path::new("/proc")));
    }

    #[tokio::test]
    async fn what_is_not_mounted_is_not_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let error = unmount(folder.path(), Force::WhenUnused).await.unwrap_err();
        assert!(matches!(error, MountError::NotMounted(_)), "{error}");
    }
}
