//! The WASM engine and what a guest may reach. Lives in worker processes only; a node never runs guest code.
//!
//! A guest is a WASI preview 1 command or a library of [`handlers`] (a core module), a component of the world `wasi:cli/command`, or one that
//! answers HTTP requests; the bytes say which. It gets its arguments, its environment, three streams, clocks and random numbers, and the
//! folders of its order; buckets of memory, hosts and functions are asked for at the node ([`keyvalue`], [`outgoing`]). A
//! program that asks for more is refused before it runs, by the name of what it asked for ([`program`]). What bounds it:
//!
//! | it does | it meets |
//! |---|---|
//! | compute without end | the epoch, which a second thread moves on every [`TICK`]; or a number of steps ([`Profile`]) |
//! | wait for input without end | a timeout around the call |
//! | sleep without end | that timeout ([`clocks`]); in a deterministic run, the end of its own time |
//! | make the only thread wait otherwise | the node's own clock, which ends the process |
//! | allocate | [`Bounds`], asked at every growth of a memory or table |
//! | make the host allocate | [`MAX_HANDLES`], the budgets of wasmtime, and the watch over the whole process |
//! | print | the budget of [`GuestOutput`](crate::guest_io::GuestOutput) |
//! | recurse | the engine's stack limit |
//!
//! The store of a guest that was stopped is dropped and never entered again.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::{Duration, Instant};

use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{FsPerms, ResourceTable, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use self::bounds::{Bounds, MAX_TABLE_ELEMENTS, STACK_BYTES, explain};
use self::keyvalue::Buckets;
use self::outgoing::Requests;
use self::program::Linkers;
pub(crate) use self::program::Program;
use self::service::Answer;
use crate::guest_io::{GuestInput, GuestOutput, Reports};
use crate::line::Line;
use crate::order::{Order, RequestHead};
use crate::profile::{Dice, Profile, STEPS_PER_MS, StillClock};
use crate::task::{Cost, Limit, Outcome};

mod bounds;
mod clocks;
mod componentize;
mod handlers;
mod keyvalue;
mod outgoing;
mod program;
mod service;

pub(crate) use self::program::{LoadError, seal_artifact};

/// How often the epoch moves: how exact time limits are, and how often a busy guest is looked at.
pub(crate) const TICK: Duration = Duration::from_millis(10);
/// Memory that a freed slot keeps, so that small guests do not pay for page faults again.
const KEEP_RESIDENT: usize = 1 << 20;
/// Programs that stay loaded in one worker.
const LOADED_PROGRAMS: usize = 16;
/// Core instances of one component. A command made of a core module has four or five: the module, the adapter
/// and what ties them together.
const MAX_INSTANCES: u32 = 64;
/// Memories of one component; each is 4 GiB of addresses, but no memory yet.
const MAX_MEMORIES: u32 = 16;
/// Tables of one component.
const MAX_TABLES: u32 = 32;
/// What a guest may hold open of the host at a time: streams, folders, moments to wait for.
const MAX_HANDLES: usize = 10_000;

/// The engine, and the programs that are loaded into it.
pub(crate) struct Sandbox {
    profile: Profile,
    engine: Engine,
    linkers: Linkers,
    loaded: Vec<(String, Program)>,
}

/// What the host keeps for a guest.
pub(crate) struct Guest {
    /// Serves components as well: preview 1 is built upon preview 2.
    wasi: WasiP1Ctx,
    http: WasiHttpCtx,
    requests: Requests,
    line: Option<Line>,
    bounds: Bounds,
    /// The time of a deterministic run.
    still: Option<StillClock>,
    timeout: Duration,
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.requests, table: self.wasi.ctx().table, ctx: &mut self.http }
    }
}

/// The three streams of a guest.
pub(crate) struct Streams {
    pub(crate) stdin: GuestInput,
    pub(crate) stdout: GuestOutput,
    pub(crate) stderr: GuestOutput,
}

