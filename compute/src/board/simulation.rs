//! Whole swarms of boards in virtual time: gossip that is lost, late and doubled, nodes that die in the middle.

use std::collections::BinaryHeap;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// What may happen to a swarm.
#[derive(Clone, Copy, Debug)]
struct Weather {
    nodes: usize,
    jobs: usize,
    /// Chances in a hundred.
    loss: u32,
    doubled: u32,
    /// Nodes that die, of those that keep no job.
    deaths: usize,
    seed: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Tick,
    Gossip { from: usize, number: usize },
    Finish { keeper: usize, job: JobId, attempt: u32 },
    Beat { keeper: usize, job: JobId, attempt: u32 },
    Dies,
    Noticed { dead: usize },
}

struct Swarm {
    boards: Vec<Board>,
    names: Vec<PeerId>,
    alive: Vec<bool>,
    queue: BinaryHeap<std::cmp::Reverse<(Millis, usize, Happening)>>,
    bulletins: Vec<Bulletin>,
    chance: StdRng,
    weather: Weather,
    ended: BTreeMap<JobId, u32>,
    busy: Vec<u32>,
    ran: usize,
}

const SLOTS: u32 = 2;

impl Swarm {
    fn new(weather: Weather) -> Self {
        let names: Vec<_> = (0..weather.nodes).map(|_| PeerId::random()).collect();
        let mut swarm = Self {
            boards: names.iter().map(|name| Board::new(*name, SLOTS, 1 << 30)).collect(),
            alive: vec![true; weather.nodes],
            queue: BinaryHeap::new(),
            bulletins: Vec::new(),
            chance: StdRng::seed_from_u64(weather.seed),
            ended: BTreeMap::new(),
            busy: vec![0; weather.nodes],
            ran: 0,
            names,
            weather,
        };
        for node in 0..weather.nodes {
            for other in (0..weather.nodes).filter(|other| *other != node) {
                swarm.boards[node].peer_connected(0, swarm.names[other]);
            }
            swarm.at(node as Millis, node, Happening::Tick);
        }
        swarm
    }

    fn at(&mut self, time: Millis, node: usize, happening: Happening) {
        self.queue.push(std::cmp::Reverse((time, node, happening)));
    }

    fn node(&self, name: PeerId) -> usize {
        self.names.iter().position(|other| *other == name).unwrap()
    }

