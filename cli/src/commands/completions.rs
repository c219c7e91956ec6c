//! `starfish completions`: scripts for the shells of this machine.

use tokio::io::AsyncWriteExt;

use super::Context;

/// Print a completion script for a shell of this machine.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Example:\n  starfish completions bash > ~/.local/share/bash-completion/completions/starfish"
)]
pub struct Completions {
    /// Which shell.
    shell: clap_complete::Shell,
}

impl Completions {
    pub(super) async fn run(self, mut context: Context) -> anyhow::Result<i32> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::command(), "starfish", &mut script);
        context.io.stdout.write_all(&script).await?;
        Ok(0)
    }
}
