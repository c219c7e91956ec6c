//! Copies standard input to standard output in upper case, line by line.

use std::io::{BufRead, Write};

fn main() -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        writeln!(output, "{}", line?.to_uppercase())?;
    }
    Ok(())
}
