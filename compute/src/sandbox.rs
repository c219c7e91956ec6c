//! The WASM engine and what a guest may reach. Lives in worker processes only; a node never runs guest code.
//!
//! A guest gets its arguments, its environment, three streams, clocks and random numbers, and the folders of
//! its order. Everything else of WASI is there but refuses. What bounds it:
//!
//! | it does | it meets |
//! |---|---|
//! | compute without end | the epoch, which a second thread moves on every [`TICK`] |
//! | wait for input without end | a timeout around the call |
//! | sleep without end | the node's own clock, which ends the process: WASI sleeps on its only thread |
//! | allocate | [`Bounds`], asked at every growth of a memory or table |
//! | print | the budget of [`GuestOutput`](crate::guest_io::GuestOutput) |
//! | recurse | the engine's stack limit |
//!
//! The store of a guest that was stopped is dropped and never entered again.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::{Duration, Instant};

use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, InstancePre, Linker, Module, PoolingAllocationConfig,
    ResourceLimiter, Store, Trap, UnknownImportError,
};
use wasmtime_wasi::p1::{WasiP1Ctx, add_to_linker_async};
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtxBuilder};

use crate::guest_io::{GuestInput, GuestOutput, OutputSpent};
use crate::order::Order;
use crate::task::{Cost, Limit, Outcome};

/// How often the epoch moves: how exact time limits are, and how often a busy guest is looked at.
pub(crate) const TICK: Duration = Duration::from_millis(10);
/// Elements of all tables of a guest: ten times what large C++ programs have.
const MAX_TABLE_ELEMENTS: usize = 200_000;
/// The guest's call stack. (C and Rust keep large values in linear memory, so this is deep recursion already.)
const STACK_BYTES: usize = 1 << 20;
/// Memory that a freed slot keeps, so that small guests do not pay for page faults again.
const KEEP_RESIDENT: usize = 1 << 20;
/// Programs that stay loaded in one worker.
const LOADED_PROGRAMS: usize = 16;

/// The engine, and the programs that are loaded into it.
pub(crate) struct Sandbox {
    engine: Engine,
    linker: Linker<Guest>,
    loaded: Vec<(String, InstancePre<Guest>)>,
}

/// What the host keeps for a guest.
struct Guest {
    wasi: WasiP1Ctx,
    bounds: Bounds,
}

/// How a run went.
pub(crate) enum Run {
    Ended(Outcome, Cost),
    /// It was not begun: the compiled program has to be made anew.
    Unreadable(LoadError),
}

/// Why a program cannot be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("{0}")]
    Rejected(String),
    #[error("its compiled form cannot be read")]
    Read(#[source] std::io::Error),
    #[error("its compiled form is damaged")]
    Damaged,
    #[error("its compiled form does not load: {0:#}")]
    Load(wasmtime::Error),
}

impl Sandbox {
    /// An engine; reserves address space for a guest, but no memory yet.
    pub(crate) fn new() -> wasmtime::Result<Self> {
        let mut pool = PoolingAllocationConfig::default();
        // One guest at a time; the rest is for slots that are still being cleaned.
        pool.total_core_instances(4).total_memories(4).total_tables(16).total_stacks(4);
        pool.max_tables_per_module(4).max_memories_per_module(1).table_elements(MAX_TABLE_ELEMENTS);
        pool.max_memory_size(4 << 30).linear_memory_keep_resident(KEEP_RESIDENT);
        let mut config = Config::new();
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        config.epoch_interruption(true).max_wasm_stack(STACK_BYTES).async_stack_size(2 * STACK_BYTES);
        // Off: what no WASI command needs, or what is not covered by security releases.
        config.wasm_memory64(false);
        config.wasm_relaxed_simd(true).relaxed_simd_deterministic(true);
        // A worker has one thread, and its jail lets it start no other.
        config.parallel_compilation(false);
        let engine = Engine::new(&config)?;
        let mut linker = Linker::new(&engine);
        add_to_linker_async(&mut linker, |guest: &mut Guest| &mut guest.wasi)?;
        Ok(Self { engine, linker, loaded: Vec::new() })
    }

