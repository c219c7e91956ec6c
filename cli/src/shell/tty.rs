//! Reading the terminal without a thread.
//!
//! `tokio::io::stdin` reads in a thread that nothing can stop: after `cat` is interrupted it would still
//! wait there and swallow the next line, which belongs to the prompt. Here the terminal is opened anew (so
//! that non-blocking mode is this handle's alone) and read when the reactor says that there is something.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, Interest, ReadBuf};

/// The controlling terminal, for reading.
#[derive(Debug)]
pub(super) struct Tty(AsyncFd<File>);

impl Tty {
    /// Opens the terminal that controls this process.
    pub(super) fn open() -> io::Result<Self> {
        let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
        let file = OpenOptions::new().read(true).custom_flags(nonblocking).open("/dev/tty")?;
        Ok(Self(AsyncFd::with_interest(file, Interest::READABLE)?))
    }
}

impl AsyncRead for Tty {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            match guard.try_io(|fd| fd.get_ref().read(buf.initialize_unfilled())) {
                Ok(read) => {
                    buf.advance(read?);
                    return Poll::Ready(Ok(()));
                }
                Err(_would_block) => {}
            }
        }
    }
}
