//! `sort`

use std::cmp::Ordering;

use tokio::io::{AsyncWriteExt, BufWriter};

use super::lines::{Lines, trimmed};
use super::{Builtin, Context, Failure, Outcome};

/// How much is sorted in memory; more is refused, for want of a sort on disk.
const MAX_BYTES: usize = 512 * 1024 * 1024;

/// Arguments of `sort`.
#[derive(Debug, clap::Args)]
pub(super) struct Sort {
    /// Largest first
    #[arg(short, long)]
    reverse: bool,
    /// By the number that lines begin with
    #[arg(short, long)]
    numeric_sort: bool,
    /// Each line once
    #[arg(short, long)]
    unique: bool,
    /// Upper and lower case are the same
    #[arg(short = 'f', long)]
    ignore_case: bool,
    /// By what begins at this field, counted from 1
    #[arg(short, long)]
    key: Option<usize>,
    /// Files; - is standard input
    #[arg(default_value = "-")]
    files: Vec<String>,
}

impl Builtin for Sort {
    const NAME: &'static str = "sort";
    const ABOUT: &'static str = "Sort lines, by their bytes";

    async fn run(self, mut context: Context) -> Outcome {
        let mut lines = Vec::new();
        let mut held = 0;
        for file in &self.files {
            if let Err(failure) = collect(&context, file, &mut lines, &mut held).await {
                context.complain(Self::NAME, failure).await?;
            }
        }
        lines.sort_by(|a, b| {
            let order = self.compare(a, b).then_with(|| if self.unique { Ordering::Equal } else { a.cmp(b) });
            if self.reverse { order.reverse() } else { order }
        });
        if self.unique {
            lines.dedup_by(|a, b| self.compare(a, b) == Ordering::Equal);
        }
        let mut output = BufWriter::new(context.io.stdout.clone());
        for line in &lines {
            output.write_all(line).await?;
            output.write_all(b"\n").await?;
        }
        output.flush().await?;
        context.done()
    }
}

impl Sort {
    fn compare(&self, a: &[u8], b: &[u8]) -> Ordering {
        let (a, b) = (self.key_of(a), self.key_of(b));
        if self.numeric_sort {
            return number(a).total_cmp(&number(b));
        }
        if self.ignore_case {
            return a.iter().map(u8::to_ascii_uppercase).cmp(b.iter().map(u8::to_ascii_uppercase));
        }
        a.cmp(b)
    }

    fn key_of<'a>(&self, line: &'a [u8]) -> &'a [u8] {
        let mut rest = line;
        for _ in 1..self.key.unwrap_or(1) {
            let text = rest.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(rest.len());
            let blank =
                rest[text..].iter().position(u8::is_ascii_whitespace).map_or(rest.len(), |at| text + at);
            rest = &rest[blank..];
        }
        if self.key.is_some() { rest.trim_ascii_start() } else { rest }
    }
}

async fn collect(
    context: &Context,
    file: &str,
    lines: &mut Vec<Vec<u8>>,
    held: &mut usize,
) -> Result<(), Failure> {
    let mut reader = Lines::new(context.open(file).await?);
    while let Some(line) = reader.next().await? {
        *held += line.len();
        if *held > MAX_BYTES {
            return Err(Failure::Refused(format!("more than {MAX_BYTES} bytes to sort")));
        }
        lines.push(trimmed(line).to_vec());
    }
    Ok(())
}

/// The number at the start of a line; none is 0.
fn number(line: &[u8]) -> f64 {
    let line = line.trim_ascii_start();
    let sign = usize::from(line.first() == Some(&b'-'));
    let digits = line[sign..].iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count();
    std::str::from_utf8(&line[..sign + digits]).ok().and_then(|text| text.parse().ok()).unwrap_or(0.0)
}
