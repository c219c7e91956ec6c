//! JSON in an automerge document: reading it out, and writing it in.
//!
//! Objects are maps, arrays are lists, and what is neither is a scalar that is replaced whole. Two things look like
//! scalars to a reader and merge all the same: a text object reads as a string, a counter as a number.
//!
//! What is read may come from a hostile peer: depth is bounded before it is descended into.

use std::collections::HashMap;

use automerge::{
    AutoCommit, AutomergeError, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, ScalarValueRef, ValueRef,
    hydrate, transaction::Transactable,
};
use serde_json::{Map, Number, Value};

/// How many levels of objects and lists a document may have, itself among them. `serde_json` reads 127, and an answer to a search
/// has three around each document. What lies deeper, written by a peer that does not keep to it, reads as null.
pub(crate) const MAX_DEPTH: usize = 124;

/// Where in an object a value is written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Slot<'a> {
    /// A member of a map, new or not.
    Member(&'a str),
    /// An element of a list, which is there.
    Element(usize),
    /// A new element of a list, before the one that is there now.
    Insert(usize),
}

/// Whether `value` has so many levels or fewer: a scalar has none, an empty object one.
pub(crate) fn is_within(value: &Value, levels: usize) -> bool {
    let below = |value: &Value| is_within(value, levels - 1);
    match value {
        Value::Array(elements) => levels > 0 && elements.iter().all(below),
        Value::Object(members) => levels > 0 && members.values().all(below),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

/// The whole document.
pub(crate) fn read(document: &AutoCommit) -> Value {
    read_object(document, &ROOT, ObjType::Map, 0)
}

/// One object of the document.
pub(crate) fn read_object(document: &AutoCommit, id: &ObjId, kind: ObjType, depth: usize) -> Value {
    // A text is no level.
    if depth >= MAX_DEPTH && kind != ObjType::Text {
        return Value::Null;
    }
    match kind {
        ObjType::Map | ObjType::Table => {
            let members = document.map_range(id, ..);
            Value::Object(
                members
                    .map(|item| {
                        (
                            item.key.clone().into_owned(),
                            read_value(document, &item.value, || item.id(), depth),
                        )
                    })
                    .collect::<Map<_, _>>(),
            )
        }
        ObjType::List => {
            let elements = document.list_range(id, ..);
            elements.map(|item| read_value(document, &item.value, || item.id(), depth)).collect()
        }
        ObjType::Text => document.text(id).map_or(Value::Null, Value::String),
    }
}

fn read_value(document: &AutoCommit, value: &ValueRef<'_>, id: impl Fn() -> ObjId, depth: usize) -> Value {
    match value {
        ValueRef::Object(kind) => read_object(document, &id(), *kind, depth + 1),
        ValueRef::Scalar(scalar) => read_scalar(scalar),
    }
}

fn read_scalar(scalar: &ScalarValueRef<'_>) -> Value {
    match scalar {
        ScalarValueRef::Str(text) => Value::String(text.clone().into_owned()),
        ScalarValueRef::Int(number) | ScalarValueRef::Counter(number) => Value::from(*number),
        ScalarValueRef::Uint(number) => Value::from(*number),
        ScalarValueRef::F64(number) => Number::from_f64(*number).map_or(Value::Null, Value::Number),
        ScalarValueRef::Boolean(truth) => Value::Bool(*truth),
        // JSON has none of these, and this crate writes none of them.
        ScalarValueRef::Null
        | ScalarValueRef::Bytes(_)
        | ScalarValueRef::Timestamp(_)
        | ScalarValueRef::Unknown { .. } => Value::Null,
    }
}

/// What is in a slot: a scalar as JSON, or an object to be looked into.
#[derive(Clone, Debug)]
pub(crate) enum Held {
    /// A scalar, and whether it is a counter.
    Scalar(Value, ScalarKind),
    /// An object.
    Object(ObjType, ObjId),
}

/// Whether a scalar is replaced whole or counted up and down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScalarKind {
    /// Of two writes the later one counts.
    Plain,
    /// Increments add up.
    Counter,
}

/// What the member or element is, if it is there.
pub(crate) fn held(
    document: &AutoCommit,
    parent: &ObjId,
    slot: Slot<'_>,
) -> Result<Option<Held>, AutomergeError> {
    let found = match slot {
        Slot::Member(key) => document.get(parent, key)?,
        Slot::Element(index) => document.get(parent, index)?,
        Slot::Insert(_) => None,
    };
    Ok(found.map(|(value, id)| match value {
        automerge::Value::Object(kind) => Held::Object(kind, id),
        automerge::Value::Scalar(scalar) => {
            let (kind, value) = match scalar.as_ref() {
                ScalarValue::Counter(counter) => (ScalarKind::Counter, Value::from(i64::from(counter))),
                ScalarValue::Str(text) => (ScalarKind::Plain, Value::String(text.to_string())),
                ScalarValue::Int(number) => (ScalarKind::Plain, Value::from(*number)),
                ScalarValue::Uint(number) => (ScalarKind::Plain, Value::from(*number)),
                ScalarValue::F64(number) => {
                    (ScalarKind::Plain, Number::from_f64(*number).map_or(Value::Null, Value::Number))
                }
                ScalarValue::Boolean(truth) => (ScalarKind::Plain, Value::Bool(*truth)),
                _ => (ScalarKind::Plain, Value::Null),
            };
            Held::Scalar(value, kind)
        }
    }))
}

/// Writes `value` as something new into a slot. An object is written as a whole: one operation at a time, a document
/// of some megabytes would take minutes.
pub(crate) fn write(
    document: &mut AutoCommit,
    parent: &ObjId,
    slot: Slot<'_>,
    value: &Value,
) -> Result<(), AutomergeError> {
    match hydrated(value) {
        hydrate::Value::Scalar(scalar) => write_scalar(document, parent, slot, scalar),
        object => {
            match slot {
                Slot::Member(key) => document.batch_create_object(parent, key, &object, false)?,
                Slot::Element(index) => document.batch_create_object(parent, index, &object, false)?,
                Slot::Insert(index) => document.batch_create_object(parent, index, &object, true)?,
            };
            Ok(())
        }
    }
}

/// Writes the members of an object into the empty document.
pub(crate) fn write_root(
    document: &mut AutoCommit,
    members: &Map<String, Value>,
) -> Result<(), AutomergeError> {
    document.init_root_from_hydrate(&hydrated_members(members))
}

/// Writes new elements into a list, before the one that is there now.
pub(crate) fn write_elements(
    document: &mut AutoCommit,
    list: &ObjId,
    at: usize,
    elements: &[Value],
) -> Result<(), AutomergeError> {
    document.splice(list, at, 0, elements.iter().map(hydrated))
}

fn hydrated(value: &Value) -> hydrate::Value {
    match value {
        Value::Object(members) => hydrate::Value::Map(hydrated_members(members)),
        Value::Array(elements) => {
            hydrate::Value::List(elements.iter().map(hydrated).collect::<Vec<_>>().into())
        }
        Value::Null => hydrate::Value::Scalar(ScalarValue::Null),
        Value::Bool(truth) => hydrate::Value::Scalar(ScalarValue::Boolean(*truth)),
        Value::String(text) => hydrate::Value::Scalar(ScalarValue::Str(text.as_str().into())),
        Value::Number(number) => hydrate::Value::Scalar(number_as_scalar(number)),
    }
}

fn hydrated_members(members: &Map<String, Value>) -> hydrate::Map {
    let members = members.iter().map(|(key, value)| (key.clone(), hydrated(value)));
    members.collect::<HashMap<String, hydrate::Value>>().into()
}

/// Makes a new, empty object in a slot.
pub(crate) fn write_object(
    document: &mut AutoCommit,
    parent: &ObjId,
    slot: Slot<'_>,
    kind: ObjType,
) -> Result<ObjId, AutomergeError> {
    match slot {
        Slot::Member(key) => document.put_object(parent, key, kind),
        Slot::Element(index) => document.put_object(parent, index, kind),
        Slot::Insert(index) => document.insert_object(parent, index, kind),
    }
}

/// Writes a scalar into a slot.
pub(crate) fn write_scalar(
    document: &mut AutoCommit,
    parent: &ObjId,
    slot: Slot<'_>,
    scalar: ScalarValue,
) -> Result<(), AutomergeError> {
    match slot {
        Slot::Member(key) => document.put(parent, key, scalar),
        Slot::Element(index) => document.put(parent, index, scalar),
        Slot::Insert(index) => document.insert(parent, index, scalar),
    }
}

fn number_as_scalar(number: &Number) -> ScalarValue {
    if let Some(number) = number.as_i64() {
        ScalarValue::Int(number)
    } else if let Some(number) = number.as_u64() {
        ScalarValue::Uint(number)
    } else {
        ScalarValue::F64(number.as_f64().unwrap_or_default())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Any JSON with few names, so that two of them often have something in common.
    pub(crate) fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i8>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-4.0..4.0f64).prop_map(Value::from),
            "[a-cä]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-d]", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// A JSON object.
    pub(crate) fn any_object() -> impl Strategy<Value = Value> {
        proptest::collection::btree_map("[a-d]", any_json(), 0..4)
            .prop_map(|members| Value::Object(members.into_iter().collect()))
    }

    /// A document that holds `value`, an object.
    pub(crate) fn holding(value: &Value) -> AutoCommit {
        let mut document = AutoCommit::new();
        for (key, value) in value.as_object().unwrap() {
            write(&mut document, &ROOT, Slot::Member(key), value).unwrap();
        }
        document.commit();
        document
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in any_object()) {
            prop_assert_eq!(read(&holding(&value)), value);
        }
    }

    #[test]
    fn names_and_strings_may_be_empty_or_strange() {
        let value = json!({"": {"": ""}, "a/b~c": "\0", "ä\u{10ffff}": [[], {}]});
        assert_eq!(read(&holding(&value)), value);
    }

    #[test]
    fn text_reads_as_a_string_and_a_counter_as_a_number() {
        let mut document = AutoCommit::new();
        let text = document.put_object(ROOT, "text", ObjType::Text).unwrap();
        document.splice_text(&text, 0, 0, "hello").unwrap();
        document.put(ROOT, "count", ScalarValue::counter(3)).unwrap();
        document.increment(ROOT, "count", 4).unwrap();
        assert_eq!(read(&document), json!({"text": "hello", "count": 7}));
    }

    #[test]
    fn nesting_without_end_is_read_to_a_bounded_depth() {
        let mut document = AutoCommit::new();
        let mut parent = ROOT;
        for _ in 0..10_000 {
            parent = document.put_object(&parent, "a", ObjType::Map).unwrap();
        }
        let read = read(&document);
        assert!(is_within(&read, MAX_DEPTH) && !is_within(&read, MAX_DEPTH - 1));
        let answer = json!({"documents": [{"id": "deep", "document": read}]}).to_string();
        assert!(serde_json::from_str::<Value>(&answer).is_ok(), "whoever asks can read it");
    }

    #[test]
    fn levels_are_those_of_objects_and_lists() {
        assert!(is_within(&json!(1), 0) && is_within(&json!({}), 1) && is_within(&json!({"a": [1]}), 2));
        assert!(!is_within(&json!([]), 0) && !is_within(&json!({"a": 1, "b": [[]]}), 2));
    }
}
