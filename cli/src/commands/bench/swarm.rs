//! Nodes to measure: processes of this very program on loopback, each with a folder of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures::future::{join_all, try_join_all};
use starfish_node::wire::{InviteRequest, Status};
use starfish_node::{Client, DataDir};

/// How long anything that is waited for may take on a loaded machine before the run is given up.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is looked whether a node is ready or replicas are equal: small against what is measured.
const POLL: Duration = Duration::from_millis(5);
/// How long a node may take to stop before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Nodes of one private swarm. Dropping it kills them.
pub(super) struct Swarm {
    root: PathBuf,
    nodes: Vec<Running>,
}

/// A node's process, and the way to it.
struct Running {
    client: Client,
    child: Child,
}

/// What the start of a node took, from its spawn on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    /// Until it answered.
    pub(super) ready: Duration,
    /// Until it and the founder each counted the other among the living.
    pub(super) joined: Duration,
}

impl Swarm {
    /// Founds a swarm of one below the folder `root`.
    pub(super) async fn found(root: &Path) -> anyhow::Result<(Self, Start)> {
        Self::found_with(root, &[]).await
    }

    /// The same, its founder with these settings.
    pub(super) async fn found_with(root: &Path, settings: &[(&str, &str)]) -> anyhow::Result<(Self, Start)> {
        let mut swarm = Self { root: root.to_owned(), nodes: Vec::new() };
        let start = Instant::now();
        swarm.spawn(None, settings).await?;
        let ready = start.elapsed();
        Ok((swarm, Start { ready, joined: ready }))
    }

    /// Adds a node with a fresh ticket of the founder.
    pub(super) async fn add(&mut self) -> anyhow::Result<Start> {
        self.add_with(&[]).await
    }

    /// Adds a node that runs no tasks itself.
    pub(super) async fn add_without_slots(&mut self) -> anyhow::Result<Start> {
        self.add_with(&[("STARFISH_SLOTS", "0")]).await
    }

    async fn add_with(&mut self, settings: &[(&str, &str)]) -> anyhow::Result<Start> {
        let others = self.nodes.len();
        let founder = self.client(0).clone();
        let ticket = founder.invite(&InviteRequest::default()).await?.ticket;
        let start = Instant::now();
        let newcomer = self.spawn(Some(&ticket), settings).await?;
        let ready = start.elapsed();
        wait_until("the newcomer to be a member", || async {
            Ok(founder.status().await?.n_alive >= others && newcomer.status().await?.n_alive >= 1)
        })
        .await?;
        Ok(Start { ready, joined: start.elapsed() })
    }

    /// The way to node `index`.
    pub(super) fn client(&self, index: usize) -> &Client {
        &self.nodes[index].client
    }

    /// The way to the node that came last.
    pub(super) fn last(&self) -> &Client {
        self.client(self.nodes.len() - 1)
    }

    /// How every node is.
    pub(super) async fn statuses(&self) -> anyhow::Result<Vec<Status>> {
        Ok(try_join_all(self.nodes.iter().map(|node| node.client.status())).await?)
    }

    /// Waits until every node holds the same memory, names of files included.
    pub(super) async fn wait_in_sync(&self) -> anyhow::Result<()> {
        wait_until("the replicas to be equal", || async {
            let statuses = self.statuses().await?;
            Ok(statuses.windows(2).all(|pair| pair[0].memory_digest == pair[1].memory_digest))
        })
        .await
    }

    /// Kills the first half of the nodes, with no time for anything.
    pub(super) fn kill_half(&mut self) {
        self.nodes.drain(..self.nodes.len() / 2);
    }

    /// Stops every node in order, so that none is left to its killer.
    pub(super) async fn stop(self) {
        join_all(self.nodes.iter().map(|node| async move {
            if node.client.stop().await.is_ok() {
                node.client.wait_until_down(STOP_PATIENCE).await;
            }
        }))
        .await;
    }

    async fn spawn(&mut self, ticket: Option<&str>, settings: &[(&str, &str)]) -> anyhow::Result<Client> {
        let home = self.root.join(format!("node-{}", self.nodes.len()));
        let dir = DataDir::new(home);
        dir.create()?;
        let log = dir.path().join("node.log");
        let mut command = command(&dir, &log, ticket)?;
        let child = command.envs(settings.iter().copied()).spawn().context("cannot start a node")?;
        self.nodes.push(Running { client: Client::new(dir), child });
        let node = self.nodes.last_mut().context("it was just added")?;
        let start = Instant::now();
        while !node.client.is_up(PATIENCE).await {
            if let Some(status) = node.child.try_wait()? {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                bail!("a node did not start ({status}):\n{}", said.trim_end());
            }
            if start.elapsed() > PATIENCE {
                bail!("a node was not ready within {} s", PATIENCE.as_secs());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(node.client.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Either fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Everything that could let a node meet others than those of its swarm is said, whatever the environment says.
fn command(dir: &DataDir, log: &Path, ticket: Option<&str>) -> anyhow::Result<Command> {
    let program = std::env::current_exe().context("cannot find this program itself")?;
    let output = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = Command::new(program);
    command.arg("--data-dir").arg(dir.path()).arg("up").env_remove("STARFISH_JOIN");
    command.args(["--listen", "127.0.0.1", "--port", "0", "--api-port", "0"]);
    command.args(["--mdns", "false", "--upnp", "false"]);
    if let Some(ticket) = ticket {
        command.args(["--join", ticket]);
    }
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    Ok(command)
}

pub(super) async fn wait_until<F, Fut>(what: &str, mut condition: F) -> anyhow::Result<()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = anyhow::Result<bool>>,
{
    let start = Instant::now();
    while !condition().await? {
        if start.elapsed() > PATIENCE {
            bail!("waited {} s in vain for {what}", PATIENCE.as_secs());
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}
