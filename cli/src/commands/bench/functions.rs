//! Calls of a function: how long one takes here and on another node, and how many requests a second are answered.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use bytes::Bytes;
use futures::future::try_join_all;
use futures::stream;
use starfish_node::Client;
use starfish_node::compute::{Outcome, OutputFrame};
use starfish_node::wire::DeployRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::figure::{Figure, Value};
use super::swarm::{Swarm, wait_until};
use super::tasks::HELLO;

/// What the function is called, and what it answers.
const NAME: &str = "hello";
const ANSWER: &[u8] = b"hello, swarm\n";
/// Calls one after the other.
const CALLS: usize = 500;
/// Connections that send requests at once.
const CONNECTIONS: usize = 16;
/// Requests of each.
const REQUESTS: usize = 1000;

/// Deploys the smallest program in a swarm of two, and calls it from the node where it can run and from one where nothing
/// can.
pub(super) async fn functions(root: &Path, figures: &mut Vec<Figure>) -> anyhow::Result<()> {
    let (mut swarm, _) = Swarm::found(root).await?;
    let client = swarm.client(0).clone();
    let start = Instant::now();
    client.deploy(NAME, &DeployRequest::default(), Some(Bytes::from_static(HELLO))).await?;
    call(&client).await?;
    figures.push(Figure::new("deployed and called", Value::Time(start.elapsed())));
    let here = Value::Time(median(&client).await?);
    figures.push(Figure::new("call of a function, median", here));

    swarm.add_without_slots().await?;
    let caller = swarm.last().clone();
    wait_until("the function to be known", || async { Ok(call(&caller).await.is_ok()) }).await?;
    let elsewhere = Value::Time(median(&caller).await?);
    let figure = Figure::new("the same, run on another node", elsewhere);
    figures.push(figure.against("on this one", here));

    let elapsed = requests(&client).await?;
    let rate = Value::per_second(CONNECTIONS * REQUESTS, elapsed);
    figures.push(Figure::new(format!("HTTP requests to it, {CONNECTIONS} connections"), rate));
    swarm.stop().await;
    Ok(())
}

async fn median(client: &Client) -> anyhow::Result<Duration> {
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let start = Instant::now();
        call(client).await?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times[CALLS / 2])
}

async fn call(client: &Client) -> anyhow::Result<()> {
    let mut output = client.call(NAME, Vec::new(), stream::empty()).await?;
    let mut said = Vec::new();
    loop {
        match output.next().await? {
            OutputFrame::Stdout(bytes) => said.extend_from_slice(&bytes),
            OutputFrame::Stderr(_) => {}
            OutputFrame::Exit(Outcome::Exited(0)) if said == ANSWER => return Ok(()),
            OutputFrame::Exit(outcome) => bail!("a call said {} bytes and {outcome}", said.len()),
        }
    }
}

async fn requests(client: &Client) -> anyhow::Result<Duration> {
    let address = client.status().await?.api.to_string();
    let token = tokio::fs::read_to_string(client.data_dir().token()).await?;
    let head = format!(
        "GET /fn/{NAME} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\r\n",
        token.trim()
    );
    let start = Instant::now();
    try_join_all((0..CONNECTIONS).map(|_| one_after_the_other(&address, &head))).await?;
    Ok(start.elapsed())
}

async fn one_after_the_other(address: &str, request: &str) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut answer = Vec::new();
    for _ in 0..REQUESTS {
        stream.write_all(request.as_bytes()).await?;
        answer.clear();
        while !answer.ends_with(ANSWER) {
            ensure!(stream.read_buf(&mut answer).await? > 0, "a connection was closed");
        }
        ensure!(
            answer.starts_with(b"HTTP/1.1 200 "),
            "a request failed: {}",
            String::from_utf8_lossy(&answer)
        );
    }
    Ok(())
}
