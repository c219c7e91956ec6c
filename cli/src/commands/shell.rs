//! `starfish shell`, and `starfish` alone: the shell on the running node, or on one that is started for it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;

use super::verbs::NodeVerbs;
use super::{Context, up};
use crate::output::human;
use crate::shell::{Shell as Session, ShellOptions};

/// Open the shell, or run a script in it.
#[derive(Clone, Debug, clap::Args)]
pub struct Shell {
    /// Run one line and exit with its status.
    #[arg(short = 'c', value_name = "COMMAND")]
    command: Option<String>,
    /// A script of this machine; without one the shell is interactive.
    script: Option<PathBuf>,
    /// The script's arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, requires = "script")]
    args: Vec<String>,
}

impl Shell {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<i32> {
        let Some(script) = self.script else { return open(context, self.command).await };
        let text = tokio::fs::read_to_string(&script)
            .await
            .with_context(|| format!("cannot read {}", script.display()))?;
        let mut args = vec![script.display().to_string()];
        args.extend(self.args);
        Ok(session(&context).await?.run_script(&text, &args).await)
    }
}

/// Opens the shell, on a node that is started in the background if none runs; or runs one line in it, on a
/// node that must be running.
pub(super) async fn open(mut context: Context, line: Option<String>) -> anyhow::Result<i32> {
    if let Some(line) = line {
        return Ok(session(&context).await?.run_command(&line).await);
    }
    if !starfish_node::NodeLock::is_held(context.client.data_dir()) {
        let dir = context.client.data_dir().path().to_owned();
        let words = ["--data-dir".into(), dir.into_os_string(), "up".into()];
        // A ticket in this environment is for the node as well.
        let ticket = std::env::var(up::JOIN).ok();
        up::start_in_background(&context.client, &words, ticket.as_deref()).await?;
        let starfish = super::program(context.client.data_dir());
        let line = format!("started a node in the background; to stop it: {starfish} down");
        context.io.stderr.line(line).await?;
    }
    let mut session = session(&context).await?;
    context.io.stderr.line("this is the starfish shell: try help, invite, peers, put; exit ends it").await?;
    session.run_interactive().await
}

async fn session(context: &Context) -> anyhow::Result<Session> {
    let id = context.client.id().await?;
    let verbs = Arc::new(NodeVerbs::new(context.client.clone()));
    Ok(Session::new(ShellOptions {
        vfs: context.tree(),
        programs: verbs.clone(),
        verbs,
        node_name: human::peer(&id.peer),
        history: Some(context.client.data_dir().path().join("history")),
    }))
}
