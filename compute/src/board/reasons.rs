//! Why a job is still pending, in words.

use starfish_dht::PeerId;

use super::{Board, Kept, Millis};
use crate::notice::Capacity;
use crate::task::{JobId, Mebibytes};

impl Board {
    /// Why a pending job that this node keeps has no node yet: what stands in the way, node by node.
    pub fn why_pending(&self, now: Millis, job: &JobId) -> Option<String> {
        let kept = self.kept.get(job)?;
        let mut reason = match kept.terms.on {
            Some(on) => format!("it must run on {on}, which {}", self.obstacle(now, kept, on)),
            None => self.obstacles(now, kept),
        };
        if let Some((by, why)) = kept.lost.last() {
            reason += &format!(
                "; {} of {} attempts were lost, the last on {by}: {why}",
                kept.lost.len(),
                kept.attempts
            );
        }
        if let Some((by, why)) = &kept.declined {
            reason += &format!("; {by} declined it: {why}");
        }
        Some(reason)
    }

    fn obstacles(&self, now: Millis, kept: &Kept) -> String {
        let nodes = std::iter::once(self.me).chain(self.peers.keys().copied());
        let obstacles: Vec<_> =
            nodes.map(|node| format!("{node} {}", self.obstacle(now, kept, node))).collect();
        format!("no node can take it now ({})", obstacles.join("; "))
    }

    /// What keeps `node` from running the job.
    fn obstacle(&self, now: Millis, kept: &Kept, node: PeerId) -> String {
        let capacity = self.capacity_of(node);
        let needed = kept.terms.memory_bytes;
        match capacity {
            None if self.peers.contains_key(&node) => "has not said yet what it can take".to_owned(),
            None => "is not connected".to_owned(),
            Some(Capacity { memory_bytes, .. }) if memory_bytes < needed => {
                format!(
                    "gives a task at most {}, and {} are needed",
                    Mebibytes(memory_bytes),
                    Mebibytes(needed)
                )
            }
            Some(Capacity { slots, free: 0, .. }) => format!("has all of its {slots} slots busy"),
            Some(_) if kept.is_paused(node, now) => "lost or declined it a moment ago".to_owned(),
            Some(_) => "has a free slot and was asked".to_owned(),
        }
    }
}
