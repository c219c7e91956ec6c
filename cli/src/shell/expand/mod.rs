//! Expansion: from the words of a script to the arguments of a command.
//!
//! In order, as POSIX and bash do it: braces, then tilde, parameters, commands and arithmetic in one pass
//! from left to right, then splitting at `$IFS` of what was not quoted, then globs against the tree.

mod arithmetic;
mod braces;
mod change;
mod fields;
mod glob;
mod parameter;
pub(super) mod pattern;

use brush_parser::word::{self, TildeExpr, WordPiece, WordPieceWithSource};
use futures::FutureExt;
use futures::future::{BoxFuture, join};
use tokio::io::AsyncReadExt;

use super::builtins::escapes;
use super::eval::Interpreter;
use super::io::{Input, Io, pipe};
use super::parse;
use super::stop::{EvalError, Stop};
use fields::Fields;

/// How much a command substitution may print: it is held in memory.
const MAX_SUBSTITUTION_BYTES: usize = 16 * 1024 * 1024;

impl Interpreter {
    /// All expansions: one word becomes any number of arguments.
    pub(super) async fn fields(&mut self, text: &str, io: &Io) -> Result<Vec<String>, Stop> {
        let mut arguments = Vec::new();
        for text in braces::expand(text)? {
            let mut fields = Fields::splitting(self.state.get("IFS"));
            self.word(&text, &mut fields, io).await?;
            for field in fields.finish() {
                if !field.is_glob() || self.state.options.noglob {
                    arguments.push(field.text);
                    continue;
                }
                let mut paths = glob::expand(&*self.host.vfs, &self.state.cwd, &field.pattern).await?;
                if paths.is_empty() {
                    paths.push(field.text);
                }
                arguments.extend(paths);
            }
        }
        Ok(arguments)
    }

    /// One word stays one text: values of assignments, targets of redirections.
    pub(super) async fn single(&mut self, text: &str, io: &Io) -> Result<String, Stop> {
        let mut fields = Fields::whole();
        self.word(text, &mut fields, io).await?;
        Ok(fields.into_text())
    }

    /// As [`Self::single`], as a pattern: what was quoted matches itself only.
    pub(super) async fn pattern(&mut self, text: &str, io: &Io) -> Result<String, Stop> {
        let mut fields = Fields::whole();
        self.word(text, &mut fields, io).await?;
        Ok(fields.into_pattern())
    }

    /// The text of a here-document: quotes are text there.
    pub(super) async fn document(&mut self, text: &str, io: &Io) -> Result<String, Stop> {
        let pieces = word::parse_heredoc(text, &parse::options())?;
        let mut fields = Fields::whole();
        self.pieces(&pieces, true, &mut fields, io).await?;
        Ok(fields.into_text())
    }

    async fn word(&mut self, text: &str, fields: &mut Fields, io: &Io) -> Result<(), Stop> {
        let pieces = word::parse(text, &parse::options())?;
        self.pieces(&pieces, false, fields, io).await
    }

    fn pieces<'a>(
        &'a mut self,
        pieces: &'a [WordPieceWithSource],
        quoted: bool,
        fields: &'a mut Fields,
        io: &'a Io,
    ) -> BoxFuture<'a, Result<(), Stop>> {
        async move {
            for piece in pieces {
                self.piece(&piece.piece, quoted, fields, io).await?;
            }
            Ok(())
        }
        .boxed()
    }

    async fn piece(
        &mut self,
        piece: &WordPiece,
        quoted: bool,
        fields: &mut Fields,
        io: &Io,
    ) -> Result<(), Stop> {
        match piece {
            WordPiece::Text(text) if quoted => fields.quoted(text),
            WordPiece::Text(text) => fields.literal(text),
            WordPiece::SingleQuotedText(text) => fields.quoted(text),
            WordPiece::AnsiCQuotedText(text) => {
                fields.quoted(&String::from_utf8_lossy(&escapes::expand(text).0));
            }
            WordPiece::DoubleQuotedSequence(pieces) | WordPiece::GettextDoubleQuotedSequence(pieces) => {
                if pieces.is_empty() {
                    fields.quoted("");
                }
                self.pieces(pieces, true, fields, io).await?;
            }
            WordPiece::EscapeSequence(text) => match text.strip_prefix('\\') {
                Some("\n") => {}
                escaped => fields.quoted(escaped.unwrap_or(text)),
            },
            WordPiece::TildeExpansion(tilde) => fields.quoted(&self.tilde(tilde)),
            WordPiece::ParameterExpansion(expression) => {
                self.parameter(expression, quoted, fields, io).await?;
            }
            WordPiece::CommandSubstitution(text) | WordPiece::BackquotedCommandSubstitution(text) => {
                let output = self.substitute(text, io).await?;
                fields.value(&output, quoted);
            }
            WordPiece::ArithmeticExpression(expression) => {
                let value = self.arithmetic(&expression.value, io).await?;
                fields.value(&value.to_string(), quoted);
            }
        }
        Ok(())
    }

    fn tilde(&self, tilde: &TildeExpr) -> String {
        let variable = |name| self.state.get(name).map(str::to_owned);
        match tilde {
            TildeExpr::Home => variable("HOME").unwrap_or_else(|| "/".to_owned()),
            TildeExpr::WorkingDir => self.state.cwd.to_string(),
            TildeExpr::OldWorkingDir => variable("OLDPWD").unwrap_or_else(|| "~-".to_owned()),
            TildeExpr::UserHome(name) => format!("~{name}"),
            TildeExpr::NthDirFromTopOfDirStack { n, plus_used } => {
                format!("~{}{n}", if *plus_used { "+" } else { "" })
            }
            TildeExpr::NthDirFromBottomOfDirStack { n } => format!("~-{n}"),
        }
    }

    /// What `$(text)` prints, without the newlines at its end.
    async fn substitute(&mut self, text: &str, io: &Io) -> Result<String, Stop> {
        let (output, input) = pipe();
        let streams = Io { stdin: io.stdin.clone(), stdout: output, stderr: io.stderr.clone() };
        let mut shell = self.clone();
        let run = async move { shell.run(text, streams).await }.boxed();
        let (status, bytes) = join(run, read_bounded(input)).await;
        self.substituted = status;
        let mut text = String::from_utf8_lossy(&bytes?).into_owned();
        text.truncate(text.trim_end_matches('\n').len());
        Ok(text)
    }
}

async fn read_bounded(input: Input) -> Result<Vec<u8>, Stop> {
    let mut bytes = Vec::new();
    let bound = u64::try_from(MAX_SUBSTITUTION_BYTES).unwrap_or(u64::MAX);
    // The pipe's other end is a command of this shell: its reading end does not fail.
    let _ = input.take(bound + 1).read_to_end(&mut bytes).await;
    if bytes.len() > MAX_SUBSTITUTION_BYTES {
        return Err(EvalError::TooMuch {
            what: "bytes of command substitution",
            limit: MAX_SUBSTITUTION_BYTES,
        }
        .into());
    }
    Ok(bytes)
}
