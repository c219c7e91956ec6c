//! What people and scripts see: data on standard output, everything else on standard error.
//!
//! Tables have no borders, sizes and ages are for people, `--json` is for programs and keeps its shape.

pub mod columns;
pub mod error;
pub mod human;
pub mod json;
pub mod printable;
pub mod progress;
pub mod style;
pub mod table;

use unicode_width::UnicodeWidthStr;

/// How many terminal cells a text takes.
fn width(text: &str) -> usize {
    UnicodeWidthStr::width(text)
}

/// Cells in a line of the terminal on standard output; 80 where that cannot be known.
pub fn terminal_width() -> usize {
    rustix::termios::tcgetwinsize(std::io::stdout())
        .map(|size| usize::from(size.ws_col))
        .ok()
        .filter(|columns| *columns > 0)
        .unwrap_or(80)
}
