//! Working on a request and answering it: each is a task of its own, so that the thread that takes requests from the
//! kernel waits for nothing.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use fuser::{
    Errno, ReplyAttr, ReplyCreate, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite,
};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use super::fault::Fault;
use super::mounted::Mounted;

/// What the kernel talks to.
#[derive(Debug)]
pub(super) struct Bridge {
    pub(super) mounted: Arc<Mounted>,
    pub(super) runtime: Handle,
    pub(super) tasks: TaskTracker,
    /// A folder on the disk whose space is the space of the tree here.
    pub(super) disk: PathBuf,
    /// Told when the kernel has no more requests.
    pub(super) end: Option<oneshot::Sender<()>>,
}

/// A reply that can say no.
pub(super) trait Refuse: Send + 'static {
    fn refuse(self, errno: Errno);
}

macro_rules! refuse {
    ($($reply:ty),*) => {$(
        impl Refuse for $reply {
            fn refuse(self, errno: Errno) {
                self.error(errno);
            }
        }
    )*};
}

refuse!(ReplyAttr, ReplyCreate, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite);

impl Bridge {
    /// Works on a request and answers it. Whoever waits for it is told an error if the work panics: `fuser` answers
    /// for a reply that is dropped.
    pub(super) fn answer<R: Refuse, T: Send + 'static, W>(
        &self,
        what: &'static str,
        reply: R,
        work: impl FnOnce(Arc<Mounted>) -> W + Send + 'static,
        agree: impl FnOnce(R, T) + Send + 'static,
    ) where
        W: Future<Output = Result<T, Fault>> + Send + 'static,
    {
        let mounted = Arc::clone(&self.mounted);
        self.spawn(async move {
            match work(mounted).await {
                Ok(answer) => agree(reply, answer),
                Err(fault) => reply.refuse(errno(what, &fault)),
            }
        });
    }

    /// Works on a request that is answered by the work itself.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mounted = Arc::clone(&self.mounted);
        let in_turn = async move {
            // Nobody closes the semaphore.
            let _turn = mounted.turns.acquire().await;
            work.await;
        };
        self.runtime.spawn(self.tasks.track_future(in_turn));
    }
}

/// What the caller is told. What only an operator can mend is logged as well.
pub(super) fn errno(what: &'static str, fault: &Fault) -> Errno {
    let errno = fault.errno();
    if errno.code() == Errno::EIO.code() {
        tracing::warn!("{what}: {fault:#}");
    }
    errno
}