    /// A handle for the thread that moves the epoch.
    pub(crate) fn engine(&self) -> Engine {
        self.engine.clone()
    }

    /// Names this build of the compiler with these settings.
    pub(crate) fn compatibility(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.engine.precompile_compatibility_hash().hash(&mut hasher);
        hasher.finish()
    }

    /// Compiles a program that could be run; says why it could not.
    pub(crate) fn compile(&self, wasm: &[u8]) -> Result<Vec<u8>, String> {
        match wasm.get(..8) {
            Some(b"\0asm\x01\0\0\0") => {}
            Some(head) if head.starts_with(b"\0asm") => {
                return Err("it is a component; only WASI preview 1 commands can be run so far".to_owned());
            }
            _ => return Err("it is not a WASM program".to_owned()),
        }
        self.engine.precompile_module(wasm).map_err(|error| format!("it does not compile: {error:#}"))
    }

    /// Runs one task to its end.
    pub(crate) async fn run(
        &mut self,
        order: &Order,
        cache: &Path,
        stdin: GuestInput,
        stdout: GuestOutput,
        stderr: GuestOutput,
    ) -> Run {
        let (program, guest) = match (self.load(order, cache), Guest::new(order, stdin, stdout, stderr)) {
            (Ok(program), Ok(guest)) => (program, guest),
            (Err(LoadError::Rejected(why)), _) => return Run::Ended(failed(why), Cost::default()),
            (Err(error), _) => return Run::Unreadable(error),
            (_, Err(error)) => {
                return Run::Ended(
                    failed(format!("its folders cannot be opened: {error:#}")),
                    Cost::default(),
                );
            }
        };
        let timeout = Duration::from_millis(order.timeout_ms);
        let mut store = Store::new(&self.engine, guest);
        store.limiter(|guest| &mut guest.bounds);
        store.set_epoch_deadline(ticks(timeout));
        let started = Instant::now();
        let ended = tokio::time::timeout(timeout, start(&program, &mut store)).await;
        let elapsed_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let cost = Cost { elapsed_us, memory_bytes: store.data().bounds.peak as u64 };
        let outcome = match ended {
            Err(_) => Outcome::LimitReached { limit: Limit::Time, value: order.timeout_ms },
            Ok(Ok(())) => Outcome::Exited(0),
            Ok(Err(error)) => explain(&error, order),
        };
        Run::Ended(outcome, cost)
    }

    fn load(&mut self, order: &Order, cache: &Path) -> Result<InstancePre<Guest>, LoadError> {
        if let Some(at) = self.loaded.iter().position(|(name, _)| *name == order.artifact) {
            let program = self.loaded.remove(at);
            self.loaded.push(program.clone());
            return Ok(program.1);
        }
        let module = read_artifact(&self.engine, &cache.join(&order.artifact))?;
        if module.get_export("_start").is_none() {
            return Err(LoadError::Rejected("it is not a command: it exports no _start".to_owned()));
        }
        let program = self.linker.instantiate_pre(&module).map_err(unlinkable)?;
        if self.loaded.len() >= LOADED_PROGRAMS {
            self.loaded.remove(0);
        }
        self.loaded.push((order.artifact.clone(), program.clone()));
        Ok(program)
    }
}

/// The bytes of a compiled program, with their hash in front so that damage on the disk is found.
pub(crate) fn seal_artifact(code: &[u8]) -> Vec<u8> {
    [blake3::hash(code).as_bytes(), code].concat()
}

