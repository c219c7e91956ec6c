//! The smallest program as a task of a node, beside the same program run by wasmtime in one thread.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::{StreamExt, TryStreamExt, stream};
use starfish_compute::batch::{BatchSpec, Ending, Items};
use starfish_compute::function::version::FunctionName;
use starfish_compute::function::{CallSpec, FunctionSpec, Running, Said};
use starfish_compute::{Compute, ComputeOptions, Limits, Module, Outcome, OutputFrame, TaskSpec};
use starfish_dht::testing::TestSwarm;
use starfish_fs::mem_vfs::MemVfs;
use starfish_memory::Memory;
use tokio::runtime::Runtime;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, Linker, PoolingAllocationConfig, Store};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p1::WasiP1Ctx;

/// Tasks that wait at once.
const IN_FLIGHT: usize = 32;

fn hello() -> anyhow::Result<Vec<u8>> {
    Ok(wat::parse_file(Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/hello.wat"))?)
}

async fn task(compute: &Compute, program: &bytes::Bytes) -> anyhow::Result<()> {
    let job = compute.submit(TaskSpec::new("hello", Module::Bytes(program.clone()))).await?;
    drop(compute.feed(job)?);
    let mut output = compute.output(job).await?;
    loop {
        match output.next().await?.context("a task ends with its outcome")? {
            OutputFrame::Exit(Outcome::Exited(0)) => return Ok(()),
            OutputFrame::Exit(outcome) => bail!("the task ended otherwise: {outcome}"),
            _ => {}
        }
    }
}

async fn tasks(compute: &Compute, program: &bytes::Bytes, n: u64) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let all = stream::iter(0..n).map(|_| task(compute, program)).buffer_unordered(IN_FLIGHT);
    all.try_collect::<()>().await?;
    Ok(start.elapsed())
}

/// So many tasks as one batch.
async fn batch(compute: &Compute, program: &bytes::Bytes, n: u64) -> anyhow::Result<Duration> {
    let items = Items::Range(0..n);
    let spec = BatchSpec { items, cached: false, ..BatchSpec::new("hello", Module::Bytes(program.clone())) };
    let start = Instant::now();
    let (job, _) = compute.submit_batch(spec).await?;
    match compute.wait(job).await?.ending {
        Ending::Complete { failed: 0 } => Ok(start.elapsed()),
        ending => bail!("the batch ended otherwise: {ending:?}"),
    }
}

/// A function that is called again and again, one call after the other.
async fn calls(compute: &Compute, name: &FunctionName, n: u64) -> anyhow::Result<Duration> {
    let start = Instant::now();
    for _ in 0..n {
        let spec = CallSpec { name: name.clone(), args: Vec::new(), handler: None, request: None };
        let Running { stdin, mut said } = compute.call(spec).await?;
        drop(stdin);
        loop {
            match said.recv().await.context("a call has an end")? {
                Said::Ended(Outcome::Exited(0)) => break,
                Said::Ended(outcome) => bail!("the call ended otherwise: {outcome}"),
                Said::Lost(why) => bail!("the call was lost: {why}"),
                _ => {}
            }
        }
    }
    Ok(start.elapsed())
}

async fn deploy(compute: &Compute, program: &bytes::Bytes) -> anyhow::Result<FunctionName> {
    let name: FunctionName = "hello".parse()?;
    let (env, grants, reach, limits) = (Vec::new(), Vec::new(), Vec::new(), Limits::default());
    let module = Module::Bytes(program.clone());
    compute
        .deploy(FunctionSpec {
            name: name.clone(),
            module,
            env,
            grants,
            reach,
            limits,
            http: None,
            replicas: None,
        })
        .await?;
    Ok(name)
}

fn raw(program: &[u8], n: u64) -> anyhow::Result<Duration> {
    let mut config = Config::new();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(PoolingAllocationConfig::default()));
    let engine = Engine::new(&config).map_err(anyhow::Error::msg)?;
    let mut linker: Linker<WasiP1Ctx> = Linker::new(&engine);
    wasmtime_wasi::p1::add_to_linker_sync(&mut linker, |context| context).map_err(anyhow::Error::msg)?;
    let module = wasmtime::Module::new(&engine, program).map_err(anyhow::Error::msg)?;
    let ready = linker.instantiate_pre(&module).map_err(anyhow::Error::msg)?;
    let start = Instant::now();
    for _ in 0..n {
        let mut store = Store::new(&engine, WasiCtxBuilder::new().build_p1());
        let instance = ready.instantiate(&mut store).map_err(anyhow::Error::msg)?;
        let begin = instance.get_typed_func::<(), ()>(&mut store, "_start").map_err(anyhow::Error::msg)?;
        // It may end by exiting, which wasmtime tells as an error.
        let _ = begin.call(&mut store, ());
    }
    Ok(start.elapsed())
}

fn measure(criterion: &mut Criterion) -> anyhow::Result<()> {
    let runtime = Runtime::new()?;
    let dir = tempfile::tempdir()?;
    let program = bytes::Bytes::from(hello()?);
    let swarm = runtime.block_on(TestSwarm::start(1));
    let options = ComputeOptions::new(env!("CARGO_BIN_EXE_starfish-worker").into(), Vec::new());
    let tree = Arc::new(MemVfs::new());
    let network = swarm.network(0).clone();
    let memory = Memory::open(&dir.path().join("memory"), &network.local_peer())?;
    let compute = runtime.block_on(Compute::start(dir.path(), network, &memory, tree, options))?;
    let mut group = criterion.benchmark_group("tasks of the smallest program");
    group.throughput(Throughput::Elements(1)).sample_size(10);
    group.bench_function("on a node, 32 in flight", |bencher| {
        bencher.iter_custom(|n| {
            runtime.block_on(tasks(&compute, &program, n)).unwrap_or(Duration::from_secs(3600))
        });
    });
    group.bench_function("on a node, as one batch", |bencher| {
        bencher.iter_custom(|n| {
            runtime.block_on(batch(&compute, &program, n)).unwrap_or(Duration::from_secs(3600))
        });
    });
    let function = runtime.block_on(deploy(&compute, &program))?;
    group.bench_function("a call of a function, one after the other", |bencher| {
        bencher.iter_custom(|n| {
            runtime.block_on(calls(&compute, &function, n)).unwrap_or(Duration::from_secs(3600))
        });
    });
    group.bench_function("limit: wasmtime in one thread", |bencher| {
        bencher.iter_custom(|n| raw(&program, n).unwrap_or(Duration::from_secs(3600)));
    });
    group.finish();
    runtime.block_on(compute.stop());
    Ok(())
}

#[expect(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to measure")]
fn all(criterion: &mut Criterion) {
    measure(criterion).expect("a node in this process");
}

criterion_group!(benches, all);
criterion_main!(benches);
