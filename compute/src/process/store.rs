//! Where processes lie: keys of the swarm's memory, one a process.
//!
//! WIRE: the space and its keys; the fields are in [`super::record`].

use bytes::Bytes;
use starfish_memory::{Cell, Memory, ReadError, Space, SpaceError, WriteError};

use super::journal::Write;
use super::record::{Answer, Event, Field, ProcessName, Spec};
use crate::batch::definition::{decode, encode};
use crate::id::EventId;

/// The space of the swarm's memory that processes have.
pub(crate) const SPACE: &str = "processes";
/// A batch of cells up to this length travels in one piece, so that no node ever has a part of it.
const MAX_WHOLE: usize = 15 << 10;

/// Why something of a process cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum ProcessStoreError {
    /// Memory cannot be read.
    #[error("the swarm's memory cannot be read")]
    Read(#[from] ReadError),
    /// Memory does not take it.
    #[error("the swarm's memory does not take it")]
    Write(#[from] WriteError),
    /// It cannot be put into words.
    #[error("it cannot be encoded")]
    Encode(#[from] postcard::Error),
}

/// See the [module](self). A cheap handle.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    memory: Memory,
    space: Space,
}

impl Store {
    pub(crate) fn open(memory: &Memory) -> Result<Self, SpaceError> {
        Ok(Self { memory: memory.clone(), space: memory.space(SPACE)? })
    }

    /// All cells of all processes.
    pub(crate) async fn cells(&self) -> Result<Vec<Cell>, ReadError> {
        let space = self.space.clone();
        let read = move || {
            let mut cells = Vec::new();
            space.for_each_cell(&[], &mut |cell| cells.push(cell.clone()))?;
            Ok(cells)
        };
        tokio::task::spawn_blocking(read).await.unwrap_or_else(|_| Ok(Vec::new()))
    }

    pub(crate) async fn begin(&self, name: &ProcessName, spec: &Spec) -> Result<(), ProcessStoreError> {
        self.put(name, Field::Spec, encode(spec)?).await
    }

    pub(crate) async fn journal(
        &self,
        name: &ProcessName,
        id: EventId,
        event: &Event,
    ) -> Result<(), ProcessStoreError> {
        self.put(name, Field::Event(id), encode(event)?).await
    }

    /// An event, as it was journaled.
    pub(crate) async fn event(
        &self,
        name: &ProcessName,
        id: EventId,
    ) -> Result<Option<Event>, ProcessStoreError> {
        let value = self.space.field(name.as_str().as_bytes(), &Field::Event(id).to_bytes()).await?;
        Ok(value.and_then(|value| decode(&value)))
    }

    pub(crate) async fn answer(
        &self,
        name: &ProcessName,
        id: EventId,
    ) -> Result<Option<Answer>, ProcessStoreError> {
        let value = self.space.field(name.as_str().as_bytes(), &Field::Answer(id).to_bytes()).await?;
        Ok(value.and_then(|value| decode(&value)))
    }

    /// Writes what came of an event, and the events that it sends, all at once. If that is too much to travel in one piece, the
    /// events go first: better that they are there without the state that sent them, which sends the same again, than
    /// the other way round.
    pub(crate) async fn commit(
        &self,
        name: &ProcessName,
        writes: Vec<Write>,
        sends: Vec<(ProcessName, EventId, Event)>,
    ) -> Result<(), ProcessStoreError> {
        let (mut batch, mut first) = (self.space.batch(), self.space.batch());
        let mut bytes: usize = writes
            .iter()
            .map(|(_, value)| name.as_str().len() + 64 + value.as_ref().map_or(0, Vec::len))
            .sum();
        let mut events = Vec::new();
        for (to, id, event) in sends {
            let value = encode(&event)?;
            bytes += value.len() + 128;
            events.push((key(&to), Field::Event(id).to_bytes(), value));
        }
        let sends = if bytes > MAX_WHOLE { &mut first } else { &mut batch };
        for (key, field, value) in events {
            sends.put(key, field, value);
        }
        for (field, value) in writes {
            match value {
                Some(value) => batch.put(key(name), field.to_bytes(), value),
                None => batch.delete(key(name), field.to_bytes()),
            };
        }
        if !first.is_empty() {
            self.memory.commit(first).await?;
        }
        self.memory.commit(batch).await?;
        Ok(())
    }

    /// Ends a process and forgets all that belongs to it.
    pub(crate) async fn remove(&self, name: &ProcessName) -> Result<(), ProcessStoreError> {
        self.space.delete(name.as_str().as_bytes()).await?;
        Ok(())
    }

    async fn put(&self, name: &ProcessName, field: Field, value: Vec<u8>) -> Result<(), ProcessStoreError> {
        let mut batch = self.space.batch();
        batch.put(key(name), field.to_bytes(), value);
        self.memory.commit(batch).await?;
        Ok(())
    }
}

fn key(name: &ProcessName) -> Bytes {
    Bytes::copy_from_slice(name.as_str().as_bytes())
}
