//! `starfish mount`: the tree as a folder of this machine, for every program.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use starfish_node::fs::mount::{self, Access, Closed, MountOptions};
use starfish_node::logs::{self, LogFormat};
use tokio::signal::unix::{SignalKind, signal};

use super::{Context, up};

/// How long a detached mount may take to be there before its start counts as failed.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// What is logged when `RUST_LOG` says nothing: what goes wrong.
const FILTER: &str = "warn,fuser=error";

/// Mount the tree on an empty folder, for every program to use.
///
/// It stays until ctrl-C or `starfish umount`. What a program wrote is in the tree when it closes the file; what other
/// nodes do shows within a second or two. There are no hard links, owners and extended attributes.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  mkdir ~/swarm && starfish mount ~/swarm\n  starfish mount --detach --read-only /mnt/swarm"
)]
pub struct Mount {
    /// The folder.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Let nobody change anything through it.
    #[arg(long)]
    read_only: bool,
    /// Go on in the background once it is mounted; its log is mount.log in the data folder.
    #[arg(long)]
    detach: bool,
}

impl Mount {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        // That there is no node is said here, with its hint, and not by every program that looks into the folder.
        context.client.id().await?;
        if self.detach {
            start_in_background(&context, &self.folder).await?;
            return self.say_mounted(&mut context, &self.folder).await;
        }
        let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| FILTER.to_owned());
        logs::init(LogFormat::Text, Some(&filter))?;
        let access = if self.read_only { Access::ReadOnly } else { Access::ReadWrite };
        let disk = context.client.data_dir().path().to_owned();
        // Before there is a mount that a signal could leave behind.
        let mut stopped = Signals::new()?;
        let options = MountOptions { access, disk };
        let mut mount = mount::Mount::new(context.tree(), &self.folder, options).await?;
        let point = mount.point().to_owned();
        self.say_mounted(&mut context, &point).await?;
        tokio::select! {
            () = mount.ended() => {}
            () = stopped.recv() => {}
        }
        say_closed(&mut context, &point, mount.close().await?).await
    }

    async fn say_mounted(&self, context: &mut Context, point: &Path) -> anyhow::Result<i32> {
        let point = point.display();
        let how = if self.read_only { ", read-only" } else { "" };
        context.io.stderr.line(format!("the tree is mounted on {point}{how}")).await?;
        let ctrl_c = if self.detach { "" } else { ", or ctrl-C here" };
        context.io.stderr.line(format!("take it away: starfish umount {point}{ctrl_c}")).await?;
        Ok(0)
    }
}

async fn say_closed(context: &mut Context, point: &Path, closed: Closed) -> anyhow::Result<i32> {
    let point = point.display();
    if closed.was_busy {
        let text = format!("{point} was in use: programs that have files of it open will see errors");
        context.io.stderr.line(text).await?;
    }
    if closed.lost > 0 {
        bail!("the last changes of {} open files could not be brought to the tree", closed.lost);
    }
    context.io.stderr.line(format!("{point} is not mounted any more")).await?;
    Ok(0)
}

async fn start_in_background(context: &Context, folder: &Path) -> anyhow::Result<()> {
    let log = context.client.data_dir().path().join("mount.log");
    // The same words again, but for the one that led here.
    let words: Vec<_> = std::env::args_os().skip(1).filter(|word| word != "--detach").collect();
    if mount::is_mounted(folder) && folder.read_dir().is_ok() {
        return Err(mount::MountError::MountedAlready(folder.to_owned()).into());
    }
    let before = up::length(&log);
    let mut child = up::spawn(&log, &words, &[])?;
    let start = Instant::now();
    // A dead mount counts for none: what lists it is the mount that replaces it.
    while !(mount::is_mounted(folder) && folder.read_dir().is_ok()) {
        if let Some(status) = child.try_wait()? {
            bail!("it was not mounted ({status}):\n{}", up::last_lines(&log, before, 8));
        }
        if start.elapsed() > START_PATIENCE {
            bail!("it was not mounted within {} s; see {}", START_PATIENCE.as_secs(), log.display());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// What ends a mount: ctrl-C, `kill`, and the end of the terminal.
struct Signals([tokio::signal::unix::Signal; 3]);

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(listen);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn recv(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
