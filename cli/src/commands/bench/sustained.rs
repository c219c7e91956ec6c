//! Keys set without a pause through the port for Redis clients, in a swarm of three, until all three have them; and how soon a
//! single key is elsewhere, meanwhile and when nothing else goes on.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures::future::try_join_all;
use starfish_node::Client;
use starfish_node::client::RemoteWatch;
use starfish_node::wire::WatchEvent;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::figure::{Figure, Value};
use super::swarm::Swarm;

/// The first node, to which keys are set, and those that get them.
const NODES: usize = 3;
/// Connections, and the sets that each has on its way: as `redis-benchmark` with 50 clients and `-P 16` has.
const CONNECTIONS: usize = 50;
const IN_FLIGHT: usize = 16;
/// Different keys: as many as are written in some seconds, so that most are written over.
const KEYS: u64 = 1_000_000;
const VALUE: [u8; 100] = [b'v'; 100];
/// Single sets while nothing else goes on.
const SINGLE: usize = 200;
/// Between two of them: more than one takes, or their times would add up.
const PAUSE: Duration = Duration::from_millis(20);
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sets keys for `lasting`.
pub(super) async fn sets(root: &Path, lasting: Duration, figures: &mut Vec<Figure>) -> anyhow::Result<()> {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let (mut swarm, _) = Swarm::found_with(root, &[("STARFISH_MEMORY_REDIS", &port.to_string())]).await?;
    for _ in 1..NODES {
        swarm.add().await?;
    }
    swarm.wait_in_sync().await?;
    let mut probe = Probe::new(&swarm).await?;
    let idle = probe.times(|n| n < SINGLE).await?;

    let token = tokio::fs::read_to_string(swarm.client(0).data_dir().token()).await?;
    let start = Instant::now();
    let is_on = || start.elapsed() < lasting;
    let writers = (0..CONNECTIONS).map(|connection| write(port, token.trim(), connection as u64, is_on));
    let (written, busy) = tokio::try_join!(try_join_all(writers), probe.times(|_| is_on()))?;
    let (n, here) = (written.iter().sum(), start.elapsed());
    swarm.wait_in_sync().await?;
    let everywhere = Value::per_second(n, start.elapsed());
    swarm.stop().await;

    let what = format!("sets over RESP for {} s, on {NODES} nodes", lasting.as_secs());
    let alone = Value::per_second(n, here);
    figures.push(Figure::new(what, everywhere).against("acknowledged by the node they were sent to", alone));
    for (when, times) in [("when idle", idle), ("meanwhile", busy)] {
        let of_hundred =
            |percent: usize| Value::Time(times[(times.len() * percent / 100).min(times.len() - 1)]);
        figures.push(Figure::new(format!("a set, on another node, median, {when}"), of_hundred(50)));
        figures.push(Figure::new(format!("the same, of a hundred the slowest, {when}"), of_hundred(99)));
    }
    Ok(())
}

/// Sets keys while `is_on`; how many.
async fn write(port: u16, token: &str, connection: u64, is_on: impl Fn() -> bool) -> anyhow::Result<usize> {
    const OK: &[u8] = b"+OK\r\n";
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.write_all(format!("AUTH {token}\r\n").as_bytes()).await?;
    let mut answers = vec![0; OK.len() * IN_FLIGHT];
    stream.read_exact(&mut answers[..OK.len()]).await?;
    ensure!(answers.starts_with(OK), "the node does not take its own token");
    let (mut commands, mut n) = (Vec::new(), 0);
    while is_on() {
        commands.clear();
        for _ in 0..IN_FLIGHT {
            // Not in order, and each connection others.
            let key = (n as u64 * CONNECTIONS as u64 + connection).wrapping_mul(0x9E37_79B9_7F4A_7C15) % KEYS;
            commands
                .extend_from_slice(format!("*3\r\n$3\r\nSET\r\n$16\r\nkey:{key:012}\r\n$100\r\n").as_bytes());
            commands.extend_from_slice(&VALUE);
            commands.extend_from_slice(b"\r\n");
            n += 1;
        }
        stream.write_all(&commands).await?;
        stream.read_exact(&mut answers).await?;
        ensure!(answers.chunks(OK.len()).all(|answer| answer == OK), "a set was refused");
    }
    Ok(n)
}

/// Sets single keys on the first node and watches for them on the last.
struct Probe {
    from: Client,
    seen: RemoteWatch,
    next: usize,
}

impl Probe {
    async fn new(swarm: &Swarm) -> anyhow::Result<Self> {
        let seen = swarm.last().space("probe").watch(b"").await?;
        Ok(Self { from: swarm.client(0).clone(), seen, next: 0 })
    }

    /// Times from before a set until another node tells of it, in order of their length, for as long as `goes_on` says
    /// of their number.
    async fn times(&mut self, goes_on: impl Fn(usize) -> bool) -> anyhow::Result<Vec<Duration>> {
        let (space, mut times) = (self.from.space("probe"), Vec::new());
        while goes_on(times.len()) {
            let name = format!("probe-{}", self.next).into_bytes();
            self.next += 1;
            let start = Instant::now();
            space.set(&name, Bytes::from_static(b"x"), None).await?;
            tokio::time::timeout(PATIENCE, self.saw(&name)).await.context("a set is not told of")??;
            times.push(start.elapsed());
            tokio::time::sleep(PAUSE).await;
        }
        ensure!(!times.is_empty(), "nothing was set");
        times.sort_unstable();
        Ok(times)
    }

    async fn saw(&mut self, name: &[u8]) -> anyhow::Result<()> {
        loop {
            match self.seen.next().await?.context("the node stopped")? {
                WatchEvent::Value { key, .. } if key == name => return Ok(()),
                _ => {}
            }
        }
    }
}
