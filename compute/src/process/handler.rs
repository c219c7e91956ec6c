//! The owner's part: handles the events of a process, one after the other.

use std::time::Duration;

use bytes::Bytes;
use tracing::{debug, warn};

use super::frame::{self, MAX_OUTPUT, Reaction};
use super::record::{Event, ProcessName, Spec};
use super::service::Processes;
use crate::board::MAX_LOST;
use crate::function::{CallSpec, Running, Said};
use crate::id::{EventId, half};
use crate::in_words;
use crate::runner::unix_ms;
use crate::task::Outcome;

/// How long one event may take: the others wait for it.
const MAX_TIME: Duration = Duration::from_secs(60);
/// How soon it is tried again, when the handler could not be run.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(300);
/// What a handler complains about is part of why it failed, up to this length.
const MAX_COMPLAINT: usize = 1024;

/// The next event of a process, and what it meets.
struct Next {
    id: EventId,
    spec: Spec,
    state: Vec<u8>,
    /// Tells whether that is still the state.
    based_on: Option<starfish_memory::Stamp>,
}

/// Why an event was not handled: the handler failed for good, or could not be run for now.
enum Failure {
    Failed(String),
    Lost(String),
    Later(String),
}

impl Processes {
    /// Handles all events that wait, as long as this node is the owner.
    pub(super) async fn attend(&self, name: &ProcessName) {
        let mut losses: Option<(EventId, usize)> = None;
        while self.is_mine(name) {
            let Some(next) = self.next(name) else { break };
            let lost = losses.filter(|(id, _)| *id == next.id).map_or(0, |(_, lost)| lost);
            match self.handle(name, &next, lost).await {
                Ok(()) => drop(self.stuck().remove(name)),
                Err(failure) => {
                    let (Failure::Failed(why) | Failure::Lost(why) | Failure::Later(why)) = &failure;
                    debug!(process = %name, event = %next.id, why, "an event cannot be handled yet");
                    self.stuck().insert(name.clone(), why.clone());
                    if matches!(failure, Failure::Lost(_)) {
                        losses = Some((next.id, lost + 1));
                    }
                    tokio::time::sleep(TRY_AGAIN_AFTER).await;
                }
            }
            self.hear();
        }
        self.stuck().remove(name);
    }

    fn next(&self, name: &ProcessName) -> Option<Next> {
        let next = self.with(name, |spec, journal| {
            let state = journal.snapshot().map(|snapshot| snapshot.state.clone()).unwrap_or_default();
            Some(Next { id: journal.next()?, spec: spec.clone(), state, based_on: journal.state_stamp() })
        });
        next.ok().flatten()
    }

    async fn handle(&self, name: &ProcessName, next: &Next, lost: usize) -> Result<(), Failure> {
        let later = |error: &(dyn std::error::Error + 'static)| Failure::Later(in_words(error));
        let Some(event) = self.store.event(name, next.id).await.map_err(|error| later(&error))? else {
            self.journals().get_mut(name).into_iter().for_each(|journal| journal.forget(&next.id));
            return Ok(());
        };
        let reacted = match self.react(name, next, &event).await {
            Ok(reaction) => self.outgoing(name, next, &reaction).map(|sends| (reaction, sends)),
            Err(Failure::Failed(why)) => Err(why),
            Err(Failure::Lost(why)) if lost + 1 >= MAX_LOST => {
                Err(format!("its node was lost {MAX_LOST} times: {why}"))
            }
            Err(other) => return Err(other),
        };
        let (state, outcome, sends) = match reacted {
            Ok((reaction, sends)) => (reaction.state, Ok(reaction.reply), sends),
            Err(why) => (None, Err(why), Vec::new()),
        };
        self.hear();
        let ended = (self.me(), unix_ms());
        let writes = self.with(name, |_, journal| {
            let is_current = journal.state_stamp() == next.based_on && journal.next() == Some(next.id);
            is_current.then(|| journal.handled(next.id, state, outcome, ended))
        });
        // Another owner was faster, or the process has ended: what was done is not done.
        let Ok(Some(writes)) = writes else { return Ok(()) };
        let writes = writes.map_err(|error| later(&error))?;
        self.store.commit(name, writes, sends).await.map_err(|error| {
            warn!(process = %name, %error, "cannot keep what came of an event");
            later(&error)
        })
    }

    /// Runs the handler.
    async fn react(&self, name: &ProcessName, next: &Next, event: &Event) -> Result<Reaction, Failure> {
        let call = CallSpec {
            name: next.spec.function.clone(),
            args: vec![event.handler.to_string()],
            handler: Some(event.handler.clone()),
            request: None,
        };
        let running = self.functions.call(call).await.map_err(|error| Failure::Later(in_words(&error)))?;
        let about = (next.id, event.at_ms, event.from.as_ref());
        let question = frame::question(name, about, &next.state, &event.data);
        match tokio::time::timeout(MAX_TIME, converse(running, question.into())).await {
            Ok(output) => frame::reaction(&output?).map_err(|error| Failure::Failed(error.to_string())),
            Err(_) => Err(Failure::Failed(format!("it took longer than {MAX_TIME:?}"))),
        }
    }

    /// The events that a handler sends, under ids that are the same whenever it is run for its event again.
    fn outgoing(
        &self,
        name: &ProcessName,
        next: &Next,
        reaction: &Reaction,
    ) -> Result<Vec<(ProcessName, EventId, Event)>, String> {
        let sends = reaction.sends.iter().enumerate().map(|(number, send)| {
            let tag = self.with(&send.to, |spec, _| spec.tag);
            let tag = tag.map_err(|error| format!("it sends an event to {}: {error}", send.to))?;
            let what = [
                name.as_str().as_bytes(),
                b"\0",
                &next.spec.tag.to_be_bytes(),
                &next.id.0,
                &number.to_be_bytes(),
            ];
            let id = EventId(half(blake3::hash(&what.concat())));
            let (handler, data) = (send.handler.clone(), send.data.clone());
            let event = Event { tag, handler, data, at_ms: unix_ms(), from: Some(name.clone()) };
            Ok((send.to.clone(), id, event))
        });
        sends.collect()
    }
}

/// Gives a handler its input, and gives its output once it has ended well.
async fn converse(running: Running, input: Bytes) -> Result<Vec<u8>, Failure> {
    let Running { stdin, mut said } = running;
    // It need not read it.
    let _ = stdin.send(input).await;
    drop(stdin);
    let (mut output, mut complaint) = (Vec::new(), Vec::new());
    loop {
        match said.recv().await {
            Some(Said::Stdout(bytes)) if output.len() + bytes.len() > MAX_OUTPUT => {
                return Err(Failure::Failed(format!("it wrote more than {} KiB", MAX_OUTPUT >> 10)));
            }
            Some(Said::Stdout(bytes)) => output.extend_from_slice(&bytes),
            Some(Said::Stderr(bytes)) => {
                let room = MAX_COMPLAINT.saturating_sub(complaint.len());
                complaint.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            Some(Said::Head(_)) => {}
            Some(Said::Ended(Outcome::Exited(0))) => return Ok(output),
            Some(Said::Ended(outcome)) => {
                let complaint = String::from_utf8_lossy(&complaint).trim().to_owned();
                let why = if complaint.is_empty() {
                    outcome.to_string()
                } else {
                    format!("{outcome}: {complaint}")
                };
                return Err(Failure::Failed(why));
            }
            Some(Said::Lost(why)) => return Err(Failure::Lost(why)),
            None => return Err(Failure::Later("this node stops".to_owned())),
        }
    }
}
