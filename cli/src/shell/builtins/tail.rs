//! `tail`

use std::collections::VecDeque;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::head::{count_as_option, title};
use super::lines::{Last, Lines, check_held};
use super::{Builtin, Context, Failure, Outcome};
use crate::shell::io::{BoxReader, PIPE_BYTES};

/// Arguments of `tail`.
#[derive(Debug, clap::Args)]
pub(super) struct Tail {
    /// How many lines; +N starts at line N
    #[arg(short = 'n', long, default_value = "10", allow_hyphen_values = true)]
    lines: String,
    /// How many bytes, instead of lines
    #[arg(short = 'c', long)]
    bytes: Option<usize>,
    /// Files; - is standard input
    #[arg(default_value = "-")]
    files: Vec<String>,
}

impl Builtin for Tail {
    const NAME: &'static str = "tail";
    const ABOUT: &'static str = "Print the last lines of files";
    const EXAMPLES: &'static str = "  tail -n 3 /logs/a\n  tail -3 /logs/a\n  tail -n +2 /table.csv";

    fn modernise(args: Vec<String>) -> Vec<String> {
        count_as_option(args)
    }

    async fn run(self, mut context: Context) -> Outcome {
        for (index, file) in self.files.iter().enumerate() {
            if let Err(failure) = self.print(&mut context, file, index).await {
                context.complain(Self::NAME, failure).await?;
            }
        }
        context.done()
    }
}

impl Tail {
    async fn print(&self, context: &mut Context, file: &str, index: usize) -> Result<(), Failure> {
        let reader = context.open(file).await?;
        if self.files.len() > 1 {
            let title = title(&context.io.stdout.printable(file), index);
            context.text(&title).await?;
        }
        if let Some(count) = self.bytes {
            return last_bytes(context, reader, count).await;
        }
        let bad = |_| Failure::Usage(format!("{:?} is not a number of lines", self.lines));
        match self.lines.strip_prefix('+') {
            Some(first) => from_line(context, reader, first.parse().map_err(bad)?).await,
            None => {
                last_lines(context, reader, self.lines.trim_start_matches('-').parse().map_err(bad)?).await
            }
        }
    }
}

async fn from_line(context: &mut Context, reader: BoxReader, first: u64) -> Result<(), Failure> {
    let mut lines = Lines::new(reader);
    let mut number = 0;
    while let Some(line) = lines.next().await? {
        number += 1;
        if number >= first {
            context.io.stdout.write_all(line).await?;
        }
    }
    Ok(())
}

async fn last_lines(context: &mut Context, reader: BoxReader, count: usize) -> Result<(), Failure> {
    let mut lines = Lines::new(reader);
    let mut last = Last::new(count);
    while let Some(line) = lines.next().await? {
        last.push(line)?;
    }
    for line in last.into_lines() {
        context.io.stdout.write_all(&line).await?;
    }
    Ok(())
}

async fn last_bytes(context: &mut Context, mut reader: BoxReader, count: usize) -> Result<(), Failure> {
    check_held(count)?;
    let mut last = VecDeque::new();
    let mut buffer = vec![0; PIPE_BYTES];
    loop {
        let read = reader.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        last.extend(&buffer[..read]);
        last.drain(..last.len().saturating_sub(count));
    }
    Ok(context.io.stdout.write_all(last.make_contiguous()).await?)
}
