//! `uniq`

use tokio::io::AsyncWriteExt;

use super::lines::{Lines, trimmed};
use super::{Builtin, Context, Failure, Outcome};

/// Arguments of `uniq`.
#[derive(Debug, clap::Args)]
pub(super) struct Uniq {
    /// Say how often each line came
    #[arg(short, long)]
    count: bool,
    /// Only lines that came more than once
    #[arg(short = 'd', long)]
    repeated: bool,
    /// Only lines that came once
    #[arg(short, long)]
    unique: bool,
    /// A file; - is standard input
    #[arg(default_value = "-")]
    file: String,
}

impl Builtin for Uniq {
    const NAME: &'static str = "uniq";
    const ABOUT: &'static str = "Print runs of equal lines once";

    async fn run(self, mut context: Context) -> Outcome {
        let mut lines = Lines::new(context.open(&self.file).await?);
        let mut current: Option<(Vec<u8>, u64)> = None;
        while let Some(line) = lines.next().await? {
            let line = trimmed(line);
            match &mut current {
                Some((same, count)) if same == line => *count += 1,
                _ => {
                    if let Some((line, count)) = current.replace((line.to_vec(), 1)) {
                        self.print(&mut context, &line, count).await?;
                    }
                }
            }
        }
        if let Some((line, count)) = current {
            self.print(&mut context, &line, count).await?;
        }
        context.done()
    }
}

impl Uniq {
    async fn print(&self, context: &mut Context, line: &[u8], count: u64) -> Result<(), Failure> {
        if (self.repeated && count == 1) || (self.unique && count > 1) {
            return Ok(());
        }
        let mut text = if self.count { format!("{count:7} ").into_bytes() } else { Vec::new() };
        text.extend_from_slice(line);
        text.push(b'\n');
        Ok(context.io.stdout.write_all(&text).await?)
    }
}
