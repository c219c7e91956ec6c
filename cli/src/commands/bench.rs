//! `starfish bench`: what a swarm on this machine does in a second, and how much of the machine that is.
//!
//! Figures of one machine say nothing about another, and those of a loaded machine nothing at all. So each stands
//! beside a limit: the same work by the shortest way that the machine has, measured in the same run on the same
//! disk. The ratio of the two is what may be compared between runs.
//!
//! The nodes are processes of this program with their own folders; nothing leaves loopback, and the user's own node is
//! neither asked nor touched.

mod figure;
mod files;
mod functions;
mod memory;
mod start;
mod sustained;
mod swarm;
mod tasks;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

use self::figure::Figure;
use super::Context;
use super::task::parse_bytes;

/// Measure a swarm on this machine against the machine itself.
///
/// Starts nodes of their own on loopback in a folder that is removed afterwards. RATIO is the figure as a share of the
/// limit beside it, which is the same work by a shorter way, measured in the same run.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  starfish bench\n  starfish bench fs --nodes 5 --size 1G --json\n  starfish bench --join-many 50"
)]
pub struct Bench {
    /// What to measure [default: all].
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// How many nodes the swarm has.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(2..=100))]
    nodes: u16,
    /// The size of the large file, such as 64M or 1G.
    #[arg(long, value_name = "BYTES", default_value = "256M", value_parser = parse_bytes)]
    size: u64,
    /// For how long keys are set without a pause, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=3600))]
    sustain: u16,
    /// Also let so many nodes join a swarm, one after the other, and time the last. Each takes some tens of MiB.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=200))]
    join_many: Option<u16>,
    /// Keep the nodes' data below this folder: disks differ [default: the system's folder for temporary files].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// As one JSON document, in bytes and seconds.
    #[arg(long)]
    json: bool,
}

/// A part of the program that is measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Files: one large, many small, and with half of the nodes dead.
    Fs,
    /// Keys.
    Memory,
    /// Tasks.
    Compute,
}

impl Bench {
    fn wants(&self, part: Part) -> bool {
        self.parts.is_empty() || self.parts.contains(&part)
    }

    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        let figures = self.measure(&context).await?;
        if self.json {
            context.print_json(&figures).await?;
        } else {
            context.print(figure::table(&figures).to_string().trim_end()).await?;
        }
        Ok(0)
    }

    async fn measure(&self, context: &Context) -> anyhow::Result<Vec<Figure>> {
        let parent = self.dir.clone().unwrap_or_else(std::env::temp_dir);
        let scratch = tempfile::Builder::new()
            .prefix("starfish-bench-")
            .tempdir_in(&parent)
            .with_context(|| format!("cannot make a folder in {}", parent.display()))?;
        let root = scratch.path();
        let mut figures = Vec::new();
        let mut progress = Progress(context.clone());

        progress.say("starting nodes").await?;
        let mut swarm = start::swarm(&root.join("swarm"), self.nodes.into(), &mut figures).await?;
        if self.wants(Part::Fs) {
            progress.say("one large file").await?;
            files::large(&swarm, root, self.size, &mut figures).await?;
            progress.say("many small files").await?;
            files::small(&swarm, root, &mut figures).await?;
        }
        if self.wants(Part::Memory) {
            progress.say("shared memory").await?;
            memory::writes(&swarm, root, &mut figures).await?;
            progress.say("keys without a pause").await?;
            let lasting = Duration::from_secs(self.sustain.into());
            sustained::sets(&root.join("sustained"), lasting, &mut figures).await?;
        }
        if self.wants(Part::Compute) {
            progress.say("tasks").await?;
            tasks::tasks(&swarm, &mut figures).await?;
            progress.say("functions").await?;
            functions::functions(&root.join("functions"), &mut figures).await?;
        }
        // At the end: nobody is left to answer for the others.
        if self.wants(Part::Fs) {
            progress.say("half of the nodes dead").await?;
            files::half_dead(&mut swarm, root, self.size, &mut figures).await?;
        }
        swarm.stop().await;
        if let Some(n) = self.join_many {
            progress.say("many nodes").await?;
            start::many(&root.join("many"), n.into(), &mut figures).await?;
        }
        Ok(figures)
    }
}

/// Tells a person who looks on what takes so long.
struct Progress(Context);

impl Progress {
    async fn say(&mut self, what: &str) -> anyhow::Result<()> {
        if self.0.io.stderr.is_terminal() {
            self.0.io.stderr.line(format!("measuring: {what}")).await?;
        }
        Ok(())
    }
}
