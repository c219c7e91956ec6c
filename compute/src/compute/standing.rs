//! The handle, as far as it is about what stands by itself: cron lines, triggers and processes.

use super::Compute;
use crate::function::version::FunctionName;
use crate::id::EventId;
use crate::process::{Answer, ProcessError, ProcessName, ProcessStatus, SendSpec, Sent};
use crate::schedule::{CronError, CronSpec, CronStatus, TriggerError, TriggerSpec, TriggerStatus};

impl Compute {
    /// Has a function called by the clock, on whichever node, from the next tick on.
    pub async fn add_cron(&self, spec: CronSpec) -> Result<CronStatus, CronError> {
        self.cron.add(spec).await
    }

    /// The swarm's cron lines, by name, and how they go.
    pub async fn cron(&self) -> Result<Vec<CronStatus>, CronError> {
        self.cron.list().await
    }

    /// Forgets a cron line. What it has fired goes on.
    pub async fn remove_cron(&self, name: &FunctionName) -> Result<(), CronError> {
        self.cron.remove(name).await
    }

    /// Has a function called, on whichever node, for each file or key that changes from now on.
    pub async fn add_trigger(&self, spec: TriggerSpec) -> Result<TriggerStatus, TriggerError> {
        self.triggers.add(spec).await
    }

    /// The swarm's triggers, by name, and how they go.
    pub async fn triggers(&self) -> Result<Vec<TriggerStatus>, TriggerError> {
        self.triggers.list().await
    }

    /// Forgets a trigger. What it has fired goes on.
    pub async fn remove_trigger(&self, name: &FunctionName) -> Result<(), TriggerError> {
        self.triggers.remove(name).await
    }

    /// Begins a process, whose events this function handles.
    pub async fn spawn(&self, name: ProcessName, function: FunctionName) -> Result<(), ProcessError> {
        self.processes.spawn(name, function).await
    }

    /// Sends an event to a process. On return it is on this disk, and on that of another node if there is one.
    pub async fn send(&self, event: SendSpec) -> Result<Sent, ProcessError> {
        self.processes.send(event).await
    }

    /// What came of an event that was sent, as soon as it was handled.
    pub async fn answer(&self, process: &ProcessName, event: EventId) -> Result<Answer, ProcessError> {
        self.processes.answer(process, event).await
    }

    /// The swarm's processes, by name, and how they go.
    pub async fn processes(&self) -> Vec<ProcessStatus> {
        self.processes.list().await
    }

    /// Ends a process, and forgets its state and all of its events.
    pub async fn end_process(&self, name: &ProcessName) -> Result<(), ProcessError> {
        self.processes.kill(name).await
    }
}
