//! How a failure is told: what failed, why, and what to do about it.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};

use super::printable;
use super::style::{ColorChoice, Style};

/// `error: ...`, a `caused by:` line for each cause, and after a blank line a `hint:` if there is one.
pub fn render(error: &anyhow::Error, hint: Option<&str>, colour: bool) -> String {
    let mut text =
        format!("{} {}\n", Style::Error.paint("error:", colour), printable::lines(&error.to_string()));
    let mut said = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Transparent wrappers repeat their source; nobody needs to read it twice.
        if cause != said {
            let _ = writeln!(text, "  caused by: {}", printable::lines(&cause));
        }
        said = cause;
    }
    if let Some(hint) = hint {
        let _ = write!(text, "\n{} {hint}\n", Style::Hint.paint("hint:", colour));
    }
    text
}

/// Renders to standard error.
pub fn report(error: &anyhow::Error, hint: Option<&str>) {
    let colour = ColorChoice::Auto.applies(io::stderr().is_terminal());
    // Standard error may be closed; then there is nobody to tell.
    let _ = io::stderr().write_all(render(error, hint, colour).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_and_hint_follow_the_error() {
        let error = anyhow::anyhow!("connection refused").context("no node answers");
        assert_eq!(
            render(&error, Some("start one with `starfish up`"), false),
            "error: no node answers\n  caused by: connection refused\n\nhint: start one with `starfish up`\n"
        );
    }
}
