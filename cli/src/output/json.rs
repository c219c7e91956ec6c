//! One JSON document on standard output.

use std::io::{self, Write};

use serde::Serialize;

/// The document as text: indented, with a final newline.
pub fn render<T: Serialize + ?Sized>(value: &T) -> io::Result<String> {
    let mut text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
    text.push('\n');
    Ok(text)
}

/// Prints the document. A reader that left early is the caller's to judge (`BrokenPipe`).
pub fn print<T: Serialize + ?Sized>(value: &T) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(render(value)?.as_bytes())?;
    stdout.flush()
}