    fn act(&mut self, now: Millis, node: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Publish(bulletin) => self.gossip(now, node, bulletin),
                Action::TryClaim { keeper, job } => self.claim(now, node, self.node(keeper), job),
                Action::Ended { job } => *self.ended.entry(job).or_default() += 1,
                Action::Stop { .. } | Action::Forget { .. } => {}
            }
        }
    }

    fn gossip(&mut self, now: Millis, from: usize, bulletin: Bulletin) {
        let number = self.bulletins.len();
        self.bulletins.push(bulletin);
        for to in (0..self.names.len()).filter(|to| *to != from) {
            let copies = if self.chance.random_ratio(self.weather.loss, 100) {
                0
            } else {
                1 + usize::from(self.chance.random_ratio(self.weather.doubled, 100))
            };
            for _ in 0..copies {
                let delay = self.chance.random_range(1..500);
                self.at(now + delay, to, Happening::Gossip { from, number });
            }
        }
    }

    fn claim(&mut self, now: Millis, node: usize, keeper: usize, job: JobId) {
        let answer = if self.alive[keeper] {
            self.boards[keeper].claim(now, job, self.names[node])
        } else {
            Err(Refusal::Taken)
        };
        match answer {
            Ok(attempt) => {
                self.busy[node] += 1;
                self.ran += 1;
                assert!(self.busy[node] <= SLOTS, "a node never runs more than it has slots for");
                let work = self.chance.random_range(10..8000);
                self.at(now + work, node, Happening::Finish { keeper, job, attempt });
                self.at(now + 1000, node, Happening::Beat { keeper, job, attempt });
            }
            Err(refusal) => {
                let end = if refusal == Refusal::Unknown { ClaimEnd::Unknown } else { ClaimEnd::Refused };
                let name = self.names[keeper];
                let actions = self.boards[node].claim_over(now, name, job, end);
                self.act(now, node, actions);
            }
        }
    }

    fn happen(&mut self, now: Millis, node: usize, happening: Happening) {
        if !self.alive[node] {
            return;
        }
        match happening {
            Happening::Tick => {
                let actions = self.boards[node].tick(now);
                self.act(now, node, actions);
                self.at(now + 250, node, Happening::Tick);
            }
            Happening::Gossip { from, number } => {
                let bulletin = self.bulletins[number].clone();
                let actions = self.boards[node].hear(now, self.names[from], bulletin);
                self.act(now, node, actions);
            }
            Happening::Beat { keeper, job, attempt } => {
                if self.boards[keeper].beat(now, &job, attempt) {
                    self.at(now + 1000, node, Happening::Beat { keeper, job, attempt });
                }
            }
            Happening::Finish { keeper, job, attempt } => {
                self.busy[node] -= 1;
                let end = AttemptEnd::Finished(Outcome::Exited(0));
                let actions = self.boards[keeper].attempt_ended(now, job, attempt, end);
                self.act(now, keeper, actions);
                let actions = self.boards[node].claim_over(now, self.names[keeper], job, ClaimEnd::Ran);
                self.act(now, node, actions);
            }
            Happening::Dies => {
                self.alive[node] = false;
                for other in (0..self.names.len()).filter(|other| *other != node) {
                    let delay = self.chance.random_range(100..10_000);
                    self.at(now + delay, other, Happening::Noticed { dead: node });
                }
            }
            Happening::Noticed { dead } => {
                let actions = self.boards[node].peer_gone(now, self.names[dead]);
                self.act(now, node, actions);
            }
        }
    }

    /// Runs until every job has ended; panics when it takes longer than it may.
    fn run(&mut self, until: Millis) -> Millis {
        let keepers = (self.weather.nodes - self.weather.deaths).max(1);
        for number in 0..self.weather.jobs {
            let (keeper, id) = (number % keepers, JobId((number as u128).to_be_bytes()));
            let terms = Terms { name: String::new(), on: None, memory_bytes: 1 << 20 };
            let actions = self.boards[keeper].submit(0, id, terms).unwrap();
            self.act(0, keeper, actions);
        }
        for dying in keepers..self.weather.nodes {
            let time = self.chance.random_range(1..10_000);
            self.at(time, dying, Happening::Dies);
        }
        while let Some(std::cmp::Reverse((now, node, happening))) = self.queue.pop() {
            self.happen(now, node, happening);
            if self.ended.len() == self.weather.jobs {
                return now;
            }
            assert!(now < until, "{} of {} jobs ended by then", self.ended.len(), self.weather.jobs);
        }
        unreachable!("the ticks never end")
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_job_ends_exactly_once_whatever_is_lost(
        nodes in 1..12_usize, jobs in 1..60_usize, loss in 0..90_u32, doubled in 0..50_u32, deaths in 0..6_usize, seed: u64,
    ) {
        let deaths = deaths.min(nodes - 1);
        let mut swarm = Swarm::new(Weather { nodes, jobs, loss, doubled, deaths, seed });
        swarm.run(20 * 60_000);
        prop_assert!(swarm.ended.values().all(|times| *times == 1));
    }
}

#[test]
fn a_hundred_nodes_share_the_work_and_run_little_of_it_twice() {
    let weather = Weather { nodes: 100, jobs: 1000, loss: 10, doubled: 5, deaths: 10, seed: 7 };
    let mut swarm = Swarm::new(weather);
    let took = swarm.run(10 * 60_000);
    assert_eq!(swarm.ended.len(), 1000);
    let twice = swarm.ran - 1000;
    assert!(twice <= 100, "{twice} attempts too many");
    // 1,000 tasks of 4 s on 180 slots that live on are 22 s of work.
    assert!(took < 120_000, "took {took} ms");
}
