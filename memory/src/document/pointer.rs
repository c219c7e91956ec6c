//! JSON pointers (RFC 6901): how a place in a document is named, in edits, queries, indexes and errors.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::value::MAX_DEPTH;

/// Longest pointer, in bytes.
pub const MAX_POINTER: usize = 1024;

/// Why text is not a JSON pointer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PointerError {
    /// It begins with something else than a slash.
    #[error("`{text}` is not a JSON pointer: it must be empty or begin with `/`")]
    NoSlash {
        /// The text.
        text: String,
    },
    /// A tilde stands for nothing.
    #[error("`{text}` is not a JSON pointer: `~` must be followed by 0 or 1")]
    Escape {
        /// The text.
        text: String,
    },
    /// It is longer or deeper than any document is.
    #[error("the JSON pointer is longer than {MAX_POINTER} bytes or deeper than {MAX_DEPTH} steps")]
    TooLong,
}

/// A place in a JSON document: `/authors/0/name`; the empty pointer is the whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pointer(Vec<String>);

impl Pointer {
    /// The whole document.
    pub fn root() -> Self {
        Self::default()
    }

    /// The steps from the whole to the place.
    pub fn steps(&self) -> &[String] {
        &self.0
    }

    /// The place `step` below this one.
    pub fn child(&self, step: impl Into<String>) -> Self {
        let mut steps = self.0.clone();
        steps.push(step.into());
        Self(steps)
    }

    /// The place that holds this one, and the last step to here; `None` for the whole document.
    pub fn split_last(&self) -> Option<(&[String], &str)> {
        self.0.split_last().map(|(last, parents)| (parents, last.as_str()))
    }

    /// What `value` has at this place.
    pub fn resolve<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(value, |value, step| match value {
            Value::Object(members) => members.get(step),
            Value::Array(elements) => elements.get(index(step)?),
            _ => None,
        })
    }

    /// The pointer that users write in queries, where the slash in front may be missing and dots are as good as
    /// slashes: `author.name` is `/author/name`. A name with a dot in it needs the form with slashes.
    pub fn lenient(text: &str) -> Result<Self, PointerError> {
        match text.starts_with('/') || text.is_empty() {
            true => text.parse(),
            false => format!("/{}", text.replace('~', "~0").replace('/', "~1").replace('.', "/")).parse(),
        }
    }
}

/// A step as the index of an array: decimal, without signs and leading zeros.
pub(crate) fn index(step: &str) -> Option<usize> {
    let plain = step == "0" || (!step.starts_with('0') && step.bytes().all(|byte| byte.is_ascii_digit()));
    plain.then(|| step.parse().ok()).flatten()
}

impl FromStr for Pointer {
    type Err = PointerError;

    fn from_str(text: &str) -> Result<Self, PointerError> {
        if text.len() > MAX_POINTER {
            return Err(PointerError::TooLong);
        }
        if text.is_empty() {
            return Ok(Self::root());
        }
        let rest = text.strip_prefix('/').ok_or_else(|| PointerError::NoSlash { text: text.to_owned() })?;
        let steps: Option<Vec<String>> = rest.split('/').map(unescape).collect();
        let steps = steps.ok_or_else(|| PointerError::Escape { text: text.to_owned() })?;
        if steps.len() > MAX_DEPTH { Err(PointerError::TooLong) } else { Ok(Self(steps)) }
    }
}

fn unescape(step: &str) -> Option<String> {
    let mut parts = step.split('~');
    let mut text = parts.next()?.to_owned();
    for part in parts {
        text.push(match part.chars().next()? {
            '0' => '~',
            '1' => '/',
            _ => return None,
        });
        text.push_str(&part[1..]);
    }
    Some(text)
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| write!(f, "/{}", step.replace('~', "~0").replace('/', "~1")))
    }
}

impl Serialize for Pointer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pointer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    proptest! {
        #[test]
        fn what_is_printed_parses_to_the_same(steps in proptest::collection::vec("[a~/0ä]{0,4}", 0..5)) {
            let pointer = Pointer(steps);
            prop_assert_eq!(pointer.to_string().parse(), Ok(pointer));
        }
    }

    #[test]
    fn pointers_lead_through_objects_and_arrays() {
        let value = json!({"a": [{"b/c": 1}, 2], "": 3});
        let at = |text: &str| text.parse::<Pointer>().unwrap().resolve(&value).cloned();
        assert_eq!(at("/a/0/b~1c"), Some(json!(1)));
        assert_eq!(at("/a/1"), Some(json!(2)));
        assert_eq!(at("/"), Some(json!(3)));
        assert_eq!(at(""), Some(value.clone()));
        for nowhere in ["/a/2", "/a/01", "/a/-", "/b", "/a/0/b~1c/d"] {
            assert_eq!(at(nowhere), None, "{nowhere}");
        }
    }

    #[test]
    fn dots_lead_where_slashes_do() {
        assert_eq!(Pointer::lenient("a.b").unwrap(), "/a/b".parse().unwrap());
        assert_eq!(Pointer::lenient("/a.b").unwrap().steps(), ["a.b"]);
        assert_eq!(Pointer::lenient("").unwrap(), Pointer::root());
    }

    #[test]
    fn what_is_no_pointer_is_refused() {
        assert!(matches!("a".parse::<Pointer>(), Err(PointerError::NoSlash { .. })));
        assert!(matches!("/~2".parse::<Pointer>(), Err(PointerError::Escape { .. })));
        assert!(matches!("/~".parse::<Pointer>(), Err(PointerError::Escape { .. })));
        assert_eq!("/a".repeat(MAX_POINTER).parse::<Pointer>(), Err(PointerError::TooLong));
    }
}