impl Sandbox {
    /// An engine; reserves address space for a guest, but no memory yet.
    pub(crate) fn new(profile: Profile) -> wasmtime::Result<Self> {
        let engine = Engine::new(&config(profile))?;
        let linkers = Linkers::new(&engine)?;
        Ok(Self { profile, engine, linkers, loaded: Vec::new() })
    }

    /// A handle for the thread that moves the epoch.
    pub(crate) fn engine(&self) -> Engine {
        self.engine.clone()
    }

    /// Names this build of the compiler with these settings.
    pub(crate) fn compatibility(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.engine.precompile_compatibility_hash().hash(&mut hasher);
        self.profile.hash(&mut hasher);
        hasher.finish()
    }

    /// Compiles a program that could be run; says why it could not.
    pub(crate) fn compile(&self, wasm: &[u8]) -> Result<Vec<u8>, String> {
        self.linkers.compile(&self.engine, wasm).map_err(|error| error.to_string())
    }

    /// A compiled program of the folder `cache`, linked; kept for the next time.
    pub(crate) fn load(&mut self, artifact: &str, cache: &Path) -> Result<Program, LoadError> {
        if let Some(at) = self.loaded.iter().position(|(name, _)| name == artifact) {
            let program = self.loaded.remove(at);
            self.loaded.push(program.clone());
            return Ok(program.1);
        }
        let program = self.linkers.load(&self.engine, &cache.join(artifact))?;
        if self.loaded.len() >= LOADED_PROGRAMS {
            self.loaded.remove(0);
        }
        self.loaded.push((artifact.to_owned(), program.clone()));
        Ok(program)
    }

    /// Runs one task to its end.
    pub(crate) async fn run(
        &self,
        program: &Program,
        order: &Order,
        streams: Streams,
        line: Option<Line>,
    ) -> (Outcome, Cost) {
        self.bounded(program, order, streams, line, async |store| {
            program.run(store, order.handler.as_deref()).await
        })
        .await
    }

    /// Lets a program answer an HTTP request. What it prints is told as its standard error.
    pub(crate) async fn answer(
        &self,
        program: &Program,
        order: &Order,
        request: &RequestHead,
        reports: Reports,
        streams: Streams,
        line: Option<Line>,
    ) -> (Outcome, Cost) {
        let Streams { stdin, stdout, stderr } = streams;
        let answer = Answer { reports, body: stdout };
        let streams = Streams { stdin: stdin.clone(), stdout: stderr.clone(), stderr };
        self.bounded(program, order, streams, line, async |store| {
            program.answer(store, request, stdin, answer).await.map(|()| 0)
        })
        .await
    }

    /// Does something with a guest within the limits of its order.
    async fn bounded(
        &self,
        program: &Program,
        order: &Order,
        streams: Streams,
        line: Option<Line>,
        act: impl AsyncFnOnce(&mut Store<Guest>) -> wasmtime::Result<i32>,
    ) -> (Outcome, Cost) {
        let guest =
            match program.check(&order.reach).and_then(|()| Guest::new(self.profile, order, streams, line)) {
                Ok(guest) => guest,
                Err(reason) => return (Outcome::Failed { reason }, Cost::default()),
            };
        let timeout = Duration::from_millis(order.timeout_ms);
        let mut store = Store::new(&self.engine, guest);
        store.limiter(|guest| &mut guest.bounds);
        let patience = match self.profile {
            Profile::Usual => {
                store.set_epoch_deadline(ticks(timeout));
                timeout
            }
            Profile::Deterministic => {
                let steps = order.timeout_ms.saturating_mul(STEPS_PER_MS);
                if let Err(error) = store.set_fuel(steps) {
                    return (Outcome::Failed { reason: error.to_string() }, Cost::default());
                }
                // It is the node that waits no longer, so that nothing is said of the program.
                Duration::MAX
            }
        };
        let started = Instant::now();
        let ended = tokio::time::timeout(patience, act(&mut store)).await;
        let elapsed_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let cost = Cost { elapsed_us, memory_bytes: store.data().bounds.peak() };
        let outcome = match ended.ok().filter(|_| !store.data().has_overslept()) {
            None => Outcome::LimitReached { limit: Limit::Time, value: order.timeout_ms },
            Some(Ok(code)) => Outcome::Exited(code),
            Some(Err(error)) => explain(&error, order),
        };
        (outcome, cost)
    }
}

