//! Tasks in a second: the smallest program there is, so that what is measured is the way to it and back.

use std::time::{Duration, Instant};

use anyhow::bail;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use starfish_node::Client;
use starfish_node::compute::{Outcome, OutputFrame};
use starfish_node::fs::VfsPath;
use starfish_node::fs::vfs::{Attributes, Vfs};
use starfish_node::wire::{BatchRequest, ItemsRequest, TaskRequest};

use super::figure::{Figure, Value};
use super::swarm::Swarm;

/// Prints `hello, swarm`: the sample `hello.wat` of `compute`, assembled.
pub(super) const HELLO: &[u8] = include_bytes!("hello.wasm");
/// Tasks one after the other.
const IN_TURN: usize = 50;
/// Tasks from many clients.
const TASKS: usize = 300;
/// More than a small swarm has slots, so that none of them is free for long.
const IN_FLIGHT: usize = 32;

/// Tasks of a batch.
const BATCH: usize = 100_000;

/// Runs the program once, then some times in turn, then many times at once.
pub(super) async fn tasks(swarm: &Swarm, figures: &mut Vec<Figure>) -> anyhow::Result<()> {
    let (client, program) = (swarm.client(0), VfsPath::parse("/hello.wasm")?);
    let content = stream::iter([Ok(Bytes::from_static(HELLO))]);
    client.files().write(&program, content.boxed(), Attributes::default()).await?;

    let first = run_all(client, &program, 1, 1).await?;
    let in_turn = run_all(client, &program, IN_TURN, 1).await?;
    let at_once = run_all(client, &program, TASKS, IN_FLIGHT).await?;
    let in_turn = Value::per_second(IN_TURN, in_turn);
    figures.push(Figure::new("first run of a program", Value::Time(first)));
    figures.push(Figure::new("tasks, one after the other", in_turn));
    let at_once = Value::per_second(TASKS, at_once);
    let figure = Figure::new(format!("tasks, {IN_FLIGHT} in flight"), at_once);
    figures.push(figure.against("one after the other", in_turn));

    // Once to find out how long they take, and a second time to be measured.
    batch(client, &program).await?;
    let as_batch = Value::per_second(BATCH, batch(client, &program).await?);
    let figure = Figure::new(format!("tasks of a batch of {BATCH}"), as_batch);
    figures.push(figure.against("32 in flight", at_once));
    Ok(())
}

/// Submits a batch and waits for its end.
async fn batch(client: &Client, program: &VfsPath) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let items = ItemsRequest::Range(0, BATCH as u64);
    let batch = BatchRequest { items, no_cache: true, ..BatchRequest::new("hello", Some(program.clone())) };
    let job = client.submit_batch(&batch, None, None).await?.id;
    let report = client.job_end(&job.to_string()).await?;
    let elapsed = start.elapsed();
    match report.outcome {
        Some(Outcome::Exited(0)) => Ok(elapsed),
        other => bail!("a batch ended with {other:?}"),
    }
}

async fn run_all(client: &Client, program: &VfsPath, n: usize, in_flight: usize) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let runs = (0..n).map(|_| {
        let (client, program) = (client.clone(), program.clone());
        async move { run(&client, program).await }
    });
    stream::iter(runs).buffer_unordered(in_flight).try_collect::<()>().await?;
    Ok(start.elapsed())
}

async fn run(client: &Client, program: VfsPath) -> anyhow::Result<()> {
    let job = client.submit(&TaskRequest::new("hello", Some(program)), None).await?;
    let mut output = client.output(&job.to_string(), false).await?;
    let mut said = Vec::new();
    loop {
        match output.next().await? {
            OutputFrame::Stdout(bytes) => said.extend_from_slice(&bytes),
            OutputFrame::Stderr(_) => {}
            OutputFrame::Exit(Outcome::Exited(0)) if said == b"hello, swarm\n" => return Ok(()),
            OutputFrame::Exit(outcome) => bail!("a task said {} bytes and {outcome}", said.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_the_sample() {
        let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../compute/samples/hello.wat");
        // Names for debuggers come last, and were left out.
        assert!(wat::parse_file(sample).unwrap().starts_with(HELLO));
    }
}
