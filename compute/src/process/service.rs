//! The processes of a node: begins and ends them, journals what is sent to them, and has those handled that are its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use starfish_dht::PeerId;
use starfish_memory::{Cell, Memory, ReadError};
use tokio::sync::watch;
use tracing::{info, warn};

use super::journal::Journal;
use super::record::{Answer, Event, Field, MAX_DATA, ProcessName, Snapshot, Spec};
use super::store::{SPACE, Store};
use crate::arrived::Arrived;
use crate::batch::Batches;
use crate::batch::docket::rendezvous;
use crate::compute::StartError;
use crate::function::Functions;
use crate::function::version::FunctionName;
use crate::id::{EventId, half};
use crate::kept::RecordError;
use crate::runner::unix_ms;
use crate::service::Service;
use crate::task::JobId;

/// Processes of a swarm: every node knows of each what waits.
const MAX_PROCESSES: usize = 256;
/// Events of a process that wait; further ones are refused.
const MAX_PENDING: usize = 10_000;
/// How often a node looks whether a process is its own, when nothing happens.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A node that has just been started knows nobody, and not how far others are: it waits for so long.
const SETTLE: Duration = Duration::from_secs(3);

/// An event for a process.
#[derive(Clone, Debug)]
pub struct SendSpec {
    /// Which process.
    pub process: ProcessName,
    /// Which of its handlers.
    pub handler: ProcessName,
    /// What it is told.
    pub data: Bytes,
    /// What the event is called, if it may have been sent before.
    pub id: Option<EventId>,
}

/// An event was journaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// How it is called.
    pub id: EventId,
    /// On the disks of how many nodes it is for sure.
    pub copies: u32,
}

/// A process, and how it goes.
#[derive(Clone, Debug)]
pub struct ProcessStatus {
    /// Its name.
    pub name: ProcessName,
    /// What it is.
    pub spec: Spec,
    /// Who handles its events, as far as this node sees.
    pub owner: PeerId,
    /// Its state, once an event went into it.
    pub snapshot: Option<Snapshot>,
    /// Events that wait.
    pub pending: u64,
    /// Why they do, if this node is the owner and cannot go on.
    pub why: Option<String>,
}

/// Why nothing was done about a process.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// There is none of that name.
    #[error("no process {0}")]
    NotFound(ProcessName),
    /// There is one of that name.
    #[error("there is a process {0} already")]
    Exists(ProcessName),
    /// Nothing could handle its events.
    #[error("no function {0}")]
    NoFunction(FunctionName),
    /// There are too many.
    #[error("the swarm has {MAX_PROCESSES} processes already")]
    Full,
    /// It does not fit into a value of memory.
    #[error("an event is at most {} KiB long", MAX_DATA >> 10)]
    TooLong,
    /// It comes too fast.
    #[error("{MAX_PENDING} events of process {0} wait already")]
    Busy(ProcessName),
    /// It cannot be read or kept.
    #[error(transparent)]
    Store(#[from] RecordError),
}

