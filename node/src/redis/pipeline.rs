//! Commands that a client sent without waiting for answers.
//!
//! Answers leave in the order of the commands. Writes wait for the disk, so those of one pipeline wait together: each is
//! with the writer, in order, before the next one is begun, and the writer commits them as a group. Plain `SET`s in a row are
//! gathered into one job. A read is done at once unless something is being written to its keys; what touches all keys waits
//! until everything is done.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use futures::future::poll_immediate;
use starfish_memory::{Glance, KeyKind, Memory, Put, Space, WriteError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::unconstrained;

use super::channels::Channels;
use super::command::{self, Access, Command};
use super::cursors::Cursors;
use super::hub::Hub;
use super::keys::require;
use super::refusal::Refusal;
use super::reply::Reply;
use super::session::{self, Session};
use super::strings::Strings;

/// Commands of one connection that are at work or whose answers wait: a few times what clients send at once.
const MAX_COMMANDS: usize = 1024;
/// Bytes of these commands and answers. One may be longer, and then is alone.
const MAX_WEIGHT: usize = 1 << 20;
/// Writes of all connections that are with the writer. It has room for twice as many: where there is none, a write
/// would be let in late, and a later one of the same connection might overtake it.
const MAX_WRITES: usize = 2048;
/// Keys of one command that is at work together with others; each may be a job of its own.
pub(super) const MAX_KEYS: usize = 64;
/// `SET`s that are one job.
const MAX_RUN: usize = 128;
/// Room for keys that is kept from one pipeline to the next.
const KEPT_KEYS: usize = 1024;

/// What the commands of all connections work on.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) memory: Memory,
    pub(super) space: Space,
    pub(super) cursors: Cursors,
    pub(super) hub: Arc<Hub>,
    /// One for each job that may be with the writer.
    writes: Arc<Semaphore>,
    /// Clients there were.
    n_clients: AtomicI64,
}

/// The commands of one connection that have no answer yet, or that wait for one of those.
#[derive(Default)]
pub(super) struct Pipeline {
    answers: VecDeque<Answer>,
    /// Commands among them.
    n_commands: usize,
    /// `SET`s that are not with the writer yet. Their answer is [`Answer::Run`].
    run: Vec<Put>,
    /// The keys that are being written, and what they must hold then.
    writing: HashMap<Bytes, Option<KeyKind>>,
    weight: usize,
}

enum Answer {
    Ready(Reply),
    Coming(Pin<Box<dyn Future<Output = Reply> + Send>>),
    /// That of the run, whose place it keeps.
    Run,
}

impl Engine {
    pub(super) fn new(memory: Memory, space: Space, hub: Arc<Hub>) -> Self {
        let writes = Arc::new(Semaphore::new(MAX_WRITES));
        Self { memory, space, cursors: Cursors::default(), hub, writes, n_clients: AtomicI64::new(0) }
    }

