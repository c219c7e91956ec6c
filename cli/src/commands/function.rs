//! `starfish deploy`, `call`, `functions`, `rollback` and `undeploy`: programs that are called by a name.

use anyhow::Context as _;
use starfish_node::compute::Outcome;
use starfish_node::wire::DeployRequest;
use tokio_util::io::ReaderStream;

use super::Context;
use super::failure::not_run;
use super::run::{print_all, status_of};
use super::task::{self, Allowance};
use crate::output::human;
use crate::output::table::Table;
use crate::shell::Io;

/// Give a WASM program a name, by which every node can call it.
///
/// The program is a WASI command, or a component that answers HTTP requests (`wasi:http/incoming-handler`): a file of
/// this machine, or one of the tree. It is kept by the swarm, so this node is not needed for it any more. If the name is
/// there already, the program becomes its new version, and all calls get it from then on.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  starfish deploy upper upper.wasm\n  starfish call upper < in > out\n  \
                        curl -H \"Authorization: Bearer $TOKEN\" --data-binary @in http://127.0.0.1:12037/fn/upper")]
pub struct Deploy {
    #[command(flatten)]
    allowance: Allowance,
    /// A path of its own on every node's HTTP port, beside /fn/NAME.
    #[arg(long, value_name = "/PATH")]
    http: Option<String>,
    /// How many nodes run its calls, as long as so many are there, or `auto`: any node that has time.
    #[arg(long, value_name = "auto|N", default_value = "auto", value_parser = parse_replicas)]
    replicas: Replicas,
    /// Its name.
    name: String,
    /// The program.
    program: String,
}

/// Call a function, as if it ran here.
///
/// It reads this standard input, and its output and exit code come back. It runs on this node if that has a free slot,
/// else on another.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Exit status: the program's own; 4 there is no such function, 5 no node has a slot for it; the others are\n\
                        those of `starfish run`."
)]
pub struct Call {
    /// The function, and its arguments: everything behind it is its own.
    #[arg(value_names = ["NAME", "ARGS"], num_args = 1.., required = true, trailing_var_arg = true)]
    command: Vec<String>,
}

/// List the swarm's functions.
#[derive(Clone, Debug, clap::Args)]
pub struct Functions {
    /// All versions of one function.
    name: Option<String>,
    /// As one JSON document.
    #[arg(long)]
    json: bool,
}

/// Make an older version of a function the current one.
#[derive(Clone, Debug, clap::Args)]
pub struct Rollback {
    /// The function.
    name: String,
    /// The number of the version [default: the one before the current one].
    #[arg(value_name = "VERSION")]
    to: Option<String>,
}

/// Forget a function with all of its versions.
#[derive(Clone, Debug, clap::Args)]
pub struct Undeploy {
    /// The function.
    name: String,
}

/// How many nodes run the calls of a function, if that is bounded.
#[derive(Clone, Copy, Debug)]
struct Replicas(Option<u16>);

fn parse_replicas(text: &str) -> Result<Replicas, String> {
    match text.parse::<u16>() {
        Ok(number) if number > 0 => Ok(Replicas(Some(number))),
        _ if text == "auto" => Ok(Replicas(None)),
        _ => Err("neither a number of nodes nor `auto`".to_owned()),
    }
}

impl Deploy {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        let (program, bytes) = task::find_program(&context, &self.program).await?;
        let function = DeployRequest {
            program,
            env: self.allowance.env()?,
            grants: self.allowance.grants(&context.cwd)?,
            reach: self.allowance.reach(),
            limits: self.allowance.limits(),
            http: self.http.as_deref().map(|path| context.cwd.resolve(path)).transpose()?,
            replicas: self.replicas.0,
        };
        let deployed = context.client.deploy(&self.name, &function, bytes).await;
        let version = deployed.with_context(|| format!("{} was not deployed", self.name))?;
        context.print(format!("{} {version}", self.name)).await?;
        Ok(0)
    }
}

impl Call {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<i32> {
        let (name, args) = self.command.split_first().context("no function")?;
        Self::run_function(name, args, context).await.map_err(|error| not_run(error, name))
    }

    async fn run_function(name: &str, args: &[String], context: Context) -> anyhow::Result<i32> {
        let Io { stdin, mut stdout, mut stderr } = context.io;
        let input = ReaderStream::with_capacity(stdin, 64 << 10);
        let mut output = context.client.call(name, args.to_vec(), input).await?;
        let outcome = print_all(&mut output, &mut stdout, &mut stderr).await?;
        if !matches!(outcome, Outcome::Exited(_)) {
            stderr.line(format!("error: {name}: {outcome}")).await?;
        }
        Ok(status_of(&outcome))
    }
}

impl Functions {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        let mut functions = context.client.functions().await?;
        if let Some(name) = &self.name {
            functions.retain(|function| function.name.as_str() == name);
            anyhow::ensure!(!functions.is_empty(), super::failure::NotFound(format!("no function {name}")));
        }
        if self.json {
            context.print_json(&functions).await?;
            return Ok(0);
        }
        let mut table = Table::new(["NAME", "VERSION", "SIZE", "DEPLOYED", "BY", "HTTP"]);
        for function in &functions {
            let is_shown = |version| self.name.is_some() || version == function.current;
            for version in function.versions.iter().filter(|version| is_shown(version.version)) {
                let mark = if self.name.is_some() && version.version == function.current { " *" } else { "" };
                table.row([
                    function.name.to_string(),
                    format!("{}{mark}", version.version),
                    human::bytes(version.bytes),
                    human::age(version.at_ms),
                    human::peer(&version.by),
                    version.http.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
                ]);
            }
        }
        if !functions.is_empty() {
            context.print(table.to_string().trim_end()).await?;
        }
        Ok(0)
    }
}

impl Rollback {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        let version = context.client.rollback(&self.name, self.to).await?;
        context.print(format!("{} {version}", self.name)).await?;
        Ok(0)
    }
}

impl Undeploy {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<i32> {
        context.client.undeploy(&self.name).await?;
        Ok(0)
    }
}
