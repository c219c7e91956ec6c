//! The verbs and programs as the shell calls them.

use async_trait::async_trait;
use clap::{CommandFactory, FromArgMatches, Parser};
use starfish_node::Client;
use starfish_node::wire::{StdinSource, TaskRequest};

use super::{Cli, Context, Verb, failure, run};
use crate::output::error;
use crate::shell::fs::path::VfsPath;
use crate::shell::{Io, ProgramCall, Programs, Verb as Named, Verbs};

/// Verbs that make no sense inside of a shell that a running node answers.
const OUTSIDE_ONLY: [&str; 8] = ["up", "down", "leave", "mount", "umount", "shell", "completions", "worker"];

/// What the shell asks of the node.
#[derive(Debug)]
pub(super) struct NodeVerbs {
    client: Client,
    list: Vec<Named>,
}

/// One verb without the program's name in front.
#[derive(Parser)]
#[command(no_binary_name = true, disable_help_subcommand = true)]
struct Line {
    #[command(subcommand)]
    verb: Verb,
}

impl NodeVerbs {
    pub(super) fn new(client: Client) -> Self {
        let list = Cli::command()
            .get_subcommands()
            .filter(|verb| !OUTSIDE_ONLY.contains(&verb.get_name()))
            .map(|verb| Named {
                name: verb.get_name().to_owned(),
                about: verb.get_about().map(ToString::to_string).unwrap_or_default(),
            })
            .collect();
        Self { client, list }
    }
}

#[async_trait]
impl Verbs for NodeVerbs {
    fn list(&self) -> &[Named] {
        &self.list
    }

    async fn run(&self, argv: Vec<String>, cwd: VfsPath, mut io: Io) -> i32 {
        let parsed =
            Line::command().try_get_matches_from(&argv).and_then(|matches| Line::from_arg_matches(&matches));
        let verb = match parsed {
            Ok(line) => line.verb,
            Err(message) => {
                let is_help = !message.use_stderr();
                let stream = if is_help { &mut io.stdout } else { &mut io.stderr };
                let _ = stream.line(message.to_string().trim_end()).await;
                return if is_help { 0 } else { failure::USAGE };
            }
        };
        let context = Context { client: self.client.clone(), cwd, io: io.clone(), is_shell: true };
        match super::run(verb, context).await {
            Ok(status) => status,
            Err(failed) if failure::is_broken_pipe(&failed) => 0,
            Err(failed) => {
                let text = error::render(&failed, failure::hint(&failed).as_deref(), false);
                let _ = io.stderr.line(text.trim_end()).await;
                failure::status(&failed)
            }
        }
    }
}

#[async_trait]
impl Programs for NodeVerbs {
    async fn run(&self, call: ProgramCall) -> anyhow::Result<i32> {
        let ProgramCall { program, args, env, cwd: _, stdin, stdout, stderr } = call;
        let name = program.name().unwrap_or("program").to_owned();
        let task =
            TaskRequest { args, env, stdin: StdinSource::Stream, ..TaskRequest::new(name, Some(program)) };
        run::attached(&self.client, &task, None, Io { stdin, stdout, stderr }).await
    }
}
