//! Enter runs a line that is whole, and goes on in a new line while something is open.

use reedline::{ValidationResult, Validator};

use crate::shell::parse;

/// Asks the parser.
pub(super) struct Finished;

impl Validator for Finished {
    fn validate(&self, line: &str) -> ValidationResult {
        if parse::is_unfinished(line) { ValidationResult::Incomplete } else { ValidationResult::Complete }
    }
}
