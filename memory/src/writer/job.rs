//! What is committed: writes of this node, and cells of others.

use tokio::sync::oneshot;

use super::{View, WriteError};
use crate::{
    cell::{Cell, Draft, Stamp},
    memory::{Durability, Shared},
    store::ReadError,
    versions,
};

/// Something to be committed.
pub(crate) trait Job: Send {
    /// The cells to write. A job that fails keeps its error until it is finished, and writes nothing.
    fn prepare(&mut self, view: &View<'_>) -> Vec<Cell>;

    /// Makes the job fail.
    fn fail(&mut self, error: WriteError);

    /// Whether the cells are this node's own, and so go out by gossip.
    fn is_local(&self) -> bool;

    /// When it may be answered.
    fn durability(&self) -> Durability;

    /// Answers who waits.
    fn finish(self: Box<Self>);
}

/// What a job has come to so far, and who waits for that.
struct Pending<T> {
    outcome: Result<T, WriteError>,
    reply: oneshot::Sender<Result<T, WriteError>>,
}

impl<T> Pending<T> {
    fn new(outcome: Result<T, WriteError>) -> (Self, oneshot::Receiver<Result<T, WriteError>>) {
        let (reply, answer) = oneshot::channel();
        (Self { outcome, reply }, answer)
    }

    /// A job that had failed before keeps its own reason.
    fn fail(&mut self, error: WriteError) {
        if self.outcome.is_ok() {
            self.outcome = Err(error);
        }
    }

    /// Nobody waits any more if the caller was cancelled; the write stands all the same.
    fn answer(self) {
        let _ = self.reply.send(self.outcome);
    }
}

type Answer<T> = Result<(Stamp, T), WriteError>;

/// A write of this node: `update` decides, on what it sees in the view, what is written and what is answered.
pub(crate) struct LocalJob<F, T> {
    update: Option<F>,
    durability: Durability,
    pending: Pending<(Stamp, T)>,
}

impl<F, T> LocalJob<F, T> {
    pub(crate) fn new(update: F, durability: Durability) -> (Self, oneshot::Receiver<Answer<T>>) {
        let (pending, answer) = Pending::new(Err(WriteError::Stopped));
        (Self { update: Some(update), durability, pending }, answer)
    }
}

impl<F, T> Job for LocalJob<F, T>
where
    F: FnOnce(&View<'_>) -> Result<(Vec<Draft>, T), WriteError> + Send,
    T: Send,
{
    fn prepare(&mut self, view: &View<'_>) -> Vec<Cell> {
        let Some(update) = self.update.take() else { return Vec::new() };
        match update(view) {
            Ok((drafts, answer)) => {
                let kept = match versions::beside(view, view.shared.author, &drafts) {
                    Ok(kept) => kept,
                    Err(error) => {
                        self.pending.outcome = Err(error.into());
                        return Vec::new();
                    }
                };
                let stamp = Stamp { time: view.shared.clock.tick(), author: view.shared.author };
                self.pending.outcome = Ok((stamp, answer));
                drafts.into_iter().chain(kept).map(|draft| draft.stamped(stamp)).collect()
            }
            Err(error) => {
                self.pending.outcome = Err(error);
                Vec::new()
            }
        }
    }

    fn fail(&mut self, error: WriteError) {
        self.pending.fail(error);
    }

    fn is_local(&self) -> bool {
        true
    }

    fn durability(&self) -> Durability {
        self.durability
    }

    fn finish(self: Box<Self>) {
        self.pending.answer();
    }
}

/// Writes of this node that only share the way: each has a stamp of its own, so others may see some of them before all. No
/// two are of one field.
pub(crate) struct EachJob {
    drafts: Vec<Draft>,
    durability: Durability,
    pending: Pending<()>,
}

impl EachJob {
    pub(crate) fn new(
        drafts: Vec<Draft>,
        durability: Durability,
    ) -> (Self, oneshot::Receiver<Result<(), WriteError>>) {
        let (pending, answer) = Pending::new(Ok(()));
        (Self { drafts, durability, pending }, answer)
    }

    fn cells(&mut self, view: &View<'_>) -> Result<Vec<Cell>, ReadError> {
        let Shared { clock, author, .. } = view.shared;
        let mut cells = Vec::with_capacity(self.drafts.len());
        for draft in self.drafts.drain(..) {
            let kept = versions::beside(view, *author, std::slice::from_ref(&draft))?;
            let stamp = Stamp { time: clock.tick(), author: *author };
            cells.push(draft.stamped(stamp));
            cells.extend(kept.into_iter().map(|kept| kept.stamped(stamp)));
        }
        Ok(cells)
    }
}

impl Job for EachJob {
    fn prepare(&mut self, view: &View<'_>) -> Vec<Cell> {
        self.cells(view).unwrap_or_else(|error| {
            self.pending.outcome = Err(error.into());
            Vec::new()
        })
    }

    fn fail(&mut self, error: WriteError) {
        self.pending.fail(error);
    }

    fn is_local(&self) -> bool {
        true
    }

    fn durability(&self) -> Durability {
        self.durability
    }

    fn finish(self: Box<Self>) {
        self.pending.answer();
    }
}

/// Cells that came from a peer and have been checked.
pub(crate) struct RemoteJob {
    cells: Vec<Cell>,
    pending: Pending<()>,
}

impl RemoteJob {
    pub(crate) fn new(cells: Vec<Cell>) -> (Self, oneshot::Receiver<Result<(), WriteError>>) {
        let (pending, answer) = Pending::new(Ok(()));
        (Self { cells, pending }, answer)
    }
}

impl Job for RemoteJob {
    fn prepare(&mut self, _view: &View<'_>) -> Vec<Cell> {
        std::mem::take(&mut self.cells)
    }

    fn fail(&mut self, error: WriteError) {
        self.pending.fail(error);
    }

    fn is_local(&self) -> bool {
        false
    }

    fn durability(&self) -> Durability {
        // Their author has them on disk, and they outlive this process. Who is told that the machine keeps them asks for it
        // (`Memory::flush`).
        Durability::EverySecond
    }

    fn finish(self: Box<Self>) {
        self.pending.answer();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use starfish_dht::PeerId;

    use super::*;
    use crate::{Author, Content, Memory, SpaceName};

    #[tokio::test]
    async fn what_came_from_others_is_there_at_once_and_on_the_disk_after_a_flush() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::open(dir.path(), &PeerId::random()).unwrap();
        for round in 0..20 {
            let cell = Cell {
                space: SpaceName::new("app").unwrap(),
                key: format!("k{round}").into(),
                field: Bytes::new(),
                stamp: Stamp { time: memory.shared().clock.tick(), author: Author::from_bytes([1; 16]) },
                content: Content::Value("theirs".into()),
                expires_ms: None,
                renews: None,
            };
            memory.merge(vec![cell]).await.unwrap();
            let got = memory.space("app").unwrap().get(format!("k{round}").as_bytes()).await.unwrap();
            assert_eq!(got.unwrap(), "theirs");
            memory.flush().await.unwrap();
            assert!(!memory.shared().store.is_unsynced());
        }
    }
}
