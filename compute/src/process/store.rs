//! Where processes lie: keys of the swarm's memory, one a process.
//!
//! WIRE: the space and its keys; the fields are in [`super::record`].

use bytes::Bytes;
use starfish_memory::{Cell, Memory, ReadError, Space, SpaceError};

use super::journal::Write;
use super::record::{Answer, Event, Field, ProcessName, Spec};
use crate::batch::definition::{decode, encode};
use crate::id::EventId;
use crate::kept::RecordError;

/// The space of the swarm's memory that processes have.
pub(crate) const SPACE: &str = "processes";

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

    pub(crate) async fn begin(&self, name: &ProcessName, spec: &Spec) -> Result<(), RecordError> {
        self.put(name, Field::Spec, encode(spec)?).await
    }

    pub(crate) async fn journal(
        &self,
        name: &ProcessName,
        id: EventId,
        event: &Event,
    ) -> Result<(), RecordError> {
        self.put(name, Field::Event(id), encode(event)?).await
    }

    /// An event, as it was journaled.
    pub(crate) async fn event(&self, name: &ProcessName, id: EventId) -> Result<Option<Event>, RecordError> {
        let value = self.space.field(name.as_str().as_bytes(), &Field::Event(id).to_bytes()).await?;
        Ok(value.and_then(|value| decode(&value)))
    }

    pub(crate) async fn answer(
        &self,
        name: &ProcessName,
        id: EventId,
    ) -> Result<Option<Answer>, RecordError> {
        let value = self.space.field(name.as_str().as_bytes(), &Field::Answer(id).to_bytes()).await?;
        Ok(value.and_then(|value| decode(&value)))
    }

    /// Writes what came of an event, and the events that it sends, all at once: every node sees all of it or nothing.
    pub(crate) async fn commit(
        &self,
        name: &ProcessName,
        writes: Vec<Write>,
        sends: Vec<(ProcessName, EventId, Event)>,
    ) -> Result<(), RecordError> {
        let mut batch = self.space.batch();
        for (to, id, event) in sends {
            batch.put(key(&to), Field::Event(id).to_bytes(), encode(&event)?);
        }
        for (field, value) in writes {
            match value {
                Some(value) => batch.put(key(name), field.to_bytes(), value),
                None => batch.delete(key(name), field.to_bytes()),
            };
        }
        self.memory.commit(batch).await?;
        Ok(())
    }

    /// Ends a process and forgets all that belongs to it.
    pub(crate) async fn remove(&self, name: &ProcessName) -> Result<(), RecordError> {
        self.space.delete(name.as_str().as_bytes()).await?;
        Ok(())
    }

    async fn put(&self, name: &ProcessName, field: Field, value: Vec<u8>) -> Result<(), RecordError> {
        let mut batch = self.space.batch();
        batch.put(key(name), field.to_bytes(), value);
        self.memory.commit(batch).await?;
        Ok(())
    }
}

fn key(name: &ProcessName) -> Bytes {
    Bytes::copy_from_slice(name.as_str().as_bytes())
}
