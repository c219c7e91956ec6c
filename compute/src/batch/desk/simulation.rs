//! Whole swarms that work on one batch, in virtual time: claims that are lost, nodes that die in the middle (keepers
//! too) and come back, and a swarm that is cut in half and heals.

use std::collections::BTreeMap;
use std::ops::Range;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rangemap::RangeSet;
use starfish_dht::{Identity, PeerId};

use super::{Answer, Desk, SETTLE_FOR};
use crate::batch::receipt::{Collected, Said, TaskResult};
use crate::batch::results::Place;
use crate::board::Millis;
use crate::task::JobId;

/// How long a receipt takes to reach every node of a half.
const SPREADS_IN: Millis = 300;
/// How long it takes until a keeper's end is noticed.
const NOTICED_IN: Millis = 1000;
/// How often a node asks again when there was nothing for it, or no answer.
const ASKS_EVERY: Millis = 1000;

/// What may happen to a swarm.
#[derive(Clone, Copy, Debug)]
struct Weather {
    nodes: usize,
    tasks: u64,
    /// The longest that a task takes; the shortest takes no time.
    task_ms: Millis,
    /// Claims of a hundred that are lost.
    loss: u32,
    /// Nodes that die, and come back after ten seconds.
    deaths: usize,
    /// How often the keeper is killed.
    keepers_killed: usize,
    /// When the swarm is cut in half, and for how long.
    cut: Option<(Millis, Millis)>,
    seed: u64,
}

#[derive(Clone, Debug)]
enum Happening {
    Asks(usize, u32),
    /// A node has run the first tasks of what is left of its slice.
    Ran(usize, u32, Range<u64>, u64),
    Spreads(usize, Range<u64>),
    Dies(usize),
    KeeperDies,
    Returns(usize),
    Cut,
    Heals,
    Ticks,
}

/// A half of the swarm, or all of it.
#[derive(Default)]
struct Half {
    seen: RangeSet<u64>,
    desk: Option<(usize, Desk)>,
}

struct Swarm {
    weather: Weather,
    names: Vec<PeerId>,
    /// Counts the lives of a node; what a former life had begun is lost.
    lives: Vec<u32>,
    alive: Vec<bool>,
    /// Where the slice begins that a node is at work on.
    at_work: Vec<Option<u64>>,
    halves: [Half; 2],
    is_cut: bool,
    /// By their time and the order in which they were planned.
    queue: BTreeMap<(Millis, u64), Happening>,
    number: u64,
    chance: StdRng,
    runs: u64,
    messages: u64,
    receipts: Vec<Range<u64>>,
    now: Millis,
}

impl Swarm {
    fn new(weather: Weather) -> Self {
        let mut swarm = Self {
            names: (0..weather.nodes).map(|_| PeerId::random()).collect(),
            lives: vec![0; weather.nodes],
            alive: vec![true; weather.nodes],
            at_work: vec![None; weather.nodes],
            halves: Default::default(),
            is_cut: false,
            queue: BTreeMap::new(),
            number: 0,
            chance: StdRng::seed_from_u64(weather.seed),
            runs: 0,
            messages: 0,
            receipts: Vec::new(),
            now: 0,
            weather,
        };
        for node in 0..weather.nodes {
            let at = swarm.chance.random_range(0..ASKS_EVERY);
            swarm.at(at, Happening::Asks(node, 0));
        }
        let duration = weather.tasks * weather.task_ms / 2 / weather.nodes as u64;
        for _ in 0..weather.deaths {
            let (at, node) =
                (swarm.chance.random_range(0..=duration), swarm.chance.random_range(0..weather.nodes));
            swarm.at(at, Happening::Dies(node));
        }
        for number in 0..weather.keepers_killed as u64 {
            swarm.at(duration * (number + 1) / (weather.keepers_killed as u64 + 1), Happening::KeeperDies);
        }
        if let Some((from, length)) = weather.cut {
            swarm.at(from, Happening::Cut);
            swarm.at(from + length, Happening::Heals);
        }
        swarm.at(0, Happening::Ticks);
        swarm
    }

    fn at(&mut self, delay: Millis, happening: Happening) {
        self.number += 1;
        self.queue.insert((self.now + delay, self.number), happening);
    }

    /// Which half a node is in.
    fn half(&self, node: usize) -> usize {
        usize::from(self.is_cut && node % 2 == 1)
    }

    /// The first living node of a half, as if its order were that of the nodes.
    fn keeper(&self, half: usize) -> Option<usize> {
        (0..self.weather.nodes).find(|node| self.alive[*node] && self.half(*node) == half)
    }

    fn desk(&mut self, half: usize) -> Option<&mut Desk> {
        let keeper = self.keeper(half)?;
        let Half { seen, desk } = &mut self.halves[half];
        if desk.as_ref().is_none_or(|(kept_by, _)| *kept_by != keeper) {
            let settled = if self.now == 0 { 0 } else { self.now + NOTICED_IN + SETTLE_FOR };
            *desk = Some((keeper, Desk::new(self.weather.tasks, seen.clone(), settled)));
        }
        desk.as_mut().map(|(_, desk)| desk)
    }

