//! Receipts that nobody can read yet.
//!
//! Where several nodes run the same tasks to be held against each other, none may see what another found before it has
//! committed itself: else it could copy instead of computing. So a node first puts its receipt into memory *sealed*
//! (encrypted), with the hash of it under its signature: a [`Pledge`]. When enough nodes have pledged themselves, each
//! publishes the key to its own. (Commit and reveal, as in coin flipping by telephone, Blum 1981.)
//!
//! The key follows from the node's identity, so that a node which was restarted can still open what it pledged. Long
//! outputs are files; they are encrypted with the same key.
//!
//! WIRE: pledges are postcard behind one byte of version.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use starfish_dht::{Identity, PeerId, identity};
use starfish_fs::vfs::ByteStream;

use super::definition::{decode, encode};
use super::receipt::{BadReceipt, SliceReceipt, TaskResult};
use crate::task::{Digest, JobId};
use crate::wire::Chunk;

/// What goes in front of a pledge before it is signed. WIRE: a new meaning of any field needs a new string.
const PLEDGE_CONTEXT: &[u8] = b"starfish pledge 1\0";
/// What a node signs to get a key. WIRE: other keys need another string.
const KEY_CONTEXT: &[u8] = b"starfish key of sealed receipts 1\0";
/// How a signature becomes a key, and a key one for a single use. WIRE: likewise.
const DERIVE_CONTEXT: &str = "starfish sealed receipts 1";

/// The key to what one node found out about one slice, secret until it is published.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SealKey([u8; 32]);

impl std::fmt::Debug for SealKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("SealKey")
    }
}

impl SealKey {
    /// That of this node for the slice from `start` on. Ed25519 signs the same bytes in the same way every time, and
    /// nobody else can.
    pub(crate) fn new(me: &Identity, job: &JobId, generation: u32, start: u64) -> Self {
        let what = [KEY_CONTEXT, &job.0, &generation.to_be_bytes(), &start.to_be_bytes()].concat();
        Self(blake3::derive_key(DERIVE_CONTEXT, &me.sign(&what)))
    }

    /// Each name has a stream of its own, so no part of one is ever used twice.
    fn cipher(&self, name: &str) -> ChaCha20 {
        let mut hasher = blake3::Hasher::new_derive_key(DERIVE_CONTEXT);
        let key = hasher.update(&self.0).update(name.as_bytes()).finalize();
        ChaCha20::new(key.as_bytes().into(), &[0; 12].into())
    }

    /// The bytes of something with this name, encrypted if they were not, and the other way round.
    fn apply(&self, name: &str, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        self.cipher(name).apply_keystream(&mut bytes);
        bytes
    }

    /// The same for a stream.
    pub(crate) fn apply_stream(&self, name: &str, content: ByteStream) -> ByteStream {
        let mut cipher = self.cipher(name);
        let apply = move |bytes: Bytes| {
            let mut bytes = BytesMut::from(bytes);
            cipher.apply_keystream(&mut bytes);
            bytes.freeze()
        };
        content.scan(apply, |apply, part| std::future::ready(Some(part.map(apply)))).boxed()
    }
}

/// What a node asserts, under its signature, that it has found out, without saying what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pledge {
    pub(crate) generation: u32,
    pub(crate) range: Range<u64>,
    pub(crate) by: PeerId,
    /// Of the receipt.
    pub(crate) digest: Digest,
    sealed: Chunk,
    signature: Vec<u8>,
}

/// What a receipt is encrypted as.
const RECEIPT: &str = "receipt";

impl Pledge {
    /// Seals a receipt of this node.
    pub(crate) fn seal(
        receipt: &SliceReceipt,
        job: &JobId,
        me: &Identity,
        key: &SealKey,
    ) -> Result<Self, postcard::Error> {
        let open = receipt.encode()?;
        let mut pledge = Self {
            generation: receipt.generation,
            range: receipt.range.clone(),
            by: receipt.by,
            digest: Digest::of(&open),
            sealed: Chunk(key.apply(RECEIPT, &open).into()),
            signature: Vec::new(),
        };
        pledge.signature = me.sign(&pledge.signed_bytes(job)?);
        Ok(pledge)
    }