    /// A number that no other client of this node has had since it started.
    pub(super) fn number_client(&self) -> i64 {
        self.n_clients.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The answer to a command that takes no more than a look.
    fn glance(&self, command: &Command) -> Option<Reply> {
        let Command::Strings(Strings::Get(key)) = command else { return None };
        match self.space.glance(key) {
            Glance::Value(value) => Some(Reply::Bytes(value)),
            Glance::Nothing => Some(Reply::Null),
            Glance::More => None,
        }
    }

    fn access(command: &Command) -> Access {
        match command {
            // What these change is the connection's, not a key.
            Command::Session(_) => Access::Reads(Vec::new()),
            // A listener may look at once for what was written before.
            Command::Channels(_) => Access::Alone,
            Command::Keys(keys) => keys.access(),
            Command::Strings(strings) => strings.access(),
            Command::Hashes(hashes) => hashes.access(),
            Command::Sets(sets) => sets.access(),
        }
    }

    /// Whether a command takes more than one job for the writer, so that one behind it could overtake it.
    async fn takes_steps(&self, command: &Command) -> Result<bool, Refusal> {
        match command {
            Command::Keys(keys) => keys.takes_steps(&self.space).await,
            Command::Strings(strings) => strings.takes_steps(&self.space).await,
            Command::Hashes(hashes) => Ok(hashes.takes_steps()),
            Command::Sets(sets) => Ok(sets.takes_steps()),
            Command::Session(_) | Command::Channels(_) => Ok(false),
        }
    }

    async fn run(self: Arc<Self>, command: Command) -> Reply {
        let Self { memory, space, cursors, hub, writes: _, n_clients: _ } = &*self;
        let done = match command {
            Command::Session(session) => self.describe(session),
            Command::Channels(Channels::Publish(message)) => hub.publish(message).await.map(Reply::count),
            Command::Channels(_) => Err(Refusal::Syntax),
            Command::Keys(keys) => keys.run(space, cursors).await,
            Command::Strings(strings) => strings.run(memory, space).await,
            Command::Hashes(hashes) => hashes.run(memory, space, cursors).await,
            Command::Sets(sets) => sets.run(space).await,
        };
        done.unwrap_or_else(Reply::from)
    }

    fn describe(&self, session: Session) -> Result<Reply, Refusal> {
        Ok(match session {
            Session::Ping(None) => Reply::Word("PONG"),
            Session::Ping(Some(text)) => Reply::Bytes(text),
            Session::Select => Reply::OK,
            Session::Catalogue(what) => return command::described(what),
            Session::Info => session::info(self.memory.stats().cells),
            Session::Auth(_) | Session::Hello(_) | Session::Client(_) | Session::Quit => {
                return Err(Refusal::Syntax);
            }
        })
    }
}

impl Pipeline {
    /// Whether one more command may be taken in before answers leave.
    pub(super) fn has_room(&self) -> bool {
        self.n_commands < MAX_COMMANDS && self.weight < MAX_WEIGHT
    }

    /// Puts an answer behind those of the commands before.
    pub(super) fn answer(&mut self, reply: Reply) {
        self.weight += reply.weight();
        self.push(Answer::Ready(reply));
    }

    fn push(&mut self, answer: Answer) {
        self.n_commands += 1;
        self.answers.push_back(answer);
    }

    /// Begins a command that takes so many bytes, and goes on when the next may begin.
    pub(super) async fn begin(&mut self, engine: &Arc<Engine>, command: Command, weight: usize) {
        self.weight += weight;
        let command = match command {
            Command::Strings(strings) => match strings.into_put() {
                Ok(put) => return self.gather(engine, put).await,
                Err(strings) => Command::Strings(strings),
            },
            command => command,
        };
        match Engine::access(&command) {
            Access::Reads(keys) => {
                if keys.iter().any(|key| self.writing.contains_key(key)) {
                    self.settle(engine).await;
                }
                if let Some(reply) = engine.glance(&command) {
                    return self.answer(reply);
                }
            }
            Access::Alone => self.settle(engine).await,
            Access::Writes(keys, kind) => {
                self.launch(engine).await;
                return self.write(engine, command, keys, kind).await;
            }
        }
        let reply = Box::pin(Arc::clone(engine).run(command)).await;
        self.answer(reply);
    }

    /// Adds a `SET` to the run.
    async fn gather(&mut self, engine: &Arc<Engine>, put: Put) {
        match self.writing.get(&put.key) {
            None => {}
            // One job writes to a key once.
            Some(None) => self.launch(engine).await,
            // What the key holds must be known before it is written over.
            Some(Some(_)) => self.settle(engine).await,
        }
        // Its answer has the place of the first: nothing else may have been answered since.
        let is_in_a_row = matches!(self.answers.back(), Some(Answer::Run));
        if !is_in_a_row || self.run.len() >= MAX_RUN {
            self.launch(engine).await;
        }
        self.writing.insert(put.key.clone(), None);
        match self.run.is_empty() {
            true => self.push(Answer::Run),
            // The answer to all of them has a place.
            false => self.n_commands += 1,
        }
        self.run.push(put);
    }

    /// Hands the run to the writer.
    async fn launch(&mut self, engine: &Arc<Engine>) {
        if self.run.is_empty() {
            return;
        }
        let puts = std::mem::take(&mut self.run);
        let answer = match self.permit(engine, 1).await {
            Ok(permit) => {
                let (engine, n) = (Arc::clone(engine), puts.len());
                begun(async move {
                    let reply = engine.space.put_each(puts).await.map_or_else(refused, |()| Reply::OK);
                    drop(permit);
                    Reply::Several(vec![reply; n])
                })
                .await
            }
            Err(refusal) => Answer::Ready(Reply::Several(vec![Reply::from(refusal); puts.len()])),
        };
        if let Some(place) = self.answers.iter_mut().rfind(|answer| matches!(answer, Answer::Run)) {
            *place = answer;
        }
    }

