//! `echo`

use tokio::io::AsyncWriteExt;

use super::escapes::{self, End};
use super::{Builtin, Context, Outcome};

/// Arguments of `echo`.
#[derive(Debug, clap::Args)]
pub(super) struct Echo {
    /// What to print; -n first leaves the newline out, -e replaces backslash escapes
    words: Vec<String>,
}

impl Builtin for Echo {
    const NAME: &'static str = "echo";
    const ABOUT: &'static str = "Print its arguments";
    const VERBATIM: bool = true;

    async fn run(self, mut context: Context) -> Outcome {
        let flags = self.words.iter().take_while(|word| is_flag(word)).count();
        let (flags, words) = self.words.split_at(flags);
        let text = words.join(" ");
        let (mut bytes, end) =
            if is_on(flags, 'e') { escapes::expand(&text) } else { (text.into_bytes(), End::Whole) };
        if end == End::Whole && !flags.iter().any(|flag| flag.contains('n')) {
            bytes.push(b'\n');
        }
        context.io.stdout.write_all(&bytes).await?;
        context.done()
    }
}

fn is_flag(word: &str) -> bool {
    word.strip_prefix('-')
        .is_some_and(|letters| !letters.is_empty() && letters.chars().all(|c| "neE".contains(c)))
}

/// Whether the last of `-e` and `-E` says so.
fn is_on(flags: &[String], letter: char) -> bool {
    flags.iter().flat_map(|flag| flag.chars()).rfind(|c| c.eq_ignore_ascii_case(&letter)) == Some(letter)
}
