//! What tasks are given on the command line, alone or many at once.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use starfish_node::compute::Grant;
use starfish_node::compute::reach::Reach;
use starfish_node::dht::PeerId;
use starfish_node::quantity::{QuantityError, Size, Span};
use starfish_node::wire::LimitsRequest;

use super::{Context, peers};
use crate::shell::fs::path::VfsPath;

/// What a program may use.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Allowance {
    /// A part of the tree that the program may use, under the same path; `:ro` for reading only. Changes reach the
    /// tree when it exits with 0.
    #[arg(long = "dir", value_name = "PATH[:ro]")]
    dirs: Vec<String>,
    /// Something else that the program may reach: a space of the swarm's memory, as a bucket of wasi:keyvalue
    /// (`mem:SPACE[:ro]`), HTTP requests to a host (`http:HOST[:PORT]`), or calls of a function, at
    /// http://NAME.starfish.internal (`fn:NAME`).
    #[arg(long = "grant", value_name = "WHAT")]
    reach: Vec<Reach>,
    /// End it after this time, such as 500ms, 30s or 2h [default: 1h].
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// The most memory that it may have, such as 64M or 1G [default: 256M].
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    memory: Option<u64>,
    /// The most that it may print, such as 1M [default: 1G].
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    output: Option<u64>,
    /// An environment variable for it.
    #[arg(long = "env", value_name = "NAME=VALUE")]
    env: Vec<String>,
}

/// What a task may use, and where it may run.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct TaskOptions {
    #[command(flatten)]
    allowance: Allowance,
    /// Run it on this node only.
    #[arg(long, value_name = "PEER")]
    on: Option<String>,
}

impl std::ops::Deref for TaskOptions {
    type Target = Allowance;

    fn deref(&self) -> &Allowance {
        &self.allowance
    }
}

impl TaskOptions {
    pub(super) async fn on(&self, context: &Context) -> anyhow::Result<Option<PeerId>> {
        match &self.on {
            Some(text) => Ok(Some(peers::find(context, text).await?)),
            None => Ok(None),
        }
    }
}

impl Allowance {
    /// Paths of grants are relative to where the shell stands, like all others.
    pub(super) fn grants(&self, cwd: &VfsPath) -> anyhow::Result<Vec<Grant>> {
        self.dirs.iter().map(|dir| grant(cwd, dir)).collect()
    }

    pub(super) fn reach(&self) -> Vec<Reach> {
        self.reach.clone()
    }

    pub(super) fn env(&self) -> anyhow::Result<Vec<(String, String)>> {
        self.env.iter().map(|pair| variable(pair)).collect()
    }

    pub(super) fn limits(&self) -> LimitsRequest {
        LimitsRequest {
            timeout_ms: self.timeout.map(millis),
            memory_bytes: self.memory,
            output_bytes: self.output,
        }
    }
}

/// Where a program is: in the tree, or here with its bytes. A file of this machine goes first outside of the shell;
/// inside, where paths mean the tree, the tree does.
pub(super) async fn find_program(
    context: &Context,
    program: &str,
) -> anyhow::Result<(Option<VfsPath>, Option<Bytes>)> {
    let in_tree = context.cwd.resolve(program);
    let host = Path::new(program);
    if context.is_shell
        && let Ok(path) = &in_tree
        && context.tree().stat(path).await.is_ok()
    {
        return Ok((Some(path.clone()), None));
    }
    if host.is_file() {
        let module =
            tokio::fs::read(host).await.with_context(|| format!("cannot read {}", host.display()))?;
        return Ok((None, Some(module.into())));
    }
    Ok((Some(in_tree?), None))
}

/// What a program is called in lists.
pub(super) fn name_of(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn variable(pair: &str) -> anyhow::Result<(String, String)> {
    let (name, value) = pair.split_once('=').with_context(|| format!("{pair:?} is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

fn grant(cwd: &VfsPath, text: &str) -> anyhow::Result<Grant> {
    let (path, access) = match text.rsplit_once(':') {
        Some((path, access @ ("ro" | "rw"))) => (path, access),
        _ => (text, "rw"),
    };
    Ok(format!("{}:{access}", cwd.resolve(path)?).parse()?)
}

pub(super) fn parse_duration(text: &str) -> Result<Duration, QuantityError> {
    text.parse().map(|Span(duration)| duration)
}

pub(super) fn parse_bytes(text: &str) -> Result<u64, QuantityError> {
    text.parse().map(|Size(bytes)| bytes)
}