    /// As it is kept.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        encode(self)
    }

    /// A pledge for `job`, if its node did make it.
    pub(crate) fn decode(bytes: &[u8], job: &JobId) -> Result<Self, BadReceipt> {
        let pledge: Self = decode(bytes).ok_or(BadReceipt::Malformed)?;
        let signed = pledge.signed_bytes(job).map_err(|_| BadReceipt::Malformed)?;
        let is_signed = identity::verify(&pledge.by, &signed, &pledge.signature);
        if is_signed { Ok(pledge) } else { Err(BadReceipt::Signature) }
    }

    /// What was pledged, if the key fits and it is what was signed.
    pub(crate) fn open(
        &self,
        job: &JobId,
        key: &SealKey,
    ) -> Result<(SliceReceipt, Vec<TaskResult>), BadReceipt> {
        let open = key.apply(RECEIPT, &self.sealed.0);
        if Digest::of(&open) != self.digest {
            return Err(BadReceipt::Seal);
        }
        let (receipt, results) = SliceReceipt::decode(&open, job)?;
        let is_same =
            receipt.by == self.by && receipt.generation == self.generation && receipt.range == self.range;
        if is_same { Ok((receipt, results)) } else { Err(BadReceipt::Seal) }
    }

    fn signed_bytes(&self, job: &JobId) -> Result<Vec<u8>, postcard::Error> {
        let mut bytes = [PLEDGE_CONTEXT, &job.0].concat();
        let Self { generation, range, by, digest, .. } = self;
        bytes.extend(postcard::to_stdvec(&(generation, range, by, digest, Digest::of(&self.sealed.0)))?);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use starfish_fs::vfs::stream_of;

    use super::super::receipt::{Collected, Said};
    use super::*;

    const JOB: JobId = JobId([7; 16]);

    fn receipt(me: &Identity, said: &'static str) -> SliceReceipt {
        let mut collected = Collected::new(3);
        let stdout = Said::here(Bytes::from_static(said.as_bytes()));
        let result = TaskResult { stdout, ..TaskResult::exited(0) };
        collected.push(result, 1).unwrap();
        collected.close(&JOB, 0, 1, me).unwrap()
    }

    #[test]
    fn a_sealed_receipt_is_read_with_its_key_and_with_no_other() {
        let me = Identity::generate();
        let (receipt, key) = (receipt(&me, "a secret"), SealKey::new(&me, &JOB, 0, 3));
        let pledge = Pledge::seal(&receipt, &JOB, &me, &key).unwrap();
        let bytes = pledge.encode().unwrap();
        assert!(!bytes.windows(8).any(|part| part == b"a secret"));
        let read = Pledge::decode(&bytes, &JOB).unwrap();
        assert_eq!(read.open(&JOB, &SealKey::new(&me, &JOB, 0, 3)).unwrap().0, receipt);
        for other in [SealKey::new(&me, &JOB, 1, 3), SealKey::new(&Identity::generate(), &JOB, 0, 3)] {
            assert_eq!(read.open(&JOB, &other).unwrap_err(), BadReceipt::Seal);
        }
    }

    #[test]
    fn a_pledge_cannot_be_changed_afterwards_nor_made_for_another() {
        let (me, other) = (Identity::generate(), Identity::generate());
        let key = SealKey::new(&me, &JOB, 0, 3);
        let pledge = Pledge::seal(&receipt(&me, "one"), &JOB, &me, &key).unwrap();
        let later = Pledge::seal(&receipt(&me, "two"), &JOB, &me, &key).unwrap();
        let swapped = Pledge { sealed: later.sealed, ..pledge.clone() };
        assert_eq!(Pledge::decode(&swapped.encode().unwrap(), &JOB).unwrap_err(), BadReceipt::Signature);
        let stolen = Pledge { by: other.peer_id(), ..pledge.clone() };
        assert_eq!(Pledge::decode(&stolen.encode().unwrap(), &JOB).unwrap_err(), BadReceipt::Signature);
        let for_another = Pledge::decode(&pledge.encode().unwrap(), &JobId([8; 16]));
        assert_eq!(for_another.unwrap_err(), BadReceipt::Signature);
        let lent = Pledge::seal(&receipt(&me, "one"), &JOB, &other, &key).unwrap();
        assert_eq!(Pledge::decode(&lent.encode().unwrap(), &JOB).unwrap_err(), BadReceipt::Signature);
    }

    #[tokio::test]
    async fn a_stream_comes_back_in_parts_of_any_size() {
        let key = SealKey::new(&Identity::generate(), &JOB, 0, 0);
        let said: Vec<u8> = (0..100_000_u32).map(|at| at.to_le_bytes()[0]).collect();
        let sealed = key.apply_stream("out", stream_of(said.clone()));
        let sealed: Vec<Bytes> = sealed.try_collect().await.unwrap();
        assert_ne!(sealed.concat(), said);
        let parts =
            sealed.concat().chunks(777).map(|part| Ok(Bytes::copy_from_slice(part))).collect::<Vec<_>>();
        let open = key.apply_stream("out", futures::stream::iter(parts).boxed());
        assert_eq!(open.try_collect::<Vec<Bytes>>().await.unwrap().concat(), said);
    }
}
