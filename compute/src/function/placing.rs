//! The way of a call to a slot: here if one is free, else on the less loaded of two other nodes, else in a queue.
//!
//! A call whose node is lost before it has answered anything is given to another, with its input from the beginning, as
//! far as that is kept. One that has begun to answer may have had effects, and is not tried again.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use rand::Rng;
use starfish_dht::PeerId;
use starfish_memory::ReadError;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::debug;

use super::choice::{self, Candidate, Urgency};
use super::protocol::{CallSpec, Said};
use super::remote::{Asked, ask};
use super::service::{CallSlot, Functions};
use super::stage::Stage;
use super::version::{FunctionName, Version, VersionId};
use crate::board::MAX_LOST;
use crate::task::{MAX_ARGUMENT_BYTES, Mebibytes};

/// How long a call waits for a slot.
const QUEUE_FOR: Duration = Duration::from_secs(10);
/// How often a call that waits for a slot here asks whether another node has one by now.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// Input of a call that is kept, so that it can be given to another node.
const MAX_REPLAY_BYTES: usize = 1 << 20;
/// Pieces of input and output on their way; each holds up to 64 KiB.
const QUEUE: usize = 8;

/// Why a call did not begin.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no such function.
    #[error("no function {0}")]
    NotFound(FunctionName),
    /// Every node that could run it is busy, and so are the queues.
    #[error("no node has a free slot for a call of {0}")]
    Busy(FunctionName),
    /// More arguments than a program can have.
    #[error("the arguments are longer than {}, or one holds a NUL byte", Mebibytes(MAX_ARGUMENT_BYTES as u64))]
    Arguments,
    /// What there is of functions cannot be read.
    #[error("the swarm's memory cannot be read")]
    Memory(#[from] ReadError),
}

/// A call that has begun. Dropping it ends the call.
#[derive(Debug)]
#[must_use]
pub struct Running {
    /// Takes its input, up to 64 KiB at a time; dropping it ends the input.
    pub stdin: mpsc::Sender<Bytes>,
    /// What it says; an end without [`Said::Ended`] means that this node stops.
    pub said: mpsc::Receiver<Said>,
}

/// A call that has begun somewhere.
pub(super) struct Begun {
    pub(super) running: Running,
    /// What carries it on: whoever stays with the call has to drive it.
    pub(super) driver: BoxFuture<'static, ()>,
}

/// A call, and the version that it is of.
#[derive(Clone)]
struct Placed {
    spec: CallSpec,
    id: VersionId,
    version: Version,
}

/// How one try went.
enum Try {
    Over,
    Lost { why: String, has_answered: bool },
}

/// The input of a call as far as it was given.
#[derive(Default)]
struct Replay {
    parts: Vec<Bytes>,
    bytes: usize,
    is_cut: bool,
}

impl Replay {
    fn push(&mut self, part: &Bytes) {
        self.bytes += part.len();
        if self.is_cut || self.bytes > MAX_REPLAY_BYTES {
            self.is_cut = true;
            self.parts.clear();
        } else {
            self.parts.push(part.clone());
        }
    }
}

impl Functions {
    pub(crate) async fn call(self: &Arc<Self>, spec: CallSpec) -> Result<Running, CallError> {
        let length: usize = spec.args.iter().map(|arg| arg.len() + 1).sum();
        if length > MAX_ARGUMENT_BYTES || spec.args.iter().any(|arg| arg.contains('\0')) {
            return Err(CallError::Arguments);
        }
        let all = self.store.all().await?;
        let function = all.get(&spec.name);
        let current = function.and_then(|function| Some((function.current, function.current()?.clone())));
        let (id, version) = current.ok_or_else(|| CallError::NotFound(spec.name.clone()))?;
        let call = Placed { spec, id, version };
        let first = self.place(&call).await?;
        let (stdin, given) = mpsc::channel(QUEUE);
        let (say, said) = mpsc::channel(QUEUE);
        let this = Arc::clone(self);
        self.service.spawn(async move { this.attend(call, first, given, say).await });
        Ok(Running { stdin, said })
    }

    /// Stays with a call to its end, wherever that is.
    async fn attend(
        self: Arc<Self>,
        call: Placed,
        mut begun: Begun,
        mut stdin: mpsc::Receiver<Bytes>,
        said: mpsc::Sender<Said>,
    ) {
        let mut replay = Replay::default();
        for tries in 1.. {
            let ended = tokio::select! {
                ended = converse(begun, &mut stdin, &mut replay, &said) => ended,
                () = said.closed() => return,
            };
            let Try::Lost { why, has_answered } = ended else { return };
            debug!(function = %call.spec.name, why, has_answered, "a call was lost");
            let next = if has_answered || replay.is_cut || tries >= MAX_LOST {
                None
            } else {
                self.place(&call).await.ok()
            };
            match next {
                Some(next) => begun = next,
                None => {
                    let _ = said.send(Said::Lost(why)).await;
                    return;
                }
            }
        }
    }

