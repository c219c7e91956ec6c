//! The triggers of a node: adds and forgets them, looks at what they listen to, and fires when it is its turn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use starfish_fs::vfs::Vfs;
use starfish_memory::{Cell, Memory, Observer, SpaceError};
use tracing::{debug, info, warn};

use super::burst::{Burst, Change};
use super::due::{Now, SETTLE};
use super::launch::{self, Launch, LaunchError, MAX_ARGS_BYTES};
use super::line::Firing;
use super::scan;
use super::store::{Known, Store};
use super::trigger::{BadSource, Source, Trigger};
use super::turn;
use crate::batch::docket::MAX_BATCHES;
use crate::batch::{self, BatchError, Batches, GlobError, Input, Items};
use crate::compute::StartError;
use crate::function::Functions;
use crate::function::version::FunctionName;
use crate::in_words;
use crate::kept::RecordError;
use crate::millis;
use crate::report::JobReport;
use crate::runner::unix_ms;
use crate::service::Service;

/// Triggers of a swarm: each node looks at what all of them listen to.
const MAX_TRIGGERS: usize = 128;
/// Files or keys that one trigger listens to; a node knows all of them.
const MAX_WATCHED: usize = 100_000;
/// Calls of one trigger that have not ended; further changes wait.
const MAX_AT_ONCE: usize = 64;
/// Jobs whose results are kept, beyond which changes wait: the rest is left to others.
const MAX_JOBS: usize = MAX_BATCHES / 2;
/// How long results are kept.
const KEEP_FOR: Duration = Duration::from_secs(600);
/// How often triggers are looked after.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Looking at what there is may take this part of a node's time.
const SCAN_SHARE: u32 = 10;
/// Spaces with news; more are taken for all.
const MAX_STIRRED: usize = 1024;
/// Where the tree lies.
const TREE: &str = "fs";

/// A trigger that is to be added.
#[derive(Clone, Debug)]
pub struct TriggerSpec {
    /// Its name: a new trigger, or one in place of that of this name.
    pub name: FunctionName,
    /// What it listens to.
    pub source: Source,
    /// The function that it calls.
    pub function: FunctionName,
    /// The arguments of each call, before the path or key.
    pub args: Vec<String>,
    /// Whether the function may be one that can write to where it listens.
    pub allow_loop: bool,
}

/// A trigger, and how it goes.
#[derive(Clone, Debug)]
pub struct TriggerStatus {
    /// Its name.
    pub name: FunctionName,
    /// What it is.
    pub trigger: Trigger,
    /// When it was fired last.
    pub last: Option<Firing>,
    /// How that goes or went, as long as its results are kept.
    pub job: Option<JobReport>,
}

