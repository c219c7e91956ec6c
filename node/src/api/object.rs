//! A JSON body that is to be an object is one. Left to itself, serde takes an array for a struct as well, its elements in
//! the order of the fields: then `[]` would be an invitation for a day, and an API that nobody wrote down.

use serde::de::{Deserialize, Deserializer, Visitor};
use serde::forward_to_deserialize_any;

/// A value whose outermost form is what its type says.
#[derive(Debug)]
pub(super) struct Strict<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Strict<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(Outermost(deserializer)).map(Strict)
    }
}

/// Takes objects only where a struct is asked for; all else is as it was. JSON says itself what it is.
struct Outermost<D>(D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Outermost<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_option(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_newtype_struct(name, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq
        tuple tuple_struct map identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{InviteRequest, RevokeRequest, WriteBody};

    fn parses<T: serde::de::DeserializeOwned>(text: &str) -> bool {
        serde_json::from_str::<Strict<T>>(text).is_ok()
    }

    #[test]
    fn an_array_is_no_object() {
        assert!(parses::<InviteRequest>("{}") && parses::<InviteRequest>(r#"{"expires_s": 60}"#));
        assert!(!parses::<InviteRequest>("[]") && !parses::<InviteRequest>(r#"["peer", 60]"#));
        assert!(parses::<Vec<WriteBody>>("[]") && !parses::<Vec<WriteBody>>("{}"));
        assert!(parses::<RevokeRequest>(r#"{"ticket": "x"}"#) && !parses::<RevokeRequest>("[]"));
    }
}
