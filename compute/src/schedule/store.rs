//! Where cron lines and triggers lie: keys of the swarm's memory.
//!
//! WIRE: the space, its keys and fields.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use starfish_memory::{Cell, Memory, ReadError, Space, SpaceError};

use super::line::{CronLine, Firing};
use super::trigger::Trigger;
use crate::batch::definition::{decode, encode};
use crate::function::version::FunctionName;
use crate::kept::RecordError;
use crate::unread::Unread;

/// The space of the swarm's memory that both have.
const SPACE: &str = "schedule";
const RECORD: &[u8] = b"line";
const LAST: &[u8] = b"last";

/// What is kept under a name: a cron line, or a trigger.
pub(crate) trait Record: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// What is in front of its name in its key.
    const PREFIX: &'static str;
}

impl Record for CronLine {
    const PREFIX: &'static str = "cron/";
}

impl Record for Trigger {
    const PREFIX: &'static str = "on/";
}

/// A record, when it was written, and when it was fired last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known<R> {
    pub(crate) record: R,
    /// The stamp of the record, which orders it among all that was written to memory.
    pub(crate) since: String,
    pub(crate) last: Option<Firing>,
}

/// All records of a kind that a node knows.
pub(crate) type All<R> = BTreeMap<FunctionName, Known<R>>;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Store<R> {
    memory: Memory,
    space: Space,
    unread: Arc<Unread>,
    known: tokio::sync::Mutex<Arc<All<R>>>,
}

impl<R: Record> Store<R> {
    pub(crate) fn open(memory: &Memory) -> Result<Self, SpaceError> {
        let (space, unread) = (memory.space(SPACE)?, Unread::watch(memory, SPACE));
        Ok(Self { memory: memory.clone(), space, unread, known: tokio::sync::Mutex::new(Arc::default()) })
    }

    /// All records, as memory has them now.
    pub(crate) async fn all(&self) -> Result<Arc<All<R>>, ReadError> {
        let mut known = self.known.lock().await;
        if self.unread.take() {
            match self.read().await {
                Ok(read) => *known = Arc::new(read),
                Err(error) => {
                    self.unread.again();
                    return Err(error);
                }
            }
        }
        Ok(Arc::clone(&known))
    }

    async fn read(&self) -> Result<All<R>, ReadError> {
        let space = self.space.clone();
        let read = move || {
            let mut cells = Vec::new();
            space.for_each_cell(R::PREFIX.as_bytes(), &mut |cell| cells.push(cell.clone()))?;
            Ok(known_of(&cells, crate::runner::unix_ms()))
        };
        tokio::task::spawn_blocking(read).await.unwrap_or_else(|_| Ok(All::new()))
    }

    /// Keeps a record, in place of another of its name.
    pub(crate) async fn put(&self, name: &FunctionName, record: &R) -> Result<(), RecordError> {
        let mut batch = self.space.batch();
        batch.put(key::<R>(name), RECORD, encode(record)?).delete(key::<R>(name), LAST);
        self.memory.commit(batch).await?;
        Ok(())
    }

    /// Notes that a record was fired.
    pub(crate) async fn fired(&self, name: &FunctionName, firing: &Firing) -> Result<(), RecordError> {
        let mut batch = self.space.batch();
        batch.put(key::<R>(name), LAST, encode(firing)?);
        self.memory.commit(batch).await?;
        Ok(())
    }

    /// Forgets a record.
    pub(crate) async fn remove(&self, name: &FunctionName) -> Result<(), RecordError> {
        self.space.delete(&key::<R>(name)).await?;
        Ok(())
    }
}

/// What cells tell of records. What makes no sense tells nothing.
fn known_of<R: Record>(cells: &[Cell], unix_ms: u64) -> All<R> {
    let mut records: BTreeMap<FunctionName, (R, String)> = BTreeMap::new();
    let mut lasts: BTreeMap<FunctionName, Firing> = BTreeMap::new();
    for cell in cells {
        let key = std::str::from_utf8(&cell.key).ok();
        let name = key.and_then(|key| key.strip_prefix(R::PREFIX)?.parse::<FunctionName>().ok());
        let (Some(name), Some(value)) = (name, cell.live(unix_ms)) else { continue };
        match &cell.field[..] {
            RECORD => {
                drop(decode(value).map(|record| records.insert(name, (record, cell.stamp.to_string()))))
            }
            LAST => drop(decode(value).map(|last| lasts.insert(name, last))),
            _ => {}
        }
    }
    let known = records.into_iter().map(|(name, (record, since))| {
        let last = lasts.remove(&name);
        (name, Known { record, since, last })
    });
    known.collect()
}

fn key<R: Record>(name: &FunctionName) -> Bytes {
    Bytes::from(format!("{}{name}", R::PREFIX))
}
