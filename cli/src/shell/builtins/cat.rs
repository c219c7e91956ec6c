//! `cat`

use tokio::io::AsyncWriteExt;

use super::lines::Lines;
use super::{Builtin, Context, Failure, Outcome};

/// Arguments of `cat`.
#[derive(Debug, clap::Args)]
pub(super) struct Cat {
    /// Number the lines
    #[arg(short, long)]
    number: bool,
    /// Files; - is standard input
    #[arg(default_value = "-")]
    files: Vec<String>,
}

impl Builtin for Cat {
    const NAME: &'static str = "cat";
    const ABOUT: &'static str = "Print files one after another";
    const EXAMPLES: &'static str = "  cat /logs/a | /bin/upper.wasm > /out";

    async fn run(self, mut context: Context) -> Outcome {
        // The lines of all files are numbered as one text.
        let mut n_lines = 0;
        for file in &self.files {
            let printed = if self.number {
                print_numbered(&mut context, file, &mut n_lines).await
            } else {
                print(&mut context, file).await
            };
            if let Err(failure) = printed {
                context.complain(Self::NAME, failure).await?;
            }
        }
        context.done()
    }
}

async fn print(context: &mut Context, file: &str) -> Result<(), Failure> {
    let reader = context.open(file).await?;
    context.print(reader).await?;
    Ok(())
}

async fn print_numbered(context: &mut Context, file: &str, n_lines: &mut u64) -> Result<(), Failure> {
    let mut lines = Lines::new(context.open(file).await?);
    while let Some(line) = lines.next().await? {
        *n_lines += 1;
        let mut numbered = format!("{n_lines:>6}\t").into_bytes();
        numbered.extend_from_slice(line);
        context.io.stdout.write_all(&numbered).await?;
    }
    Ok(())
}
