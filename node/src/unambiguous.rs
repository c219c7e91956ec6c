//! JSON in which no key of an object stands twice. Of two, a parser takes the last and says nothing: half of a query would
//! be gone, and `rm` by it would take more than was meant.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Parses a text in which no key stands twice.
///
/// # Errors
///
/// It is no JSON, a key stands twice in one object, or it is not what is asked for; with the place.
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, serde_json::Error> {
    let Unambiguous = serde_json::from_slice(text)?;
    serde_json::from_slice(text)
}

struct Unambiguous;

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Look)
    }
}

struct Look;

impl<'de> Visitor<'de> for Look {
    type Value = Unambiguous;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Unambiguous, E> {
        Ok(Unambiguous)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Unambiguous, E> {
        Ok(Unambiguous)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Unambiguous, E> {
        Ok(Unambiguous)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Unambiguous, E> {
        Ok(Unambiguous)
    }

    fn visit_str<E>(self, _: &str) -> Result<Unambiguous, E> {
        Ok(Unambiguous)
    }

    fn visit_unit<E>(self) -> Result<Unambiguous, E> {
        Ok(Unambiguous)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Unambiguous, A::Error> {
        while let Some(Unambiguous) = list.next_element()? {}
        Ok(Unambiguous)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Unambiguous, A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = object.next_key::<String>()? {
            if keys.contains(&key) {
                return Err(A::Error::custom(format_args!("the key {key:?} stands twice in one object")));
            }
            keys.insert(key);
            let Unambiguous = object.next_value()?;
        }
        Ok(Unambiguous)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_key_that_stands_twice_in_one_object_is_refused_with_its_place() {
        let why = |text: &str| parse::<Value>(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(
            why(r#"{"n": {"$gt": 1}, "n": 2}"#),
            r#"the key "n" stands twice in one object at line 1 column 21"#
        );
        assert!(why(r#"[1, {"a": [{"b": null, "\u0062": true}]}]"#).contains("\"b\" stands twice"));
        assert!(why("{").contains("EOF"));
    }

    #[test]
    fn all_else_is_parsed_as_it_is() {
        for text in
            [r#"{"a": {"a": [-1, 2.5, "x", null, false]}, "b": [{"a": 1}, {"a": 2}]}"#, "7", "[]", "\"\""]
        {
            assert_eq!(parse::<Value>(text.as_bytes()).unwrap(), text.parse::<Value>().unwrap());
        }
    }
}
