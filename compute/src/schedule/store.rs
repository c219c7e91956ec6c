//! Where cron lines lie: keys of the swarm's memory.
//!
//! WIRE: the space, its keys and fields.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use starfish_memory::{Cell, Memory, ReadError, Space, SpaceError, WriteError};

use super::line::{CronLine, Firing};
use crate::batch::definition::{decode, encode};
use crate::function::version::FunctionName;
use crate::unread::Unread;

/// The space of the swarm's memory that cron lines have.
const SPACE: &str = "schedule";
/// What is in front of a line's name in its key.
const PREFIX: &str = "cron/";
const LINE: &[u8] = b"line";
const LAST: &[u8] = b"last";

/// Why something of the timetable cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleStoreError {
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

/// A line, and when it was fired last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) line: CronLine,
    pub(crate) last: Option<Firing>,
}

/// All lines that a node knows.
pub(crate) type Lines = BTreeMap<FunctionName, Known>;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Store {
    memory: Memory,
    space: Space,
    unread: Arc<Unread>,
    lines: tokio::sync::Mutex<Arc<Lines>>,
}

impl Store {
    pub(crate) fn open(memory: &Memory) -> Result<Self, SpaceError> {
        let space = memory.space(SPACE)?;
        Ok(Self {
            memory: memory.clone(),
            space,
            unread: Unread::watch(memory, SPACE),
            lines: Default::default(),
        })
    }

    /// All lines, as memory has them now.
    pub(crate) async fn all(&self) -> Result<Arc<Lines>, ReadError> {
        let mut lines = self.lines.lock().await;
        if self.unread.take() {
            match self.read().await {
                Ok(read) => *lines = Arc::new(read),
                Err(error) => {
                    self.unread.again();
                    return Err(error);
                }
            }
        }
        Ok(Arc::clone(&lines))
    }

    async fn read(&self) -> Result<Lines, ReadError> {
        let space = self.space.clone();
        let read = move || {
            let mut cells = Vec::new();
            space.for_each_cell(PREFIX.as_bytes(), &mut |cell| cells.push(cell.clone()))?;
            Ok(lines_of(&cells, crate::runner::unix_ms()))
        };
        tokio::task::spawn_blocking(read).await.unwrap_or_else(|_| Ok(Lines::new()))
    }

    /// Keeps a line, in place of another of its name.
    pub(crate) async fn put(&self, name: &FunctionName, line: &CronLine) -> Result<(), ScheduleStoreError> {
        let mut batch = self.space.batch();
        batch.put(key(name), LINE, encode(line)?).delete(key(name), LAST);
        self.memory.commit(batch).await?;
        Ok(())
    }

    /// Notes that a line was fired.
    pub(crate) async fn fired(&self, name: &FunctionName, firing: &Firing) -> Result<(), ScheduleStoreError> {
        let mut batch = self.space.batch();
        batch.put(key(name), LAST, encode(firing)?);
        self.memory.commit(batch).await?;
        Ok(())
    }

    /// Forgets a line.
    pub(crate) async fn remove(&self, name: &FunctionName) -> Result<(), ScheduleStoreError> {
        self.space.delete(&key(name)).await?;
        Ok(())
    }
}

/// What cells tell of lines. What makes no sense tells nothing.
fn lines_of(cells: &[Cell], unix_ms: u64) -> Lines {
    let mut parts: BTreeMap<FunctionName, (Option<CronLine>, Option<Firing>)> = BTreeMap::new();
    for cell in cells {
        let name = std::str::from_utf8(&cell.key).ok().and_then(|key| key.strip_prefix(PREFIX)?.parse().ok());
        let (Some(name), Some(value)) = (name, cell.live(unix_ms)) else { continue };
        let (line, last) = parts.entry(name).or_default();
        match &cell.field[..] {
            LINE => *line = decode(value),
            LAST => *last = decode(value),
            _ => {}
        }
    }
    parts.into_iter().filter_map(|(name, (line, last))| Some((name, Known { line: line?, last }))).collect()
}

fn key(name: &FunctionName) -> Bytes {
    Bytes::from(format!("{PREFIX}{name}"))
}
