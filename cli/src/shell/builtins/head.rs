//! `head`

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::lines::{Last, Lines};
use super::{Builtin, Context, Failure, Outcome};
use crate::shell::io::BoxReader;

/// Arguments of `head`.
#[derive(Debug, clap::Args)]
pub(super) struct Head {
    /// How many lines; -N leaves out the last N
    #[arg(short = 'n', long, default_value = "10", allow_hyphen_values = true)]
    lines: String,
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
    const EXAMPLES: &'static str = "  head -n 3 /logs/a\n  head -3 /logs/a\n  head -n -1 /logs/a";

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

impl Head {
    async fn print(&self, context: &mut Context, file: &str, index: usize) -> Result<(), Failure> {
        let reader = context.open(file).await?;
        if self.files.len() > 1 {
            let title = title(&context.io.stdout.printable(file), index);
            context.text(&title).await?;
        }
        match self.bytes {
            Some(bytes) => {
                let reader: BoxReader = Box::new(reader.take(bytes));
                context.print(reader).await?;
            }
            None => match self.lines.strip_prefix('-') {
                Some(left_out) => all_but_last(context, reader, number(left_out)?).await?,
                None => first_lines(context, reader, number(&self.lines)?).await?,
            },
        }
        Ok(())
    }
}

async fn first_lines(context: &mut Context, reader: BoxReader, count: usize) -> Result<(), Failure> {
    let mut lines = Lines::new(reader);
    for _ in 0..count {
        let Some(line) = lines.next().await? else { break };
        context.io.stdout.write_all(line).await?;
    }
    Ok(())
}

async fn all_but_last(context: &mut Context, reader: BoxReader, count: usize) -> Result<(), Failure> {
    let mut lines = Lines::new(reader);
    let mut last = Last::new(count);
    while let Some(line) = lines.next().await? {
        if let Some(line) = last.push(line)? {
            context.io.stdout.write_all(&line).await?;
        }
    }
    Ok(())
}

fn number(text: &str) -> Result<usize, Failure> {
    text.parse().map_err(|_| Failure::Usage(format!("{text:?} is not a number of lines")))
}

/// `-3` as the first word is `-n 3`: the form from before POSIX that everybody types.
pub(super) fn count_as_option(mut args: Vec<String>) -> Vec<String> {
    let count = args.first().and_then(|first| first.strip_prefix('-'));
    let count = count.filter(|count| !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit()));
    if let Some(count) = count.map(ToOwned::to_owned) {
        args.splice(..1, ["-n".to_owned(), count]);
    }
    args
}

/// The line that tells several files apart.
pub(super) fn title(file: &str, index: usize) -> String {
    let gap = if index == 0 { "" } else { "\n" };
    let name = if file == "-" { "standard input" } else { file };
    format!("{gap}==> {name} <==\n")
}
