//! What remains of a slice of a batch: a receipt, which is a cell of memory.
//!
//! A receipt is signed by the node that ran the slice, says for each task how it ended, and holds what short outputs
//! said. Receipts of a batch may overlap where two nodes ran the same tasks (after a partition, say): of a task that
//! several tell of, one that ended well counts before one that did not, and the first of a batch's order before later
//! ones. So all nodes read the same, whatever came first.
//!
//! WIRE: results are postcard, compressed as one LZ4 block.

use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use starfish_dht::{Identity, PeerId, identity};

use crate::task::{Digest, JobId, Outcome};
use crate::wire::Chunk;

/// What goes in front of a receipt before it is signed. WIRE: a new meaning of any field needs a new string.
const CONTEXT: &[u8] = b"starfish batch receipt 1\0";
/// Output of a task that fits into its receipt; more becomes a file.
pub(crate) const MAX_INLINE: usize = 2 << 10;
/// The longest reason of a failure that is kept.
const MAX_REASON: usize = 512;
/// A receipt is closed when its results are at least this long, compressed. With one result more it still fits into
/// a cell, which holds 16 KiB.
const FULL: usize = 8 << 10;
/// How much results may grow before it is looked again whether they are long enough.
const LOOK_EVERY: usize = 2 << 10;
/// The longest results before compression.
const MAX_RAW: usize = 512 << 10;

/// What a node asserts, under its signature, about the tasks of a slice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceReceipt {
    /// Which time the batch was begun.
    pub generation: u32,
    /// Which tasks.
    pub range: Range<u64>,
    /// Who ran them.
    pub by: PeerId,
    /// When they had ended, by that node's clock, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Wall time of all of them, in microseconds.
    pub elapsed_us: u64,
    results: Chunk,
    signature: Vec<u8>,
}

/// How one task ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskResult {
    /// How.
    pub outcome: Outcome,
    /// How often it was tried.
    pub tries: u32,
    /// Wall time of the last try, in milliseconds.
    pub elapsed_ms: u32,
    /// Its standard output.
    pub stdout: Said,
    /// Its standard error.
    pub stderr: Said,
}

/// What a task said on one of its streams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Said {
    /// This.
    Here(Text),
    /// In a file of the batch's folder.
    Kept {
        /// So many bytes.
        size: u64,
        /// Their hash.
        digest: Digest,
    },
}

/// Some bytes. Serialised as one run, not as a sequence of numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text(Chunk);

impl Text {
    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.0.0
    }
}

impl Said {
    /// Nothing.
    pub(crate) fn nothing() -> Self {
        Self::here(Bytes::new())
    }

    pub(crate) fn here(bytes: Bytes) -> Self {
        Self::Here(Text(Chunk(bytes)))
    }

    /// How many bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Here(text) => text.bytes().len() as u64,
            Self::Kept { size, .. } => *size,
        }
    }
}

impl TaskResult {
    /// A task that could not be run.
    pub(crate) fn failed(reason: String, tries: u32) -> Self {
        let outcome = Outcome::Failed { reason };
        Self { outcome, tries, elapsed_ms: 0, stdout: Said::nothing(), stderr: Said::nothing() }
    }

    /// A quiet task that exited with this code.
    #[cfg(test)]
    pub(crate) fn exited(code: i32) -> Self {
        Self { outcome: Outcome::Exited(code), ..Self::failed(String::new(), 1) }
    }

    /// The same, with a reason of a length that fits.
    fn shortened(mut self) -> Self {
        if let Outcome::Failed { reason } | Outcome::Trapped { message: reason } = &mut self.outcome {
            let end = (0..=MAX_REASON.min(reason.len())).rev().find(|end| reason.is_char_boundary(*end));
            reason.truncate(end.unwrap_or(0));
        }
        self
    }
}

/// Why a receipt is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadReceipt {
    #[error("it is malformed")]
    Malformed,
    #[error("its signature is wrong")]
    Signature,
    #[error("it does not say as much as it claims")]
    Results,
    #[error("it is not what was sealed")]
    Seal,
}

impl SliceReceipt {
    /// How each of its tasks ended, in order.
    pub fn results(&self) -> Option<Vec<TaskResult>> {
        let packed = &self.results.0;
        let size = packed.first_chunk().map(|size| u32::from_le_bytes(*size) as usize)?;
        if size > MAX_RAW {
            return None;
        }
        let raw = lz4_flex::decompress_size_prepended(packed).ok()?;
        let (mut rest, mut results) = (raw.as_slice(), Vec::new());
        while !rest.is_empty() {
            let result;
            (result, rest) = postcard::take_from_bytes::<TaskResult>(rest).ok()?;
            results.push(result);
        }
        (results.len() as u64 == self.range.end.checked_sub(self.range.start)?).then_some(results)
    }

    /// As it is kept.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        super::definition::encode(self)
    }

    /// A receipt of `job` with what it says, if it is to be believed.
    pub(crate) fn decode(bytes: &[u8], job: &JobId) -> Result<(Self, Vec<TaskResult>), BadReceipt> {
        let receipt: Self = super::definition::decode(bytes).ok_or(BadReceipt::Malformed)?;
        let signed = receipt.signed_bytes(job).map_err(|_| BadReceipt::Malformed)?;
        if !identity::verify(&receipt.by, &signed, &receipt.signature) {
            return Err(BadReceipt::Signature);
        }
        let results = receipt.results().ok_or(BadReceipt::Results)?;
        Ok((receipt, results))
    }

    fn signed_bytes(&self, job: &JobId) -> Result<Vec<u8>, postcard::Error> {
        let mut bytes = [CONTEXT, &job.0].concat();
        bytes.extend(postcard::to_stdvec(&Self { signature: Vec::new(), ..self.clone() })?);
        Ok(bytes)
    }
}