impl From<ReadError> for ProcessError {
    fn from(error: ReadError) -> Self {
        Self::Store(error.into())
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Processes {
    pub(super) service: Arc<Service>,
    pub(super) functions: Arc<Functions>,
    pub(super) store: Store,
    batches: Arc<Batches>,
    journals: Mutex<BTreeMap<ProcessName, Journal>>,
    arrived: Arc<Arrived>,
    /// More has come than was kept: memory is to be read anew.
    is_behind: AtomicBool,
    changed: watch::Sender<u64>,
    /// Processes whose events this node is handling.
    busy: Mutex<BTreeSet<ProcessName>>,
    stuck: Mutex<BTreeMap<ProcessName, String>>,
    began: Instant,
}

impl Processes {
    /// Takes part in the swarm's processes.
    pub(crate) fn start(
        service: &Arc<Service>,
        batches: &Arc<Batches>,
        functions: &Arc<Functions>,
        memory: &Memory,
    ) -> Result<Arc<Self>, StartError> {
        let store = Store::open(memory).map_err(|error| StartError::Memory(error.into()))?;
        let arrived = Arrived::watch(memory, SPACE);
        let this = Arc::new(Self {
            service: Arc::clone(service),
            functions: Arc::clone(functions),
            store,
            batches: Arc::clone(batches),
            journals: Mutex::default(),
            arrived,
            is_behind: AtomicBool::new(false),
            changed: watch::Sender::new(0),
            busy: Mutex::default(),
            stuck: Mutex::default(),
            began: Instant::now(),
        });
        this.serve()?;
        service.spawn(Arc::clone(&this).take_part());
        Ok(this)
    }

    pub(crate) async fn spawn(&self, name: ProcessName, function: FunctionName) -> Result<(), ProcessError> {
        self.hear();
        if !self.functions.exists(&function).await? {
            return Err(ProcessError::NoFunction(function));
        }
        let (is_there, count) = {
            let journals = self.journals();
            let live = journals.values().filter(|journal| journal.spec().is_some());
            (journals.get(&name).is_some_and(|journal| journal.spec().is_some()), live.count())
        };
        if is_there {
            return Err(ProcessError::Exists(name));
        }
        if count >= MAX_PROCESSES {
            return Err(ProcessError::Full);
        }
        let spec = Spec { function, by: self.me(), since_ms: unix_ms(), tag: rand::random() };
        self.store.begin(&name, &spec).await?;
        self.hear();
        info!(process = %name, function = %spec.function, "a process begins");
        Ok(())
    }

    pub(crate) async fn kill(&self, name: &ProcessName) -> Result<(), ProcessError> {
        self.hear();
        self.with(name, |_, _| ())?;
        self.store.remove(name).await?;
        self.hear();
        info!(process = %name, "a process was ended");
        Ok(())
    }

    /// Journals an event: from then on it will be handled, whatever becomes of this node, as soon as another has it.
    pub(crate) async fn send(&self, spec: SendSpec) -> Result<Sent, ProcessError> {
        let SendSpec { process, handler, data, id } = spec;
        if data.len() > MAX_DATA {
            return Err(ProcessError::TooLong);
        }
        self.hear();
        let id = id.unwrap_or_else(|| EventId(rand::random()));
        let (tag, pending, is_known) =
            self.with(&process, |spec, journal| (spec.tag, journal.pending(), journal.knows(&id)))?;
        if pending >= MAX_PENDING && !is_known {
            return Err(ProcessError::Busy(process));
        }
        let event = Event { tag, handler, data: data.to_vec(), at_ms: unix_ms(), from: None };
        self.journal(&process, id, &event).await?;
        let copies = 1 + self.copy(&process, id, &event).await;
        Ok(Sent { id, copies })
    }

    /// Keeps an event here, unless it is.
    pub(super) async fn journal(
        &self,
        process: &ProcessName,
        id: EventId,
        event: &Event,
    ) -> Result<(), ProcessError> {
        self.hear();
        if !self.with(process, |_, journal| journal.knows(&id))? {
            self.store.journal(process, id, event).await?;
            self.hear();
            self.arrived.wake();
        }
        Ok(())
    }

    /// What came of an event, once it was handled.
    pub(crate) async fn answer(&self, name: &ProcessName, id: EventId) -> Result<Answer, ProcessError> {
        let mut changes = self.changed.subscribe();
        loop {
            changes.mark_unchanged();
            self.hear();
            if self.with(name, |_, journal| journal.has_handled(&id))?
                && let Some(answer) = self.store.answer(name, id).await?
            {
                return Ok(answer);
            }
            if changes.changed().await.is_err() {
                return Err(ProcessError::NotFound(name.clone()));
            }
        }
    }

    /// All processes. Why events wait is known to the owner, and, where the function is gone, to all.
    pub(crate) async fn list(&self) -> Vec<ProcessStatus> {
        let mut all = self.list_here();
        for process in all.iter_mut().filter(|process| process.pending > 0 && process.why.is_none()) {
            let function = &process.spec.function;
            if let Ok(false) = self.functions.exists(function).await {
                process.why = Some(format!("no function {function}"));
            }
        }
        all
    }

    fn list_here(&self) -> Vec<ProcessStatus> {
        self.hear();
        let stuck = self.stuck().clone();
        let journals = self.journals();
        let status = |(name, journal): (&ProcessName, &Journal)| {
            let spec = journal.spec()?.clone();
            let owner = self.owner(name, &spec);
            Some(ProcessStatus {
                name: name.clone(),
                owner,
                spec,
                snapshot: journal.snapshot().cloned(),
                pending: journal.pending() as u64,
                why: stuck.get(name).filter(|_| owner == self.me() && journal.pending() > 0).cloned(),
            })
        };
        journals.iter().filter_map(status).collect()
    }

    async fn take_part(self: Arc<Self>) {
        self.load().await;
        loop {
            for name in self.mine() {
                if self.busy().insert(name.clone()) {
                    let this = Arc::clone(&self);
                    self.service.spawn(async move {
                        this.attend(&name).await;
                        this.busy().remove(&name);
                    });
                }
            }
            let _ = tokio::time::timeout(LOOK_EVERY, self.arrived.come()).await;
            self.hear();
            if self.is_behind.swap(false, Ordering::AcqRel) {
                self.load().await;
            }
        }
    }

    /// Reads all that memory has.
    async fn load(&self) {
        let cells = loop {
            match self.store.cells().await {
                Ok(cells) => break cells,
                Err(error) => warn!(%error, "cannot read what memory has of processes"),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        let mut journals = self.journals();
        cells.iter().for_each(|cell| apply(&mut journals, cell));
    }

    /// Takes note of what memory has told.
    pub(super) fn hear(&self) {
        // Taken under the lock, so that of two who hear neither can put old cells upon new ones.
        let mut journals = self.journals();
        let (cells, too_many) = self.arrived.take();
        if too_many {
            self.is_behind.store(true, Ordering::Release);
        }
        if cells.is_empty() {
            return;
        }
        cells.iter().for_each(|cell| apply(&mut journals, cell));
        journals.retain(|_, journal| !journal.is_empty());
        drop(journals);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Processes with events to handle, whose owner is this node.
    fn mine(&self) -> Vec<ProcessName> {
        if self.began.elapsed() < SETTLE {
            return Vec::new();
        }
        let journals = self.journals();
        let waiting = journals.iter().filter(|(_, journal)| journal.next().is_some());
        let mine = waiting
            .filter(|(name, journal)| journal.spec().is_some_and(|spec| self.owner(name, spec) == self.me()));
        mine.map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn is_mine(&self, name: &ProcessName) -> bool {
        self.with(name, |spec, _| self.owner(name, spec) == self.me()).unwrap_or(false)
    }

    /// Who handles the events of a process.
    fn owner(&self, name: &ProcessName, spec: &Spec) -> PeerId {
        self.order(name, spec.tag).first().copied().unwrap_or(self.me())
    }

    /// The living, the owner of a process first, and then those who would be.
    pub(super) fn order(&self, name: &ProcessName, tag: u64) -> Vec<PeerId> {
        let what = [name.as_str().as_bytes(), b"\0", &tag.to_be_bytes()].concat();
        let id = JobId(half(blake3::hash(&what)));
        rendezvous(&id, self.batches.docket().living().iter().copied())
    }

    /// Looks at a process.
    pub(super) fn with<T>(
        &self,
        name: &ProcessName,
        look: impl FnOnce(&Spec, &Journal) -> T,
    ) -> Result<T, ProcessError> {
        let journals = self.journals();
        let journal = journals.get(name);
        let found = journal.and_then(|journal| Some(look(journal.spec()?, journal)));
        found.ok_or_else(|| ProcessError::NotFound(name.clone()))
    }

    pub(super) fn journals(&self) -> MutexGuard<'_, BTreeMap<ProcessName, Journal>> {
        self.journals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn busy(&self) -> MutexGuard<'_, BTreeSet<ProcessName>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stuck(&self) -> MutexGuard<'_, BTreeMap<ProcessName, String>> {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn me(&self) -> PeerId {
        self.service.me
    }
}

fn apply(journals: &mut BTreeMap<ProcessName, Journal>, cell: &Cell) {
    let name = std::str::from_utf8(&cell.key).ok().and_then(|name| name.parse().ok());
    if let (Some(name), Some(field)) = (name, Field::from_bytes(&cell.field)) {
        let value = cell.live(unix_ms()).map(AsRef::as_ref);
        journals.entry(name).or_default().apply(field, cell.stamp, value);
    }
}
