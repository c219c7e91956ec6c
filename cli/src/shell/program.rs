//! Programs of the tree: where a word that is nothing else is looked for, and what is done with what is found.

use std::sync::Arc;

use tokio::io::AsyncReadExt;

use super::eval::Interpreter;
use super::fs::path::VfsPath;
use super::fs::vfs::{Kind, VfsError};
use super::host::ProgramCall;
use super::io::Io;
use super::stop::{Eval, EvalError, Stop};
use super::{content, status};

/// What every WASM module and component begins with.
const WASM_MAGIC: &[u8] = b"\0asm";
/// The longest script; a data file run by mistake is not read to its end.
const MAX_SCRIPT_BYTES: u64 = 4 * 1024 * 1024;
/// The ending that may be left out.
const EXTENSION: &str = ".wasm";

/// Something that can be run.
enum Program {
    Module(VfsPath),
    Script(String),
}

/// Why nothing is run.
enum NoProgram {
    NotFound,
    Not(&'static str),
    Tree(VfsError),
}

impl Interpreter {
    pub(super) async fn program_of_tree(&mut self, mut argv: Vec<String>, io: &Io) -> Eval {
        let name = argv.remove(0);
        match self.locate(&name).await {
            Ok(Program::Module(path)) => self.run_module(path, argv, io).await,
            Ok(Program::Script(text)) => Ok(self.run_script(&name, &text, argv, io).await),
            Err(reason) => {
                let (message, status) = match reason {
                    NoProgram::NotFound => ("command not found".to_owned(), status::NOT_FOUND),
                    NoProgram::Not(why) => (why.to_owned(), status::NOT_EXECUTABLE),
                    NoProgram::Tree(error) => (error.to_string(), status::NOT_EXECUTABLE),
                };
                let _ = io.stderr.clone().line(format!("{name}: {message}")).await;
                Ok(status)
            }
        }
    }

    /// A name with a slash is a path; any other is looked for in the directories of `$PATH`.
    pub(super) async fn find_program(&self, name: &str) -> Option<VfsPath> {
        let mut candidates = Vec::new();
        if name.contains('/') {
            candidates.push(name.to_owned());
        } else {
            for directory in self.state.get("PATH").unwrap_or_default().split(':') {
                candidates.push(format!("{directory}/{name}"));
            }
        }
        for candidate in candidates {
            for ending in ["", EXTENSION] {
                let Ok(path) = self.state.cwd.resolve(&format!("{candidate}{ending}")) else { continue };
                // A directory of that name in `$PATH` is not what was meant; given as a path, it is told.
                match content::follow(&*self.host.vfs, &path).await {
                    Ok((_, entry)) if entry.kind != Kind::Dir || name.contains('/') => return Some(path),
                    _ => {}
                }
            }
        }
        None
    }

    async fn locate(&self, name: &str) -> Result<Program, NoProgram> {
        let path = self.find_program(name).await.ok_or(NoProgram::NotFound)?;
        let mut reader = match content::open(&*self.host.vfs, &path).await {
            Ok(reader) => reader,
            Err(VfsError::IsADirectory { .. }) => return Err(NoProgram::Not("is a directory")),
            Err(error) => return Err(NoProgram::Tree(error)),
        };
        let mut start = Vec::new();
        let magic = u64::try_from(WASM_MAGIC.len()).unwrap_or(u64::MAX);
        read_to(&mut reader, magic, &mut start).await?;
        if start == WASM_MAGIC {
            return Ok(Program::Module(path));
        }
        if !start.starts_with(b"#!") {
            return Err(NoProgram::Not("neither a WASM program nor a script that begins with #!"));
        }
        read_to(&mut reader, MAX_SCRIPT_BYTES, &mut start).await?;
        String::from_utf8(start)
            .map(Program::Script)
            .map_err(|_| NoProgram::Not("a script that is not UTF-8"))
    }

    async fn run_module(&mut self, program: VfsPath, args: Vec<String>, io: &Io) -> Eval {
        let shown = program.clone();
        let Io { stdin, stdout, stderr } = io.clone();
        let (env, cwd) = (self.state.exported(), self.state.cwd.clone());
        let programs = Arc::clone(&self.host.programs);
        match programs.run(ProgramCall { program, args, env, cwd, stdin, stdout, stderr }).await {
            Ok(status) => Ok(status),
            Err(error) if is_broken_pipe(&error) => Err(Stop::BrokenPipe),
            Err(error) => {
                let _ = io.stderr.clone().line(format!("{shown}: {error:#}")).await;
                Ok(status::NODE_FAILED)
            }
        }
    }

    /// A script runs in a shell of its own, which inherits exported variables only.
    async fn run_script(&mut self, name: &str, text: &str, args: Vec<String>, io: &Io) -> i32 {
        let mut shell = self.clone();
        shell.state = self.state.for_script(name, args);
        // Boxed: a script may run scripts.
        Box::pin(shell.run(text, io.clone())).await
    }

    /// The text of a script in the tree, for `source`.
    pub(super) async fn script_text(&self, path: &VfsPath) -> Result<String, Stop> {
        let mut reader = content::open(&*self.host.vfs, path).await.map_err(EvalError::Redirect)?;
        let mut text = Vec::new();
        match read_to(&mut reader, MAX_SCRIPT_BYTES, &mut text).await {
            Ok(()) => String::from_utf8(text).map_err(|_| not_a_script(path)),
            Err(_) => Err(not_a_script(path)),
        }
    }
}

/// Whether the program ended because nobody reads what it prints.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io_errors = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    io_errors.into_iter().any(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn not_a_script(path: &VfsPath) -> Stop {
    EvalError::Redirect(VfsError::Invalid { path: path.clone(), reason: "not a script that can be read" })
        .into()
}

async fn read_to(reader: &mut super::io::BoxReader, most: u64, into: &mut Vec<u8>) -> Result<(), NoProgram> {
    match reader.take(most).read_to_end(into).await {
        Ok(_) => Ok(()),
        Err(error) => {
            Err(NoProgram::Tree(VfsError::Io { what: "reading the program".to_owned(), source: error }))
        }
    }
}
