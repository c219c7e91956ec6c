//! One order over all JSON values, and keys that sort by it.
//!
//! null < false < true < numbers < strings < arrays < objects. Numbers compare by what they are worth, whether they
//! are written as integers or not; strings by their bytes; arrays element by element; objects member by member, in
//! the order of names. A *key* is bytes that sort as the value does, cut at [`MAX_SORT_KEY`]: values that agree so far have
//! the same key. No key is the beginning of another, so keys can be laid end to end.

use std::cmp::Ordering;

use serde_json::{Number, Value};

/// Longest key of one value. What differs only behind that is sorted by the id, and found by looking at the document.
pub(crate) const MAX_SORT_KEY: usize = 256;

/// The first byte of a key: what kind of value it is.
pub(crate) mod kind {
    pub(crate) const NULL: u8 = 1;
    pub(crate) const FALSE: u8 = 2;
    pub(crate) const TRUE: u8 = 3;
    pub(crate) const NUMBER: u8 = 4;
    pub(crate) const STRING: u8 = 5;
    pub(crate) const ARRAY: u8 = 6;
    pub(crate) const OBJECT: u8 = 7;
}

/// Ends arrays and objects; less than any kind.
const END: u8 = 0;

/// In a string a zero byte is followed by this, so that it is not the end ...
const ESCAPED_ZERO: u8 = 0xFF;
/// ... which is a zero byte followed by that.
const END_OF_STRING: u8 = 0x01;

/// The kind of a value: ranges of queries stay within one.
pub(crate) fn kind_of(value: &Value) -> u8 {
    match value {
        Value::Null => kind::NULL,
        Value::Bool(false) => kind::FALSE,
        Value::Bool(true) => kind::TRUE,
        Value::Number(_) => kind::NUMBER,
        Value::String(_) => kind::STRING,
        Value::Array(_) => kind::ARRAY,
        Value::Object(_) => kind::OBJECT,
    }
}

/// Which of two values comes first.
pub(crate) fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => number_key(a).cmp(&number_key(b)),
        (Value::String(a), Value::String(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Value::Array(a), Value::Array(b)) => {
            let elements = a.iter().zip(b).map(|(a, b)| compare(a, b));
            first_difference(elements).then_with(|| a.len().cmp(&b.len()))
        }
        (Value::Object(a), Value::Object(b)) => {
            let members = a.iter().zip(b).map(|((a_key, a), (b_key, b))| {
                a_key.as_bytes().cmp(b_key.as_bytes()).then_with(|| compare(a, b))
            });
            first_difference(members).then_with(|| a.len().cmp(&b.len()))
        }
        _ => kind_of(a).cmp(&kind_of(b)),
    }
}

