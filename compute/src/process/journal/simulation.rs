//! Halves of a swarm that each have an owner, nodes that die with what only they know, and cells that come late: in the end every
//! event is in the state exactly once.

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use starfish_memory::Author;

use super::*;

/// A replica: the cells, and the journal that is told of them.
struct Replica {
    me: PeerId,
    cells: BTreeMap<Field, (Stamp, Option<Vec<u8>>)>,
    journal: Journal,
    is_alive: bool,
}

struct Swarm {
    replicas: Vec<Replica>,
    clock: u64,
    chance: StdRng,
    sent: Vec<EventId>,
}

impl Replica {
    fn take(&mut self, field: Field, stamp: Stamp, value: Option<Vec<u8>>) {
        if self.cells.get(&field).is_none_or(|(old, _)| *old < stamp) {
            self.journal.apply(field, stamp, value.as_deref());
            self.cells.insert(field, (stamp, value));
        }
    }
}

impl Swarm {
    fn new(size: usize, seed: u64) -> Self {
        let replica = |_| Replica {
            me: PeerId::random(),
            cells: BTreeMap::new(),
            journal: Journal::default(),
            is_alive: true,
        };
        let replicas = (0..size).map(replica).collect();
        let mut swarm = Self { replicas, clock: 0, chance: StdRng::seed_from_u64(seed), sent: Vec::new() };
        let spec = Spec { function: "f".parse().unwrap(), by: PeerId::random(), since_ms: 0, tag: 7 };
        swarm.write(0, vec![(Field::Spec, Some(encode(&spec).unwrap()))]);
        for to in 1..size {
            swarm.sync(0, to);
        }
        swarm
    }

    /// One node writes; all cells of a batch have one stamp.
    fn write(&mut self, at: usize, writes: Vec<Write>) {
        self.clock += 1;
        let stamp = Stamp { time: self.clock, author: Author::of(&self.replicas[at].me) };
        for (field, value) in writes {
            self.replicas[at].take(field, stamp, value);
        }
    }

    /// One node tells another all that it knows, in an order of chance.
    fn sync(&mut self, from: usize, to: usize) {
        let mut cells: Vec<_> = self.replicas[from].cells.clone().into_iter().collect();
        while !cells.is_empty() {
            let (field, (stamp, value)) = cells.swap_remove(self.chance.random_range(0..cells.len()));
            self.replicas[to].take(field, stamp, value);
        }
    }

    fn send(&mut self, at: usize) {
        let id = EventId(self.chance.random());
        let event =
            Event { tag: 7, handler: "h".parse().unwrap(), data: Vec::new(), at_ms: self.clock, from: None };
        self.write(at, vec![(Field::Event(id), Some(encode(&event).unwrap()))]);
        self.sent.push(id);
    }

    /// One node handles an event, if one waits: its id goes to the end of the state.
    fn handle(&mut self, at: usize) -> bool {
        let (journal, me) = (&self.replicas[at].journal, self.replicas[at].me);
        let Some(event) = journal.next() else { return false };
        let before = journal.snapshot().map(|snapshot| snapshot.state.clone()).unwrap_or_default();
        let state = [&before[..], &event.0[..2]].concat();
        let now_ms = Stamp { time: self.clock, author: Author::of(&me) }.unix_ms();
        let writes = journal.handled(event, Some(state), Ok(Vec::new()), (me, now_ms)).unwrap();
        self.write(at, writes);
        true
    }

    fn applied(&self, at: usize) -> Vec<Vec<u8>> {
        let state = self.replicas[at].journal.snapshot().map(|snapshot| snapshot.state.clone());
        let mut applied: Vec<_> = state.unwrap_or_default().chunks(2).map(<[u8]>::to_vec).collect();
        applied.sort();
        applied
    }
}