fn config(profile: Profile) -> Config {
    let mut pool = PoolingAllocationConfig::default();
    // One guest at a time; the rest is for slots that are still being cleaned.
    pool.total_core_instances(2 * MAX_INSTANCES).max_core_instances_per_component(MAX_INSTANCES);
    pool.total_memories(2 * MAX_MEMORIES).max_memories_per_component(MAX_MEMORIES);
    pool.total_tables(2 * MAX_TABLES).max_tables_per_component(MAX_TABLES);
    pool.total_component_instances(4).total_stacks(4);
    pool.max_tables_per_module(4).max_memories_per_module(1).table_elements(MAX_TABLE_ELEMENTS);
    pool.max_memory_size(4 << 30).linear_memory_keep_resident(KEEP_RESIDENT);
    let mut config = Config::new();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    match profile {
        Profile::Usual => config.epoch_interruption(true),
        Profile::Deterministic => config.consume_fuel(true).cranelift_nan_canonicalization(true),
    };
    config.max_wasm_stack(STACK_BYTES).async_stack_size(2 * STACK_BYTES);
    // Off: what no WASI command needs, or what is not covered by security releases.
    config.wasm_memory64(false);
    config.wasm_relaxed_simd(true).relaxed_simd_deterministic(true);
    // A worker has one thread, and its jail lets it start no other.
    config.parallel_compilation(false);
    config
}

impl Guest {
    /// Lets go of all that the guest holds of the host.
    fn drop_handles(&mut self) {
        *self.wasi.ctx().table = ResourceTable::new();
    }

    /// Whether it slept for longer than it may take, by the time of a deterministic run.
    fn has_overslept(&self) -> bool {
        self.still.as_ref().is_some_and(|still| still.slept() > self.timeout)
    }

    fn buckets(&mut self) -> Buckets<'_> {
        Buckets { table: self.wasi.ctx().table, line: self.line.as_ref() }
    }

    fn new(profile: Profile, order: &Order, streams: Streams, line: Option<Line>) -> Result<Self, String> {
        let Streams { stdin, stdout, stderr } = streams;
        let still = StillClock::default();
        let mut wasi = WasiCtxBuilder::new();
        wasi.args(&order.args).envs(&order.env).stdin(stdin).stdout(stdout).stderr(stderr);
        if profile == Profile::Deterministic {
            let mut dice = Dice::new(&order.args, &order.env);
            wasi.wall_clock(still.clone()).monotonic_clock(still.clone());
            wasi.insecure_random_seed(dice.seed());
            wasi.secure_random(dice).insecure_random(Dice::new(&order.args, &order.env));
        }
        // The process has nothing else to do while its guest reads a file.
        wasi.allow_blocking_current_thread(true);
        for folder in &order.folders {
            let perms = if folder.writable { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
            wasi.preopened_dir(&folder.host, &folder.guest, perms)
                .map_err(|error| format!("its folder {} cannot be opened: {error:#}", folder.guest))?;
        }
        let mut wasi = wasi.build_p1();
        wasi.ctx().table.set_max_capacity(MAX_HANDLES);
        let (http, bounds) = (WasiHttpCtx::new(), Bounds::new(order.memory_bytes));
        let requests = Requests::new(line.clone());
        let still = (profile == Profile::Deterministic).then_some(still);
        let timeout = Duration::from_millis(order.timeout_ms);
        Ok(Self { wasi, http, requests, line, bounds, still, timeout })
    }
}

fn ticks(timeout: Duration) -> u64 {
    // One more, since the first tick may come at once.
    u64::try_from(timeout.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX / 2).saturating_add(1)
}

#[cfg(test)]
mod tests;
