//! The timetable of a node: adds and forgets lines, and fires their ticks when it is its turn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use starfish_memory::Memory;
use tracing::{info, warn};

use super::due::{self, Now};
use super::launch::{self, Launch, MAX_ARGS_BYTES};
use super::line::{BadSchedule, CronLine, Firing, Schedule, rfc3339};
use super::store::{All, Known, Store};
use super::turn;
use crate::batch::Batches;
use crate::compute::StartError;
use crate::function::Functions;
use crate::function::version::FunctionName;
use crate::in_words;
use crate::kept::RecordError;
use crate::millis;
use crate::report::JobReport;
use crate::runner::unix_ms;
use crate::service::Service;

/// Lines of a swarm. With [`KEPT_FIRINGS`] each, their jobs stay below what a swarm keeps.
const MAX_LINES: usize = 128;
/// The results of about so many firings of a line are kept, for [`KEEP_MIN`] at least and [`KEEP_MAX`] at most.
const KEPT_FIRINGS: u64 = 50;
const KEEP_MIN: Duration = Duration::from_secs(60);
const KEEP_MAX: Duration = Duration::from_secs(24 * 3600);
/// How often ticks are looked for: no tick fires later than that for want of a look.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A line that is to be added.
#[derive(Clone, Debug)]
pub struct CronSpec {
    /// Its name: a new line, or one in place of that of this name.
    pub name: FunctionName,
    /// When it fires; see [`Schedule`].
    pub schedule: String,
    /// The function that it calls.
    pub function: FunctionName,
    /// The arguments of each call.
    pub args: Vec<String>,
}

/// A line, and how it goes.
#[derive(Clone, Debug)]
pub struct CronStatus {
    /// Its name.
    pub name: FunctionName,
    /// What it is.
    pub line: CronLine,
    /// When it fires next, in milliseconds since the Unix epoch.
    pub next_ms: Option<u64>,
    /// When it was fired last.
    pub last: Option<Firing>,
    /// How that goes or went, as long as its results are kept.
    pub job: Option<JobReport>,
}

