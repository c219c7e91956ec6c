//! Names that the tree makes up: for conflicts, and for what has none.

use super::cell::Inode;
use crate::path::MAX_NAME_BYTES;

/// Where strays show.
pub(super) const LOST_AND_FOUND: &str = "lost+found";

const CONFLICT: &str = " (conflict of ";

/// Whether a name could be one that [`conflict`] made.
pub(super) fn may_be_conflict(name: &str) -> bool {
    name.contains(CONFLICT)
}

/// The name of an inode whose own has not arrived.
pub(super) fn of_nameless(inode: Inode) -> String {
    format!("#{inode}")
}

/// `name (conflict of <author>)`; with the inode as well if that is taken. A long name is cut to fit.
pub(super) fn conflict(
    name: &str,
    author: [u8; 16],
    inode: Inode,
    is_taken: impl Fn(&str) -> bool,
) -> String {
    let author = data_encoding::HEXLOWER.encode(&author[..4]);
    let short = with_suffix(name, &format!("{CONFLICT}{author})"));
    if !is_taken(&short) {
        return short;
    }
    with_suffix(name, &format!("{CONFLICT}{author}, {inode})"))
}

fn with_suffix(name: &str, suffix: &str) -> String {
    let mut end = name.len().min(MAX_NAME_BYTES - suffix.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::check_name;

    #[test]
    fn conflict_names_are_distinct_and_valid() {
        let author = [0xab; 16];
        let first = conflict("a", author, Inode([1; 16]), |_| false);
        assert_eq!(first, "a (conflict of abababab)");
        let second = conflict("a", author, Inode([1; 16]), |name| name == first);
        assert_eq!(second, format!("a (conflict of abababab, {})", "01".repeat(16)));
        for long in ["x".repeat(255), "ä".repeat(127)] {
            let name = conflict(&long, author, Inode([1; 16]), |_| true);
            assert!(check_name(&name).is_ok() && may_be_conflict(&name), "{name}");
        }
    }
}
