//! Writing a job's standard input.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

use crate::keeper::Job;
use crate::spool::End;
use crate::wire::CHUNK;

/// Pieces on their way to the disk.
const QUEUE: usize = 4;

#[derive(Debug)]
enum Part {
    Data(Bytes),
    End,
}

/// The standard input of a job. Shutting it down is the end of the input; dropping it before that means that
/// the input broke off, and the job fails rather than taking half of it for the whole.
#[derive(Debug)]
pub struct StdinWriter {
    parts: PollSender<Part>,
}

/// How the input of a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fed {
    /// It is complete, or not wanted any more.
    Enough,
    /// Its writer went away.
    Broken,
    /// There is more than a job may be given.
    TooMuch,
    /// The disk is full.
    Disk,
}

impl StdinWriter {
    /// A writer, and the task that takes what it is given to the job's spool.
    pub(crate) fn new(job: Arc<Job>, limit: u64) -> (Self, impl Future<Output = Fed> + Send) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self { parts: PollSender::new(sender) }, spool(job, receiver, limit))
    }
}

async fn spool(job: Arc<Job>, mut parts: mpsc::Receiver<Part>, limit: u64) -> Fed {
    let mut outcome = job.outcome.subscribe();
    loop {
        let part = tokio::select! {
            biased;
            _ = outcome.wait_for(Option::is_some) => return Fed::Enough,
            part = parts.recv() => part,
        };
        match part {
            Some(Part::Data(bytes)) if job.stdin.level().length + bytes.len() as u64 > limit => {
                return Fed::TooMuch;
            }
            Some(Part::Data(bytes)) if job.stdin.append(&bytes).await.is_err() => return Fed::Disk,
            Some(Part::Data(_)) => {}
            Some(Part::End) => {
                job.stdin.end(End::Complete);
                return Fed::Enough;
            }
            None => {
                job.stdin.end(End::Broken);
                return Fed::Broken;
            }
        }
    }
}

impl AsyncWrite for StdinWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if ready!(self.parts.poll_reserve(context)).is_err() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let taken = &bytes[..bytes.len().min(CHUNK)];
        let sent = self.parts.send_item(Part::Data(Bytes::copy_from_slice(taken)));
        Poll::Ready(sent.map(|()| taken.len()).map_err(|_| io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A job that has ended wants no end of its input.
        if !self.parts.is_closed() && ready!(self.parts.poll_reserve(context)).is_ok() {
            let _ = self.parts.send_item(Part::End);
            self.parts.close();
        }
        Poll::Ready(Ok(()))
    }
}
