//! Cursors of scans. In Redis they are integers; here a scan goes on behind the last key that it has shown, so that
//! writes in between neither hide a key nor show one twice. Each integer stands for such a key.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use super::refusal::Refusal;
use super::reply::Reply;

/// Scans under way that are remembered, of all connections together, since a client may go on with a scan through
/// another one. Beyond this the oldest are forgotten. With the longest keys that is 4 MiB.
const MAX_CURSORS: u64 = 4096;

/// The cursors of one node.
#[derive(Debug, Default)]
pub(super) struct Cursors(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    newest: u64,
    behind: HashMap<u64, Bytes>,
}

impl Cursors {
    /// Behind what the scan goes on; `None` at its beginning.
    pub(super) fn resume(&self, cursor: u64) -> Result<Option<Bytes>, Refusal> {
        if cursor == 0 {
            return Ok(None);
        }
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.behind.get(&cursor).cloned().map(Some).ok_or(Refusal::Cursor)
    }

    /// The answer of a scan that goes on behind `last`, or ends.
    pub(super) fn page(&self, last: Option<Bytes>, found: Vec<Reply>) -> Reply {
        let cursor = last.map_or(0, |last| self.keep(last));
        Reply::Array(vec![Reply::text(cursor.to_string()), Reply::Array(found)])
    }

    fn keep(&self, last: Bytes) -> u64 {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.newest += 1;
        let cursor = table.newest;
        // A copy: the key may be a piece of something larger.
        table.behind.insert(cursor, Bytes::copy_from_slice(&last));
        table.behind.remove(&cursor.saturating_sub(MAX_CURSORS));
        cursor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten() {
        let cursors = Cursors::default();
        assert_eq!(cursors.resume(0).unwrap(), None);
        assert!(cursors.resume(1).is_err());
        for number in 1..=MAX_CURSORS + 1 {
            assert_eq!(cursors.keep(number.to_string().into()), number);
        }
        assert!(cursors.resume(1).is_err());
        assert_eq!(cursors.resume(2).unwrap().unwrap(), "2");
        assert_eq!(cursors.resume(2).unwrap().unwrap(), "2", "a page may be asked for again");
        assert_eq!(cursors.0.lock().unwrap().behind.len() as u64, MAX_CURSORS);
    }
}
