//! Exit statuses that mean something to scripts, the same here and for `starfish <verb>`.

use super::fs::path::PathError;
use super::fs::vfs::VfsError;

/// Went well.
pub const OK: i32 = 0;
/// Failed.
pub const FAILED: i32 = 1;
/// Asked in a way that makes no sense.
pub const USAGE: i32 = 2;
/// The thing asked for does not exist.
pub const MISSING: i32 = 4;
/// Failed for now; trying again may help.
pub const TRY_AGAIN: i32 = 5;
/// The node could not run the program.
pub const NODE_FAILED: i32 = 125;
/// Found, but nothing that can be run.
pub const NOT_EXECUTABLE: i32 = 126;
/// No such command.
pub const NOT_FOUND: i32 = 127;
/// Nobody reads the output any more. Inside of the shell only: to the outside that is no failure.
pub(super) const BROKEN_PIPE: i32 = 141;
/// Ended by ctrl-C.
pub const INTERRUPTED: i32 = 130;

/// The status of a command that failed on the tree.
pub fn of(error: &VfsError) -> i32 {
    match error {
        VfsError::NotFound { .. } | VfsError::Path(PathError::Empty) => MISSING,
        VfsError::Unavailable { .. } => TRY_AGAIN,
        _ => FAILED,
    }
}
