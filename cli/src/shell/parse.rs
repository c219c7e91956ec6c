//! From text to syntax tree: the grammar is bash's, by `brush-parser`.

use brush_parser::ast::Program;
use brush_parser::{ParseError, Parser, ParserOptions};

/// Options for everything that is parsed. Extended globs are off: the matcher does not know them.
pub(super) fn options() -> ParserOptions {
    ParserOptions { enable_extended_globbing: false, ..ParserOptions::default() }
}

/// Parses a whole script or line.
pub(super) fn program(text: &str) -> Result<Program, ParseError> {
    Parser::new(text.as_bytes(), &options()).parse_program()
}

/// Whether more lines could make `text` a command: an open quote, a trailing pipe, an `if` without `fi`.
pub(super) fn is_unfinished(text: &str) -> bool {
    if text.ends_with("\\\n") || (text.ends_with('\\') && !text.ends_with("\\\\")) {
        return true;
    }
    // Nothing that follows makes sense of these at the start, though the parser would wait for more.
    let first = text.split_whitespace().next().unwrap_or_default().trim_end_matches(';');
    if matches!(first, "then" | "elif" | "else" | "fi" | "do" | "done" | "esac" | "}") {
        return false;
    }
    match program(text) {
        Ok(_) => false,
        Err(ParseError::ParsingAtEndOfInput) => true,
        Err(ParseError::Tokenizing { inner, .. }) => inner.is_incomplete(),
        Err(ParseError::ParsingNear(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_lines_ask_for_more() {
        for text in [
            "echo 'a",
            "echo \"a",
            "ls |",
            "a &&",
            "if true; then",
            "for x in a b; do",
            "echo $(ls",
            "ls \\",
            "cat <<E\nx",
        ] {
            assert!(is_unfinished(text), "{text:?} needs more");
        }
    }

    #[test]
    fn finished_and_hopeless_lines_do_not() {
        for text in ["", "echo a", "echo 'a' | cat", "if true; then ls; fi", "fi", "| a", "echo \\\\"] {
            assert!(!is_unfinished(text), "{text:?} is complete");
        }
    }
}
