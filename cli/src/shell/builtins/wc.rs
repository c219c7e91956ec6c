//! `wc`

use tokio::io::AsyncReadExt;

use super::{Builtin, Context, Failure, Outcome};
use crate::shell::io::PIPE_BYTES;

/// Arguments of `wc`.
#[derive(Debug, clap::Args)]
pub(super) struct Wc {
    /// Count lines
    #[arg(short, long)]
    lines: bool,
    /// Count words
    #[arg(short, long)]
    words: bool,
    /// Count bytes
    #[arg(short = 'c', long)]
    bytes: bool,
    /// Files; - is standard input
    files: Vec<String>,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    lines: u64,
    words: u64,
    bytes: u64,
}

impl Builtin for Wc {
    const NAME: &'static str = "wc";
    const ABOUT: &'static str = "Count lines, words and bytes";

    async fn run(self, mut context: Context) -> Outcome {
        if self.files.is_empty() {
            let counts = count(&context, "-").await?;
            context.line(self.render(counts, "")).await?;
            return context.done();
        }
        let mut total = Counts::default();
        for file in &self.files {
            match count(&context, file).await {
                Ok(counts) => {
                    total.lines += counts.lines;
                    total.words += counts.words;
                    total.bytes += counts.bytes;
                    context.line(self.render(counts, file)).await?;
                }
                Err(failure) => context.complain(Self::NAME, failure).await?,
            }
        }
        if self.files.len() > 1 {
            context.line(self.render(total, "total")).await?;
        }
        context.done()
    }
}

impl Wc {
    /// A single number stands alone, so that scripts can use it; several stand in columns.
    fn render(&self, counts: Counts, name: &str) -> String {
        let all = !(self.lines || self.words || self.bytes);
        let chosen: Vec<u64> =
            [(self.lines, counts.lines), (self.words, counts.words), (self.bytes, counts.bytes)]
                .into_iter()
                .filter(|(wanted, _)| *wanted || all)
                .map(|(_, count)| count)
                .collect();
        let numbers = match chosen.as_slice() {
            [one] => one.to_string(),
            many => many.iter().map(|count| format!("{count:>7}")).collect::<Vec<_>>().join(" "),
        };
        if name.is_empty() { numbers } else { format!("{numbers} {name}") }
    }
}

async fn count(context: &Context, file: &str) -> Result<Counts, Failure> {
    let mut reader = context.open(file).await?;
    let mut buffer = vec![0; PIPE_BYTES];
    let mut counts = Counts::default();
    let mut in_word = false;
    loop {
        let read = reader.read(&mut buffer).await?;
        if read == 0 {
            return Ok(counts);
        }
        for byte in &buffer[..read] {
            let blank = byte.is_ascii_whitespace() || *byte == 0x0b;
            counts.lines += u64::from(*byte == b'\n');
            counts.words += u64::from(!blank && !in_word);
            in_word = !blank;
        }
        counts.bytes += u64::try_from(read).unwrap_or(u64::MAX);
    }
}
