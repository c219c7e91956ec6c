//! Reading the terminal without a thread.
//!
//! `tokio::io::stdin` reads in a thread that nothing can stop: after `cat` is interrupted it would still
//! wait there and swallow the next line, which belongs to the prompt. Here the terminal is opened anew (so
//! that non-blocking mode is this handle's alone) and read when the reactor says that there is something.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;

use tokio::net::unix::pipe::Receiver;

/// Opens the terminal that controls this process, for reading.
pub(super) fn open() -> io::Result<Receiver> {
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    let terminal = OpenOptions::new().read(true).custom_flags(nonblocking).open("/dev/tty")?;
    // A terminal is read like a pipe: what tokio checks is the kind of file, and that it need not be.
    Receiver::from_file_unchecked(terminal)
}
