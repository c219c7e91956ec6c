//! The shards of one segment that lie on this node, as one piece of bytes on disk.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::code::Code;
use crate::hash::BlobHash;
use crate::index_set::IndexSet;
use crate::manifest::MAX_MANIFEST;

// WIRE (on disk): magic and version, BLAKE3 of the rest, length of the header, header, shards in the order of their
// numbers.
const MAGIC: &[u8; 4] = b"sfb1";
/// Magic, hash and length of the header.
const FIXED: usize = 4 + 32 + 2;

/// Codes a segment off the async threads: a bundle for each holder. `None` if a share cannot be coded.
pub(crate) async fn cut<T: Send + 'static>(
    segment: Bytes,
    shares: Vec<(T, IndexSet)>,
) -> Option<Vec<(T, Bundle)>> {
    tokio::task::spawn_blocking(move || cut_now(&segment, shares)).await.ok()?
}

/// The same in place, for segments that are one shard each, or off the async threads.
pub(crate) fn cut_now<T>(segment: &Bytes, shares: Vec<(T, IndexSet)>) -> Option<Vec<(T, Bundle)>> {
    let len = segment.len() as u64;
    // At once for all of them: parity costs the same for one shard as for many.
    let all: Vec<u16> = shares.iter().flat_map(|(_, indices)| indices.iter()).collect();
    let mut shards = Code::of(len).shards(segment, &all).ok()?.into_iter();
    let bundles = shares.into_iter().map(|(holder, indices)| {
        let own = indices.iter().zip(shards.by_ref()).collect();
        Some((holder, Bundle::new(len, own)?))
    });
    bundles.collect()
}

/// Some shards of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bundle {
    segment_len: u64,
    shards: BTreeMap<u16, Bytes>,
}

impl Bundle {
    /// Shards of a segment of this length; `None` if one does not have the length that it must have.
    pub(crate) fn new(segment_len: u64, shards: BTreeMap<u16, Bytes>) -> Option<Self> {
        let shard_len = Code::of(segment_len).shard_len();
        let is_sound = segment_len <= MAX_MANIFEST as u64
            && shards
                .iter()
                .all(|(index, bytes)| bytes.len() == shard_len && *index < crate::code::MAX_SHARDS);
        is_sound.then_some(Self { segment_len, shards })
    }

    /// Shards with these numbers, from their bytes one after the other.
    pub(crate) fn from_body(segment_len: u64, indices: &IndexSet, mut body: Bytes) -> Option<Self> {
        let shard_len = Code::of(segment_len).shard_len();
        if body.len() != indices.len() * shard_len {
            return None;
        }
        let shards = indices.iter().map(|index| (index, body.split_to(shard_len))).collect();
        Self::new(segment_len, shards)
    }

    /// The length of the segment that they are of.
    pub(crate) fn segment_len(&self) -> u64 {
        self.segment_len
    }

    /// Which they are.
    pub(crate) fn indices(&self) -> IndexSet {
        self.shards.keys().copied().collect()
    }

    /// Number and bytes of each.
    pub(crate) fn shards(&self) -> &BTreeMap<u16, Bytes> {
        &self.shards
    }

    /// Those of them that are wanted.
    pub(crate) fn only(&self, wanted: &IndexSet) -> Self {
        let shards = self.shards.iter().filter(|(index, _)| wanted.contains(**index));
        Self {
            segment_len: self.segment_len,
            shards: shards.map(|(index, bytes)| (*index, bytes.clone())).collect(),
        }
    }

    /// These and the others, which are of the same segment.
    pub(crate) fn merge(mut self, other: Self) -> Self {
        if self.segment_len == other.segment_len {
            self.shards.extend(other.shards);
        }
        self
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        // A set of numbers always encodes.
        let header = postcard::to_stdvec(&(self.segment_len, self.indices())).unwrap_or_default();
        let body: usize = self.shards.values().map(Bytes::len).sum();
        let mut bytes = Vec::with_capacity(FIXED + header.len() + body);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[0; 32]);
        bytes.extend_from_slice(&(header.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&header);
        self.shards.values().for_each(|shard| bytes.extend_from_slice(shard));
        let hash = BlobHash::of(&bytes[36..]);
        bytes[4..36].copy_from_slice(hash.as_bytes());
        bytes
    }

    /// What [`Bundle::encode`] wrote; `None` if the disk changed it.
    pub(crate) fn decode(bytes: Bytes) -> Option<Self> {
        let hash: [u8; 32] = bytes.get(4..36)?.try_into().ok()?;
        if !bytes.starts_with(MAGIC) || BlobHash::of(&bytes[36..]) != BlobHash::from_bytes(hash) {
            return None;
        }
        let header_len = usize::from(u16::from_be_bytes(bytes.get(36..FIXED)?.try_into().ok()?));
        let header = bytes.get(FIXED..FIXED + header_len)?;
        let (segment_len, indices) = postcard::from_bytes::<(u64, IndexSet)>(header).ok()?;
        Self::from_body(segment_len, &indices, bytes.slice(FIXED + header_len..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_disk_changed_is_noticed() {
        let segment = Bytes::from(vec![7; 10_000]);
        let code = Code::of(10_000);
        let shards = code.shards(&segment, &[0, 2, 5]).unwrap();
        let bundle = Bundle::new(10_000, [0, 2, 5].into_iter().zip(shards).collect()).unwrap();
        let bytes = bundle.encode();
        assert_eq!(Bundle::decode(bytes.clone().into()), Some(bundle.clone()));
        for at in [0, 5, 37, 40, bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(Bundle::decode(damaged.into()), None);
        }
        assert_eq!(Bundle::decode(bytes[..bytes.len() - 1].to_vec().into()), None);
        assert_eq!(Bundle::decode(Bytes::new()), None);
        let body = bundle.shards().values().flat_map(|shard| shard.iter().copied()).collect::<Vec<_>>();
        assert_eq!(Bundle::from_body(10_000, &bundle.indices(), body.into()), Some(bundle));
    }
}
