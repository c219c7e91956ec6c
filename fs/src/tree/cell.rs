//! The three cells of an inode, as they lie in memory and travel.
//!
//! | field | holds | a change of it is |
//! |---|---|---|
//! | `n` | [`Place`]: parent, name, and whether it was removed | a move, a removal |
//! | `c` | [`Content`]: what kind it is and its bytes, or where they are named | an edit |
//! | `m` | [`Mode`]: permissions and modification time | a `chmod` or `touch` |
//!
//! The three are apart so that a move on one node and an edit on another at the same time both hold. Each value
//! begins with a version byte. Values come from peers: whatever does not decode, or breaks a bound, counts as
//! absent.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use starfish_dht::PeerId;

use crate::hash::BlobHash;
use crate::path::{MAX_PATH_BYTES, check_name};
use crate::vfs::Kind;

// WIRE: version byte, then postcard. A new form of a cell gets a new version; enums only ever grow at the end.
const VERSION: u8 = 1;

/// Files up to this length stand in the inode's own cell.
pub(crate) const MAX_INLINE: usize = 2048;
/// Manifests up to this length do so, too; with the rest they fit a memory value (16 KiB) well.
pub(crate) const MAX_INLINE_MANIFEST: usize = 4096;

/// The identity of a file, directory or link, for life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Inode(pub(crate) [u8; 16]);

impl Inode {
    /// The directory `/`.
    pub(crate) const ROOT: Self = Self([0; 16]);
    /// The directory `/lost+found`, which is always there though shown only when it holds something.
    pub(crate) const LOST: Self = Self([0xff; 16]);

    /// A new one, never seen before.
    pub(crate) fn random() -> Self {
        Self(rand::random())
    }

    /// An inode from a cell's key.
    pub(crate) fn from_key(key: &[u8]) -> Option<Self> {
        key.try_into().ok().map(Self)
    }
}

impl fmt::Display for Inode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Inode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&data_encoding::HEXLOWER.encode(&self.0[..4]))
    }
}

/// When and by whom a cell was written; the greater one wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Stamp {
    pub(crate) time: u64,
    pub(crate) author: [u8; 16],
}

/// Field `n`: where an inode is, or was when it was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) parent: Inode,
    pub(crate) name: String,
    /// Set by a removal: the stamp of the content that was removed. If the content has another one, somebody
    /// edited the file without knowing of the removal, and the file stays.
    pub(crate) removed: Option<Stamp>,
}

/// Field `c`: what an inode is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Content {
    Dir,
    Symlink { target: String },
    File(FileContent),
}

/// What a file's bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileContent {
    pub(crate) size: u64,
    pub(crate) hash: BlobHash,
    /// Who wrote it, and so has the bytes. A hint only.
    pub(crate) holder: Option<PeerId>,
    pub(crate) body: Body,
}

/// Where a file's bytes are named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Body {
    /// They are here.
    Inline(Vec<u8>),
    /// The encoded [`crate::manifest::Manifest`] is here.
    Manifest(Vec<u8>),
    /// The encoded manifest is a blob of its own.
    ManifestBlob(ManifestBlob),
}

/// The name of a blob that is a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ManifestBlob {
    pub(crate) hash: BlobHash,
    pub(crate) len: u64,
}

/// Field `m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mode {
    pub(crate) mode: u32,
    pub(crate) mtime_ms: u64,
}

/// A value of one of the fields.
pub(crate) trait Field: Serialize + DeserializeOwned {
    /// The field's name in memory.
    // WIRE: one byte each.
    const NAME: &'static [u8];

    /// Whether a decoded value keeps the bounds.
    fn is_sound(&self) -> bool;

    /// The value's bytes.
    fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_extend(self, vec![VERSION])
    }

    /// The value of `bytes`, if they are one.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let body = bytes.strip_prefix(&[VERSION])?;
        postcard::from_bytes::<Self>(body).ok().filter(Self::is_sound)
    }
}

impl Field for Place {
    const NAME: &'static [u8] = b"n";

    fn is_sound(&self) -> bool {
        check_name(&self.name).is_ok()
    }
}

impl Field for Content {
    const NAME: &'static [u8] = b"c";

    fn is_sound(&self) -> bool {
        match self {
            Self::Dir => true,
            Self::Symlink { target } => target.len() <= MAX_PATH_BYTES,
            Self::File(file) => match &file.body {
                Body::Inline(bytes) => bytes.len() <= MAX_INLINE && bytes.len() as u64 == file.size,
                Body::Manifest(bytes) => bytes.len() <= MAX_INLINE_MANIFEST,
                Body::ManifestBlob(_) => true,
            },
        }
    }
}

impl Field for Mode {
    const NAME: &'static [u8] = b"m";

    fn is_sound(&self) -> bool {
        self.mode <= 0o7777
    }
}

impl Content {
    /// What kind of entry it makes.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Dir => Kind::Dir,
            Self::Symlink { .. } => Kind::Symlink,
            Self::File(_) => Kind::File,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formats_never_move() {
        let place = Place { parent: Inode::ROOT, name: "a".into(), removed: None };
        assert_eq!(place.encode().unwrap(), [&[1][..], &[0; 16], &[1, b'a', 0]].concat());
        assert_eq!(Content::Dir.encode().unwrap(), [1, 0]);
        assert_eq!(Content::Symlink { target: "t".into() }.encode().unwrap(), [1, 1, 1, b't']);
        let hash = BlobHash::of(b"hi");
        let file =
            Content::File(FileContent { size: 2, hash, holder: None, body: Body::Inline(b"hi".to_vec()) });
        let expected = [&[1, 2, 2][..], hash.as_bytes(), &[0, 0, 2, b'h', b'i']].concat();
        assert_eq!(file.encode().unwrap(), expected);
        assert_eq!(Mode { mode: 0o644, mtime_ms: 5 }.encode().unwrap(), [1, 0xa4, 3, 5]);
    }

    #[test]
    fn unsound_values_count_as_absent() {
        let place =
            |name: &str| Place { parent: Inode::ROOT, name: name.into(), removed: None }.encode().unwrap();
        assert!(Place::decode(&place("fine")).is_some());
        for name in ["", "..", "a/b", "nul\0", &"x".repeat(256)] {
            assert_eq!(Place::decode(&place(name)), None, "{name:?}");
        }
        assert_eq!(Content::decode(&[2, 0]), None, "a version that is not known");
        let body = Body::Inline(vec![0; MAX_INLINE + 1]);
        let file = FileContent { size: MAX_INLINE as u64 + 1, hash: BlobHash::of(b""), holder: None, body };
        assert_eq!(Content::decode(&Content::File(file).encode().unwrap()), None);
    }
}
