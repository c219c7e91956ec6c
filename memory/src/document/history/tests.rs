//! Several nodes that edit, close epochs, tidy up and tell each other in any order.

use std::collections::{BTreeMap, BTreeSet};

use automerge::ActorId;
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    cell::{Author, Cell, Content, SpaceName, Stamp},
    document::{
        change,
        edit::{self, Edit},
        epoch::Epoch,
        pack::Purpose,
        packs::Packs,
        state::Document,
        tidy::{Settled, tidying},
    },
};

fn cell((field, value): (Bytes, Bytes)) -> Cell {
    Cell {
        space: SpaceName::new("s").unwrap(),
        key: "k".into(),
        field,
        stamp: Stamp { time: 1, author: Author::from_bytes([1; 16]) },
        content: Content::Value(value),
        expires_ms: None,
        renews: None,
    }
}

/// A node: its cells, and the document that it holds open.
struct Node {
    cells: BTreeMap<Bytes, Cell>,
    document: Document,
    settled: Settled,
    packs: Packs,
    /// With whom it has exchanged everything since it knows of the epoch.
    met: BTreeSet<usize>,
}

impl Node {
    fn new() -> Self {
        Self {
            cells: BTreeMap::new(),
            document: Document::default(),
            settled: Settled::default(),
            packs: Packs::default(),
            met: BTreeSet::new(),
        }
    }

    fn bytes(&self) -> usize {
        self.cells.values().map(|cell| cell.field.len() + value_of(cell).len()).sum()
    }

    fn take(&mut self, cells: Vec<Cell>) {
        let epoch = self.document.epoch();
        let admitted =
            |cell: &Cell| !self.settled.holds(&cell.field) && !self.cells.contains_key(&cell.field);
        let news: Vec<Cell> = cells.into_iter().filter(admitted).collect();
        self.cells.extend(news.iter().map(|cell| (cell.field.clone(), cell.clone())));
        if self.document.take(&news).is_err() {
            self.reload();
        }
        if self.document.epoch() != epoch {
            self.met.clear();
        }
    }

    fn reload(&mut self) {
        self.document = Document::load(self.cells.values(), &self.packs);
    }

    fn edit(&mut self, who: usize, edits: Value) {
        let edits: Vec<Edit> = serde_json::from_value(edits).unwrap();
        let actor = ActorId::from(vec![u8::try_from(who).unwrap(); 16]);
        let changes = self.document.edit(&actor, |editor| edit::apply(editor, &edits)).unwrap();
        let epoch = self.document.epoch();
        let cells = changes.iter().flat_map(|change| change::cells_of(epoch, change).unwrap()).map(cell);
        self.cells.extend(cells.map(|cell| (cell.field.clone(), cell)));
    }

    fn pack(&mut self, purpose: Purpose) {
        let cells = self.document.pack(purpose).unwrap();
        self.take(cells.into_iter().map(cell).collect());
    }

    fn tidy(&mut self) {
        let cells: Vec<Cell> = self.cells.values().cloned().collect();
        let Some(tidying) = tidying(&cells, &self.packs) else { return };
        self.take(tidying.write.into_iter().map(cell).collect());
        for field in tidying.remove {
            self.cells.remove(&field);
        }
        self.settled = tidying.settled;
    }
}