/// Why nothing was done to a line.
#[derive(Debug, thiserror::Error)]
pub enum CronError {
    /// When should it fire?
    #[error(transparent)]
    Schedule(#[from] BadSchedule),
    /// There is nothing to call.
    #[error("no function {0}")]
    NoFunction(FunctionName),
    /// They do not fit into a line.
    #[error("the arguments are longer than {} KiB, or one holds a NUL byte", MAX_ARGS_BYTES >> 10)]
    Arguments,
    /// There are too many.
    #[error("the swarm has {MAX_LINES} cron lines already")]
    Full,
    /// There is none of that name.
    #[error("no cron line {0}")]
    NotFound(FunctionName),
    /// It cannot be read or kept.
    #[error(transparent)]
    Store(#[from] RecordError),
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Cron {
    service: Arc<Service>,
    batches: Arc<Batches>,
    functions: Arc<Functions>,
    store: Store<CronLine>,
    began: Instant,
    /// Ticks that need no further look, by line.
    settled: Mutex<BTreeMap<FunctionName, BTreeSet<u64>>>,
}

impl Cron {
    /// Takes part in the swarm's timetable.
    pub(crate) fn start(
        service: &Arc<Service>,
        batches: &Arc<Batches>,
        functions: &Arc<Functions>,
        memory: &Memory,
    ) -> Result<Arc<Self>, StartError> {
        let store = Store::open(memory).map_err(|error| StartError::Memory(error.into()))?;
        let this = Arc::new(Self {
            service: Arc::clone(service),
            batches: Arc::clone(batches),
            functions: Arc::clone(functions),
            store,
            began: Instant::now(),
            settled: Mutex::default(),
        });
        service.spawn(Arc::clone(&this).keep_time());
        Ok(this)
    }

    pub(crate) async fn add(&self, spec: CronSpec) -> Result<CronStatus, CronError> {
        let CronSpec { name, schedule, function, args } = spec;
        let parsed: Schedule = schedule.parse()?;
        if !launch::are_sound(&args) {
            return Err(CronError::Arguments);
        }
        if !self.functions.exists(&function).await.map_err(RecordError::from)? {
            return Err(CronError::NoFunction(function));
        }
        let all = self.store.all().await.map_err(RecordError::from)?;
        if !all.contains_key(&name) && all.len() >= MAX_LINES {
            return Err(CronError::Full);
        }
        let (by, since_ms, tag) = (self.service.me, unix_ms(), rand::random());
        let line = CronLine { schedule, function, args, by, since_ms, tag };
        self.store.put(&name, &line).await?;
        info!(%name, schedule = %parsed, "a cron line was added");
        Ok(CronStatus { name, line, next_ms: parsed.next(since_ms), last: None, job: None })
    }

    pub(crate) async fn remove(&self, name: &FunctionName) -> Result<(), CronError> {
        let all = self.store.all().await.map_err(RecordError::from)?;
        if !all.contains_key(name) {
            return Err(CronError::NotFound(name.clone()));
        }
        self.store.remove(name).await?;
        info!(%name, "a cron line was removed");
        Ok(())
    }

    pub(crate) async fn list(&self) -> Result<Vec<CronStatus>, CronError> {
        let (all, now) = (self.store.all().await.map_err(RecordError::from)?, unix_ms());
        let status = |(name, known): (&FunctionName, &Known<CronLine>)| {
            let (line, last) = (known.record.clone(), known.last.clone());
            let next_ms = line.schedule.parse::<Schedule>().ok().and_then(|schedule| schedule.next(now));
            let job = last.as_ref().and_then(|last| self.batches.report_here(last.job.as_ref().ok()?));
            CronStatus { name: name.clone(), line, next_ms, last, job }
        };
        Ok(all.iter().map(status).collect())
    }

    async fn keep_time(self: Arc<Self>) {
        // Parsed once a line, and again when memory has news.
        let mut parsed: (Arc<All<CronLine>>, Vec<(FunctionName, Schedule)>) = Default::default();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let lines = match self.store.all().await {
                Ok(lines) => lines,
                Err(error) => {
                    warn!(%error, "cannot read the timetable");
                    continue;
                }
            };
            if !Arc::ptr_eq(&lines, &parsed.0) {
                let schedules = lines
                    .iter()
                    .filter_map(|(name, known)| Some((name.clone(), known.record.schedule.parse().ok()?)));
                parsed = (Arc::clone(&lines), schedules.collect());
                self.settled().retain(|name, _| lines.contains_key(name));
            }
            let now = Now { unix_ms: unix_ms(), up_ms: millis(self.began.elapsed()) };
            for (name, schedule) in &parsed.1 {
                if let Some(known) = lines.get(name) {
                    self.see_to(name, &known.record, schedule, now);
                }
            }
        }
    }

    /// Fires the ticks of a line that are due and this node's own.
    fn see_to(self: &Arc<Self>, name: &FunctionName, line: &CronLine, schedule: &Schedule, now: Now) {
        let owed = due::owed(schedule, line.since_ms, now);
        let mut all_settled = self.settled();
        let settled = all_settled.entry(name.clone()).or_default();
        settled.retain(|tick| owed.contains(tick));
        for tick in owed {
            if settled.contains(&tick) {
                continue;
            }
            let job = line.job(name, tick);
            let (is_known, wait) = {
                let docket = self.batches.docket();
                let wait = turn::wait_ms(&job, &self.service.me, docket.living());
                (docket.get(&job).is_some(), wait)
            };
            if is_known {
                settled.insert(tick);
            } else if now.unix_ms - tick >= wait {
                settled.insert(tick);
                let this = Arc::clone(self);
                let (name, line, keep) = (name.clone(), line.clone(), keep_for(schedule, tick));
                self.service.spawn(async move { this.fire(&name, &line, tick, keep).await });
            }
        }
    }

    async fn fire(&self, name: &FunctionName, line: &CronLine, tick: u64, keep: Duration) {
        let job = line.job(name, tick);
        let launch = Launch {
            args: line.args.clone(),
            env: vec![("STARFISH_TICK".to_owned(), rfc3339(tick))],
            keep,
            ..Launch::new(name, line.function.clone())
        };
        let fired = launch.run(job, &self.functions, &self.batches).await;
        let job = match fired {
            // Somebody else did, who says so.
            Ok(false) => return,
            Ok(true) => {
                info!(%name, tick = rfc3339(tick), %job, "a cron line fires");
                Ok(job)
            }
            Err(error) => {
                let why = in_words(&error);
                warn!(%name, tick = rfc3339(tick), why, "a cron line cannot fire");
                Err(why)
            }
        };
        let firing = Firing { due_ms: tick, at_ms: unix_ms(), by: self.service.me, job, about: None };
        // Of two that fire at about the same time, the later tick is the last one.
        let is_newest = match self.store.all().await {
            Ok(lines) => lines.get(name).is_some_and(|known| {
                known.record.tag == line.tag && known.last.as_ref().is_none_or(|last| last.due_ms <= tick)
            }),
            Err(_) => false,
        };
        if is_newest && let Err(error) = self.store.fired(name, &firing).await {
            warn!(%name, %error, "cannot note that a cron line was fired");
        }
    }

    fn settled(&self) -> std::sync::MutexGuard<'_, BTreeMap<FunctionName, BTreeSet<u64>>> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long the results of a tick are kept: the more often a line fires, the shorter.
fn keep_for(schedule: &Schedule, tick: u64) -> Duration {
    let until_next = schedule.next(tick).map_or(u64::MAX, |next| next - tick);
    Duration::from_millis(until_next.saturating_mul(KEPT_FIRINGS)).clamp(KEEP_MIN, KEEP_MAX)
}
