//! `starfish up`: a node in the foreground, or with `--detach` in the background.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use starfish_node::dht::Multiaddr;
use starfish_node::dht::ticket::Ticket;
use starfish_node::logs::{self, LogFormat};
use starfish_node::wire::InviteRequest;
use starfish_node::{Client, DataDir, Layer, Node, NodeConfig, NodeLock, RuntimeInfo, Settings, Slots};

use super::Context;

/// How long a detached node may take to answer before its start counts as failed.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How long `--join @FILE` waits for another node to write its ticket there.
const TICKET_PATIENCE: Duration = Duration::from_secs(60);
/// How long a node that joins waits for the first member before it says that there is none yet.
const JOIN_PATIENCE: Duration = Duration::from_secs(5);
/// How often the ticket of `--ticket-file` is written anew: it is good for a day, and the file must be as well.
const TICKET_EVERY: Duration = Duration::from_secs(12 * 3600);
/// A detached node's log is begun anew when it is longer than this at a start, in bytes.
const MAX_LOG: u64 = 16 << 20;

/// Start a node here, in the foreground.
///
/// On a fresh data folder it founds a private swarm of one, or joins another's with a ticket. Settings are flags over
/// STARFISH_* variables over config.toml in the data folder over defaults.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  starfish up\n  starfish up --detach\n  starfish up --join starfish1...\n  \
                        starfish --data-dir /tmp/b up --port 0 --api-port 0 --join starfish1..."
)]
pub struct Up {
    /// Join a swarm with its ticket; `@FILE` waits for a file with one.
    #[arg(long, env = "STARFISH_JOIN", value_name = "TICKET")]
    join: Option<String>,
    /// Go on in the background once the node is ready; its log is node.log in the data folder.
    #[arg(long)]
    detach: bool,
    /// Once ready, write a ticket for others to this file.
    #[arg(long, value_name = "FILE")]
    ticket_file: Option<PathBuf>,
    /// The swarm's UDP and TCP port; 0 takes a free one [default: 12036].
    #[arg(long)]
    port: Option<u16>,
    /// The API's port on 127.0.0.1; 0 takes a free one [default: 12037].
    #[arg(long)]
    api_port: Option<u16>,
    /// Listen on this address only; may be given several times [default: all].
    #[arg(long, value_name = "IP")]
    listen: Vec<IpAddr>,
    /// Others reach this node here, although it cannot see that itself (a forwarded port).
    #[arg(long, value_name = "MULTIADDR")]
    external: Vec<Multiaddr>,
    /// Look for members of the swarm on the local network [default: true].
    #[arg(long, value_name = "BOOL")]
    mdns: Option<bool>,
    /// Ask the router to forward the port [default: false].
    #[arg(long, value_name = "BOOL")]
    upnp: Option<bool>,
    /// A name for what fails together: a room, a site.
    #[arg(long)]
    zone: Option<String>,
    /// Tasks that may run here at once; 0 runs none [default: one a core].
    #[arg(long)]
    slots: Option<Slots>,
    /// How log lines look: text or json.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

impl Up {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        let dir = context.client.data_dir().clone();
        if NodeLock::is_held(&dir) {
            return self.say_already_up(&dir, &mut context).await;
        }
        if self.detach {
            // The same words again, but for the one that led here.
            let words: Vec<_> = std::env::args_os().skip(1).filter(|word| word != "--detach").collect();
            start_in_background(&context.client, &words).await?;
            return say_up(&mut context, self.joins()).await;
        }
        let settings = Settings::load(&dir, self.layer(), |name| std::env::var(name).ok())?;
        logs::init(settings.log_format, std::env::var("RUST_LOG").ok().as_deref())?;
        let join = self.ticket(&dir).await?;
        let worker_program = std::env::current_exe().context("cannot find this program itself")?;
        let config =
            NodeConfig { dir, settings, join, worker_program, worker_args: vec!["worker".to_owned()] };
        let (joins, ticket_file) = (self.joins(), self.ticket_file);
        Node::run(config, move |node| {
            if let Some(file) = ticket_file {
                tokio::spawn(keep_ticket(node.client(), file));
            }
            if std::io::stderr().is_terminal() {
                tokio::spawn(async move { say_up(&mut context, joins).await });
            }
        })
        .await?;
        Ok(0)
    }

    async fn say_already_up(&self, dir: &DataDir, context: &mut Context) -> anyhow::Result<i32> {
        let pid = RuntimeInfo::read(dir).map(|info| format!(", pid {}", info.pid)).unwrap_or_default();
        let already = format!("a node is already up on {}{pid}", dir.path().display());
        if self.joins() {
            bail!("{already}; it does not join another swarm while it runs (starfish leave, then up --join)");
        }
        context.io.stderr.line(format!("{already}; nothing was changed")).await?;
        Ok(0)
    }

    /// The ticket to join with. A node that is a member already takes one that is there and waits for none: who
    /// writes it may be gone for good.
    async fn ticket(&self, dir: &DataDir) -> anyhow::Result<Option<Ticket>> {
        let Some(text) = self.join.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
        let Some(file) = text.strip_prefix('@') else { return Ok(Some(text.parse()?)) };
        if dir.membership().exists() && !Path::new(file).exists() {
            return Ok(None);
        }
        ticket_in(file).await.map(Some)
    }

