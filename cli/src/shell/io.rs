//! The streams that commands read and write: cheap handles that a stage, its redirections and the programs
//! it starts can share.
//!
//! Several handles may point at one stream (`2>&1`, or all commands of `{ ...; } > file`). A handle locks the
//! stream for one poll only, never across an await, and everybody who waits is woken: with one waker slot,
//! as the streams themselves have, the second of two waiting writers would sleep for ever.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::output::printable;

/// How much a pipe holds before its writer waits; what Linux gives a pipe.
pub(super) const PIPE_BYTES: usize = 64 * 1024;

/// A stream that can be read: boxed, since pipes, files and terminals meet here.
pub type BoxReader = Box<dyn AsyncRead + Send + Unpin>;
/// A stream that can be written.
pub type BoxWriter = Box<dyn AsyncWrite + Send + Unpin>;

/// Standard input, output and error of one command.
#[derive(Clone, Debug)]
pub struct Io {
    /// Where the command reads.
    pub stdin: Input,
    /// Where its data goes.
    pub stdout: Output,
    /// Where its messages go.
    pub stderr: Output,
}

impl Io {
    /// The streams of this process. Standard input is read by a thread that cannot be interrupted, so this
    /// fits programs that end with their command; a session at a terminal uses [`Io::terminal`].
    pub fn process() -> Self {
        Self { stdin: Input::new(tokio::io::stdin()), ..Self::outputs() }
    }

    /// The streams of a session at a terminal: reading can be interrupted without losing later keys.
    pub fn terminal() -> io::Result<Self> {
        Ok(Self { stdin: Input::new(super::tty::open()?), ..Self::outputs() })
    }

    fn outputs() -> Self {
        Self {
            stdin: Input::empty(),
            stdout: Output::new(tokio::io::stdout()).at_terminal(io::IsTerminal::is_terminal(&io::stdout())),
            stderr: Output::new(tokio::io::stderr()).at_terminal(io::IsTerminal::is_terminal(&io::stderr())),
        }
    }

    /// Brings out what is buffered. A reader that is gone is no error here: its writer has already heard.
    pub async fn flush(&mut self) {
        let _ = self.stdout.flush().await;
        let _ = self.stderr.flush().await;
    }
}

/// A readable handle; clones read on from where the others stopped.
#[derive(Clone)]
pub struct Input(Arc<Shared<BoxReader>>);

impl Input {
    /// Wraps a stream.
    pub fn new(reader: impl AsyncRead + Send + Unpin + 'static) -> Self {
        Self(Arc::new(Shared::new(Box::new(reader))))
    }

    /// Ends at once.
    pub fn empty() -> Self {
        Self::new(tokio::io::empty())
    }
}

impl AsyncRead for Input {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.poll(cx, |reader, cx| Pin::new(reader).poll_read(cx, buf))
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Input")
    }
}

/// A writable handle; the stream ends when the last clone is dropped or one is shut down.
#[derive(Clone)]
pub struct Output {
    shared: Arc<Shared<BoxWriter>>,
    terminal: bool,
}

impl Output {
    /// Wraps a stream that is no terminal.
    pub fn new(writer: impl AsyncWrite + Send + Unpin + 'static) -> Self {
        Self { shared: Arc::new(Shared::new(Box::new(writer))), terminal: false }
    }

    /// Swallows everything.
    pub fn null() -> Self {
        Self::new(tokio::io::sink())
    }

    pub(super) fn at_terminal(self, terminal: bool) -> Self {
        Self { terminal, ..self }
    }

    /// Whether a person looks at this stream: then built-ins may use columns and colour.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// A name as it may be shown here: at a terminal, without what that would obey.
    pub fn printable<'a>(&self, name: &'a str) -> Cow<'a, str> {
        if self.terminal { printable::name(name) } else { Cow::Borrowed(name) }
    }

    /// Writes text and a newline; at a terminal, without what that would obey.
    pub async fn line(&mut self, text: impl fmt::Display) -> io::Result<()> {
        let mut text = text.to_string();
        if self.terminal {
            text = printable::lines(&text).into_owned();
        }
        text.push('\n');
        self.write_all(text.as_bytes()).await
    }
}

impl AsyncWrite for Output {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.shared.poll(cx, |writer, cx| Pin::new(writer).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.poll(cx, |writer, cx| Pin::new(writer).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.poll(cx, |writer, cx| Pin::new(writer).poll_shutdown(cx))
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Output").field("terminal", &self.terminal).finish()
    }
}

/// Two ends of a bounded pipe. Writing after the reader is gone is `BrokenPipe`.
pub fn pipe() -> (Output, Input) {
    let (write, read) = tokio::io::duplex(PIPE_BYTES);
    (Output::new(write), Input::new(read))
}

/// A stream and all who wait for it.
struct Shared<T> {
    stream: Mutex<T>,
    waiting: Arc<Waiting>,
}

impl<T> Shared<T> {
    fn new(stream: T) -> Self {
        Self { stream: Mutex::new(stream), waiting: Arc::default() }
    }

    fn poll<R>(
        &self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut T, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.add(cx.waker());
        let waker = Waker::from(Arc::clone(&self.waiting));
        poll(&mut stream, &mut Context::from_waker(&waker))
    }
}

/// The wakers of everybody who found the stream not ready.
#[derive(Default)]
struct Waiting(Mutex<Vec<Waker>>);

impl Waiting {
    fn add(&self, waker: &Waker) {
        let mut wakers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        let wakers = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        wakers.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn two_writers_that_wait_on_one_pipe_both_finish() {
        let (output, mut input) = pipe();
        let size = 4 * PIPE_BYTES;
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let mut output = output.clone();
                tokio::spawn(async move { output.write_all(&vec![7; size]).await })
            })
            .collect();
        drop(output);
        let mut all = Vec::new();
        tokio::time::timeout(Duration::from_secs(10), input.read_to_end(&mut all)).await.unwrap().unwrap();
        assert_eq!(all.len(), 2 * size);
        for writer in writers {
            writer.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_reader_that_left_breaks_the_pipe() {
        let (mut output, input) = pipe();
        drop(input);
        let error = output.line("anybody?").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