/// Why nothing was done to a trigger.
#[derive(Debug, thiserror::Error)]
pub enum TriggerError {
    /// Nothing can be listened to like that.
    #[error(transparent)]
    Source(#[from] BadSource),
    /// There is no such space.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// There is nothing to call.
    #[error("no function {0}")]
    NoFunction(FunctionName),
    /// It would call itself.
    #[error("{0}")]
    Loop(String),
    /// They do not fit into a trigger.
    #[error("the arguments are longer than {} KiB, or one holds a NUL byte", MAX_ARGS_BYTES >> 10)]
    Arguments,
    /// There are too many.
    #[error("the swarm has {MAX_TRIGGERS} triggers already")]
    Full,
    /// There is none of that name.
    #[error("no trigger {0}")]
    NotFound(FunctionName),
    /// It cannot be read or kept.
    #[error(transparent)]
    Store(#[from] RecordError),
}

/// Which spaces of memory have news.
#[derive(Debug, Default)]
struct Stirred {
    /// Without triggers nobody asks, and commits need not wait for this.
    is_asked: AtomicBool,
    spaces: Mutex<BTreeSet<String>>,
}

impl Observer for Stirred {
    fn applied(&self, cells: &[Cell]) {
        if !self.is_asked.load(Ordering::Acquire) {
            return;
        }
        let mut spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        for cell in cells {
            if spaces.len() < MAX_STIRRED && !spaces.contains(&*cell.space) {
                spaces.insert(cell.space.to_string());
            }
        }
    }
}

/// What a trigger listens to, as this node sees it.
struct Watched {
    tag: u64,
    burst: Burst,
    is_stale: bool,
    /// When it was looked at last, and how long that took.
    looked: Option<(Instant, Duration)>,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Watcher {
    service: Arc<Service>,
    batches: Arc<Batches>,
    functions: Arc<Functions>,
    memory: Memory,
    files: Arc<dyn Vfs>,
    store: Store<Trigger>,
    stirred: Arc<Stirred>,
    /// Changes that could not be fired for now.
    again: Mutex<Vec<(FunctionName, Change)>>,
    began: Instant,
}

impl Watcher {
    /// Takes part in the swarm's triggers.
    pub(crate) fn start(
        service: &Arc<Service>,
        batches: &Arc<Batches>,
        functions: &Arc<Functions>,
        memory: &Memory,
    ) -> Result<Arc<Self>, StartError> {
        let store = Store::open(memory).map_err(|error| StartError::Memory(error.into()))?;
        let stirred = Arc::<Stirred>::default();
        memory.observe(Arc::clone(&stirred) as Arc<dyn Observer>);
        let this = Arc::new(Self {
            service: Arc::clone(service),
            batches: Arc::clone(batches),
            functions: Arc::clone(functions),
            memory: memory.clone(),
            files: Arc::clone(&service.files),
            store,
            stirred,
            again: Mutex::default(),
            began: Instant::now(),
        });
        service.spawn(Arc::clone(&this).listen());
        Ok(this)
    }

    pub(crate) async fn add(&self, spec: TriggerSpec) -> Result<TriggerStatus, TriggerError> {
        let TriggerSpec { name, source, function, args, allow_loop } = spec;
        source.check()?;
        if let Source::Keys { space, .. } = &source {
            self.memory.space(space)?;
        }
        if !launch::are_sound(&args) {
            return Err(TriggerError::Arguments);
        }
        let keep_out = (!allow_loop).then_some(&source);
        launch::check(&function, keep_out, &self.functions).await.map_err(|error| match error {
            LaunchError::Program(crate::function::ProgramError::NotFound(function)) => {
                TriggerError::NoFunction(function)
            }
            other => TriggerError::Loop(in_words(&other)),
        })?;
        let all = self.store.all().await.map_err(RecordError::from)?;
        if !all.contains_key(&name) && all.len() >= MAX_TRIGGERS {
            return Err(TriggerError::Full);
        }
        let (by, since_ms, tag) = (self.service.me, unix_ms(), rand::random());
        let trigger = Trigger { source, function, args, allow_loop, by, since_ms, tag };
        self.store.put(&name, &trigger).await?;
        info!(%name, source = %trigger.source, "a trigger was added");
        Ok(TriggerStatus { name, trigger, last: None, job: None })
    }

    pub(crate) async fn remove(&self, name: &FunctionName) -> Result<(), TriggerError> {
        let all = self.store.all().await.map_err(RecordError::from)?;
        if !all.contains_key(name) {
            return Err(TriggerError::NotFound(name.clone()));
        }
        self.store.remove(name).await?;
        info!(%name, "a trigger was removed");
        Ok(())
    }

    pub(crate) async fn list(&self) -> Result<Vec<TriggerStatus>, TriggerError> {
        let all = self.store.all().await.map_err(RecordError::from)?;
        let status = |(name, known): (&FunctionName, &Known<Trigger>)| {
            let (trigger, last) = (known.record.clone(), known.last.clone());
            let job = last.as_ref().and_then(|last| self.batches.report_here(last.job.as_ref().ok()?));
            TriggerStatus { name: name.clone(), trigger, last, job }
        };
        Ok(all.iter().map(status).collect())
    }

    async fn listen(self: Arc<Self>) {
        let mut watched: BTreeMap<FunctionName, Watched> = BTreeMap::new();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let triggers = match self.store.all().await {
                Ok(triggers) => triggers,
                Err(error) => {
                    warn!(%error, "cannot read the triggers");
                    continue;
                }
            };
            // A new trigger is looked at in any case.
            self.stirred.is_asked.store(!triggers.is_empty(), Ordering::Release);
            let stirred =
                std::mem::take(&mut *self.stirred.spaces.lock().unwrap_or_else(PoisonError::into_inner));
            watched.retain(|name, watched| {
                triggers.get(name).is_some_and(|known| known.record.tag == watched.tag)
            });
            self.take_back(&mut watched);
            for (name, known) in triggers.iter() {
                let tag = known.record.tag;
                let watched = watched.entry(name.clone()).or_insert_with(|| Watched {
                    tag,
                    burst: Burst::default(),
                    is_stale: true,
                    looked: None,
                });
                watched.is_stale |=
                    stirred.len() >= MAX_STIRRED || stirred.contains(space_of(&known.record.source));
                self.look(name, known, watched).await;
                self.see_to(name, known, watched);
            }
        }
    }

    fn now(&self) -> Now {
        let up_ms = millis(self.began.elapsed());
        Now { unix_ms: unix_ms(), up_ms }
    }

    /// What could not be fired is due again.
    fn take_back(&self, watched: &mut BTreeMap<FunctionName, Watched>) {
        let again = std::mem::take(&mut *self.again.lock().unwrap_or_else(PoisonError::into_inner));
        let up_ms = self.now().up_ms;
        for (name, change) in again {
            if let Some(watched) = watched.get_mut(&name) {
                watched.burst.unsettle(&change, up_ms);
            }
        }
    }

    /// Looks at what a trigger listens to, if there are news of that.
    async fn look(&self, name: &FunctionName, known: &Known<Trigger>, watched: &mut Watched) {
        let is_too_soon = watched.looked.is_some_and(|(at, took)| at.elapsed() < took * SCAN_SHARE);
        if !watched.is_stale || is_too_soon {
            return;
        }
        let began = Instant::now();
        let found = match &known.record.source {
            Source::Files(pattern) => scan::files(&*self.files, pattern).await,
            Source::Keys { space, pattern } => scan::keys(&self.memory, space, pattern).await,
        };
        watched.looked = Some((Instant::now(), began.elapsed()));
        match found {
            Ok(found) => {
                watched.is_stale = false;
                if found.len() > MAX_WATCHED {
                    return warn!(%name, "a trigger listens to more than {MAX_WATCHED} things, and does not fire");
                }
                watched.burst.look(self.now(), &known.since, found);
            }
            Err(why) => debug!(%name, why, "cannot look at what a trigger listens to"),
        }
    }

    /// Fires the changes that are due and this node's own.
    fn see_to(self: &Arc<Self>, name: &FunctionName, known: &Known<Trigger>, watched: &mut Watched) {
        let now = self.now();
        let due: Vec<(Change, u64)> =
            watched.burst.due(now.up_ms).map(|(change, late)| (change.clone(), late)).collect();
        if due.is_empty() || u128::from(now.up_ms) < SETTLE.as_millis() {
            return;
        }
        let docket = self.batches.docket();
        let is_running =
            |known: &batch::docket::Known| known.end.is_none() && known.card.name == name.as_str();
        let mut running = docket.iter().filter(|(_, known)| is_running(known)).count();
        let is_full = docket.iter().count() >= MAX_JOBS;
        for (change, late) in due {
            let job = known.record.job(name, &change.subject, &change.version);
            if docket.get(&job).is_some() {
                watched.burst.settle(&change, now.up_ms);
                continue;
            }
            let turn = known.record.turn(name, &change.subject);
            let wait = turn::wait_ms(&turn, &self.service.me, docket.living());
            if late >= wait && running < MAX_AT_ONCE && !is_full {
                running += 1;
                watched.burst.settle(&change, now.up_ms);
                let (this, name, trigger) = (Arc::clone(self), name.clone(), known.record.clone());
                self.service.spawn(async move { this.fire(&name, &trigger, change).await });
            }
        }
    }

    async fn fire(&self, name: &FunctionName, trigger: &Trigger, change: Change) {
        let job = trigger.job(name, &change.subject, &change.version);
        let launch = self.launch(name, trigger, &change).await;
        let job = match launch.run(job, &self.functions, &self.batches).await {
            // Somebody else did, who says so.
            Ok(false) => return,
            Ok(true) => {
                info!(%name, about = change.subject, %job, "a trigger fires");
                Ok(job)
            }
            // It is gone again.
            Err(LaunchError::Batch(BatchError::Glob(GlobError::Nothing(_)))) => return,
            Err(error) => {
                let why = in_words(&error);
                warn!(%name, about = change.subject, why, "a trigger cannot fire");
                if matches!(error, LaunchError::Batch(BatchError::Full | BatchError::Store(_))) {
                    let mut again = self.again.lock().unwrap_or_else(PoisonError::into_inner);
                    return again.push((name.clone(), change));
                }
                Err(why)
            }
        };
        let (due_ms, about) = (change.at_ms, Some(change.subject));
        let firing = Firing { due_ms, at_ms: unix_ms(), by: self.service.me, job, about };
        let is_there = match self.store.all().await {
            Ok(all) => all.get(name).is_some_and(|known| known.record.tag == trigger.tag),
            Err(_) => false,
        };
        if is_there && let Err(error) = self.store.fired(name, &firing).await {
            warn!(%name, %error, "cannot note that a trigger was fired");
        }
    }

    /// The call that a change makes.
    async fn launch(&self, name: &FunctionName, trigger: &Trigger, change: &Change) -> Launch {
        let word = if change.is_deleted { "deleted" } else { "written" };
        let mut launch = Launch {
            args: trigger.args.clone(),
            env: vec![
                ("STARFISH_CHANGE".to_owned(), word.to_owned()),
                ("STARFISH_VERSION".to_owned(), change.version.clone()),
            ],
            keep: KEEP_FOR,
            keep_out: (!trigger.allow_loop).then(|| trigger.source.clone()),
            ..Launch::new(name, trigger.function.clone())
        };
        match &trigger.source {
            Source::Files(_) => launch.items = Items::Files(batch::literal(&change.subject)),
            Source::Keys { space, .. } => {
                launch.args.push(change.subject.clone());
                if let Ok(space) = self.memory.space(space)
                    && let Ok(Some(value)) = space.get(change.subject.as_bytes()).await
                {
                    launch.input = Input::Bytes(value);
                }
            }
        }
        launch
    }
}

/// The space of memory that tells of a source.
fn space_of(source: &Source) -> &str {
    match source {
        Source::Files(_) => TREE,
        Source::Keys { space, .. } => space,
    }
}
