//! `starfish up`: a node in the foreground, or with `--detach` in the background.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::builder::NonEmptyStringValueParser;
use starfish_node::dht::Multiaddr;
use starfish_node::dht::ticket::Ticket;
use starfish_node::logs::{self, LogFormat};
use starfish_node::wire::{InviteRequest, Status};
use starfish_node::{
    Client, DataDir, Layer, Node, NodeConfig, NodeLock, RuntimeInfo, Settings, Slots, unknown_variables,
};

use super::Context;
use super::failure::{NOT_ALLOWED, NotLetIn, TEMPORARY};
use crate::output::progress::NO_PROGRESS;

/// How long a detached node may take to answer before its start counts as failed.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How long `--join @FILE` waits for another node to write its ticket there.
const TICKET_PATIENCE: Duration = Duration::from_secs(60);
/// How long a node that joins waits for the first member before it says that there is none yet.
const JOIN_PATIENCE: Duration = Duration::from_secs(5);
/// How long a node that was a member before waits for the others before it says that none answers.
const RETURN_PATIENCE: Duration = Duration::from_secs(1);
/// How long a node that was killed may hold its folder, and one that lives may take to say so.
const DYING_PATIENCE: Duration = Duration::from_secs(2);
/// The ticket to join with, in the environment.
pub(super) const JOIN: &str = "STARFISH_JOIN";
/// How often the ticket of `--ticket-file` is written anew: it is good for a day, and the file must be as well.
const TICKET_EVERY: Duration = Duration::from_secs(12 * 3600);
/// A detached node's log is begun anew when it is longer than this at a start, in bytes.
const MAX_LOG: u64 = 16 << 20;

/// Start a node here, in the foreground.
///
/// On a fresh data folder it founds a private swarm of one, or joins another's with a ticket. Settings are flags over
/// STARFISH_* variables over config.toml in the data folder over defaults.
///
/// A ticket that a member refuses (revoked, expired) ends it with status 6. If nobody answers, the node is up and goes
/// on trying; with --detach the status is 5 then.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  starfish up\n  starfish up --detach\n  starfish up --join starfish1...\n  \
                        starfish --data-dir /tmp/b up --port 0 --api-port 0 --join starfish1..."
)]
pub struct Up {
    /// Join a swarm with its ticket; `@FILE` waits for a file with one [env: STARFISH_JOIN].
    #[arg(long, value_name = "TICKET", value_parser = NonEmptyStringValueParser::new())]
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
    pub(super) async fn run(mut self, mut context: Context) -> anyhow::Result<i32> {
        // Compose files set the variable to nothing when there is no ticket.
        self.join = self.join.or_else(|| std::env::var(JOIN).ok()).filter(|ticket| !ticket.is_empty());
        let dir = context.client.data_dir().clone();
        if is_taken(&context.client).await {
            return self.say_already_up(&dir, &mut context).await;
        }
        if self.detach {
            let words = words_for_background(std::env::args_os().skip(1));
            start_in_background(&context.client, &words, self.join.as_deref()).await?;
            return say_up(&mut context, self.joins()).await;
        }
        let settings = Settings::load(&dir, self.layer(), |name| std::env::var(name).ok())?;
        logs::init(settings.log_format, std::env::var("RUST_LOG").ok().as_deref())?;
        warn_of_unknown_variables();
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
        if self.joins() && !self.leads_to_swarm_of(context).await {
            bail!("{already}; it does not join another swarm while it runs (starfish leave, then up --join)");
        }
        context.io.stderr.line(format!("{already}; nothing was changed")).await?;
        Ok(0)
    }

    /// Whether the ticket is of the swarm that the running node is in already.
    async fn leads_to_swarm_of(&self, context: &Context) -> bool {
        let ticket = self.join.as_deref().and_then(|text| text.parse::<Ticket>().ok());
        match (ticket, context.client.id().await) {
            (Some(ticket), Ok(id)) => ticket.swarm.to_string() == id.swarm,
            _ => false,
        }
    }