fn live_through(size: usize, steps: usize, seed: u64) {
    let mut swarm = Swarm::new(size, seed);
    for _ in 0..steps {
        let at = swarm.chance.random_range(0..size);
        if !swarm.replicas[at].is_alive {
            continue;
        }
        match swarm.chance.random_range(0..100) {
            0..30 => swarm.send(at),
            // Several take themselves for the owner.
            30..75 => drop(swarm.handle(at)),
            75..98 => {
                let to = swarm.chance.random_range(0..size);
                swarm.sync(at, to);
            }
            // What it has acknowledged comes back with it, at the end.
            _ => swarm.replicas[at].is_alive = false,
        }
    }
    for _ in 0..2 {
        for from in 0..size {
            (0..size).for_each(|to| swarm.sync(from, to));
        }
    }
    while swarm.handle(0) {}
    (1..size).for_each(|to| swarm.sync(0, to));
    let mut expected: Vec<_> = swarm.sent.iter().map(|id| id.0[..2].to_vec()).collect();
    expected.sort();
    for at in 0..size {
        assert_eq!(swarm.applied(at), expected, "replica {at} of {size}, seed {seed}");
        assert_eq!(swarm.replicas[at].journal.pending(), 0);
        let snapshot = swarm.replicas[at].journal.snapshot();
        assert_eq!(snapshot.map_or(0, |snapshot| snapshot.handled), swarm.sent.len() as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn every_event_is_in_the_state_exactly_once(size in 1..5_usize, steps in 0..1500_usize, seed: u64) {
        live_through(size, steps, seed);
    }
}

#[test]
fn lists_are_sealed_shared_and_dropped_in_time() {
    let mut swarm = Swarm::new(2, 1);
    for _ in 0..SEAL_AT + 2 * LIST + 5 {
        swarm.send(0);
        swarm.handle(0);
    }
    swarm.sync(0, 1);
    let snapshot = swarm.replicas[1].journal.snapshot().unwrap();
    assert_eq!((snapshot.open.len(), snapshot.sealed.len()), (SEAL_AT - LIST + 5, 3));
    assert_eq!(swarm.replicas[1].journal.pending(), 0);

    // A day later the first list goes, with its events; the others stay.
    swarm.clock += (24 * 3600 + 1) << 32;
    swarm.send(1);
    assert!(swarm.handle(1));
    swarm.sync(1, 0);
    let left = |replica: &Replica| replica.cells.values().filter(|(_, value)| value.is_some()).count();
    let events = SEAL_AT + LIST + 6;
    for replica in &swarm.replicas {
        assert_eq!(
            left(replica),
            2 + 2 + 2 * events,
            "the spec and the state, two lists, events and answers"
        );
        assert_eq!(replica.journal.snapshot().unwrap().handled, (SEAL_AT + 2 * LIST + 6) as u64);
    }
}

#[test]
fn the_lists_of_a_state_that_did_not_win_go_as_well() {
    let mut swarm = Swarm::new(2, 4);
    for (at, events) in [(0, SEAL_AT), (1, SEAL_AT + 1)] {
        for _ in 0..events {
            swarm.send(at);
            swarm.handle(at);
        }
    }
    swarm.sync(0, 1);
    while swarm.handle(1) {}
    let lists = |swarm: &Swarm| swarm.replicas[1].journal.sealed.len();
    assert_eq!(
        lists(&swarm),
        4,
        "one of node 0, and three of node 1, the last of which its state does not name yet"
    );
    swarm.clock += (25 * 3600) << 32;
    for _ in 0..4 {
        swarm.send(1);
        assert!(swarm.handle(1));
    }
    assert_eq!(lists(&swarm), 0);

    // The one that went too early is written once more when it is named.
    while swarm.replicas[1].journal.snapshot().unwrap().sealed.is_empty() {
        swarm.send(1);
        assert!(swarm.handle(1));
    }
    swarm.sync(1, 0);
    for replica in &swarm.replicas {
        assert_eq!((replica.journal.sealed.len(), replica.journal.is_torn), (1, false));
    }
}

#[test]
fn a_state_waits_for_the_lists_that_it_names() {
    let mut swarm = Swarm::new(2, 2);
    for _ in 0..SEAL_AT {
        swarm.send(0);
        swarm.handle(0);
    }
    let cells = swarm.replicas[0].cells.clone();
    let (lists, others): (Vec<_>, Vec<_>) =
        cells.into_iter().partition(|(field, _)| matches!(field, Field::Sealed(_)));
    for (field, (stamp, value)) in others {
        swarm.replicas[1].take(field, stamp, value);
    }
    assert_eq!(swarm.replicas[1].journal.next(), None, "nobody knows yet whether any of them waits");
    for (field, (stamp, value)) in lists {
        swarm.replicas[1].take(field, stamp, value);
    }
    assert_eq!((swarm.replicas[1].journal.pending(), swarm.replicas[1].journal.next()), (0, None));
}

#[test]
fn a_process_that_is_begun_anew_knows_nothing_of_the_one_before() {
    let mut swarm = Swarm::new(1, 3);
    swarm.send(0);
    swarm.handle(0);
    swarm.send(0);
    let spec = Spec { function: "f".parse().unwrap(), by: PeerId::random(), since_ms: 9, tag: 8 };
    swarm.write(0, vec![(Field::Spec, Some(encode(&spec).unwrap()))]);
    let journal = &swarm.replicas[0].journal;
    assert_eq!((journal.snapshot(), journal.next(), journal.pending()), (None, None, 0));
}
