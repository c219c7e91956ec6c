//! Long-lived tasks: each has a name, one owner, and an end that the owner waits for.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span, warn};

/// The tasks of one node.
#[derive(Clone)]
pub(crate) struct Tasks {
    stop: CancellationToken,
    running: Arc<Mutex<Vec<Running>>>,
}

/// A task by its name.
type Running = (&'static str, JoinHandle<()>);

/// One long-lived task, as `GET /api/v1/workers` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// What it is called, here and in the logs.
    pub name: String,
    /// Whether it is still at work.
    pub alive: bool,
}

impl Tasks {
    pub(crate) fn new() -> Self {
        Self { stop: CancellationToken::new(), running: Arc::default() }
    }

    /// Cancelled when the node begins to stop.
    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    /// Starts a task that ends by itself when [`Tasks::stopping`] is cancelled.
    pub(crate) fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let handle = tokio::spawn(task.instrument(info_span!("worker", name)));
        self.running.lock().unwrap_or_else(PoisonError::into_inner).push((name, handle));
    }

    /// All tasks, in the order in which they were started.
    pub(crate) fn list(&self) -> Vec<WorkerInfo> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running
            .iter()
            .map(|(name, handle)| WorkerInfo { name: (*name).to_owned(), alive: !handle.is_finished() })
            .collect()
    }

    /// Asks all to end, waits for them in all for as long as `patience`, and ends the rest by force.
    pub(crate) async fn stop(&self, patience: Duration) {
        self.stop.cancel();
        let running = std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        let deadline = tokio::time::Instant::now() + patience;
        for (name, mut handle) in running {
            if tokio::time::timeout_at(deadline, &mut handle).await.is_err() {
                warn!(name, "did not stop in time");
                handle.abort();
            }
        }
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.list()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_does_not_listen_is_ended_by_force() {
        let tasks = Tasks::new();
        let stopping = tasks.stopping().clone();
        tasks.spawn("polite", async move { stopping.cancelled().await });
        tasks.spawn("deaf", std::future::pending());
        assert!(tasks.list().iter().all(|worker| worker.alive));
        tasks.stop(Duration::from_millis(20)).await;
        assert!(tasks.list().is_empty());
    }
}