fn value_of(cell: &Cell) -> &Bytes {
    match &cell.content {
        Content::Value(value) => value,
        Content::Large(_) | Content::Kept(_) | Content::Tombstone => panic!("no value"),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Edit(usize, usize, usize),
    /// Some of one node's cells reach another.
    Deliver(usize, usize, u64),
    /// Two exchange everything.
    Sync(usize, usize),
    Close(usize),
    Fold(usize),
    Tidy(usize),
    Restart(usize),
}

fn any_step(nodes: usize) -> impl Strategy<Value = Step> {
    let who = move || 0..nodes;
    prop_oneof![
        10 => (who(), 0usize..6, 0usize..1000).prop_map(|(who, kind, at)| Step::Edit(who, kind, at)),
        2 => (who(), who(), any::<u64>()).prop_map(|(from, to, seed)| Step::Deliver(from, to, seed)),
        3 => (who(), who()).prop_map(|(a, b)| Step::Sync(a, b)),
        3 => who().prop_map(Step::Close),
        1 => who().prop_map(Step::Fold),
        2 => who().prop_map(Step::Tidy),
        1 => who().prop_map(Step::Restart),
    ]
}

/// The nodes, and what they were told is kept.
struct World {
    nodes: Vec<Node>,
    edits: u32,
    sum: i64,
    keys: BTreeSet<String>,
    pushed: BTreeSet<u32>,
    marks: BTreeSet<char>,
}

impl World {
    fn new(n: usize) -> Self {
        let mut nodes: Vec<Node> = (0..n).map(|_| Node::new()).collect();
        nodes[0].edit(
            0,
            json!([
                {"op": "set", "path": "/list", "value": []},
                {"op": "splice-text", "path": "/text", "at": 0, "insert": "x".repeat(40)},
            ]),
        );
        let cells: Vec<Cell> = nodes[0].cells.values().cloned().collect();
        nodes[1..].iter_mut().for_each(|node| node.take(cells.clone()));
        let (keys, pushed, marks) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        Self { nodes, edits: 0, sum: 0, keys, pushed, marks }
    }

    fn edit(&mut self, who: usize, kind: usize, at: usize) {
        self.edits += 1;
        let number = self.edits;
        let text: Vec<char> = self.nodes[who].document.value()["text"].as_str().unwrap().chars().collect();
        let place = at % (text.len() + 1);
        let edit = match kind {
            0 => {
                self.sum += 1;
                json!({"op": "increment", "path": "/n", "by": 1})
            }
            1 => {
                self.keys.insert(format!("key {number}"));
                json!({"op": "set", "path": format!("/key {number}"), "value": {"a": number}})
            }
            2 => {
                self.pushed.insert(number);
                json!({"op": "push", "path": "/list", "value": number})
            }
            3 => {
                let mark = char::from_u32(0x4e00 + number).unwrap();
                self.marks.insert(mark);
                json!({"op": "splice-text", "path": "/text", "at": place, "insert": mark.to_string()})
            }
            4 if text.get(place) == Some(&'x') => {
                json!({"op": "splice-text", "path": "/text", "at": place, "delete": 1})
            }
            _ => json!({"op": "set", "path": "/last", "value": number}),
        };
        self.nodes[who].edit(who, json!([edit]));
    }

    fn deliver(&mut self, from: usize, to: usize, chosen: impl Fn(&Cell) -> bool) {
        let cells: Vec<Cell> = self.nodes[from].cells.values().filter(|cell| chosen(cell)).cloned().collect();
        self.nodes[to].take(cells);
    }

    fn sync(&mut self, a: usize, b: usize) {
        self.deliver(a, b, |_| true);
        self.deliver(b, a, |_| true);
        if self.nodes[a].document.epoch() == self.nodes[b].document.epoch() {
            self.nodes[a].met.insert(b);
            self.nodes[b].met.insert(a);
        }
    }

    fn may_close(&self, who: usize) -> bool {
        let node = &self.nodes[who];
        node.document.epoch() == Epoch::FIRST || node.met.len() + 1 == self.nodes.len()
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Edit(who, kind, at) => self.edit(who, kind, at),
            Step::Deliver(from, to, _) | Step::Sync(from, to) if from == to => {}
            Step::Deliver(from, to, seed) => self.deliver(from, to, |cell| {
                let hash = blake3::hash(&[&seed.to_le_bytes(), cell.field.as_ref()].concat());
                hash.as_bytes()[0] < 128
            }),
            Step::Sync(a, b) => self.sync(a, b),
            Step::Close(who) => {
                if self.may_close(who) {
                    self.nodes[who].pack(Purpose::Close);
                }
            }
            Step::Fold(who) => self.nodes[who].pack(Purpose::Fold),
            Step::Tidy(who) => self.nodes[who].tidy(),
            Step::Restart(who) => {
                self.nodes[who].reload();
                self.nodes[who].settled = Settled::default();
                self.nodes[who].met.clear();
            }
        }
    }

    /// Everybody tells everybody until nothing changes any more.
    fn settle(&mut self) {
        for _ in 0..6 {
            for a in 0..self.nodes.len() {
                for b in 0..a {
                    self.sync(a, b);
                }
            }
            self.nodes.iter_mut().for_each(Node::tidy);
        }
    }

    fn check(&self) {
        let fields = |node: &Node| node.cells.keys().cloned().collect::<Vec<_>>();
        let value = self.nodes[0].document.value();
        for node in &self.nodes {
            assert_eq!(fields(node), fields(&self.nodes[0]), "all hold the same cells");
            assert_eq!(node.document.value(), value);
            assert_eq!(
                Document::load(node.cells.values(), &Packs::default()).value(),
                value,
                "also after a restart"
            );
            assert_eq!(node.document.damaged(), 0);
        }
        assert_eq!(value["n"].as_i64().unwrap_or_default(), self.sum);
        for key in &self.keys {
            assert!(value[key].is_object(), "{key} is lost");
        }
        let listed = value["list"].as_array().unwrap();
        let pushed: BTreeSet<u32> = listed.iter().map(|number| number.as_u64().unwrap() as u32).collect();
        assert_eq!((pushed, listed.len()), (self.pushed.clone(), self.pushed.len()));
        let marked = value["text"].as_str().unwrap().chars().filter(|mark| *mark != 'x');
        let (marks, n) = (marked.clone().collect::<BTreeSet<char>>(), marked.count());
        assert_eq!((marks, n), (self.marks.clone(), self.marks.len()));
    }
}

