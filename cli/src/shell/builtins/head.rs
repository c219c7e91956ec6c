//! `head`

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::lines::Lines;
use super::{Builtin, Context, Failure, Outcome};
use crate::shell::io::BoxReader;

/// Arguments of `head`.
#[derive(Debug, clap::Args)]
pub(super) struct Head {
    /// How many lines
    #[arg(short = 'n', long, default_value_t = 10)]
    lines: u64,
    /// How many bytes, instead of lines
    #[arg(short = 'c', long)]
    bytes: Option<u64>,
    /// Files; - is standard input
    #[arg(default_value = "-")]
    files: Vec<String>,
}

impl Builtin for Head {
    const NAME: &'static str = "head";
    const ABOUT: &'static str = "Print the first lines of files";

    async fn run(self, mut context: Context) -> Outcome {
        for (index, file) in self.files.iter().enumerate() {
            if let Err(failure) = self.print(&mut context, file, index).await {
                context.complain(Self::NAME, failure).await?;
            }
        }
        context.done()
    }
}

impl Head {
    async fn print(&self, context: &mut Context, file: &str, index: usize) -> Result<(), Failure> {
        let reader = context.open(file).await?;
        if self.files.len() > 1 {
            context.text(&title(file, index)).await?;
        }
        match self.bytes {
            Some(bytes) => {
                let reader: BoxReader = Box::new(reader.take(bytes));
                context.print(reader).await?;
            }
            None => {
                let mut lines = Lines::new(reader);
                for _ in 0..self.lines {
                    let Some(line) = lines.next().await? else { break };
                    context.io.stdout.write_all(line).await?;
                }
            }
        }
        Ok(())
    }
}

/// The line that tells several files apart.
pub(super) fn title(file: &str, index: usize) -> String {
    let gap = if index == 0 { "" } else { "\n" };
    let name = if file == "-" { "standard input" } else { file };
    format!("{gap}==> {name} <==\n")
}
