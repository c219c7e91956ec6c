//! Some nodes of one swarm.

use std::fs;
use std::sync::{Mutex, PoisonError};
use std::thread;

use tempfile::TempDir;

use crate::node::{Node, Start};
use crate::scratch::Scratch;
use crate::wait::wait_until;

/// How much of a log is shown when a test fails.
const SHOWN_LOG_LINES: usize = 60;

/// Some nodes of one swarm, and a folder for the test's own files. All of it ends with the test.
#[derive(Debug)]
pub struct Swarm {
    nodes: Vec<Node>,
    /// Who refuses whom.
    cuts: Mutex<Vec<(usize, usize)>>,
    scratch: Scratch,
    // The last to go: the nodes write into it.
    folder: TempDir,
}

impl Swarm {
    /// Starts `size` nodes; the first founds the swarm, and all know each other when this returns.
    #[track_caller]
    pub fn start(size: usize) -> Self {
        Self::start_as(vec![Start::default(); size])
    }

    /// The same, each node in its own way.
    #[track_caller]
    pub fn start_as(starts: impl IntoIterator<Item = Start>) -> Self {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let scratch = Scratch::new(folder.path().join("scratch"));
        let mut swarm = Self { nodes: Vec::new(), cuts: Mutex::default(), scratch, folder };
        for start in starts {
            if swarm.nodes.is_empty() {
                let founder = swarm.prepare(start);
                swarm.node(founder).restart();
            } else {
                let start = swarm.invited(start);
                swarm.prepare(start);
            }
        }
        thread::scope(|scope| {
            for node in swarm.nodes.iter().skip(1) {
                scope.spawn(|| node.restart());
            }
        });
        swarm.wait_connected();
        swarm
    }

    /// One more node, that becomes a member through the first one that is running.
    #[track_caller]
    pub fn add(&mut self) -> usize {
        self.add_as(Start::default())
    }

    /// The same, in this way; with a ticket of its own, it joins wherever that leads.
    #[track_caller]
    pub fn add_as(&mut self, start: Start) -> usize {
        let start = self.invited(start);
        let index = self.prepare(start);
        self.node(index).restart();
        index
    }

    #[track_caller]
    fn invited(&self, start: Start) -> Start {
        if start.has_ticket() {
            return start;
        }
        let member = self.running().next().expect("somebody is there to invite");
        start.with_ticket(member.invite())
    }

    /// One more node, that is not started.
    pub fn prepare(&mut self, start: Start) -> usize {
        let index = self.nodes.len();
        let name = format!("n{index}");
        let home = self.folder.path().join(&name);
        fs::create_dir(&home).expect("there is room for a folder");
        self.nodes.push(Node::new(name, home, start));
        index
    }

    /// The node with this number, from 0.
    #[track_caller]
    pub fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// All nodes, running or not.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.is_running())
    }

    /// The folder for the test's own files.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Waits until every running node has a connection to every other one.
    #[track_caller]
    pub fn wait_connected(&self) {
        let ids: Vec<String> = self.running().map(Node::id).collect();
        for node in self.running() {
            let others = || ids.iter().filter(|id| **id != node.id());
            wait_until(&format!("{} is connected to all others", node.name()), || {
                others().all(|id| node.is_connected_to(id))
            });
        }
    }

    /// Waits until all running nodes hold the same in their memory.
    #[track_caller]
    pub fn wait_same_memory(&self) {
        wait_until("all hold the same in their memory", || {
            let mut digests = self.running().map(|node| node.json(["status"])["memory_digest"].to_string());
            let first = digests.next();
            digests.all(|digest| Some(digest) == first)
        });
    }

    /// Fails if the process of a running node ever had more memory than `limit` bytes.
    #[track_caller]
    pub fn assert_memory_below(&self, limit: u64) {
        for node in self.running() {
            let peak = node.peak_memory();
            eprintln!("{} had {} MiB of memory at the most", node.name(), peak >> 20);
            assert!(peak < limit, "{} had {peak} bytes of memory, more than {limit}", node.name());
        }
    }

    /// Cuts all connections between the nodes of `left` and those of `right`, until [`Swarm::heal`].
    #[track_caller]
    pub fn partition(&self, left: &[usize], right: &[usize]) {
        let one_way = |from: &[usize], to: &[usize]| {
            from.iter().flat_map(|a| to.iter().map(|b| (*a, *b))).collect::<Vec<_>>()
        };
        let cuts = [one_way(left, right), one_way(right, left)].concat();
        for (a, b) in &cuts {
            self.node(*a).ok(["peers", "block", &self.node(*b).id()]);
        }
        for (a, b) in &cuts {
            let (a, b) = (self.node(*a), self.node(*b));
            let what = format!("{} is cut off from {}", a.name(), b.name());
            wait_until(&what, || !a.is_connected_to(&b.id()));
        }
        self.cuts.lock().unwrap_or_else(PoisonError::into_inner).extend(cuts);
    }

    /// Takes back all [`Swarm::partition`]s. The nodes find each other again by themselves.
    #[track_caller]
    pub fn heal(&self) {
        let cuts = std::mem::take(&mut *self.cuts.lock().unwrap_or_else(PoisonError::into_inner));
        for (a, b) in cuts {
            self.node(a).ok(["peers", "unblock", &self.node(b).id()]);
        }
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        if thread::panicking() {
            self.nodes.iter().for_each(show_log);
            return;
        }
        for node in &self.nodes {
            let logs = node.logs();
            assert!(!logs.contains(" panicked at "), "{} panicked:\n{logs}", node.name());
        }
    }
}

fn show_log(node: &Node) {
    let logs = node.logs();
    let lines: Vec<&str> = logs.lines().collect();
    let shown = &lines[lines.len().saturating_sub(SHOWN_LOG_LINES)..];
    eprintln!("--- the last of {}'s {} log lines ---\n{}", node.name(), lines.len(), shown.join("\n"));
}
