//! `grep [-c] [-i] [-n] [-v] TEXT [FILE...]`: prints the lines that hold a text. Exits with 1 if there are none,
//! and with 2 if a file cannot be read.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::process::ExitCode;

#[derive(Default)]
struct Options {
    count: bool,
    ignore_case: bool,
    number: bool,
    invert: bool,
}

fn main() -> ExitCode {
    let mut options = Options::default();
    let mut words = std::env::args().skip(1).peekable();
    while let Some(flag) = words.next_if(|word| word.starts_with('-')) {
        match flag.as_str() {
            "-c" => options.count = true,
            "-i" => options.ignore_case = true,
            "-n" => options.number = true,
            "-v" => options.invert = true,
            _ => return complain(&format!("there is no {flag}")),
        }
    }
    let text = match words.next() {
        Some(text) if options.ignore_case => text.to_lowercase(),
        Some(text) => text,
        None => return complain("which text?"),
    };
    let files: Vec<String> = words.collect();
    let mut found = 0;
    if files.is_empty() {
        found += search(io::stdin().lock(), "", &text, &options).unwrap_or(0);
    }
    for file in &files {
        let label = if files.len() > 1 { format!("{file}:") } else { String::new() };
        match File::open(file).and_then(|file| search(BufReader::new(file), &label, &text, &options)) {
            Ok(lines) => found += lines,
            Err(error) => return complain(&format!("{file}: {error}")),
        }
    }
    ExitCode::from(u8::from(found == 0))
}

/// Prints the lines that match, or how many; returns how many.
fn search(input: impl BufRead, label: &str, text: &str, options: &Options) -> io::Result<u64> {
    let mut output = io::BufWriter::new(io::stdout().lock());
    let mut found = 0;
    for (index, line) in input.split(b'\n').enumerate() {
        let line = line?;
        let readable = String::from_utf8_lossy(&line);
        let holds = if options.ignore_case {
            readable.to_lowercase().contains(text)
        } else {
            readable.contains(text)
        };
        if holds == options.invert {
            continue;
        }
        found += 1;
        if options.count {
            continue;
        }
        write!(output, "{label}")?;
        if options.number {
            write!(output, "{}:", index + 1)?;
        }
        output.write_all(&line)?;
        output.write_all(b"\n")?;
    }
    if options.count {
        writeln!(output, "{label}{found}")?;
    }
    output.flush()?;
    Ok(found)
}

fn complain(what: &str) -> ExitCode {
    eprintln!("grep: {what}");
    ExitCode::from(2)
}
