//! Redirections: `<`, `>`, `>>`, `2>`, `2>&1`, `&>`, here-documents and here-strings.
//!
//! A file behind `>` changes when its command has ended, all at once; until then, and if the command is
//! interrupted, everybody reads the old content. So `sort f > f` does what it says.

use std::io::Cursor;

use brush_parser::ast::{IoFd, IoFileRedirectKind, IoFileRedirectTarget, IoHereDocument, IoRedirect};

use super::content::{self, Sink};
use super::eval::Interpreter;
use super::fs::path::PathError;
use super::fs::vfs::VfsError;
use super::io::{Input, Io, Output};
use super::stop::{Eval, EvalError, Stop, unsupported};

/// The one device of the tree: empty to read, and it swallows what is written.
const NULL: &str = "/dev/null";

/// A command's streams, and the files that wait for its end.
pub(super) struct Redirected {
    pub(super) io: Io,
    sinks: Vec<Sink>,
}

impl Interpreter {
    /// Opens redirections from left to right, so that `> file 2>&1` sends both to the file.
    pub(super) async fn redirect<'a>(
        &mut self,
        redirects: impl IntoIterator<Item = &'a IoRedirect> + Send,
        io: &Io,
    ) -> Result<Redirected, Stop> {
        let mut redirected = Redirected { io: io.clone(), sinks: Vec::new() };
        let redirects: Vec<&IoRedirect> = redirects.into_iter().collect();
        for redirect in redirects {
            self.apply(redirect, &mut redirected).await?;
        }
        Ok(redirected)
    }

    /// Ends a redirected command: its files become visible, also if it failed or jumped away.
    pub(super) async fn close(&mut self, mut redirected: Redirected, result: Eval, io: &Io) -> Eval {
        redirected.io.flush().await;
        let mut failed = None;
        for sink in redirected.sinks {
            if let Err(error) = sink.finish().await {
                let error = EvalError::Redirect(error);
                self.say(&error, io).await;
                failed = Some(error.status());
            }
        }
        match (result, failed) {
            (Ok(_) | Err(Stop::BrokenPipe), Some(status)) => Ok(status),
            (result, _) => result,
        }
    }

    /// A redirection that failed costs its command only; everything else goes to the caller.
    pub(super) async fn refused(&mut self, stop: Stop, io: &Io) -> Eval {
        match stop {
            Stop::Error(error @ EvalError::Redirect(_)) => {
                self.say(&error, io).await;
                Ok(error.status())
            }
            stop => Err(stop),
        }
    }

    async fn apply(&mut self, redirect: &IoRedirect, to: &mut Redirected) -> Result<(), Stop> {
        match redirect {
            IoRedirect::File(fd, kind, target) => self.apply_file(*fd, kind, target, to).await,
            IoRedirect::OutputAndError(word, append) => {
                let name = self.single(&word.value, &to.io).await?;
                let output = self.create(&name, *append, to).await?;
                to.io.stderr = output.clone();
                to.io.stdout = output;
                Ok(())
            }
            IoRedirect::HereDocument(fd, document) => {
                let text = self.here_document(document, &to.io).await?;
                set_input(fd.unwrap_or(0), Input::new(Cursor::new(text)), to)
            }
            IoRedirect::HereString(fd, word) => {
                let text = self.single(&word.value, &to.io).await? + "\n";
                set_input(fd.unwrap_or(0), Input::new(Cursor::new(text)), to)
            }
        }
    }

    async fn apply_file(
        &mut self,
        fd: Option<IoFd>,
        kind: &IoFileRedirectKind,
        target: &IoFileRedirectTarget,
        to: &mut Redirected,
    ) -> Result<(), Stop> {
        let name = match target {
            IoFileRedirectTarget::Filename(word) | IoFileRedirectTarget::Duplicate(word) => {
                self.single(&word.value, &to.io).await?
            }
            IoFileRedirectTarget::Fd(source) => source.to_string(),
            IoFileRedirectTarget::ProcessSubstitution(..) => return Err(unsupported("process substitution")),
        };
        match kind {
            IoFileRedirectKind::Read => {
                let input = self.open(&name).await?;
                set_input(fd.unwrap_or(0), input, to)
            }
            IoFileRedirectKind::Write | IoFileRedirectKind::Clobber => {
                let output = self.create(&name, false, to).await?;
                set_output(fd.unwrap_or(1), output, to)
            }
            IoFileRedirectKind::Append => {
                let output = self.create(&name, true, to).await?;
                set_output(fd.unwrap_or(1), output, to)
            }
            IoFileRedirectKind::DuplicateOutput => duplicate_output(fd.unwrap_or(1), &name, to),
            IoFileRedirectKind::DuplicateInput => duplicate_input(fd.unwrap_or(0), &name, to),
            IoFileRedirectKind::ReadAndWrite => Err(unsupported("<>")),
        }
    }

    async fn open(&self, name: &str) -> Result<Input, Stop> {
        let path = self.state.cwd.resolve(name).map_err(bad_path)?;
        if path.as_str() == NULL {
            return Ok(Input::empty());
        }
        Ok(Input::new(content::open(&*self.host.vfs, &path).await.map_err(EvalError::Redirect)?))
    }

    async fn create(&self, name: &str, append: bool, to: &mut Redirected) -> Result<Output, Stop> {
        let path = self.state.cwd.resolve(name).map_err(bad_path)?;
        if path.as_str() == NULL {
            return Ok(Output::null());
        }
        let sink = Sink::open(&self.host.vfs, &path, append).await.map_err(EvalError::Redirect)?;
        let output = sink.output.clone();
        to.sinks.push(sink);
        Ok(output)
    }

    async fn here_document(&mut self, document: &IoHereDocument, io: &Io) -> Result<String, Stop> {
        let text = &document.doc.value;
        if document.requires_expansion { self.document(text, io).await } else { Ok(text.clone()) }
    }
}

fn bad_path(error: PathError) -> EvalError {
    EvalError::Redirect(VfsError::Path(error))
}

fn set_input(fd: IoFd, input: Input, to: &mut Redirected) -> Result<(), Stop> {
    if fd != 0 {
        return Err(unsupported(format!("reading from descriptor {fd}")));
    }
    to.io.stdin = input;
    Ok(())
}

fn set_output(fd: IoFd, output: Output, to: &mut Redirected) -> Result<(), Stop> {
    match fd {
        1 => to.io.stdout = output,
        2 => to.io.stderr = output,
        fd => return Err(unsupported(format!("writing to descriptor {fd}"))),
    }
    Ok(())
}

fn duplicate_output(fd: IoFd, source: &str, to: &mut Redirected) -> Result<(), Stop> {
    let output = match source {
        "1" => to.io.stdout.clone(),
        "2" => to.io.stderr.clone(),
        "-" => Output::null(),
        other => return Err(unsupported(format!("{fd}>&{other}"))),
    };
    set_output(fd, output, to)
}

fn duplicate_input(fd: IoFd, source: &str, to: &mut Redirected) -> Result<(), Stop> {
    match source {
        "0" => Ok(()),
        "-" => set_input(fd, Input::empty(), to),
        other => Err(unsupported(format!("{fd}<&{other}"))),
    }
}
