//! Keys, fields and members on the command line: none is empty.

/// The name of a key.
pub(super) fn key(text: &str) -> Result<String, String> {
    named(text, "key")
}

/// The name of a field.
pub(super) fn field(text: &str) -> Result<String, String> {
    named(text, "field")
}

/// A member of a set.
pub(super) fn member(text: &str) -> Result<String, String> {
    named(text, "member")
}

fn named(text: &str, what: &str) -> Result<String, String> {
    if text.is_empty() { Err(format!("a {what} must not be empty")) } else { Ok(text.to_owned()) }
}
