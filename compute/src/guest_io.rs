//! A guest's standard streams, as messages on the worker's pipes.

use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
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

/// What is printed within so long after something else may wait for more of it.
const HOLD_FOR: Duration = Duration::from_millis(5);
/// So much may wait. As a message that is less than `PIPE_BUF`: where a pipe has room for anything, it has room for that.
const MAX_HELD: usize = 3 << 10;

/// The pipe to the node. What is printed in small pieces is sent in larger ones, the first at once. Writing to it blocks the process: it has one guest, and that one has to wait.
#[derive(Clone, Debug)]
pub(crate) struct Reports {
    pipe: Arc<Mutex<Pipe>>,
}

#[derive(Debug)]
struct Pipe {
    file: File,
    held: Vec<u8>,
    kind: OutputKind,
    said: Option<Instant>,
}

impl Pipe {
    fn send(&mut self, report: &FromWorker) -> std::io::Result<()> {
        let body = encode(report).map_err(std::io::Error::other)?;
        let length = u32::try_from(body.len()).map_err(std::io::Error::other)?;
        self.file.write_all(&[&length.to_be_bytes(), &body[..]].concat())
    }

    /// Sends what is held.
    fn release(&mut self) -> std::io::Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let held = Bytes::from(std::mem::take(&mut self.held));
        self.say(self.kind, held)
    }

    fn say(&mut self, kind: OutputKind, bytes: Bytes) -> std::io::Result<()> {
        self.said = Some(Instant::now());
        self.send(&match kind {
            OutputKind::Stdout => FromWorker::Stdout(Chunk(bytes)),
            OutputKind::Stderr => FromWorker::Stderr(Chunk(bytes)),
        })
    }

    fn has_room(&self) -> bool {
        let mut wanted = [PollFd::new(&self.file, PollFlags::OUT)];
        poll(&mut wanted, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }
}

impl Reports {
    pub(crate) fn new(pipe: File) -> Self {
        let pipe = Pipe { file: pipe, held: Vec::new(), kind: OutputKind::Stdout, said: None };
        Self { pipe: Arc::new(Mutex::new(pipe)) }
    }

    /// Sends a report, and before it what was printed before.
    pub(crate) fn send(&self, report: &FromWorker) -> std::io::Result<()> {
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        pipe.release()?;
        pipe.send(report)
    }

    /// Sends what is printed, now or with what is printed next.
    fn print(&self, kind: OutputKind, bytes: Bytes) -> std::io::Result<()> {
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        if pipe.kind != kind || pipe.held.len() + bytes.len() > MAX_HELD {
            pipe.release()?;
        }
        let is_quiet = pipe.said.is_none_or(|said| said.elapsed() >= HOLD_FOR);
        if bytes.len() > MAX_HELD || (is_quiet && pipe.held.is_empty()) {
            return pipe.say(kind, bytes);
        }
        pipe.kind = kind;
        pipe.held.extend_from_slice(&bytes);
        Ok(())
    }

    /// Sends what is held, if nobody has to wait for that: the clock must not stop for a node that does not listen.
    pub(crate) fn nudge(&self) {
        let mut pipe = match self.pipe.try_lock() {
            Ok(pipe) => pipe,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if !pipe.held.is_empty() && pipe.has_room() {
            // The guest hears of an error when it prints again.
            let _ = pipe.release();
        }
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
            let chunk = bytes.slice(start..allowed.min(start + CHUNK));
            reports.print(self.kind, chunk).map_err(|error| StreamError::Trap(error.into()))?;
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

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::wire::Receiver;

    #[tokio::test]
    async fn small_pieces_come_whole_in_order_and_in_few_messages() {
        let (reading, writing) = std::io::pipe().unwrap();
        let reports = Reports::new(File::from(OwnedFd::from(writing)));
        let budget = OutputBudget::new(1 << 20);
        let mut stdout = GuestOutput { kind: OutputKind::Stdout, sink: Sink::Node(reports.clone()), budget };
        let mut stderr = GuestOutput { kind: OutputKind::Stderr, ..stdout.clone() };
        for number in 0..1000 {
            stdout.write(format!("{number}\n").into()).unwrap();
        }
        stderr.write("but".into()).unwrap();
        reports.nudge();
        stdout.write("end".into()).unwrap();
        reports.send(&FromWorker::SeriesOver).unwrap();
        drop((stdout, stderr, reports));
        let reading = tokio::fs::File::from_std(File::from(OwnedFd::from(reading)));
        let mut receiver = Receiver::<_, FromWorker>::new(reading);
        let (mut said, mut messages) = (Vec::new(), 0);
        while let Ok(report) = receiver.expect().await {
            messages += 1;
            match report {
                FromWorker::Stdout(Chunk(bytes)) => said.extend_from_slice(&bytes),
                FromWorker::Stderr(Chunk(bytes)) => {
                    said.extend_from_slice(&[b"<", &bytes[..], b">"].concat())
                }
                other => assert!(matches!(other, FromWorker::SeriesOver)),
            }
        }
        let expected: String = (0..1000).map(|number| format!("{number}\n")).collect();
        assert_eq!(String::from_utf8(said).unwrap(), expected + "<but>end");
        assert!(messages < 50, "{messages} messages");
    }
}