fn first_difference(mut orders: impl Iterator<Item = Ordering>) -> Ordering {
    orders.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

/// The key of a value.
pub(crate) fn key(value: &Value) -> Vec<u8> {
    let mut key = Vec::with_capacity(16);
    push(&mut key, value);
    key.truncate(MAX_SORT_KEY);
    key
}

/// What the keys of all strings that begin with `prefix` begin with; of others too, if it is too long for a key.
pub(crate) fn prefix_key(prefix: &str) -> Vec<u8> {
    let mut key = vec![kind::STRING];
    push_escaped(&mut key, prefix);
    key.truncate(MAX_SORT_KEY);
    key
}

fn push(key: &mut Vec<u8>, value: &Value) {
    if key.len() >= MAX_SORT_KEY {
        return;
    }
    key.push(kind_of(value));
    match value {
        Value::Null | Value::Bool(_) => {}
        Value::Number(number) => key.extend(number_key(number)),
        Value::String(text) => push_string(key, text),
        Value::Array(elements) => {
            elements.iter().for_each(|element| push(key, element));
            key.push(END);
        }
        Value::Object(members) => {
            for (name, value) in members {
                // What follows a member is another one or the end; its name must be greater than that.
                key.push(kind::STRING);
                push_string(key, name);
                push(key, value);
            }
            key.push(END);
        }
    }
}

fn push_string(key: &mut Vec<u8>, text: &str) {
    push_escaped(key, text);
    key.extend([0, END_OF_STRING]);
}

fn push_escaped(key: &mut Vec<u8>, text: &str) {
    for byte in text.bytes().take(MAX_SORT_KEY) {
        key.push(byte);
        if byte == 0 {
            key.push(ESCAPED_ZERO);
        }
    }
}

/// A number as bytes in the order of numbers: the nearest double, then by how much an integer differs from it.
fn number_key(number: &Number) -> [u8; 10] {
    let integer = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    // Adding zero makes -0 and 0 the same.
    let double = number.as_f64().unwrap_or_default() + 0.0;
    // The doubles between 2^63 and 2^64 are 2048 apart, so what is left fits 16 bits.
    let rest = integer.map_or(0, |integer| integer - double as i128);
    let rest = i16::try_from(rest).unwrap_or_default();

    let bits = double.to_bits();
    let ordered = if double.is_sign_negative() { !bits } else { bits | (1 << 63) };
    let mut key = [0; 10];
    key[..8].copy_from_slice(&ordered.to_be_bytes());
    key[8..].copy_from_slice(&(rest as u16 ^ 0x8000).to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::document::value::tests::any_json;

    proptest! {
        #[test]
        fn keys_sort_as_values_do(a in any_json(), b in any_json()) {
            let (a_key, b_key) = (key(&a), key(&b));
            if a_key.len() < MAX_SORT_KEY && b_key.len() < MAX_SORT_KEY {
                prop_assert_eq!(a_key.cmp(&b_key), compare(&a, &b));
                prop_assert!(a_key == b_key || !a_key.starts_with(&b_key));
            } else {
                prop_assert!(a_key.cmp(&b_key) == compare(&a, &b) || a_key == b_key);
            }
        }

        #[test]
        fn it_is_an_order(a in any_json(), b in any_json(), c in any_json()) {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
                prop_assert!(compare(&a, &c).is_le());
            }
        }

        #[test]
        fn numbers_sort_by_what_they_are_worth(a in any::<i64>(), b in any::<u64>(), c in any::<f64>()) {
            let [a_value, b_value, c_value] = [json!(a), json!(b), json!(c)];
            prop_assert_eq!(compare(&a_value, &b_value), i128::from(a).cmp(&i128::from(b)));
            if c.abs() < 1e18 {
                let (whole, part) = (c.trunc() as i128, c.fract());
                let expected = i128::from(a).cmp(&whole).then(0.0f64.total_cmp(&(part + 0.0)));
                prop_assert_eq!(compare(&a_value, &c_value), expected);
            }
        }

        #[test]
        fn a_prefix_finds_the_strings_that_begin_so(text in "[ab\0]{0,5}", prefix in "[ab\0]{0,3}") {
            let begins = key(&json!(text)).starts_with(&prefix_key(&prefix));
            prop_assert_eq!(begins, text.starts_with(&prefix));
        }
    }

    #[test]
    fn kinds_come_in_their_order() {
        let values = [
            json!(null),
            json!(false),
            json!(true),
            json!(-1e300),
            json!(-1),
            json!(0),
            json!(0.5),
            json!(u64::MAX),
            json!(""),
            json!("a"),
            json!("a\0"),
            json!("b"),
            json!([]),
            json!([null]),
            json!([1]),
            json!({}),
            json!({"a": 1}),
            json!({"a": 1, "b": null}),
            json!({"b": 0}),
        ];
        assert!(values.is_sorted_by(|a, b| compare(a, b).is_lt()));
        assert!(values.is_sorted_by_key(key));
    }

    #[test]
    fn one_is_one_however_it_is_written() {
        assert_eq!(compare(&json!(1), &json!(1.0)), Ordering::Equal);
        assert_eq!(compare(&json!(0), &json!(-0.0)), Ordering::Equal);
        assert_eq!(compare(&json!((1i64 << 53) + 1), &json!((1i64 << 53) as f64)), Ordering::Greater);
    }
}
