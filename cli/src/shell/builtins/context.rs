//! What every built-in is given: streams, a place to stand, the tree.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use tokio::io::{AsyncWriteExt, BufReader};

use super::{Failure, Outcome};
use crate::shell::content;
use crate::shell::fs::path::{PathError, VfsPath};
use crate::shell::fs::vfs::{Entry, Kind, Vfs, VfsError};
use crate::shell::io::{BoxReader, Io, PIPE_BYTES};
use crate::shell::status;

/// Where a built-in runs.
#[derive(Clone)]
pub struct Context {
    /// Its streams.
    pub io: Io,
    /// Relative paths start here.
    pub cwd: VfsPath,
    /// The tree.
    pub vfs: Arc<dyn Vfs>,
    status: i32,
}

impl Context {
    /// A place to run in.
    pub fn new(io: Io, cwd: VfsPath, vfs: Arc<dyn Vfs>) -> Self {
        Self { io, cwd, vfs, status: status::OK }
    }

    /// The path that an argument names.
    pub(super) fn path(&self, text: &str) -> Result<VfsPath, PathError> {
        self.cwd.resolve(text)
    }

    /// The entry itself, or what its link leads to.
    pub(super) async fn follow(&self, path: &VfsPath) -> Result<(VfsPath, Entry), VfsError> {
        content::follow(&*self.vfs, path).await
    }

    /// Whether a directory, or a link to one, stands at the path.
    pub(super) async fn is_dir(&self, path: &VfsPath) -> bool {
        matches!(self.follow(path).await, Ok((_, entry)) if entry.kind == Kind::Dir)
    }

    /// The content of a file; `-` is standard input.
    pub(super) async fn open(&self, name: &str) -> Result<BoxReader, Failure> {
        if name == "-" {
            return Ok(Box::new(self.io.stdin.clone()));
        }
        Ok(content::open(&*self.vfs, &self.path(name)?).await?)
    }

    /// Copies a stream to standard output.
    pub(super) async fn print(&mut self, reader: BoxReader) -> Result<u64, Failure> {
        let mut reader = BufReader::with_capacity(PIPE_BYTES, reader);
        Ok(tokio::io::copy_buf(&mut reader, &mut self.io.stdout).await?)
    }

    /// Writes a line to standard output.
    pub(super) async fn line(&mut self, text: impl fmt::Display) -> Result<(), Failure> {
        Ok(self.io.stdout.line(text).await?)
    }

    /// Writes text to standard output as it is, colours and all: names in it have been made printable.
    pub(super) async fn text(&mut self, text: &str) -> Result<(), Failure> {
        Ok(self.io.stdout.write_all(text.as_bytes()).await?)
    }

    /// Writes one JSON document to standard output.
    pub(super) async fn json<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failure> {
        let text = crate::output::json::render(value)?;
        self.text(&text).await
    }

    /// Notes a failure and goes on with the next argument; a broken pipe ends the command instead.
    pub(super) async fn complain(&mut self, name: &str, failure: Failure) -> Result<(), Failure> {
        if matches!(failure, Failure::BrokenPipe) {
            return Err(failure);
        }
        self.status = failure.status();
        let _ = self.io.stdout.flush().await;
        let _ = self.io.stderr.line(format!("{name}: {}", failure.told())).await;
        Ok(())
    }

    /// The status to end with: of the last complaint, or 0.
    pub(super) fn done(&self) -> Outcome {
        Ok(self.status)
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Context").field("cwd", &self.cwd).finish_non_exhaustive()
    }
}