    /// Finds a slot for a call.
    async fn place(self: &Arc<Self>, call: &Placed) -> Result<Begun, CallError> {
        let busy = || CallError::Busy(call.spec.name.clone());
        let capacity = self.service.board().capacity();
        let fits_here = capacity.slots > 0
            && capacity.memory_bytes >= call.version.limits.memory_bytes
            && self.homes(call).is_none_or(|homes| homes.contains(&self.service.me));
        if fits_here && let Some(slot) = self.slot(Duration::ZERO).await {
            return Ok(self.begin_here(slot, call.spec.clone(), call.id, call.version.clone()));
        }
        if let Some(running) = self.ask_others(call, Duration::ZERO).await {
            return Ok(running);
        }
        if !fits_here {
            return self.ask_others(call, QUEUE_FOR).await.ok_or_else(busy);
        }
        let mut waiting = std::pin::pin!(self.slot(QUEUE_FOR));
        loop {
            match tokio::time::timeout(ASK_EVERY, &mut waiting).await {
                Ok(slot) => {
                    let slot = slot.ok_or_else(busy)?;
                    return Ok(self.begin_here(slot, call.spec.clone(), call.id, call.version.clone()));
                }
                Err(_) => {
                    if let Some(running) = self.ask_others(call, Duration::ZERO).await {
                        return Ok(running);
                    }
                }
            }
        }
    }

    /// Begins a call in a slot of this node. It goes on as far as its driver is driven: a task of its own for that would be
    /// one more that has to be woken for each word that the program says.
    pub(super) fn begin_here(
        self: &Arc<Self>,
        slot: CallSlot,
        spec: CallSpec,
        id: VersionId,
        version: Version,
    ) -> Begun {
        let (service, store) = (Arc::clone(&self.service), Arc::clone(&self.store));
        let stage = Stage { service, store, spec, id, version };
        let (stdin, given) = mpsc::channel(QUEUE);
        let (say, said) = mpsc::channel(QUEUE);
        let driver = async move {
            if let Err(why) = stage.run(given, &say).await {
                let _ = say.send(Said::Lost(why)).await;
            }
            drop(slot);
        };
        Begun { running: Running { stdin, said }, driver: driver.boxed() }
    }

    /// The nodes that may run a call, where its function is to have so many.
    fn homes(&self, call: &Placed) -> Option<BTreeSet<PeerId>> {
        let replicas = call.version.replicas?;
        let (board, needed) = (self.service.board(), call.version.limits.memory_bytes);
        let nodes = std::iter::once(self.service.me).chain(board.peers());
        let is_able = |node: &PeerId| {
            let capacity = board.capacity_of(*node);
            capacity.is_some_and(|capacity| capacity.slots > 0 && capacity.memory_bytes >= needed)
        };
        Some(choice::homes(&call.spec.name, nodes.filter(is_able), replicas))
    }

    /// Asks other nodes in turn, until one has a slot for the call within the time.
    async fn ask_others(self: &Arc<Self>, call: &Placed, patience: Duration) -> Option<Begun> {
        let urgency = if patience.is_zero() { Urgency::Now } else { Urgency::CanWait };
        let deadline = Instant::now() + patience;
        let homes = self.homes(call);
        let candidates: Vec<_> = {
            let board = self.service.board();
            let known =
                board.peers().filter_map(|node| Some(Candidate { node, capacity: board.capacity_of(node)? }));
            let is_home = |node: &PeerId| homes.as_ref().is_none_or(|homes| homes.contains(node));
            known.filter(|known| self.service.may_compute(&known.node) && is_home(&known.node)).collect()
        };
        let memory_bytes = call.version.limits.memory_bytes;
        let order =
            choice::order(candidates, memory_bytes, urgency, |below| rand::rng().random_range(0..below));
        for node in order {
            let left = deadline.saturating_duration_since(Instant::now());
            match ask(&self.service, node, &call.spec, call.id, left).await {
                Ok(Asked::Begins(running)) => {
                    return Some(Begun { running, driver: std::future::ready(()).boxed() });
                }
                Ok(Asked::Busy) => {}
                Ok(Asked::Refused(why)) | Err(why) => {
                    debug!(function = %call.spec.name, %node, why, "a node does not take a call");
                }
            }
        }
        None
    }
}

/// Lets one try have its input, and passes on what it says.
async fn converse(
    begun: Begun,
    stdin: &mut mpsc::Receiver<Bytes>,
    replay: &mut Replay,
    said: &mpsc::Sender<Said>,
) -> Try {
    let Begun { running: Running { stdin: to, said: mut from }, driver } = begun;
    let driving = async {
        driver.await;
        std::future::pending::<Infallible>().await
    };
    let feeding = async {
        feed(to, stdin, replay).await;
        std::future::pending::<Infallible>().await
    };
    let listening = async {
        let mut has_answered = false;
        loop {
            match from.recv().await {
                Some(Said::Lost(why)) => return Try::Lost { why, has_answered },
                None => return Try::Lost { why: "its node has stopped".to_owned(), has_answered },
                Some(last @ Said::Ended(_)) => {
                    let _ = said.send(last).await;
                    return Try::Over;
                }
                Some(next) => {
                    has_answered = true;
                    if said.send(next).await.is_err() {
                        return Try::Over;
                    }
                }
            }
        }
    };
    tokio::select! {
        // Where there is no input, its end is there before the program asks.
        biased;
        never = feeding => match never {},
        never = driving => match never {},
        ended = listening => ended,
    }
}

/// Gives a try what was given to those before it, and then what comes.
async fn feed(to: mpsc::Sender<Bytes>, stdin: &mut mpsc::Receiver<Bytes>, replay: &mut Replay) {
    for part in replay.parts.clone() {
        if to.send(part).await.is_err() {
            return;
        }
    }
    while let Some(part) = stdin.recv().await {
        replay.push(&part);
        if to.send(part).await.is_err() {
            // It has read enough, and says so by its end.
            return;
        }
    }
}
