//! Files on their way to full durability. Pure.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::hash::BlobHash;
use crate::manifest::Segment;
use crate::path::VfsPath;
use crate::tree::{Inode, Stamp};

/// The most bytes of segments in one round.
const ROUND_BYTES: u64 = 4 << 20;
/// The most segments in one round.
const ROUND_SEGMENTS: usize = 512;

/// A file that was written.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// Where it was written to.
    pub(crate) path: VfsPath,
    /// Its segments (and its manifest, if that is a blob), as far as they are not placed.
    pub(crate) segments: Vec<Segment>,
    /// Its inode and those of the directories above it, with the stamps of their contents.
    pub(crate) names: Vec<(Inode, Stamp)>,
}

/// What waits for full durability.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Files.
    pub files: u64,
    /// The bytes of their segments that are not placed yet.
    pub bytes: u64,
    /// Why, in words; `None` while all goes well.
    pub why: Option<String>,
}

/// A file, and the names that everybody must have of it.
pub(super) type Unconfirmed = (u64, Vec<(Inode, Stamp)>);

#[derive(Debug)]
struct State {
    path: VfsPath,
    left: HashSet<BlobHash>,
    bytes: u64,
    names: Vec<(Inode, Stamp)>,
    /// When the last of its segments was placed.
    placed: Option<Instant>,
}

/// All that waits, in the order in which it came.
#[derive(Debug, Default)]
pub(super) struct Queue {
    jobs: BTreeMap<u64, State>,
    next: u64,
    /// Segments to be sent.
    ready: VecDeque<Segment>,
    /// Whose they are; a segment that several files share is sent once.
    owners: HashMap<BlobHash, Vec<u64>>,
    why: Option<String>,
}

impl Queue {
    pub(super) fn add(&mut self, job: Job) {
        let id = self.next;
        self.next += 1;
        let (mut left, mut bytes) = (HashSet::new(), 0);
        for segment in job.segments {
            if !left.insert(segment.hash) {
                continue;
            }
            bytes += u64::from(segment.len);
            let owners = self.owners.entry(segment.hash).or_default();
            if owners.is_empty() {
                self.ready.push_back(segment);
            }
            owners.push(id);
        }
        let placed = left.is_empty().then(Instant::now);
        self.jobs.insert(id, State { path: job.path, left, bytes, names: job.names, placed });
    }

    /// Segments to be sent next; they are handed out once.
    pub(super) fn take_round(&mut self) -> Vec<Segment> {
        let (mut round, mut bytes) = (Vec::new(), 0);
        while let Some(segment) = self.ready.front() {
            bytes += u64::from(segment.len);
            if !round.is_empty() && (bytes > ROUND_BYTES || round.len() >= ROUND_SEGMENTS) {
                break;
            }
            round.extend(self.ready.pop_front());
        }
        round
    }

    /// The same, if there is as much as one round takes.
    pub(super) fn take_full_round(&mut self) -> Vec<Segment> {
        let mut bytes = 0;
        let mut sums = self.ready.iter().take(ROUND_SEGMENTS).map(|segment| {
            bytes += u64::from(segment.len);
            bytes
        });
        let is_full = self.ready.len() >= ROUND_SEGMENTS || sums.any(|bytes| bytes >= ROUND_BYTES);
        if is_full { self.take_round() } else { Vec::new() }
    }

    /// Segments were placed; or, with a reason, were not and are to be sent again.
    pub(super) fn sent(&mut self, segments: &[Segment], why: Option<String>) {
        if why.is_some() {
            self.ready.extend(segments);
            self.why = why;
            return;
        }
        if !segments.is_empty() {
            self.why = None;
        }
        for segment in segments {
            for id in self.owners.remove(&segment.hash).into_iter().flatten() {
                let Some(job) = self.jobs.get_mut(&id) else { continue };
                if job.left.remove(&segment.hash) {
                    job.bytes = job.bytes.saturating_sub(segment.len.into());
                }
                if job.left.is_empty() {
                    job.placed = Some(Instant::now());
                }
            }
        }
    }

    /// Files whose segments are placed, with their names, and since when the first of them waits.
    pub(super) fn unconfirmed(&self, max: usize) -> (Vec<Unconfirmed>, Instant) {
        let (mut jobs, mut n_names) = (Vec::new(), 0);
        let mut since = Instant::now();
        for (id, job) in &self.jobs {
            let Some(placed) = job.placed else { continue };
            n_names += job.names.len();
            if !jobs.is_empty() && n_names > max {
                break;
            }
            since = since.min(placed);
            jobs.push((*id, job.names.clone()));
        }
        (jobs, since)
    }

    /// Everybody has the names of these files.
    pub(super) fn confirmed(&mut self, jobs: &[u64]) {
        for id in jobs {
            self.jobs.remove(id);
        }
    }

    pub(super) fn waiting(&self, path: &VfsPath) -> Waiting {
        let jobs = self.jobs.values().filter(|job| job.path == *path || job.path.starts_with(path));
        let (files, bytes) = jobs.fold((0, 0), |(files, bytes), job| (files + 1, bytes + job.bytes));
        Waiting { files, bytes, why: self.why.clone().filter(|_| files > 0) }
    }

    pub(super) fn is_waiting(&self, segment: &BlobHash) -> bool {
        self.owners.contains_key(segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> VfsPath {
        VfsPath::parse(text).unwrap()
    }

    fn segment(name: &str, len: u32) -> Segment {
        Segment { hash: BlobHash::of(name.as_bytes()), len }
    }

    fn job(at: &str, segments: &[Segment]) -> Job {
        Job { path: path(at), segments: segments.to_vec(), names: vec![(Inode::ROOT, Stamp::default())] }
    }

    #[test]
    fn a_file_waits_for_its_last_segment_and_its_name() {
        let mut queue = Queue::default();
        let (a, b) = (segment("a", 10), segment("b", 5));
        queue.add(job("/x/one", &[a, b, a]));
        queue.add(job("/x/two", &[b]));
        assert_eq!(queue.take_round(), [a, b], "what files share is sent once");
        assert!(queue.take_round().is_empty());
        queue.sent(&[b], None);
        assert_eq!(queue.waiting(&path("/x")), Waiting { files: 2, bytes: 10, why: None });
        let (jobs, _) = queue.unconfirmed(10);
        assert_eq!(jobs.len(), 1);
        queue.confirmed(&[]);
        assert_eq!(queue.waiting(&path("/x/two")).files, 1);
        queue.confirmed(&[1]);
        assert_eq!(queue.waiting(&path("/x/two")).files, 0);
        queue.sent(&[a], Some("nobody is there".into()));
        assert_eq!(queue.waiting(&path("/")).why.as_deref(), Some("nobody is there"));
        assert_eq!(queue.take_round(), [a]);
        queue.sent(&[a], None);
        queue.confirmed(&[0]);
        assert_eq!(queue.waiting(&path("/")), Waiting::default());
    }

    #[test]
    fn rounds_are_bounded() {
        let mut queue = Queue::default();
        let many: Vec<Segment> = (0..10).map(|n| segment(&n.to_string(), 3 << 20)).collect();
        queue.add(job("/f", &many));
        assert_eq!(queue.take_round().len(), 1);
        assert_eq!(queue.take_full_round().len(), 1);
        let mut few = Queue::default();
        few.add(job("/g", &many[..1]));
        assert!(few.take_full_round().is_empty(), "more may come");
        let huge = segment("huge", 64 << 20);
        let mut queue = Queue::default();
        queue.add(job("/f", &[huge]));
        assert_eq!(queue.take_round(), [huge], "what is alone longer goes alone");
    }
}