    fn run(mut self) -> Self {
        while let Some(((now, _), happening)) = self.queue.pop_first() {
            self.now = now;
            self.happen(happening);
            let is_done = |half: &Half| half.seen.gaps(&(0..self.weather.tasks)).next().is_none();
            if !self.is_cut && is_done(&self.halves[0]) {
                return self;
            }
            assert!(self.now < 3_600_000 * 24, "the batch does not end");
        }
        panic!("nothing happens any more");
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Asks(node, life) if self.lives[node] == life && self.alive[node] => self.ask(node),
            Happening::Ran(node, life, slice, n) if self.lives[node] == life && self.alive[node] => {
                self.ran(node, slice, n);
            }
            Happening::Spreads(half, range) => {
                let half = if self.is_cut { half } else { 0 };
                self.halves[half].seen.insert(range.clone());
                if let Some((_, desk)) = &mut self.halves[half].desk {
                    desk.ended(&range, 0);
                }
            }
            Happening::Dies(node) => self.die(node),
            Happening::KeeperDies => {
                if let Some(keeper) = self.keeper(0) {
                    self.die(keeper);
                }
            }
            Happening::Returns(node) => {
                self.alive[node] = true;
                self.at(0, Happening::Asks(node, self.lives[node]));
            }
            Happening::Cut => {
                self.is_cut = true;
                self.halves[1].seen = self.halves[0].seen.clone();
            }
            Happening::Heals => {
                self.is_cut = false;
                let other = std::mem::take(&mut self.halves[1]);
                self.halves[0].seen.extend(other.seen.iter().cloned());
                for range in other.seen.iter() {
                    if let Some((_, desk)) = &mut self.halves[0].desk {
                        desk.ended(range, 0);
                    }
                }
            }
            Happening::Ticks => {
                let now = self.now;
                self.beat();
                self.halves
                    .iter_mut()
                    .filter_map(|half| half.desk.as_mut())
                    .for_each(|(_, desk)| desk.tick(now));
                self.at(1000, Happening::Ticks);
            }
            Happening::Asks(..) | Happening::Ran(..) => {}
        }
    }

    /// All that are at work give a sign of life.
    fn beat(&mut self) {
        for node in 0..self.weather.nodes {
            if let (Some(start), true) = (self.at_work[node], self.alive[node]) {
                self.messages += 1;
                let (half, name, now) = (self.half(node), self.names[node], self.now);
                if let Some((_, desk)) = &mut self.halves[half].desk {
                    desk.beat(now, start, name);
                }
            }
        }
    }

    fn die(&mut self, node: usize) {
        if !self.alive[node] || self.alive.iter().filter(|alive| **alive).count() < 2 {
            return;
        }
        self.alive[node] = false;
        self.at_work[node] = None;
        self.lives[node] += 1;
        let (half, name) = (self.half(node), self.names[node]);
        if let Some((_, desk)) = &mut self.halves[half].desk {
            desk.gone(name);
        }
        self.at(10_000, Happening::Returns(node));
    }

    fn ask(&mut self, node: usize) {
        let (half, name, life, now) = (self.half(node), self.names[node], self.lives[node], self.now);
        self.messages += 2;
        let is_lost = self.chance.random_range(0..100) < self.weather.loss;
        let answer = if is_lost { None } else { self.desk(half).map(|desk| desk.claim(now, name)) };
        match answer {
            Some(Answer::Slice(slice)) => self.work(node, slice),
            _ => self.at(ASKS_EVERY, Happening::Asks(node, life)),
        }
    }

    /// Runs what it can of a slice until it is time for a receipt.
    fn work(&mut self, node: usize, slice: Range<u64>) {
        let (mut took, mut n, now, half) = (0, 0, self.now, self.half(node));
        let span = self.desk(half).map_or(0, |desk| desk.span(now));
        while took < span && slice.start + n < slice.end {
            took += self.chance.random_range(0..=self.weather.task_ms);
            n += 1;
        }
        self.at_work[node] = Some(slice.start);
        self.at(took, Happening::Ran(node, self.lives[node], slice, n));
    }

    fn ran(&mut self, node: usize, slice: Range<u64>, n: u64) {
        let (half, name, now) = (self.half(node), self.names[node], self.now);
        let ended = slice.start..slice.start + n;
        self.at_work[node] = None;
        self.runs += n;
        self.receipts.push(ended.clone());
        self.messages += 2;
        self.at(SPREADS_IN, Happening::Spreads(half, ended.clone()));
        let elapsed_us = n * self.weather.task_ms * 500;
        let rest = ended.end..slice.end;
        let Some(desk) = self.desk(half) else { return };
        desk.ended(&ended, elapsed_us);
        desk.beat(now, slice.start, name);
        if rest.is_empty() {
            desk.give_back(slice.start, name);
            self.ask(node);
        } else {
            // Known by the task that it began with; a keeper that has not given it is told of what is left.
            desk.give_back(slice.start, name);
            let _ = desk.adopt(now, &rest, name);
            self.work(node, rest);
        }
    }
}

