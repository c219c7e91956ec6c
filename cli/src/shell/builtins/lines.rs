//! Reading line by line, with a bound on a line's length.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::shell::io::{BoxReader, PIPE_BYTES};

/// The longest line that line-wise commands take: a binary file without newlines must not fill the memory.
const MAX_LINE_BYTES: usize = 64 * 1024 * 1024;

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

/// A line without its newline.
pub(super) fn trimmed(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap_or(line)
}
