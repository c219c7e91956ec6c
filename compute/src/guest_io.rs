//! A guest's standard streams, as messages on the worker's pipes.

use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use wasmtime_wasi::cli::{IsTerminal, StdinStream, StdoutStream};
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError};

use crate::line::Line;
use crate::order::FromWorker;
use crate::series::Words;
use crate::wire::{CHUNK, Chunk, encode};

/// Standard input: what comes over the worker's line to its node; or nothing.
#[derive(Clone)]
pub(crate) struct GuestInput(Option<Line>);

impl GuestInput {
    pub(crate) fn new(line: Line) -> Self {
        Self(Some(line))
    }

    /// An input that has ended.
    pub(crate) fn nothing() -> Self {
        Self(None)
    }
}

impl IsTerminal for GuestInput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdinStream for GuestInput {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        // Previews 1 and 2 ask for `p2_stream` only.
        Box::new(tokio::io::empty())
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for GuestInput {
    async fn ready(&mut self) {
        if let Some(line) = &self.0 {
            line.input_ready().await;
        }
    }
}

#[async_trait]
impl InputStream for GuestInput {
    fn read(&mut self, size: usize) -> Result<Bytes, StreamError> {
        self.0.as_ref().and_then(|line| line.read_input(size)).ok_or(StreamError::Closed)
    }
}

/// The pipe to the node. Writing to it blocks the process: it has one guest, and that one has to wait.
#[derive(Clone, Debug)]
pub(crate) struct Reports {
    pipe: Arc<Mutex<File>>,
}

impl Reports {
    pub(crate) fn new(pipe: File) -> Self {
        Self { pipe: Arc::new(Mutex::new(pipe)) }
    }

    pub(crate) fn send(&self, report: &FromWorker) -> std::io::Result<()> {
        let body = encode(report).map_err(std::io::Error::other)?;
        let length = u32::try_from(body.len()).map_err(std::io::Error::other)?;
        let message = [&length.to_be_bytes(), &body[..]].concat();
        self.pipe.lock().unwrap_or_else(PoisonError::into_inner).write_all(&message)
    }
}

/// The guest has printed more than it may.
#[derive(Debug, thiserror::Error)]
#[error("output limit reached")]
pub(crate) struct OutputSpent;

/// Bytes that a guest may still print, on both streams together.
#[derive(Clone, Debug)]
pub(crate) struct OutputBudget(Arc<Mutex<u64>>);

impl OutputBudget {
    pub(crate) fn new(bytes: u64) -> Self {
        Self(Arc::new(Mutex::new(bytes)))
    }

    /// As many of `wanted` bytes as are left.
    fn take(&self, wanted: usize) -> usize {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = wanted.min(usize::try_from(*left).unwrap_or(usize::MAX));
        *left -= taken as u64;
        taken
    }
}

/// Which stream an output is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OutputKind {
    Stdout,
    Stderr,
}

/// Standard output or error.
#[derive(Clone, Debug)]
pub(crate) struct GuestOutput {
    pub(crate) kind: OutputKind,
    pub(crate) sink: Sink,
    pub(crate) budget: OutputBudget,
}

/// Where output goes.
#[derive(Clone, Debug)]
pub(crate) enum Sink {
    /// To the node, as it comes.
    Node(Reports),
    /// Nowhere yet.
    Memory(Words),
}

impl IsTerminal for GuestOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestOutput {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Previews 1 and 2 ask for `p2_stream` only.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for GuestOutput {
    async fn ready(&mut self) {}
}

#[async_trait]
impl OutputStream for GuestOutput {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        let allowed = self.budget.take(bytes.len());
        let reports = match &self.sink {
            Sink::Node(reports) => reports,
            Sink::Memory(words) => {
                let fits = words.add(self.kind, &bytes[..allowed]);
                let is_all = fits && allowed == bytes.len();
                return if is_all { Ok(()) } else { Err(StreamError::Trap(OutputSpent.into())) };
            }
        };
        for start in (0..allowed).step_by(CHUNK) {
            let chunk = Chunk(bytes.slice(start..allowed.min(start + CHUNK)));
            let report = match self.kind {
                OutputKind::Stdout => FromWorker::Stdout(chunk),
                OutputKind::Stderr => FromWorker::Stderr(chunk),
            };
            reports.send(&report).map_err(|error| StreamError::Trap(error.into()))?;
        }
        if allowed < bytes.len() { Err(StreamError::Trap(OutputSpent.into())) } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        Ok(CHUNK)
    }
}