    /// Compose files set the variable to nothing when there is no ticket.
    fn joins(&self) -> bool {
        self.join.as_ref().is_some_and(|ticket| !ticket.is_empty())
    }

    fn layer(&self) -> Layer {
        Layer {
            port: self.port,
            api_port: self.api_port,
            mdns: self.mdns,
            upnp: self.upnp,
            listen: (!self.listen.is_empty()).then(|| self.listen.clone()),
            external: (!self.external.is_empty()).then(|| self.external.clone()),
            slots: self.slots,
            zone: self.zone.clone(),
            log_format: self.log_format,
            ..Layer::default()
        }
    }
}

/// Starts a node as a process of its own and returns when it answers.
pub(super) async fn start_in_background(client: &Client, words: &[OsString]) -> anyhow::Result<()> {
    let dir = client.data_dir();
    dir.create()?;
    let log = dir.path().join("node.log");
    let before = length(&log);
    let mut child = spawn(&log, words)?;
    let start = Instant::now();
    while !client.is_up(Duration::from_millis(100)).await {
        if let Some(status) = child.try_wait()? {
            bail!("the node did not start ({status}):\n{}", last_lines(&log, before, 8));
        }
        if start.elapsed() > START_PATIENCE {
            bail!("the node did not answer within {} s; see {}", START_PATIENCE.as_secs(), log.display());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Starts this program with `words` as a process that outlives this one, and appends what it says to `log`.
pub(super) fn spawn(log: &Path, words: &[OsString]) -> anyhow::Result<Child> {
    let anew = std::fs::metadata(log).is_ok_and(|metadata| metadata.len() > MAX_LOG);
    let output = std::fs::OpenOptions::new()
        .create(true)
        .write(true)
        .append(!anew)
        .truncate(anew)
        .open(log)
        .with_context(|| format!("cannot write {}", log.display()))?;
    let program = std::env::current_exe().context("cannot find this program itself")?;
    Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        // Signals to the terminal's group, such as ctrl-C, are not for it.
        .process_group(0)
        .spawn()
        .context("cannot start a process in the background")
}

/// How long a log is, before something is started that adds to it.
pub(super) fn length(log: &Path) -> u64 {
    std::fs::metadata(log).map_or(0, |metadata| metadata.len())
}

/// What a log ends with, of what came after its first `from` bytes (of all of it, where it was begun anew).
pub(super) fn last_lines(log: &Path, from: u64, n: usize) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let added = usize::try_from(from).ok().and_then(|from| text.get(from..)).unwrap_or(&text);
    let lines: Vec<&str> = added.lines().collect();
    lines[lines.len().saturating_sub(n)..].join("\n")
}

async fn say_up(context: &mut Context, joins: bool) -> anyhow::Result<i32> {
    let start = Instant::now();
    let mut status = context.client.status().await?;
    while joins && status.n_alive == 0 && start.elapsed() < JOIN_PATIENCE {
        tokio::time::sleep(Duration::from_millis(20)).await;
        status = context.client.status().await?;
    }
    let members = if status.n_alive == 1 { "member" } else { "members" };
    let text = format!(
        "node {} is up in swarm {:.8}, with {} other {members} alive",
        crate::output::human::peer(&status.id.peer),
        status.id.swarm,
        status.n_alive,
    );
    context.io.stderr.line(text).await?;
    let next = match (joins, status.n_alive) {
        (true, 0) => {
            "no member could be reached yet; it goes on trying (starfish peers, and the log, tell more)"
        }
        _ => "invite another machine: starfish invite",
    };
    context.io.stderr.line(next).await?;
    Ok(0)
}

/// Waits for a ticket in `file`, which is whole when it ends with a newline.
async fn ticket_in(file: &str) -> anyhow::Result<Ticket> {
    let start = Instant::now();
    loop {
        match tokio::fs::read_to_string(file).await {
            Ok(text) if text.ends_with('\n') => {
                return text.parse().with_context(|| format!("{file} holds no ticket"));
            }
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot read a ticket from {file}"));
            }
            _ if start.elapsed() > TICKET_PATIENCE => {
                bail!("no ticket appeared in {file} within {} s", TICKET_PATIENCE.as_secs());
            }
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Keeps a ticket that is good in `file`, for as long as the node runs.
async fn keep_ticket(client: Client, file: PathBuf) {
    let mut tick = tokio::time::interval(TICKET_EVERY);
    loop {
        tick.tick().await;
        if let Err(error) = write_ticket(&client, &file).await {
            tracing::warn!(file = %file.display(), "no ticket was written: {error:#}");
        }
    }
}

/// Writes a ticket beside its final name first, so that who waits for the file never reads half of it.
async fn write_ticket(client: &Client, file: &Path) -> anyhow::Result<()> {
    let invitation = client.invite(&InviteRequest::default()).await?;
    let fresh = file.with_extension("new");
    tokio::fs::write(&fresh, format!("{}\n", invitation.ticket)).await?;
    tokio::fs::rename(&fresh, file).await?;
    Ok(())
}