/// Collects results until there is a receipt's worth.
#[derive(Debug)]
pub(crate) struct Collected {
    start: u64,
    count: u64,
    elapsed_us: u64,
    raw: Vec<u8>,
    looked: usize,
    is_full: bool,
}

impl Collected {
    /// Nothing yet; the first result will be that of task `start`.
    pub(crate) fn new(start: u64) -> Self {
        Self { start, count: 0, elapsed_us: 0, raw: Vec::new(), looked: 0, is_full: false }
    }

    /// The task whose result was the first.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// The task whose result is next.
    pub(crate) fn next(&self) -> u64 {
        self.start + self.count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether there is enough for a receipt.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full
    }

    /// The next result.
    pub(crate) fn push(&mut self, result: TaskResult, elapsed_us: u64) -> Result<(), postcard::Error> {
        let raw = std::mem::take(&mut self.raw);
        self.raw = postcard::to_extend(&result.shortened(), raw)?;
        self.count += 1;
        self.elapsed_us += elapsed_us;
        if self.raw.len() >= FULL && self.raw.len() - self.looked >= LOOK_EVERY {
            self.looked = self.raw.len();
            let packed = lz4_flex::compress_prepend_size(&self.raw).len();
            self.is_full = packed >= FULL || self.raw.len() >= MAX_RAW / 2;
        }
        Ok(())
    }

    /// The receipt, and a new start behind it.
    pub(crate) fn close(
        &mut self,
        job: &JobId,
        generation: u32,
        at_ms: u64,
        me: &Identity,
    ) -> Result<SliceReceipt, postcard::Error> {
        let next = self.next();
        let done = std::mem::replace(self, Self::new(next));
        let mut receipt = SliceReceipt {
            generation,
            range: done.start..next,
            by: me.peer_id(),
            at_ms,
            elapsed_us: done.elapsed_us,
            results: Chunk(lz4_flex::compress_prepend_size(&done.raw).into()),
            signature: Vec::new(),
        };
        receipt.signature = me.sign(&receipt.signed_bytes(job)?);
        Ok(receipt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: JobId = JobId([7; 16]);

    fn noise(seed: u64, length: usize) -> Bytes {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes.into()
    }

    fn result(seed: u64, length: usize) -> TaskResult {
        let said = |part| Said::here(noise(seed * 2 + part, length));
        let outcome = Outcome::Failed { reason: "x".repeat(10_000) };
        TaskResult { outcome, tries: 1, elapsed_ms: 5, stdout: said(0), stderr: said(1) }
    }

    #[test]
    fn a_receipt_fits_into_a_cell_however_little_its_results_compress() {
        for length in [0, 1, 100, 1000, MAX_INLINE] {
            let (me, mut collected) = (Identity::generate(), Collected::new(3));
            let mut all = Vec::new();
            while !collected.is_full() {
                all.push(result(collected.next(), length));
                collected.push(all.last().unwrap().clone(), 10).unwrap();
            }
            let receipt = collected.close(&JOB, 0, 1, &me).unwrap();
            let bytes = receipt.encode().unwrap();
            assert!(bytes.len() <= 16 << 10, "{} bytes of {length}", bytes.len());
            assert_eq!(receipt.range, 3..collected.next());
            assert!(collected.is_empty());
            let (read, results) = SliceReceipt::decode(&bytes, &JOB).unwrap();
            assert_eq!(read, receipt);
            assert_eq!(results, all.into_iter().map(TaskResult::shortened).collect::<Vec<_>>());
        }
    }

    #[test]
    fn tasks_that_say_nothing_cost_next_to_nothing() {
        let (me, mut collected) = (Identity::generate(), Collected::new(0));
        for _ in 0..10_000 {
            collected.push(TaskResult::exited(0), 20).unwrap();
        }
        assert!(!collected.is_full());
        let bytes = collected.close(&JOB, 0, 1, &me).unwrap().encode().unwrap();
        assert!(bytes.len() < 1000, "{} bytes", bytes.len());
    }

    #[test]
    fn what_was_changed_or_signed_for_another_batch_is_not_believed() {
        let (me, mut collected) = (Identity::generate(), Collected::new(0));
        collected.push(result(1, 10), 1).unwrap();
        let receipt = collected.close(&JOB, 0, 1, &me).unwrap();
        let other = SliceReceipt::decode(&receipt.encode().unwrap(), &JobId([8; 16]));
        assert_eq!(other.unwrap_err(), BadReceipt::Signature);
        let longer = SliceReceipt { range: 0..2, ..receipt.clone() };
        assert_eq!(SliceReceipt::decode(&longer.encode().unwrap(), &JOB).unwrap_err(), BadReceipt::Signature);
        let bomb = SliceReceipt { results: Chunk(vec![0xff; 64].into()), ..receipt };
        assert_eq!(bomb.results(), None);
        assert_eq!(SliceReceipt::decode(&[], &JOB).unwrap_err(), BadReceipt::Malformed);
    }
}