    /// The right to have so many jobs with the writer.
    async fn permit(&mut self, engine: &Engine, n_jobs: u32) -> Result<OwnedSemaphorePermit, Refusal> {
        if let Ok(permit) = Arc::clone(&engine.writes).try_acquire_many_owned(n_jobs) {
            return Ok(permit);
        }
        // First what this connection holds is given back: nobody waits for another that waits.
        self.wait_for_begun().await;
        let permit = Arc::clone(&engine.writes).acquire_many_owned(n_jobs).await;
        permit.map_err(|closed| Refusal::Other(closed.to_string()))
    }

    async fn write(
        &mut self,
        engine: &Arc<Engine>,
        command: Command,
        keys: Vec<Bytes>,
        kind: Option<KeyKind>,
    ) {
        let builds_on = matches!(&command, Command::Strings(strings) if strings.builds_on());
        if builds_on && keys.iter().any(|key| self.writing.contains_key(key)) {
            self.settle(engine).await;
        }
        // What a key holds is only known when writes of another kind are through.
        if keys.iter().any(|key| self.writing.get(key).is_some_and(|writing| *writing != kind)) {
            self.settle(engine).await;
        }
        if let Some(kind) = kind {
            for key in keys.iter().filter(|key| !self.writing.contains_key(*key)) {
                if let Err(refusal) = require(&engine.space, key, kind).await {
                    return self.answer(refusal.into());
                }
            }
        }
        match engine.takes_steps(&command).await {
            Ok(false) => {}
            Ok(true) => {
                self.settle(engine).await;
                let reply = Box::pin(Arc::clone(engine).run(command)).await;
                return self.answer(reply);
            }
            Err(refusal) => return self.answer(refusal.into()),
        }
        let n_jobs = u32::try_from(keys.len().min(MAX_KEYS)).unwrap_or(1);
        let permit = match self.permit(engine, n_jobs).await {
            Ok(permit) => permit,
            Err(refusal) => return self.answer(refusal.into()),
        };
        let engine = Arc::clone(engine);
        let answer = begun(async move {
            let reply = engine.run(command).await;
            drop(permit);
            reply
        });
        match answer.await {
            Answer::Ready(reply) => self.answer(reply),
            coming => {
                self.writing.extend(keys.into_iter().map(|key| (key, kind)));
                self.push(coming);
            }
        }
    }

    /// Waits until all that was asked so far is done.
    async fn settle(&mut self, engine: &Arc<Engine>) {
        self.launch(engine).await;
        self.wait_for_begun().await;
        self.writing.clear();
    }

    async fn wait_for_begun(&mut self) {
        for answer in &mut self.answers {
            if let Answer::Coming(running) = answer {
                let reply = running.await;
                self.weight += reply.weight();
                *answer = Answer::Ready(reply);
            }
        }
    }

    /// The next answer in order; `None` when all have been given.
    pub(super) async fn next(&mut self, engine: &Arc<Engine>) -> Option<Reply> {
        self.launch(engine).await;
        match self.answers.pop_front() {
            Some(Answer::Ready(reply)) => Some(reply),
            Some(Answer::Coming(running)) => Some(running.await),
            // A run has been launched, and its place is taken.
            Some(Answer::Run) | None => {
                (self.weight, self.n_commands) = (0, 0);
                self.writing.clear();
                self.writing.shrink_to(KEPT_KEYS);
                None
            }
        }
    }
}

/// What becomes of a write when it is polled once: then all of its jobs are with the writer, in order. Tokio's budget must not get
/// in between: a poll that it cuts short would let later commands overtake.
async fn begun(write: impl Future<Output = Reply> + Send + 'static) -> Answer {
    let mut running = Box::pin(unconstrained(write));
    match poll_immediate(&mut running).await {
        Some(reply) => Answer::Ready(reply),
        None => Answer::Coming(running),
    }
}

fn refused(error: WriteError) -> Reply {
    Refusal::from(error).into()
}
