//! `grep`

use regex::bytes::{Regex, RegexBuilder};
use tokio::io::{AsyncWriteExt, BufWriter};

use super::lines::{Lines, trimmed};
use super::{Builtin, Context, Failure, Outcome};
use crate::shell::fs::path::VfsPath;
use crate::shell::fs::vfs::Kind;
use crate::shell::io::Output;
use crate::shell::status;

/// Arguments of `grep`.
#[derive(Debug, clap::Args)]
pub(super) struct Grep {
    /// Upper and lower case are the same
    #[arg(short, long)]
    ignore_case: bool,
    /// Lines that do not match
    #[arg(short = 'v', long)]
    invert_match: bool,
    /// Only count
    #[arg(short, long)]
    count: bool,
    /// With line numbers
    #[arg(short = 'n', long)]
    line_number: bool,
    /// Only the names of files that have a match
    #[arg(short = 'l', long)]
    files_with_matches: bool,
    /// Only the parts that match
    #[arg(short, long)]
    only_matching: bool,
    /// Print nothing; the exit status tells
    #[arg(short, long)]
    quiet: bool,
    /// The pattern is plain text
    #[arg(short = 'F', long)]
    fixed_strings: bool,
    /// Patterns are extended regular expressions (they always are)
    #[arg(short = 'E', long)]
    extended_regexp: bool,
    /// Whole words only
    #[arg(short, long)]
    word_regexp: bool,
    /// All files below directories
    #[arg(short, long)]
    recursive: bool,
    /// No file names before lines
    #[arg(short = 'h', long)]
    no_filename: bool,
    /// What to look for
    #[arg(allow_hyphen_values = true)]
    pattern: String,
    /// Where; standard input if nothing is said
    files: Vec<String>,
}

impl Builtin for Grep {
    const NAME: &'static str = "grep";
    const ABOUT: &'static str = "Print lines that match a regular expression";
    const EXAMPLES: &'static str = "  grep -in 'error|warning' /logs/*.txt\n  cat /logs/a | grep -v debug";

    async fn run(self, mut context: Context) -> Outcome {
        let regex = self.regex()?;
        let files = self.inputs(&context).await?;
        let named = !self.no_filename && (files.len() > 1 || self.recursive);
        let mut found = false;
        for file in &files {
            let name = named.then_some(file.as_str());
            match self.search(&context, &regex, file, name).await {
                Ok(matches) => found |= matches > 0,
                Err(failure) => context.complain(Self::NAME, failure).await?,
            }
            if found && self.quiet {
                return Ok(status::OK);
            }
        }
        match context.done()? {
            // 1 means "no match"; a file that could not be read is 2.
            status::OK => Ok(if found { status::OK } else { status::FAILED }),
            _ => Ok(status::USAGE),
        }
    }
}

impl Grep {
    fn regex(&self) -> Result<Regex, Failure> {
        let pattern = if self.fixed_strings { regex::escape(&self.pattern) } else { self.pattern.clone() };
        let pattern = if self.word_regexp { format!(r"\b(?:{pattern})\b") } else { pattern };
        RegexBuilder::new(&pattern)
            .case_insensitive(self.ignore_case)
            .build()
            .map_err(|error| Failure::Usage(error.to_string()))
    }

    /// The files to search, directories walked through.
    async fn inputs(&self, context: &Context) -> Result<Vec<String>, Failure> {
        if !self.recursive {
            return Ok(if self.files.is_empty() { vec!["-".to_owned()] } else { self.files.clone() });
        }
        let roots = if self.files.is_empty() { vec![".".to_owned()] } else { self.files.clone() };
        let mut files = Vec::new();
        for root in roots {
            let mut waiting: Vec<VfsPath> = vec![context.path(&root)?];
            while let Some(path) = waiting.pop() {
                match context.vfs.stat(&path).await?.kind {
                    Kind::File => files.push(path.to_string()),
                    Kind::Symlink => {}
                    Kind::Dir => {
                        for entry in context.vfs.list(&path).await?.iter().rev() {
                            waiting.push(path.join(&entry.name)?);
                        }
                    }
                }
            }
        }
        Ok(files)
    }

    /// Searches one file and gives the number of lines that count.
    async fn search(
        &self,
        context: &Context,
        regex: &Regex,
        file: &str,
        name: Option<&str>,
    ) -> Result<u64, Failure> {
        let mut lines = Lines::new(context.open(file).await?);
        let mut output = BufWriter::new(context.io.stdout.clone());
        let shown = |name: &str| context.io.stdout.printable(name).into_owned();
        let prefix = name.map(|name| shown(name) + ":").unwrap_or_default();
        let (mut number, mut matches) = (0u64, 0u64);
        while let Some(line) = lines.next().await? {
            number += 1;
            let line = trimmed(line);
            if regex.is_match(line) == self.invert_match {
                continue;
            }
            matches += 1;
            if self.quiet || self.files_with_matches {
                break;
            }
            if !self.count {
                let prefix = if self.line_number { format!("{prefix}{number}:") } else { prefix.clone() };
                self.print(&mut output, regex, &prefix, line).await?;
            }
            if lines.drained() {
                output.flush().await?;
            }
        }
        if self.files_with_matches && matches > 0 && !self.quiet {
            output.write_all((shown(file) + "\n").as_bytes()).await?;
        } else if self.count && !self.quiet {
            output.write_all(format!("{prefix}{matches}\n").as_bytes()).await?;
        }
        output.flush().await?;
        Ok(matches)
    }

    async fn print(
        &self,
        output: &mut BufWriter<Output>,
        regex: &Regex,
        prefix: &str,
        line: &[u8],
    ) -> Result<(), Failure> {
        let whole = [line];
        let parts: Vec<&[u8]> = if self.only_matching && !self.invert_match {
            regex.find_iter(line).map(|found| found.as_bytes()).collect()
        } else {
            whole.to_vec()
        };
        for part in parts {
            output.write_all(prefix.as_bytes()).await?;
            output.write_all(part).await?;
            output.write_all(b"\n").await?;
        }
        Ok(())
    }
}