/// How many times each task was run on average, and messages for each node.
fn outcome(weather: Weather) -> (f64, f64, Millis) {
    let Swarm { runs, messages, now, .. } = Swarm::new(weather).run();
    (runs as f64 / weather.tasks as f64, messages as f64 / weather.nodes as f64, now)
}

const CALM: Weather = Weather {
    nodes: 50,
    tasks: 20_000,
    task_ms: 100,
    loss: 0,
    deaths: 0,
    keepers_killed: 0,
    cut: None,
    seed: 1,
};

#[test]
fn in_calm_weather_every_task_is_run_once() {
    let (runs, _, took) = outcome(CALM);
    assert!((runs - 1.0).abs() < f64::EPSILON, "each task was run {runs} times");
    assert!(took < 40_000, "50 nodes took {took} ms for 1,000 s of work");
}

#[test]
fn lost_messages_dying_nodes_and_dying_keepers_cost_little() {
    for seed in 0..8 {
        let (runs, ..) = outcome(Weather { loss: 20, deaths: 25, keepers_killed: 3, seed, ..CALM });
        assert!(runs < 1.1, "each task was run {runs} times with seed {seed}");
    }
}

#[test]
fn both_halves_of_a_cut_swarm_go_on_and_end_together() {
    for seed in 0..4 {
        let (runs, ..) = outcome(Weather { cut: Some((5000, 5000)), loss: 5, deaths: 5, seed, ..CALM });
        assert!(runs < 1.5, "each task was run {runs} times with seed {seed}");
    }
    let (runs, ..) = outcome(Weather { cut: Some((1000, 3_600_000)), ..CALM });
    assert!(runs <= 2.0, "each half does all of it at the most once, and not {runs} times together");
}

#[test]
fn ten_thousand_nodes_end_a_million_tasks() {
    let weather = Weather {
        nodes: 10_000,
        tasks: 1_000_000,
        task_ms: 1000,
        loss: 5,
        deaths: 1000,
        keepers_killed: 5,
        cut: Some((20_000, 10_000)),
        seed: 7,
    };
    let (runs, messages, took) = outcome(weather);
    assert!(runs < 1.25, "each task was run {runs} times");
    assert!(messages < 1000.0, "{messages} messages for each node");
    assert!(took < 300_000, "it took {took} ms for 50 s of work");
}

/// One receipt in so many is looked at.
const SAMPLE: usize = 20;
/// What a node remembers of a receipt, in a tree that is half full, which is the worst there is.
const ENTRY: usize = 2 * size_of::<(Place, u64)>();

/// What a batch of a million tasks costs a swarm of fifty: bytes of receipts that all nodes are sent, and bytes of memory in
/// which a node keeps track of them, for each task.
fn costs(task_ms: Millis, words: &dyn Fn(u64) -> String) -> (f64, f64) {
    let weather = Weather { tasks: 1_000_000, task_ms, ..CALM };
    let Swarm { receipts, .. } = Swarm::new(weather).run();
    let (me, job) = (Identity::generate(), JobId([1; 16]));
    let close = |collected: &mut Collected| {
        let receipt = collected.close(&job, 0, 1_763_800_000_000, &me).unwrap();
        receipt.encode().unwrap().len()
    };
    let (mut sent, mut kept) = (0, 0);
    // Looking at some of them will do.
    for range in receipts.into_iter().step_by(SAMPLE) {
        let mut collected = Collected::new(range.start);
        for task in range {
            let stdout = Said::here(words(task).into());
            let elapsed_ms = u32::try_from(task * 7919 % (task_ms + 1)).unwrap();
            collected.push(TaskResult { stdout, elapsed_ms, ..TaskResult::exited(0) }, 0).unwrap();
            if collected.is_full() {
                sent += close(&mut collected);
                kept += ENTRY;
            }
        }
        if !collected.is_empty() {
            sent += close(&mut collected);
            kept += ENTRY;
        }
    }
    let each = |bytes: usize| (bytes * SAMPLE) as f64 / weather.tasks as f64;
    (each(sent * weather.nodes), each(kept))
}

#[test]
fn a_million_tasks_cost_each_node_little_memory_and_the_swarm_little_talk() {
    for task_ms in [1, 100, 2000] {
        let (sent, kept) = costs(task_ms, &|_| String::new());

        assert!(sent < 1000.0, "{sent} bytes are sent for a task of up to {task_ms} ms");
        assert!(kept < 200.0, "{kept} bytes are kept for a task of up to {task_ms} ms");
    }
    let (sent, _) = costs(100, &|task| format!("{task}\n"));

    assert!(sent < 1000.0, "{sent} bytes are sent for a task that prints a number");
}
