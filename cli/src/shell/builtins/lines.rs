//! Reading line by line, with a bound on a line's length.

use std::collections::VecDeque;
use std::io;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use super::Failure;
use crate::shell::io::{BoxReader, PIPE_BYTES};

/// The longest line that line-wise commands take: a binary file without newlines must not fill the memory.
const MAX_LINE_BYTES: usize = 64 * 1024 * 1024;

/// How much of a stream's end is held.
const MAX_HELD_BYTES: usize = 256 * 1024 * 1024;

/// The lines of a stream, as bytes.
pub(super) struct Lines {
    reader: BufReader<BoxReader>,
    line: Vec<u8>,
}

impl Lines {
    /// Reads lines from a stream.
    pub(super) fn new(reader: BoxReader) -> Self {
        Self { reader: BufReader::with_capacity(PIPE_BYTES, reader), line: Vec::new() }
    }

    /// The next line with its newline, which only the last may lack.
    pub(super) async fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        let bound = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX);
        let read = (&mut self.reader).take(bound).read_until(b'\n', &mut self.line).await?;
        if read == MAX_LINE_BYTES {
            return Err(io::Error::other(format!("a line is longer than {MAX_LINE_BYTES} bytes")));
        }
        Ok((read > 0).then_some(self.line.as_slice()))
    }

    /// Whether the next line may have to be waited for: a good moment to show what is there.
    pub(super) fn drained(&self) -> bool {
        self.reader.buffer().is_empty()
    }
}

/// The last lines of a stream, held since a stream cannot be read backwards.
pub(super) struct Last {
    lines: VecDeque<Vec<u8>>,
    count: usize,
    n_bytes: usize,
}

impl Last {
    /// Holds `count` lines.
    pub(super) fn new(count: usize) -> Self {
        Self { lines: VecDeque::new(), count, n_bytes: 0 }
    }

    /// Adds a line, and gives the one that is none of the last any more.
    pub(super) fn push(&mut self, line: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        self.n_bytes += line.len();
        self.lines.push_back(line.to_vec());
        let left = if self.lines.len() > self.count { self.lines.pop_front() } else { None };
        self.n_bytes -= left.as_ref().map_or(0, Vec::len);
        check_held(self.n_bytes)?;
        Ok(left)
    }

    /// The lines, the first of them first.
    pub(super) fn into_lines(self) -> VecDeque<Vec<u8>> {
        self.lines
    }
}

/// Refuses to hold more of a stream's end than [`MAX_HELD_BYTES`].
pub(super) fn check_held(held: usize) -> Result<(), Failure> {
    if held > MAX_HELD_BYTES {
        return Err(Failure::Refused(format!("more than {MAX_HELD_BYTES} bytes would have to be held")));
    }
    Ok(())
}

/// A line without its newline.
pub(super) fn trimmed(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap_or(line)
}