proptest! {
    #[test]
    fn nothing_is_lost_and_all_agree_whoever_closes_epochs_and_whenever(
        steps in proptest::collection::vec(any_step(3), 0..60),
    ) {
        let mut world = World::new(3);
        steps.into_iter().for_each(|step| world.step(step));
        world.settle();
        world.check();
    }
}

#[test]
fn the_history_of_a_counter_that_is_counted_for_ever_does_not_grow() {
    let mut node = Node::new();
    node.edit(0, json!([{"op": "increment", "path": "/n", "by": 1}]));
    let mut largest = 0;
    for _ in 0..20 {
        for _ in 0..100 {
            node.edit(0, json!([{"op": "increment", "path": "/n", "by": 1}]));
        }
        node.pack(Purpose::Close);
        node.tidy();
        largest = largest.max(node.bytes());
    }
    assert_eq!(node.document.value(), json!({"n": 2001}));
    assert!(largest < 2500, "{largest} bytes");
}

/// What a document takes in this process, in bytes.
fn resident(node: &Node) -> usize {
    let resident = || {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        4096 * pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap()
    };
    let before = resident();
    let held: Vec<Document> =
        (0..100).map(|_| Document::load(node.cells.values(), &Packs::default())).collect();
    (resident() - before) / held.len()
}

#[test]
#[ignore = "looks at what the whole process takes, so it must run alone"]
fn a_document_edited_often_takes_no_more_memory_than_a_copy_of_it() {
    let text = |text: &str| json!([{"op": "splice-text", "path": "/text", "at": 0, "insert": text}]);
    let mut node = Node::new();
    node.edit(0, text(&"word ".repeat(2000)));
    for i in 0..2000 {
        let edit = match i % 3 {
            0 => {
                json!({"op": "splice-text", "path": "/text", "at": i * 7919 % 10_000, "delete": 1, "insert": "e"})
            }
            1 => json!({"op": "increment", "path": "/n"}),
            _ => json!({"op": "set", "path": "/last", "value": i}),
        };
        node.edit(i % 2, json!([edit]));
        if i % 170 == 169 {
            node.pack(Purpose::Close);
            node.tidy();
        }
    }
    let value = node.document.value();
    let content = value.to_string().len();
    assert!(node.bytes() < 10 * content, "{} bytes in cells for {content}", node.bytes());
    let mut copy = Node::new();
    copy.edit(0, text(value["text"].as_str().unwrap()));
    let (plain, edited) = (resident(&copy), resident(&node));
    assert!(edited < 2 * plain, "{edited} bytes in memory, {plain} without a history, for {content}");
}