fn read_artifact(engine: &Engine, path: &Path) -> Result<Module, LoadError> {
    let bytes = std::fs::read(path).map_err(LoadError::Read)?;
    let (seal, code) = bytes.split_at_checked(blake3::OUT_LEN).ok_or(LoadError::Damaged)?;
    if blake3::hash(code) != *seal {
        return Err(LoadError::Damaged);
    }
    #[expect(unsafe_code, reason = "wasmtime can check its own compiled code for compatibility only")]
    // SAFETY: this code came out of `Sandbox::compile` in a process of this node that never ran a guest. The
    // node alone writes to the cache folder, nothing in it ever comes from a peer, and the seal has just shown
    // that it is what was written.
    let module = unsafe { Module::deserialize(engine, code) };
    module.map_err(LoadError::Load)
}

fn unlinkable(error: wasmtime::Error) -> LoadError {
    match error.downcast_ref::<UnknownImportError>() {
        Some(import) => {
            let name = format!("{}::{}", import.module(), import.name());
            LoadError::Rejected(format!("it asks for {name}, which is not granted to tasks"))
        }
        None => LoadError::Load(error),
    }
}

impl Guest {
    fn new(
        order: &Order,
        stdin: GuestInput,
        stdout: GuestOutput,
        stderr: GuestOutput,
    ) -> wasmtime::Result<Self> {
        let mut wasi = WasiCtxBuilder::new();
        wasi.args(&order.args).envs(&order.env).stdin(stdin).stdout(stdout).stderr(stderr);
        // The process has nothing else to do while its guest reads a file.
        wasi.allow_blocking_current_thread(true);
        for folder in &order.folders {
            let perms = if folder.writable { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
            wasi.preopened_dir(&folder.host, &folder.guest, perms)?;
        }
        let memory = usize::try_from(order.memory_bytes).unwrap_or(usize::MAX);
        Ok(Self { wasi: wasi.build_p1(), bounds: Bounds { memory, peak: 0 } })
    }
}

async fn start(program: &InstancePre<Guest>, store: &mut Store<Guest>) -> wasmtime::Result<()> {
    let instance = program.instantiate_async(&mut *store).await?;
    let entry = instance.get_typed_func::<(), ()>(&mut *store, "_start")?;
    entry.call_async(store, ()).await
}

/// Memory and tables of one guest. A growth beyond them ends it, so that the error can name the limit: to
/// merely refuse would turn into whatever the program does when `malloc` fails.
#[derive(Debug)]
struct Bounds {
    memory: usize,
    peak: usize,
}

#[derive(Debug, thiserror::Error)]
#[error("memory limit reached")]
struct MemorySpent;

#[derive(Debug, thiserror::Error)]
#[error("table limit reached")]
struct TableSpent;

impl ResourceLimiter for Bounds {
    fn memory_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        if desired > self.memory {
            return Err(MemorySpent.into());
        }
        self.peak = self.peak.max(desired);
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if desired > MAX_TABLE_ELEMENTS {
            return Err(TableSpent.into());
        }
        Ok(maximum.is_none_or(|maximum| desired <= maximum))
    }
}

/// What an error out of a guest means.
fn explain(error: &wasmtime::Error, order: &Order) -> Outcome {
    if let Some(I32Exit(code)) = error.downcast_ref() {
        return Outcome::Exited(*code);
    }
    let reached = |limit, value| Outcome::LimitReached { limit, value };
    if error.is::<MemorySpent>() {
        return reached(Limit::Memory, order.memory_bytes);
    }
    if error.is::<TableSpent>() {
        return reached(Limit::Table, MAX_TABLE_ELEMENTS as u64);
    }
    if error.is::<OutputSpent>() {
        return reached(Limit::Output, order.output_bytes);
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => reached(Limit::Time, order.timeout_ms),
        Some(Trap::StackOverflow) => reached(Limit::Stack, STACK_BYTES as u64),
        Some(trap) => {
            Outcome::Trapped { message: trap.to_string().trim_start_matches("wasm trap: ").to_owned() }
        }
        None => failed(format!("{error:#}")),
    }
}

fn failed(reason: String) -> Outcome {
    Outcome::Failed { reason }
}

fn ticks(timeout: Duration) -> u64 {
    // One more, since the first tick may come at once.
    u64::try_from(timeout.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX / 2).saturating_add(1)
}