    /// The ticket to join with. A node that is a member already takes one that is there and waits for none: who
    /// writes it may be gone for good.
    async fn ticket(&self, dir: &DataDir) -> anyhow::Result<Option<Ticket>> {
        let Some(text) = self.join.as_deref() else { return Ok(None) };
        let Some(file) = text.strip_prefix('@') else { return Ok(Some(text.parse()?)) };
        if dir.membership().exists() && !Path::new(file).exists() {
            return Ok(None);
        }
        ticket_in(file).await.map(Some)
    }

    fn joins(&self) -> bool {
        self.join.is_some()
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

/// A slip in a variable's name would otherwise go unnoticed: what is in the environment cannot be refused, as a slip in the
/// file is.
fn warn_of_unknown_variables() {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for unknown in unknown_variables(names, &[JOIN, NO_PROGRESS]) {
        let nearest = unknown.nearest.as_deref();
        tracing::warn!(variable = %unknown.name, nearest, "this variable is not known and is ignored");
    }
}

/// Whether a node runs on the folder. One that was killed lets go of it a moment later.
async fn is_taken(client: &Client) -> bool {
    let start = Instant::now();
    while NodeLock::is_held(client.data_dir()) {
        if start.elapsed() > DYING_PATIENCE || client.is_up(DYING_PATIENCE).await {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

/// The same words again, but for the one that led here, and for the ticket: it is a secret, and everybody on the machine
/// can read the words of a process, for as long as it runs.
fn words_for_background(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let (mut kept, mut words) = (Vec::new(), words);
    while let Some(word) = words.next() {
        if word == "--join" {
            words.next();
        } else if word != "--detach" && !word.as_encoded_bytes().starts_with(b"--join=") {
            kept.push(word);
        }
    }
    kept
}

/// Starts a node as a process of its own and returns when it answers. A ticket goes to it through its environment,
/// which is its own.
pub(super) async fn start_in_background(
    client: &Client,
    words: &[OsString],
    ticket: Option<&str>,
) -> anyhow::Result<()> {
    let dir = client.data_dir();
    dir.create()?;
    let log = dir.path().join("node.log");
    let before = length(&log);
    let mut child = spawn(&log, words, &[(JOIN, ticket.unwrap_or_default())])?;
    let start = Instant::now();
    while !client.is_up(Duration::from_millis(100)).await {
        if let Some(status) = child.try_wait()? {
            if status.code() == Some(NOT_ALLOWED) {
                return Err(NotLetIn(last_lines(&log, before, 8)).into());
            }
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
pub(super) fn spawn(log: &Path, words: &[OsString], environment: &[(&str, &str)]) -> anyhow::Result<Child> {
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
        .envs(environment.iter().copied())
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

/// Says how the node is, once it can be said, and gives the status that a start in the background ends with.
async fn say_up(context: &mut Context, joins: bool) -> anyhow::Result<i32> {
    let start = Instant::now();
    let mut status = context.client.status().await?;
    // Who was never in its swarm hopes for the first member; who was is told by the members if it is let in no more.
    let patience = match (joins || status.provisional, status.has_met_others) {
        (true, _) => JOIN_PATIENCE,
        (false, true) => RETURN_PATIENCE,
        (false, false) => Duration::ZERO,
    };
    while status.n_alive == 0 && status.turned_away.is_none() && start.elapsed() < patience {
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
    let starfish = super::program(context.client.data_dir());
    let (next, exit) = match &status {
        Status { turned_away: Some(why), .. } => {
            (format!("warning: the swarm lets this node in no more: {why}"), NOT_ALLOWED)
        }
        Status { n_alive: 0, .. } if joins || status.provisional => {
            let why = "warning: no member of the swarm could be reached yet; the node goes on trying";
            (format!("{why} ({starfish} peers, and the log, tell more)"), TEMPORARY)
        }
        Status { n_alive: 0, has_met_others: true, .. } => {
            ("no other member answers yet; the node goes on trying".to_owned(), 0)
        }
        _ => (format!("invite another machine: {starfish} invite"), 0),
    };
    context.io.stderr.line(next).await?;
    Ok(exit)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_not_among_the_words_of_a_node_in_the_background() {
        let words =
            ["--data-dir", "/d", "up", "--detach", "--join", "secret", "--port", "0", "--join=secret"];
        let kept = words_for_background(words.into_iter().map(OsString::from));
        assert_eq!(kept, ["--data-dir", "/d", "up", "--port", "0"]);
    }
}
