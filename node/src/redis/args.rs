//! The arguments of one command, taken one after the other.

use std::vec;

use bytes::Bytes;
use starfish_memory::MAX_KEY;

use super::refusal::Refusal;
use super::request::Request;

/// What is left of a command's arguments.
#[derive(Debug)]
pub(super) struct Args {
    command: &'static str,
    rest: vec::IntoIter<Bytes>,
}

impl Args {
    /// Those of `request`, behind its first word.
    pub(super) fn new(command: &'static str, request: Request) -> Self {
        let mut rest = request.into_iter();
        rest.next();
        Self { command, rest }
    }

    pub(super) fn command(&self) -> &'static str {
        self.command
    }

    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn next(&mut self) -> Result<Bytes, Refusal> {
        self.rest.next().ok_or(Refusal::Arity(self.command))
    }

    /// The next one, which names a field or a member.
    pub(super) fn name(&mut self, what: &'static str) -> Result<Bytes, Refusal> {
        let name = self.next()?;
        if name.is_empty() { Err(Refusal::Empty(what)) } else { Ok(name) }
    }

    /// All that is left, which names fields or members.
    pub(super) fn names(self, what: &'static str) -> Result<Vec<Bytes>, Refusal> {
        let names = self.all();
        if names.iter().any(Bytes::is_empty) { Err(Refusal::Empty(what)) } else { Ok(names) }
    }

    /// The next one, if there is one: an option.
    pub(super) fn option(&mut self) -> Option<String> {
        self.rest.next().map(|word| String::from_utf8_lossy(&word).to_ascii_uppercase())
    }

    /// What an option needs behind it.
    pub(super) fn value(&mut self) -> Result<Bytes, Refusal> {
        self.rest.next().ok_or(Refusal::Syntax)
    }

    pub(super) fn integer(&mut self) -> Result<i64, Refusal> {
        let text = self.value()?;
        integer(&text).ok_or(Refusal::NotAnInteger)
    }

    /// A pattern. It is held against many keys, so it may be no longer than one.
    pub(super) fn pattern(&mut self) -> Result<Bytes, Refusal> {
        let pattern = self.value()?;
        match pattern.len() {
            ..=MAX_KEY => Ok(pattern),
            _ => Err(Refusal::PatternTooLong(MAX_KEY)),
        }
    }

    /// All that is left.
    pub(super) fn all(self) -> Vec<Bytes> {
        self.rest.collect()
    }

    /// All that is left, two by two.
    pub(super) fn pairs(mut self) -> Result<Vec<(Bytes, Bytes)>, Refusal> {
        let mut pairs = Vec::with_capacity(self.len() / 2);
        while self.len() > 0 {
            pairs.push((self.next()?, self.next()?));
        }
        Ok(pairs)
    }
}

/// An integer in the one way of writing it that Redis takes.
pub(super) fn integer(text: &[u8]) -> Option<i64> {
    let text = str::from_utf8(text).ok().filter(|text| !text.starts_with('+'))?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_one_form() {
        assert_eq!(integer(b"-7"), Some(-7));
        for text in ["+7", "7 ", "", "0x7", "7.0"] {
            assert_eq!(integer(text.as_bytes()), None, "{text}");
        }
    }
}
